"""The report: self-contained, escaped, and whole or partial as the run is."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from beholder.data.annotations import RATINGS_TYPE, AnnotationTable
from beholder.data.files import write_json
from beholder.errors import RunError
from beholder.metrics.classification import score_attribute
from beholder.pipeline.manifest import Manifest, StageRecord
from beholder.report import plots, write_report
from beholder.report.attributes import attribute_parts
from beholder.report.collect import collect, read_alarms, read_curves, read_speeds
from beholder.report.page import _curve_plots

EVIL = "<script>alert(1)</script>"
CLASSES = {"light": ("dark", "bright", "never")}
KEYS = [f"photo & {index}.png" for index in range(6)]


class Page(HTMLParser):
    """Collects what a page refers to, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "srcset")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with everything in it."""
    folder, pictures = tmp_path / "run", tmp_path / "pictures"
    (folder / "evaluation").mkdir(parents=True)
    pictures.mkdir()
    for index, key in enumerate(KEYS[:-1]):  # the last one is gone
        Image.new("RGB", (40, 30), (index * 30,) * 3).save(pictures / key)
    targets, predicted = ["dark", "bright"] * 3, ["dark", "dark", "bright"] * 2
    comments = [[f"a dark picture {EVIL}", "dim"]] * 6
    AnnotationTable.from_columns(
        KEYS,
        score=[1.0, 2.0, 3.0, 4.0, 5.0, None],
        comments=comments,
        split=["train", "train", "val", "test", "test", "test"],
        attributes={"light": targets},
        classes=CLASSES,
    ).to_parquet(folder / "annotations.parquet")
    pl.DataFrame(
        {
            "image": KEYS,
            "target.score": [1.0, 2.0, 3.0, 4.0, 5.0, None],
            "score": [1.5, 2.5, 2.5, 4.5, 4.0, 3.0],
            "target.comments": comments,
            "comment": [EVIL] * 6,
            "cider_d": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
            "target.attributes.light": targets,
            "attributes.light": predicted,
            "probability.light": [0.9] * 6,
        }
    ).write_parquet(folder / "evaluation" / "predictions.parquet")
    labels = CLASSES["light"]
    scores = score_attribute(
        [labels.index(x) for x in targets], [labels.index(x) for x in predicted], labels, [0.9] * 6
    )
    light = scores.to_dict()
    light["before_calibration"] = {
        "temperature": 2.5, "ece": 0.321, "reliability": light["reliability"],
    }  # fmt: skip
    overlays = folder / "evaluation" / "explanations"
    overlays.mkdir()
    Image.new("RGB", (8, 8), "red").save(overlays / "0-0.webp")
    shown = {"opinion": "light", "label": EVIL, "value": 0.7, "file": "0-0.webp"}
    write_json(overlays / "index.json", [{"image": KEYS[0], "overlays": [shown]}])
    entry = {"value": 0.8125, "low": None, "high": 0.9}
    metrics = {
        "score_name": "pseudo-MOS",
        "score": dict.fromkeys(("plcc", "srcc", "krcc", "rmse"), entry),
        "attributes": {"light": light},
        "mean_top1": 0.5,
        "mean_acsa": 0.25,
        "comments": {"BLEU-4": 0.25, "CIDEr-D": 1.5},
        "counts": {"pictures": 6, "failed": 1},
        "image_root": str(pictures),
        "signature": {"srcc": "srcc|mean ranks|beholder 0"},
    }
    write_json(folder / "evaluation" / "metrics.json", metrics)
    record = StageRecord(
        name="score", kind="train", inputs_hash="0", code_version="0.1.0", config={},
        started="2026-01-01T00:00:00+00:00", seconds=75.0, metrics={"srcc": 0.5},
    )  # fmt: skip
    Manifest(name=f"demo {EVIL}", seed=3, code_version="0.1.0", stages=[record]).save(folder)
    lines = [
        {"stage": "score", "step": step, "split": split, "epoch": 1, "time": 0.0, "loss": 1 / step}
        for step in (1, 2, 3)
        for split in ("train", "val")
    ]
    lines.append({"stage": "score", "step": 3, "split": "val", "srcc": 0.5, "plcc": None})
    for line, pace in zip(lines[::2], (10.0, 123.0, 125.0), strict=False):
        line["throughput"] = {
            "seconds_per_step": 0.1, "pictures_per_second": pace, "data_wait": 0.07,
            "peak_host_bytes": int(pace * 1e7),
        }  # fmt: skip
    alarm = {"time": 0.0, "stage": "score", "step": 4, "epoch": 2, "split": "alarm"}
    lines.append(alarm | {"alarm": f"the reward fell {EVIL}"})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "quarantine.csv").write_text("image,code,message\nx.png,truncated,cut short\n")
    (folder / "recipe.yaml").write_text("name: demo\n")
    return folder


def rate(run: Path, raters: list[str], scores: list[list[float]]) -> None:
    """Give the run's table ratings, a list per picture."""
    table = AnnotationTable.from_parquet(run / "annotations.parquet")
    ratings = pl.Series(
        "ratings",
        [[{"rater": r, "score": s} for r, s in zip(raters, row, strict=True)] for row in scores],
        dtype=RATINGS_TYPE,
    )
    table.with_frame(table.frame.with_columns(ratings)).to_parquet(run / "annotations.parquet")


