"""39 small tables in the shapes that public tables have; `expected.json` says what each holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from beholder.cli import main
from beholder.data.formats import scan_annotations

FOLDER = Path(__file__).parent
DATA = FOLDER / "data"
EXPECTED: dict[str, dict[str, Any]] = json.loads((FOLDER / "expected.json").read_text("utf-8"))
LOOKED_FOR = ("without_ending.csv",)  # needs its pictures to know their endings


@pytest.mark.parametrize(
    "name", [name for name, wanted in EXPECTED.items() if "error" not in wanted]
)
def test_a_table_is_read_as_expected(name: str) -> None:
    wanted = EXPECTED[name]
    if name.endswith(".xlsx"):
        pytest.importorskip("fastexcel")
    scan = scan_annotations(DATA / name, images=DATA / "pictures" if name in LOOKED_FOR else None)
    assert [problem for problem in scan.problems if problem.severity == "error"] == []
    read = scan.read.to_dict()
    if wanted["score"] is None:
        assert read["score"] is None
    else:
        assert [read["score"]["low"], read["score"]["high"]] == pytest.approx(wanted["score"])
    assert {what: read[what] for what in ("pictures", "comments", "raters")} == {
        what: wanted[what] for what in ("pictures", "comments", "raters")
    }
    assert sorted(read["attributes"]) == wanted["attributes"]
    assert json.loads(json.dumps(read)) == read
    assert set(read["columns"].values()) | set(read["ignored"]), "every column is told"


@pytest.mark.parametrize("name", [name for name, wanted in EXPECTED.items() if "error" in wanted])
def test_what_is_no_table_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["check", str(DATA / name)])
    assert left.value.code == 2
    printed = capsys.readouterr().out
    assert any(word in printed for word in EXPECTED[name]["error"])
    assert "Traceback" not in printed


def test_every_table_is_expected() -> None:
    names = {path.name for path in DATA.iterdir() if path.is_file()}
    assert names == set(EXPECTED)


def notes(name: str, **options: Any) -> str:
    scan = scan_annotations(DATA / name, **options)
    return "\n".join([*scan.read.lines(), *map(str, scan.problems)])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("koniq_shares_index.csv", ["40.566 to 69.0789", "rating bins 1 to 5", "deviation"]),
        ("reference_dmos.csv", ["'dmos'", "--lower-is-better", "group: 'ref_name'"]),
        ("two_scores.csv", ["'mos_quality' is taken", "score=mos_align", "std_quality"]),
        ("comment_counts.csv", ["'comments' holds numbers"]),
        ("label_studio.csv", ["prefix of uploads", "several labels at once"]),
        ("raters_wide_minus_one.csv", ["-1 is read as not rated, 14 times"]),
        ("decimal_comma.csv", ["Decimal commas"]),
        ("urls.csv", ["nothing is fetched"]),
        ("products.csv", ["have no ending", "ignored: year"]),
        ("no_header_tab.txt", ["The first line is a row"]),
        ("path_and_image.csv", ["image: 'dis_img_path'", "IMAGE"]),
    ],
)
def test_what_a_person_should_know_is_told(name: str, expected: list[str]) -> None:
    actual = notes(name)
    assert [words for words in expected if words not in actual] == []


def test_the_ready_made_command_of_an_undecided_table_works(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["check", str(DATA / "several_scores.csv")])
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if "image=Theme" in line]
    arguments = line.split()[1:]
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--format", "json"])
    read = json.loads(capsys.readouterr().out)["read"]
    assert left.value.code == 0
    assert read["columns"]["score"] == "Valence_mean"
    assert "Arousal_mean" in read["ignored"]


def test_names_without_an_ending_become_those_of_their_files() -> None:
    scan = scan_annotations(DATA / "without_ending.csv", images=DATA / "pictures")
    assert scan.table is not None
    assert all(key.endswith(".jpg") for key in scan.table.keys)
