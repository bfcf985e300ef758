// The page: pictures in, a card each, one request per picture.
import { ERRORS, WORDS } from "./words.js";

const AT_ONCE = 4; // requests under way
const TRIES = 8; // of a picture while the server is busy
const CLASSES_SHOWN = 3;

const $ = (id) => document.getElementById(id);
const cards = []; // {id, file, url, state, verdict, error, heat, node}, as added
const waiting = [];
let underWay = 0;
let added = 0;
let language = remembered("language") || (navigator.language.startsWith("ko") ? "ko" : "en");
let judge = null;

function word(name, values = {}) {
  return WORDS[language][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

function number(value, digits) {
  return value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

// Decimals that fit the scale: a score of 0 to 1 needs more than one of 0 to 100.
function score(value) {
  const range = judge.score_range;
  return number(value, range && range[1] - range[0] > 20 ? 1 : 2);
}

function remembered(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null; // storage is forbidden: the choice lasts as long as the page
  }
}

function remember(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    return; // as above
  }
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// --- words and looks ---------------------------------------------------------------------------

function translate() {
  document.documentElement.lang = language;
  for (const one of document.querySelectorAll("[data-word]")) one.textContent = word(one.dataset.word);
  for (const one of document.querySelectorAll("[data-label]")) {
    one.setAttribute("aria-label", word(one.dataset.label));
  }
  if (!judge) return;
  const parts = [];
  if (judge.score_range) parts.push(word("partScore"));
  if (judge.coverage) parts.push(word("partInterval", { coverage: number(judge.coverage * 100, 0) }));
  if (judge.comments) parts.push(word("partComment"));
  const names = Object.keys(judge.attributes);
  if (names.length) parts.push(word("partAttributes", { names: names.join(", ") }));
  $("about").textContent = word("about", { parts: parts.join(", ") });
  $("limits").textContent = word("limits", { size: number(judge.limits.max_body / 1e6, 0) });
  fillChoices();
  for (const card of cards) draw(card);
  arrange();
}

function fillChoices() {
  const sorts = ["sortAdded", "sortName"];
  if (judge.score_range) sorts.splice(1, 0, "sortHigh", "sortLow");
  if (Object.keys(judge.attributes).length) sorts.push("sortSure");
  refill($("sort"), sorts.map((name) => [name, word(name)]));
  const shown = [["all", word("showAll")]];
  for (const [name, labels] of Object.entries(judge.attributes)) {
    for (const label of labels) shown.push([JSON.stringify([name, label]), `${name}: ${label}`]);
  }
  shown.push(["errors", word("showErrors")]);
  refill($("show"), shown);
}

function refill(select, entries) {
  const before = select.value;
  select.replaceChildren(...entries.map(([value, text]) => element("option", { value, textContent: text })));
  if (entries.some(([value]) => value === before)) select.value = before;
}

function dress(look) {
  if (look === "auto") delete document.documentElement.dataset.look;
  else document.documentElement.dataset.look = look;
}

function announce(text) {
  $("news").textContent = text;
}

// --- pictures ----------------------------------------------------------------------------------

function add(files) {
  for (const file of files) {
    const card = { id: ++added, file, url: URL.createObjectURL(file), state: "waiting" };
    card.node = $("card").content.firstElementChild.cloneNode(true);
    card.node.querySelector(".remove").addEventListener("click", () => remove(card));
    const image = card.node.querySelector("img");
    image.addEventListener("error", () => image.classList.add("unseen")); // e.g. TIFF
    cards.push(card);
    waiting.push(card);
    draw(card);
  }
  arrange();
  work();
}

function remove(card) {
  URL.revokeObjectURL(card.url);
  forgetHeat(card);
  cards.splice(cards.indexOf(card), 1);
  const place = waiting.indexOf(card);
  if (place >= 0) waiting.splice(place, 1);
  const next = card.node.nextElementSibling || card.node.previousElementSibling || $("pick");
  card.node.remove();
  arrange();
  next.focus();
}

function work() {
  while (underWay < AT_ONCE && waiting.length) {
    underWay += 1;
    look(waiting.shift()).finally(() => {
      underWay -= 1;
      work();
    });
  }
}

async function look(card) {
  delete card.error;
  card.state = "looking";
  draw(card);
  if (card.file.size > judge.limits.max_body) {
    card.error = { code: "body_too_large" };
  } else {
    const form = new FormData();
    form.append("pictures", card.file, card.file.name);
    await ask("/v1/verdicts", form, card).then(
      async (response) => {
        const found = await response.json();
        if (found.error) card.error = found.error;
        else if (found.verdicts[0].error) card.error = found.verdicts[0].error;
        else card.verdict = found.verdicts[0];
      },
      (error) => {
        card.error = { code: error.code || "network" };
      },
    );
  }
  card.state = "done";
  if (!cards.includes(card)) return;
  draw(card);
  arrange();
  const name = card.file.name;
  announce(card.error ? word("failed", { name, reason: reason(card.error) }) : word("judged", { name }));
}

// POST a form; while the server is busy, come back when it says.
async function ask(path, form, card) {
  for (let tried = 1; ; tried++) {
    const response = await fetch(path, { method: "POST", body: form });
    if (response.status !== 503 && response.status !== 429) return response;
    if (tried === TRIES || !cards.includes(card)) throw Object.assign(new Error("busy"), { code: "busy" });
    const seconds = Number(response.headers.get("Retry-After")) || 1;
    stateOf(card, word("busy", { seconds }));
    await new Promise((done) => setTimeout(done, seconds * 1000));
  }
}

function reason(error) {
  const known = ERRORS[error.code];
  const size = number(judge.limits.max_body / 1e6, 0);
  return known ? word(known, { size }) : word("errorOther", { message: error.message });
}

// --- cards -------------------------------------------------------------------------------------

function stateOf(card, text) {
  const line = card.node.querySelector(".state");
  line.textContent = text;
  line.hidden = !text;
}

function draw(card) {
  const { node, file, verdict, error } = card;
  node.querySelector("h2").textContent = file.name;
  const image = node.querySelector("img");
  const alt = card.heat ? "heatAlt" : "pictureAlt";
  image.alt = word(alt, { name: file.name, opinion: card.heat && card.heat.opinion });
  const source = card.heat ? card.heat.url : card.url;
  if (image.getAttribute("src") !== source) image.src = source;
  const close = node.querySelector(".remove");
  close.setAttribute("aria-label", word("remove", { name: file.name }));
  close.title = close.getAttribute("aria-label");
  node.classList.toggle("failed", Boolean(error));
  node.setAttribute("aria-busy", String(card.state !== "done"));
  stateOf(card, card.state === "done" ? (error ? reason(error) : "") : word(card.state));
  if (error && ["network", "busy"].includes(error.code)) offerAgain(card);
  if (!verdict) return;
  drawUnfamiliar(node.querySelector(".unfamiliar"), verdict);
  drawScore(node.querySelector(".score"), verdict);
  drawComment(node.querySelector(".comment"), verdict);
  drawAttributes(node.querySelector(".attributes"), verdict);
  drawHeat(card);
}

function offerAgain(card) {
  const again = element("button", { type: "button", textContent: word("again") });
  again.addEventListener("click", () => {
    card.state = "waiting";
    waiting.push(card);
    draw(card);
    work();
  });
  card.node.querySelector(".state").append(" ", again);
}

function drawUnfamiliar(place, verdict) {
  place.hidden = !verdict.unfamiliar;
  place.textContent = place.hidden ? "" : word("unfamiliar");
  place.title = place.hidden ? "" : word("unfamiliarWhy", { share: number(verdict.familiarity * 100, 1) });
}

function drawScore(place, verdict) {
  place.hidden = verdict.score === null;
  if (place.hidden) return;
  const [low, high] = judge.score_range || [verdict.score, verdict.score];
  const at = (value) => (high > low ? Math.min(1, Math.max(0, (value - low) / (high - low))) : 0.5);
  const values = { score: score(verdict.score), low: score(low), high: score(high) };
  const text = word(judge.score_range ? "scoreText" : "scoreAlone", values);
  const parts = [text];
  const scale = element("div", { className: "scale" });
  if (verdict.interval) {
    const [from, to] = verdict.interval;
    parts.push(word("intervalText", { low: score(from), high: score(to) }));
    const band = element("span", { className: "band" });
    band.style.setProperty("--from", at(from));
    band.style.setProperty("--to", at(to));
    scale.append(band);
  }
  const mark = element("span", { className: "mark" });
  mark.style.setProperty("--at", at(verdict.score));
  scale.append(mark);
  scale.setAttribute("role", "img");
  scale.setAttribute("aria-label", parts.join(", "));
  const ends = element("div", { className: "ends quiet", ariaHidden: "true" });
  if (judge.score_range) ends.append(element("span", { textContent: values.low }), element("span", { textContent: values.high }));
  const line = element("p", { className: "value" }, element("strong", { textContent: values.score }));
  line.setAttribute("aria-hidden", "true");
  if (parts[1]) line.append(" ", element("span", { className: "quiet", textContent: parts[1] }));
  place.replaceChildren(element("h3", { textContent: word("score") }), line, scale, ends);
  const votes = Object.entries(verdict.distribution || {}).sort(([a], [b]) => a - b);
  if (!votes.length) return;
  const list = element("ul", { className: "bars" }, ...votes.map(([rating, share]) => bar(rating, share)));
  place.append(element("details", {}, element("summary", { textContent: word("votes") }), list));
}

function drawComment(place, verdict) {
  place.hidden = verdict.comment === null;
  if (place.hidden) return;
  const parts = [element("h3", { textContent: word("comment") }), element("p", { className: "said", textContent: verdict.comment })];
  if (verdict.alternatives.length) {
    const list = element("ul", {}, ...verdict.alternatives.map((text) => element("li", { textContent: text })));
    const summary = element("summary", { textContent: word("others", { count: verdict.alternatives.length }) });
    parts.push(element("details", {}, summary, list));
  }
  place.replaceChildren(...parts);
}

function drawAttributes(place, verdict) {
  const named = Object.entries(verdict.probabilities);
  place.hidden = !named.length;
  place.replaceChildren(
    ...named.map(([name, shares]) => {
      const { labels } = verdict.attributes[name];
      const bars = Object.entries(shares).map(([label, share]) => bar(label, share, labels && labels.includes(label)));
      const part = element("div", { className: "attribute" }, element("h3", { textContent: name }));
      part.append(element("ul", { className: "bars" }, ...bars.slice(0, CLASSES_SHOWN)));
      if (bars.length > CLASSES_SHOWN) {
        const rest = element("ul", { className: "bars" }, ...bars.slice(CLASSES_SHOWN));
        part.append(element("details", {}, element("summary", { textContent: word("allClasses") }), rest));
      }
      return part;
    }),
  );
}

function bar(label, share, holds) {
  const text = word("sure", { label, share: number(share * 100, 0) });
  const shown = element("li", {}, element("span", { textContent: label }), element("span", { textContent: `${number(share * 100, 0)} %` }));
  shown.style.setProperty("--share", share);
  shown.title = text;
  // of an attribute of which several labels may hold at once
  if (holds !== undefined) shown.classList.add(holds ? "holds" : "absent");
  if (holds) shown.firstChild.prepend(element("span", { className: "tick", textContent: "✓ " }));
  return shown;
}

// --- heat maps ---------------------------------------------------------------------------------

function drawHeat(card) {
  const place = card.node.querySelector(".heat");
  place.hidden = !judge.explains.length;
  if (place.hidden) return;
  const buttons = judge.explains.map((opinion) => {
    const on = Boolean(card.heat && card.heat.opinion === opinion);
    const button = element("button", { type: "button", textContent: opinion === "score" ? word("score") : opinion });
    button.setAttribute("aria-pressed", String(on));
    if (on) button.title = word("heatOff");
    button.addEventListener("click", () => toggleHeat(card, opinion, on));
    return button;
  });
  const focused = [...place.querySelectorAll("button")].indexOf(document.activeElement);
  place.replaceChildren(element("span", { className: "quiet", textContent: word("heat") }), ...buttons);
  if (focused >= 0) buttons[focused].focus();
}

async function toggleHeat(card, opinion, on) {
  forgetHeat(card);
  if (!on) {
    const form = new FormData();
    form.append("picture", card.file, card.file.name);
    form.append("opinion", opinion);
    stateOf(card, word("looking"));
    try {
      const response = await ask("/v1/explanations", form, card);
      if (response.ok) card.heat = { opinion, url: URL.createObjectURL(await response.blob()) };
      else card.trouble = (await response.json()).error;
    } catch (error) {
      card.trouble = { code: error.code || "network" };
    }
  }
  draw(card);
  if (card.trouble) stateOf(card, reason(card.trouble));
  delete card.trouble;
}

function forgetHeat(card) {
  if (card.heat) URL.revokeObjectURL(card.heat.url);
  delete card.heat;
}

// --- order, choice, download -------------------------------------------------------------------

function least(card) {
  const found = card.verdict ? Object.values(card.verdict.attributes) : [];
  return Math.min(2, ...found.map((one) => one.probability));
}

const ORDERS = {
  sortAdded: (a, b) => a.id - b.id,
  sortName: (a, b) => a.file.name.localeCompare(b.file.name, language, { numeric: true }),
  sortHigh: (a, b) => scored(b, -Infinity) - scored(a, -Infinity) || a.id - b.id,
  sortLow: (a, b) => scored(a, Infinity) - scored(b, Infinity) || a.id - b.id,
  sortSure: (a, b) => least(a) - least(b) || a.id - b.id,
};

function scored(card, otherwise) {
  return card.verdict && card.verdict.score !== null ? card.verdict.score : otherwise;
}

function chosen() {
  const text = $("find").value.trim().toLocaleLowerCase(language);
  const show = $("show").value;
  return cards.filter((card) => {
    const { verdict } = card;
    const words = [card.file.name, verdict && verdict.comment].filter(Boolean).join(" ");
    if (text && !words.toLocaleLowerCase(language).includes(text)) return false;
    if (show === "all" || !show) return true;
    if (show === "errors") return Boolean(card.error);
    const [name, label] = JSON.parse(show);
    const told = verdict && verdict.attributes[name];
    return Boolean(told && (told.labels || [told.label]).includes(label));
  });
}

function arrange() {
  const shown = chosen().sort(ORDERS[$("sort").value] || ORDERS.sortAdded);
  const nodes = shown.map((card) => card.node);
  const now = [...$("cards").children];
  // moving a node would take the focus from what is in it
  if (nodes.length !== now.length || nodes.some((node, index) => node !== now[index])) {
    const focused = document.activeElement;
    $("cards").replaceChildren(...nodes);
    if (focused && focused !== document.activeElement && focused.isConnected) focused.focus();
  }
  $("tools").hidden = !cards.length;
  $("count").textContent = word("count", { shown: shown.length, all: cards.length });
}

function results() {
  return chosen()
    .sort(ORDERS[$("sort").value] || ORDERS.sortAdded)
    .filter((card) => card.verdict || card.error)
    .map((card) => card.verdict || { image: card.file.name, error: { code: card.error.code, message: reason(card.error) } });
}

// The columns of every table of verdicts: see judge/row.py.
function asCsv(rows) {
  const names = Object.keys(judge.attributes);
  const of = (prefix) => names.map((name) => prefix + name);
  const head = [
    ...["image", "score", "low", "high", "distribution", "comment", "alternatives"],
    ...of("attributes."), ...of("probability."), ...of("probabilities."),
    "familiarity", "unfamiliar", "judge", "error",
  ];
  const each = (row, value) => names.map((name) => (row.attributes ? value(name) : ""));
  const table = rows.map((row) => [
    row.image, row.score ?? "", row.low ?? "", row.high ?? "", ratings(row.distribution), row.comment ?? "",
    row.alternatives ? JSON.stringify(row.alternatives) : "",
    ...each(row, (name) => row.attributes[name].label || "none"),
    ...each(row, (name) => row.attributes[name].probability),
    ...each(row, (name) => JSON.stringify(row.probabilities[name])),
    row.familiarity ?? "", row.unfamiliar ?? "", row.judge ?? "",
    row.error ? JSON.stringify(row.error) : "",
  ]);
  return "\ufeff" + [head, ...table].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

// A list, as in every table of verdicts.
function ratings(distribution) {
  if (!distribution) return "";
  const shares = Object.entries(distribution).map(([rating, share]) => ({ rating: Number(rating), share }));
  return JSON.stringify(shares.sort((a, b) => a.rating - b.rating));
}

// Quoted where needed; what a spreadsheet would run as a formula is kept from it.
function cell(value) {
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// --- start -------------------------------------------------------------------------------------

function pictures(list) {
  return [...list].filter((one) => one instanceof File);
}

function listen() {
  $("pick").addEventListener("click", () => $("files").click());
  $("shoot").addEventListener("click", () => $("camera").click());
  for (const input of [$("files"), $("camera")]) {
    input.addEventListener("change", () => {
      add(pictures(input.files));
      input.value = "";
    });
  }
  document.addEventListener("paste", (event) => {
    const found = pictures(event.clipboardData.files);
    if (found.length) add(found);
  });
  let depth = 0; // of elements that a dragged file is over
  document.addEventListener("dragenter", () => $("drop").classList.toggle("over", (depth += 1) > 0));
  document.addEventListener("dragleave", () => $("drop").classList.toggle("over", (depth -= 1) > 0));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    $("drop").classList.remove("over");
    add(pictures(event.dataTransfer.files));
  });
  for (const id of ["sort", "show"]) $(id).addEventListener("change", arrange);
  $("find").addEventListener("input", arrange);
  $("csv").addEventListener("click", () => download("verdicts.csv", "text/csv", asCsv(results())));
  $("json").addEventListener("click", () => download("verdicts.json", "application/json", JSON.stringify(results(), null, 2)));
  $("clear").addEventListener("click", () => {
    for (const card of [...cards]) remove(card);
    $("pick").focus();
  });
  $("language").addEventListener("change", () => {
    language = $("language").value;
    remember("language", language);
    translate();
  });
  $("look").addEventListener("change", () => {
    remember("look", $("look").value);
    dress($("look").value);
  });
}

async function start() {
  if (!WORDS[language]) language = "en";
  $("language").value = language;
  $("look").value = ["light", "dark"].includes(remembered("look")) ? remembered("look") : "auto";
  dress($("look").value);
  translate();
  try {
    judge = await (await fetch("/v1/judge")).json();
  } catch {
    $("about").textContent = word("errorNetwork");
    return;
  }
  translate();
  listen();
  document.documentElement.dataset.ready = "true";
}

start();