def test_raters_are_shown_with_what_a_perfect_model_could_reach(run: Path) -> None:
    assert "Raters" not in write_report(run).read_text("utf-8")
    level = [1.0, 2.0, 3.0, 4.0, 5.0, 2.5]
    lean = [0.0, 0.1, -0.1, 0.2, -0.2, 4.0]
    scores = [[q + lean[i] + 0.1 * ((3 * j + 2 * i) % 5) for i in range(6)]
              for j, q in enumerate(level)]  # fmt: skip
    rate(run, [*"abcde", f"$x$ {EVIL}"], scores)
    html = write_report(run).read_text("utf-8")
    assert EVIL not in html
    page = Page(html)
    text = " ".join(page.text.split())
    assert "36 ratings; 6 raters of 6 pictures compared" in text
    assert f"$x$ {EVIL} bias" in text.replace(EVIL + "bias", EVIL + " bias")
    assert "perfect model" in text and "this judge" not in text  # its interval is not known
    assert "its SRCC with the mean ratings lacks" in text
    metrics_file = run / "evaluation" / "metrics.json"
    metrics = json.loads(metrics_file.read_text())
    metrics["score"]["srcc"]["low"] = 0.7
    write_json(metrics_file, metrics)
    assert "this judge" in Page(write_report(run).read_text("utf-8")).text
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    (run / "recipe.yaml").write_text("name: demo\ndata:\n  ratings: corrected\n")
    text = Page(write_report(run).read_text("utf-8")).text
    assert "its SRCC with the corrected scores lacks" in " ".join(text.split())


def test_ratings_that_say_nothing_of_raters_are_told_of(run: Path) -> None:
    rate(run, ["a"], [[1.0]] * 6)
    text = Page(write_report(run).read_text("utf-8")).text
    assert "6 ratings. Too few pictures have ratings of several raters" in text


def test_page_refers_to_nothing_outside_itself(run: Path) -> None:
    html = write_report(run).read_text("utf-8")
    page = Page(html)
    assert page.links
    assert all(link.startswith(("#", "data:image/webp;base64,")) for link in page.links)
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html
    assert "script" not in page.tags


def test_users_text_is_escaped(run: Path) -> None:
    html = write_report(run).read_text("utf-8")
    assert EVIL not in html
    assert EVIL in Page(html).text


def test_page_says_what_the_run_came_to(run: Path) -> None:
    text = " ".join(Page(write_report(run).read_text("utf-8")).text.split())
    for sentence in (
        "0.812", "pseudo-MOS", "n/a to 0.900", "1 could not be judged", "CIDEr-D 1.500",
        "given: bright", "picture no longer readable", "1 min 15 s", "truncated", "2 train",
        "srcc|mean ranks|beholder 0", "name: demo", "0.321 before its temperature of 2.50",
        "bright taken for dark 2 pictures", "of the share that is right) 25%",
        "Most confident mistakes", "never0n/an/an/a", "Where opinions come from", "70%",
    ):  # fmt: skip
        assert sentence in text, sentence


def test_harmless_changes_are_shown_where_they_were_measured(run: Path) -> None:
    assert "Harmless changes" not in write_report(run).read_text("utf-8")
    path = run / "evaluation" / "metrics.json"
    metrics = json.loads(path.read_text("utf-8"))
    change = {"change": "half size", "mean_change": 0.1234, "moved": 0.25, "labels": {"kind": 0.5}}
    write_json(path, metrics | {"robustness": {"pictures": 4, "changes": [change]}})
    text = " ".join(Page(write_report(run).read_text("utf-8")).text.split())
    assert "Harmless changes" in text and "on 4 held-out pictures" in text
    assert "half size0.12325%50%" in text and "kind: other labels" in text


def test_ids_of_plots_are_unique(run: Path) -> None:
    ids = re.findall(r'\bid="([^"]+)"', write_report(run).read_text("utf-8"))
    assert len(ids) == len(set(ids))


