"""One row of a verdict: the same columns in every output, and nothing of it lost."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import polars as pl
import pytest
from brightness_judge import make_judge
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from beholder.batch.layouts import CurrentLayout
from beholder.batch.local import judge_to_file
from beholder.batch.printing import print_verdicts
from beholder.judge import Attribute, Failure, Judge, Verdict
from beholder.judge.calibration import Calibration
from beholder.judge.row import columns_of, csv_row, parse_row, table_row
from beholder.judge.runner import Request, judge_pictures
from beholder.metrics.conformal import ConformalInterval
from beholder.serve.app import create_app
from beholder.serve.config import ServeConfig

CLASSES = {"light": ("dark", "bright"), "kind.of": ("a", "b", "c")}
COLUMNS = [
    "image", "score", "low", "high", "distribution", "comment", "alternatives",
    "attributes.light", "attributes.kind.of", "probability.light", "probability.kind.of",
    "probabilities.light", "probabilities.kind.of", "familiarity", "unfamiliar", "judge", "error",
]  # fmt: skip


def verdict(shares: dict[str, dict[str, float]], **changes: object) -> Verdict:
    attributes = {}
    for name, told in shares.items():
        ranked = dict(sorted(told.items(), key=lambda entry: -entry[1]))
        label = next(iter(ranked))
        attributes[name] = Attribute(label, ranked[label], ranked)
    return Verdict("a/é.png", attributes=attributes, **changes)  # type: ignore[arg-type]


FULL = verdict(
    {"light": {"dark": 0.25, "bright": 0.75}, "kind.of": {"a": 0.2, "b": 0.5, "c": 0.3}},
    score=3.5, interval=(3.0, 4.0), comment='Said, "so".', alternatives=("one", "two, three"),
    judge="judge.beholder@0123456789ab", distribution={1.0: 0.25, 2.5: 0.5, 4.0: 0.25},
    familiarity=0.04,
)  # fmt: skip
FAILED = Failure("b.png", "truncated", "The file ends, too early.")


def test_the_columns_are_these() -> None:
    assert columns_of(list(CLASSES)) == COLUMNS == list(table_row(FULL, CLASSES))
    assert list(CurrentLayout().schema(CLASSES)) == COLUMNS == list(table_row(FAILED, CLASSES))


def test_json_keeps_the_agreed_names() -> None:
    row = FULL.to_dict()
    assert list(row) == [
        "image", "score", "interval", "low", "high", "distribution", "comment", "alternatives",
        "attributes", "probabilities", "familiarity", "unfamiliar", "judge",
    ]  # fmt: skip
    assert row["interval"] == [row["low"], row["high"]] == [3.0, 4.0]
    assert row["attributes"] == {
        "light": {"label": "bright", "probability": 0.75},
        "kind.of": {"label": "b", "probability": 0.5},
    }
    assert row["probabilities"]["kind.of"] == {"b": 0.5, "c": 0.3, "a": 0.2}  # type: ignore[index]
    assert FAILED.to_dict() == {
        "image": "b.png",
        "error": {"code": "truncated", "message": "The file ends, too early."},
    }
    assert row["distribution"] == {"1": 0.25, "2.5": 0.5, "4": 0.25}
    assert (row["familiarity"], row["unfamiliar"]) == (0.04, True)
    unknown = Verdict("a").to_dict()
    names = ("interval", "distribution", "familiarity", "unfamiliar")
    assert [unknown[name] for name in names] == [None] * 4
    assert Verdict("a", familiarity=0.05).unfamiliar is False


@pytest.mark.parametrize("judged", [FULL, FAILED, verdict({}, comment="x", score=0.0)])
def test_nothing_is_lost_in_any_form(judged: Verdict | Failure, tmp_path: Path) -> None:
    classes = CLASSES if not isinstance(judged, Verdict) or judged.attributes else {}
    assert parse_row(json.loads(json.dumps(judged.to_dict()))) == judged
    with (tmp_path / "a.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows([columns_of(list(classes)), csv_row(judged, classes)])
    with (tmp_path / "a.csv").open(newline="") as stream:
        (cells,) = csv.DictReader(stream)
    assert parse_row(cells) == judged
    rows = [table_row(judged, classes)]
    pl.DataFrame(rows, CurrentLayout().schema(classes)).write_parquet(tmp_path / "a.parquet")
    (stored,) = pl.read_parquet(tmp_path / "a.parquet").iter_rows(named=True)
    assert parse_row(stored) == judged


@given(st.dictionaries(st.text(min_size=1), st.floats(0, 1), min_size=1, max_size=5))
def test_the_label_comes_first_whatever_the_probabilities(shares: dict[str, float]) -> None:
    label = max(shares, key=lambda name: shares[name])
    row = {
        "image": "a",
        "attributes": {"x": {"label": label, "probability": shares[label]}},
        "probabilities": {"x": shares},
    }
    parsed = parse_row(row)
    assert isinstance(parsed, Verdict)
    ranked = list(parsed.attributes["x"].probabilities.values())
    assert next(iter(parsed.attributes["x"].probabilities)) == label
    assert ranked == sorted(ranked, reverse=True)


def calibrated_judge() -> Judge:
    judge = make_judge()
    judge.calibration = Calibration(score=ConformalInterval(level=0.9, quantile=0.5, pictures=40))
    judge.identity = "a@b"
    return judge


def test_every_way_out_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "x.png"
    Image.new("RGB", (9, 9), (70, 80, 90)).save(picture)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    requests = [Request("x.png", picture), Request("broken.png", tmp_path / "broken.png")]
    judge = calibrated_judge()
    expected = list(judge_pictures(judge, requests))
    list(print_verdicts(expected, "jsonl", judge.classes))
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [parse_row(row) for row in printed] == expected
    list(print_verdicts(expected, "csv", judge.classes))
    cells = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [parse_row(row) for row in cells] == expected
    judge_to_file(judge, requests, tmp_path / "v.jsonl", identity="a")
    lines = (tmp_path / "v.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == printed
    judge_to_file(judge, requests, tmp_path / "v.parquet", identity="a")
    frame = pl.read_parquet(tmp_path / "v.parquet" / "part-00000000.parquet")
    assert frame.columns == list(cells[0])
    assert [parse_row(row) for row in frame.iter_rows(named=True)] == expected
    with TestClient(create_app(judge, ServeConfig())) as client:
        files = [("pictures", (request.name, request.path.read_bytes())) for request in requests]
        assert client.post("/v1/verdicts", files=files).json()["verdicts"] == printed
