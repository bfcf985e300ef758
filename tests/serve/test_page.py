"""The page in headless Chromium: pictures in, cards, languages, downloads."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from served import run_server

from beholder.judge.row import columns_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
if CHROMIUM is None:
    pytest.skip("no Chromium on this machine", allow_module_level=True)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with run_server(max_body=300_000) as server:
        yield f"http://127.0.0.1:{server.port}/"


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    """The page, opened; any error in it fails the test."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(locale="en-GB", viewport={"width": 1200, "height": 900})
        troubles: list[str] = []
        opened.on("pageerror", lambda error: troubles.append(str(error)))
        opened.on(
            "console",
            lambda message: (
                troubles.append(message.text)
                if message.type == "error" and "422" not in message.text
                else None
            ),
        )
        opened.goto(address)
        opened.wait_for_selector("html[data-ready]")
        yield opened
        browser.close()
        assert troubles == []


def give(page: Page, folder: Path, picture: Callable[..., bytes]) -> None:
    """Upload three pictures, one of which is none, and wait for their cards."""
    contents = {
        "dark.png": picture(20),
        "<b>light</b>.png": picture(230),
        "notes.jpg": b"no picture",
    }
    page.set_input_files(
        "#files",
        files=[
            {"name": name, "mimeType": "image/png", "buffer": content}
            for name, content in contents.items()
        ],
    )
    page.wait_for_selector(".cards:not(:has([aria-busy=true])) .card:nth-child(3)")


def test_three_pictures_become_cards_and_the_broken_one_says_why(
    page: Page, tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    assert page.inner_text("#about") == (
        "What people would say about your pictures: a score, its 90 % interval, a comment, light."
    )
    give(page, tmp_path, picture)
    dark, light, notes = page.query_selector_all(".card")
    assert dark.query_selector(".value strong").inner_text() == "7.8"  # type: ignore[union-attr]
    scale = dark.query_selector(".scale").get_attribute("aria-label")  # type: ignore[union-attr]
    assert scale == "Score 7.8 on a scale of 0.0 to 100.0, most likely 0.8 to 14.8"
    assert "A dark picture." in dark.inner_text() and "Other wordings (1)" in dark.inner_text()
    assert light.query_selector("h2").inner_text() == "<b>light</b>.png"  # type: ignore[union-attr]
    bars = [bar.inner_text() for bar in light.query_selector_all(".bars li")]
    assert bars == ["bright\n90 %", "dark\n10 %"]
    assert "This is not a picture." in notes.inner_text()
    assert page.inner_text("#count") == "3 of 3 pictures"


def test_the_language_changes_everywhere_and_is_kept(
    page: Page, tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    give(page, tmp_path, picture)
    page.select_option("#language", "ko")
    assert page.get_attribute("html", "lang") == "ko"
    text = page.inner_text("body")
    assert "사진 고르기" in text and "사진이 아닙니다." in text and "사진 3장 중 3장" in text
    assert "Choose pictures" not in text and "Score" not in text
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.input_value("#language") == "ko"


def test_cards_are_sorted_filtered_and_removed(
    page: Page, tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    give(page, tmp_path, picture)

    def names() -> list[str]:
        return [heading.inner_text() for heading in page.query_selector_all(".card h2")]

    assert names() == ["dark.png", "<b>light</b>.png", "notes.jpg"]
    page.select_option("#sort", "sortHigh")
    assert names() == ["<b>light</b>.png", "dark.png", "notes.jpg"]
    page.select_option("#show", "errors")
    assert names() == ["notes.jpg"]
    page.select_option("#show", '["light","dark"]')
    assert names() == ["dark.png"]
    page.select_option("#show", "all")
    page.fill("#find", "LIGHT")
    assert names() == ["<b>light</b>.png"]
    page.fill("#find", "")
    page.click(".card:first-child .remove")
    assert names() == ["dark.png", "notes.jpg"]
    page.click("#clear")
    assert names() == [] and not page.is_visible("#tools")


def test_results_are_downloaded(page: Page, tmp_path: Path, picture: Callable[..., bytes]) -> None:
    give(page, tmp_path, picture)
    with page.expect_download() as saving:
        page.click("#csv")
    saving.value.save_as(tmp_path / "verdicts.csv")
    with (tmp_path / "verdicts.csv").open(encoding="utf-8-sig", newline="") as stream:
        first, *_, last = reader = list(csv.DictReader(stream))
    assert list(first) == columns_of(["light"])
    assert first["image"] == "dark.png" and first["score"].startswith("7.8")
    assert first["comment"] == "A dark picture." and first["attributes.light"] == "dark"
    assert set(json.loads(first["probabilities.light"])) == {"dark", "bright"}
    assert len(reader) == 3 and last["image"] == "notes.jpg" and last["score"] == ""
    assert json.loads(last["error"]) == {
        "code": "not_a_picture", "message": "This is not a picture.",
    }  # fmt: skip
    with page.expect_download() as saving:
        page.click("#json")
    saving.value.save_as(tmp_path / "verdicts.json")
    rows = json.loads((tmp_path / "verdicts.json").read_text("utf-8"))
    assert [row["image"] for row in rows] == ["dark.png", "<b>light</b>.png", "notes.jpg"]
    assert rows[2]["error"]["code"] == "not_a_picture"


def test_heat_is_shown_and_hidden(
    page: Page, tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    give(page, tmp_path, picture)
    image = page.query_selector(".card img")
    assert image is not None
    before = image.get_attribute("src")
    page.click(".card:first-child .heat button")
    page.wait_for_selector(".card:first-child .heat button[aria-pressed=true]")
    assert image.get_attribute("src") != before
    assert image.get_attribute("alt") == "dark.png, with heat where light comes from"
    page.click(".card:first-child .heat button[aria-pressed=true]")
    page.wait_for_selector(".card:first-child .heat button[aria-pressed=false]")
    assert image.get_attribute("src") == before


def test_pictures_are_dropped_and_pasted(page: Page, picture: Callable[..., bytes]) -> None:
    script = """(bytes) => {
        const file = new File([new Uint8Array(bytes)], "given.png", { type: "image/png" });
        const given = new DataTransfer();
        given.items.add(file);
        document.dispatchEvent(new DragEvent("drop", { dataTransfer: given, cancelable: true }));
        document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: given }));
    }"""
    page.evaluate(script, list(picture(60)))
    page.wait_for_selector(".card:nth-child(1) .value")
    page.wait_for_selector(".card:nth-child(2) .value")


def test_the_keyboard_reaches_everything(
    page: Page, tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    give(page, tmp_path, picture)
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "(({ id, className, tagName }) => id || className || tagName)"
                "(document.activeElement)"
            )
        )
    tools = {"skip", "language", "look", "pick", "shoot", "sort", "find", "show"}
    assert tools | {"csv", "json", "clear", "remove", "SUMMARY", "BUTTON"} <= reached


def test_what_is_too_large_is_not_sent(page: Page) -> None:
    page.set_input_files(
        "#files", files=[{"name": "big.png", "mimeType": "image/png", "buffer": bytes(300_001)}]
    )
    page.wait_for_selector(".card.failed")
    assert "The file is larger than 0 MB." in page.inner_text(".card")


def test_light_and_dark(page: Page) -> None:
    def paper() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    page.select_option("#look", "dark")
    dark = paper()
    page.select_option("#look", "light")
    assert paper() != dark
    page.select_option("#look", "auto")
    page.emulate_media(color_scheme="dark")
    assert paper() == dark