def test_report_is_the_same_when_written_again(run: Path) -> None:
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_mistakes_are_the_surest_first(run: Path) -> None:
    path = run / "evaluation" / "predictions.parquet"
    sure = pl.Series("probability.light", [0.9, 0.6, 0.7, 0.9, 0.95, 0.8])
    pl.read_parquet(path).with_columns(sure).write_parquet(path)
    (part,) = attribute_parts(collect(run))
    wrong = [(row["image"], row["probability.light"]) for row in part["mistakes"]]
    # given dark, bright, ...; predicted dark, dark, bright, dark, dark, bright
    assert wrong == [(KEYS[3], 0.9), (KEYS[2], 0.7), (KEYS[1], 0.6)]
    confusions = [(pair["given"], pair["predicted"], pair["count"]) for pair in part["confusions"]]
    assert confusions == [("bright", "dark", 2), ("dark", "bright", 1)]
    assert [key for key, _ in part["confusions"][0]["pictures"]] == [KEYS[3], KEYS[1]]


def test_run_without_evaluation_still_has_a_report(run: Path) -> None:
    for name in ("evaluation/metrics.json", "evaluation/predictions.parquet", "metrics.jsonl"):
        (run / name).unlink()
    text = Page(write_report(run).read_text("utf-8")).text
    assert "Scores" not in text
    assert "score" in text  # the stage


def test_folder_that_is_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_newest_value_of_a_step_wins_and_nulls_are_left_out(tmp_path: Path) -> None:
    lines = [
        {"stage": "s", "step": 2, "split": "train", "loss": 2.0},
        {"stage": "s", "step": 1, "split": "train", "loss": 3.0},
        {"stage": "s", "step": 2, "split": "train", "loss": 1.0, "norm": None},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_curves(path) == {"s": {"train loss": [(1, 3.0), (2, 1.0)]}}


def test_speed_of_a_training_is_shown(run: Path) -> None:
    speed = read_speeds(run / "metrics.jsonl")["score"]
    assert speed["pictures_per_second"] == 123.0  # the median: a slow start does not count
    assert speed["peak_host_bytes"] == 1_250_000_000
    page = write_report(run).read_text("utf-8")
    row = page.partition("waiting for data")[2].partition("</tbody>")[0]
    for cell in ("123", "7%", "n/a", "1.25 GB"):
        assert f">{cell}</td>" in row


def test_curves_of_several_tasks_are_drawn_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "curve", lambda title, lines: (title, [name for name, _ in lines]))
    names = [
        "train loss", "val loss", "train score.loss", "val score.loss", "train score.plcc_loss",
        "val overall", "val score.srcc", "val score.plcc", "val attributes.top1",
    ]  # fmt: skip
    drawn = _curve_plots({"joint": {name: [(1.0, 1.0)] for name in names}})["joint"]
    assert drawn == [
        ("joint loss", ["train loss", "val loss"]),
        ("joint score.loss", ["train score.loss", "val score.loss"]),
        ("joint val overall", ["val overall"]),
        ("joint val score.srcc", ["val score.srcc"]),
        ("joint val attributes.top1", ["val attributes.top1"]),
        ("joint val score.plcc", ["val score.plcc"]),
    ]
    alone = _curve_plots({"score": {"train loss": [(1.0, 1.0)]}})["score"]
    assert alone == [("score loss", ["train loss"])]


def test_alarms_are_shown(run: Path) -> None:
    page = Page(write_report(run).read_text("utf-8"))
    assert "the reward fell" in page.text
    assert [entry["epoch"] for entry in read_alarms(run / "metrics.jsonl")] == [2]


def test_intervals_and_the_averages_of_regressors_are_shown(run: Path) -> None:
    assert "Scores of regressors" not in write_report(run).read_text("utf-8")
    metrics_file = run / "evaluation" / "metrics.json"
    metrics = json.loads(metrics_file.read_text())
    interval = {"level": 0.9, "calibrated_on": 50, "pictures": 6, "covered": 0.87, "width": 1.25}
    write_json(metrics_file, metrics | {"interval": interval})
    split = {"plcc": 0.71, "srcc": 0.655, "rmse": 0.4}
    write_json(
        run / "scores" / "mean" / "metrics.json",
        {"interval": {"level": 0.8}, "val": split,
         "test": split | {"coverage": 0.79, "interval_width": 1.5}},
    )  # fmt: skip
    text = " ".join(Page(write_report(run).read_text("utf-8")).text.split())
    assert "calibrated on 50 pictures: 90% asked, 87% of 6 held-out pictures covered" in text
    assert "mean width 1.25" in text
    assert "meanval0.7100.6550.400 meantest0.7100.6550.40079% of 80% asked1.50" in text
