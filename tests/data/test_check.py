"""`check_annotations`: everything wrong with a table and its pictures, in one go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from annotation_tables import picture, small_table, write_picture
from PIL import ImageEnhance

from beholder.data.annotations import AnnotationTable
from beholder.data.check import check_annotations, render_json, render_text
from beholder.data.fingerprints import fingerprint_all
from beholder.data.splits import LARGE_SET
from beholder.errors import LISTED, SHOWN, Problem, count_problems


def summaries(problems: list[Problem]) -> list[tuple[str, str, int | None, str | None]]:
    return sorted((p.severity, p.code, p.row, p.key) for p in problems)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A root with a picture of every kind that a check has to tell."""
    root = tmp_path / "images"
    for seed, name in enumerate(("good", "other", "small")):
        write_picture(root / f"{name}.png", seed, (8, 60) if name == "small" else (64, 48))
    (root / "copy.png").write_bytes((root / "good.png").read_bytes())
    ImageEnhance.Brightness(picture(1)).enhance(0.9).save(root / "like.jpg", quality=80)
    (root / "text.jpg").write_text("not a picture", encoding="utf-8")
    (root / "cut.png").write_bytes((root / "other.png").read_bytes()[:-200])
    (root / "nothing.png").write_bytes(b"")
    write_picture(root / "large.png", 7, (200, 200))
    return root


def test_every_problem_of_the_pictures_at_once(tmp_path: Path, pictures: Path) -> None:
    names = ["good.png", "copy.png", "other.png", "like.jpg", "small.png", "text.jpg", "cut.png"]
    names += ["nothing.png", "large.png", "good.jpg", "absent.png", "../secret.png"]
    path = tmp_path / "table.csv"
    path.write_text("image,score\n" + "".join(f"{name},3\n" for name in names), encoding="utf-8")
    problems = check_annotations(path, pictures, max_pixels=30_000)
    assert summaries(problems) == sorted(
        [
            ("error", "duplicate_content", 3, "copy.png"),
            ("warning", "near_duplicate", 4, "other.png"),
            ("warning", "tiny", 6, "small.png"),
            ("error", "not_a_picture", 7, "text.jpg"),
            ("error", "truncated", 8, "cut.png"),
            ("error", "empty", 9, "nothing.png"),
            ("error", "too_large", 10, "large.png"),
            ("error", "missing", 11, "good.jpg"),
            ("error", "missing", 12, "absent.png"),
            ("error", "outside_root", 13, "../secret.png"),
        ]
    )
    assert {problem.file for problem in problems} == {str(path)}
    assert {problem.field for problem in problems} == {"image"}
    messages = {problem.key: problem.message for problem in problems}
    assert "'good.png'" in messages["copy.png"]
    assert "'like.jpg'" in messages["other.png"]
    assert "There is good.png" in messages["good.jpg"]


def test_table_in_memory_counts_rows_from_0(pictures: Path) -> None:
    table = AnnotationTable.from_columns(
        ["good.png", "copy.png"], score=[3, 9], box=[[0, 0, 64, 48], [-1, 0, 9, 9]]
    )
    problems = check_annotations(table, pictures, score_range=(1, 5))
    assert summaries(problems) == sorted(
        [
            ("error", "duplicate_content", 1, "copy.png"),
            ("error", "score_range", 1, "copy.png"),
            ("warning", "box_outside", 1, "copy.png"),
        ]
    )


def test_leaks_of_a_given_split(tmp_path: Path, pictures: Path) -> None:
    path = tmp_path / "table.csv"
    rows = "good.png,1,train\ncopy.png,1,test\nother.png,1,train\nlike.jpg,1,val\n"
    path.write_text("image,score,split\n" + rows, encoding="utf-8")
    codes = {(p.code, p.severity, p.row) for p in check_annotations(path, pictures)}
    assert ("content_leak", "error", 3) in codes
    assert ("near_leak", "warning", 5) in codes


def test_near_duplicates_of_one_group_are_meant(pictures: Path) -> None:
    names = ["other.png", "like.jpg"]
    together = AnnotationTable.from_columns(names, score=[1, 2], group=["a", "a"])
    apart = AnnotationTable.from_columns(names, score=[1, 2], group=["a", "b"])
    assert check_annotations(together, pictures) == []
    assert [problem.code for problem in check_annotations(apart, pictures)] == ["near_duplicate"]


def test_a_set_that_is_a_large_part_of_the_table_is_told(pictures: Path) -> None:
    names = []
    for number in range(LARGE_SET + 1):
        names.append(f"copy {number}.jpg")
        picture(1).save(pictures / names[-1], quality=60 + number)
    names += ["good.png", "small.png"]
    table = AnnotationTable.from_columns(names, score=[1] * len(names))
    large = [p for p in check_annotations(table, pictures) if p.code == "large_set"]
    assert [(p.severity, p.row, p.key) for p in large] == [("warning", 0, "copy 0.jpg")]
    assert f"{LARGE_SET + 1} of {len(names)} pictures" in large[0].message
    assert "data.near_duplicates" in large[0].message
    fewer = AnnotationTable.from_columns(names[1:], score=[1] * (len(names) - 1))
    assert "large_set" not in {p.code for p in check_annotations(fewer, pictures)}
    split = table.with_split(["train"] * len(names))
    assert "large_set" not in {p.code for p in check_annotations(split, pictures)}


def test_classes_without_example_and_tables_without_opinion() -> None:
    table = AnnotationTable.from_columns(
        ["a.png", "b.png"],
        split=["train", "test"],
        attributes={"style": ["x", "y"]},
        classes={"style": ["x", "y", "z"]},
    )
    (problem,) = check_annotations(table)
    assert (problem.severity, problem.code, problem.field) == (
        "warning",
        "no_example",
        "attribute.style",
    )
    assert "y, z" in problem.message
    empty = AnnotationTable.from_columns(["a.png"])
    assert [problem.code for problem in check_annotations(empty)] == ["no_opinions"]


def test_classes_that_differ_only_in_spelling_are_told_with_one_fix() -> None:
    labels = ["Red", "red", "red", " dark  blue", "dark blue", "blue", "1", "1.0", "-1"]
    table = AnnotationTable.from_columns(
        [f"{row}.png" for row in range(len(labels))], attributes={"colour": labels}
    )
    problems = [p for p in check_annotations(table) if p.code == "similar_classes"]
    assert {(p.severity, p.field) for p in problems} == {("warning", "attribute.colour")}
    messages = sorted(p.message for p in problems)
    assert len(messages) == 3
    assert "'red' (2), 'Red' (1)" in messages[2]
    assert "write 'red' for all of them" in messages[2]
    assert "'1' (1), '1.0' (1)" in messages[1]


def test_image_root_that_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("image,score\na.png,high\n", encoding="utf-8")
    problems = check_annotations(path, tmp_path / "absent")
    assert {problem.code for problem in problems} == {"image_root", "not_a_number"} | {
        "no_opinions"
    }
    assert any(str(problem.file).endswith("absent") for problem in problems)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [None, "a,b\n1,2\n", "image,score\n"])
def test_files_without_a_table(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    problems = check_annotations(path, tmp_path)
    assert [problem.severity for problem in problems] == ["error"]


def test_a_name_on_disk_may_have_another_unicode_form(tmp_path: Path) -> None:
    write_picture(tmp_path / "cafe\u0301.png", 0)
    table = AnnotationTable.from_columns(["caf\u00e9.png"], score=[1])
    assert check_annotations(table, tmp_path) == []


def test_rendering() -> None:
    problems = [
        Problem("warning", "tiny", "It is tiny.", "t.csv", 4, "image", "b.png"),
        Problem("error", "missing", "It is missing.", "t.csv", 2, "image", "a.png"),
        Problem("error", "missing", "It is missing.", "t.csv", 3, "image", "c.png"),
    ]
    assert render_text(problems).splitlines() == [
        "error missing (2)",
        "  t.csv:2 image a.png: It is missing.",
        "  t.csv:3 image c.png: It is missing.",
        "warning tiny (1)",
        "  t.csv:4 image b.png: It is tiny.",
        "2 errors, 1 warning",
    ]
    assert render_text([]) == "No problems found."
    content = json.loads(render_json(problems))
    assert (content["errors"], content["warnings"]) == (2, 1)
    assert [Problem(**entry) for entry in content["problems"]] == problems


def test_a_person_is_shown_the_first_of_many_and_a_program_gets_all() -> None:
    problems = [
        Problem("error", "missing", "It is missing.", "t.csv", row, "image", f"{row}.png")
        for row in range(2, 2 + SHOWN + 3)
    ]
    lines = render_text(problems).splitlines()
    assert lines[0] == f"error missing ({SHOWN + 3})"
    assert lines[1] == "  t.csv:2 image 2.png: It is missing."
    assert lines[1 + SHOWN :] == [
        "  and 3 more; --format json lists all",
        f"{SHOWN + 3} errors, 0 warnings",
    ]
    assert len(json.loads(render_json(problems))["problems"]) == SHOWN + 3
    assert len(render_text(problems[:SHOWN]).splitlines()) == SHOWN + 2


def test_many_problems_are_counted_and_the_first_of_a_kind_listed(tmp_path: Path) -> None:
    path, count = tmp_path / "table.csv", LISTED + 500
    rows = [f"{row}.png,{'high' if row % 2 else 'inf'}\n" for row in range(2 * count)]
    path.write_text("image,score\n" + "".join(rows), encoding="utf-8")
    problems = check_annotations(path, tmp_path)
    assert count_problems(problems) == {
        ("error", "not_finite"): count,
        ("error", "not_a_number"): count,
        ("error", "missing"): 2 * count,
        ("warning", "no_opinions"): 1,
    }
    assert len(problems) == 3 * LISTED + 1
    text = render_text(problems).splitlines()
    assert f"error not_a_number ({count})" in text
    more = f"  and {count - SHOWN} more; --format json lists the first {LISTED} of all"
    assert text.count(more) == 2
    assert text[-1] == f"{4 * count} errors, 1 warning"
    content = json.loads(render_json(problems))
    assert (content["errors"], content["warnings"]) == (4 * count, 1)
    counts = {entry["code"]: entry["count"] for entry in content["counts"]}
    assert counts == {"not_finite": count, "not_a_number": count, "missing": 2 * count} | {
        "no_opinions": 1
    }
    assert len(content["problems"]) == len(problems)


# -- fingerprints


def test_fingerprints_keep_the_order_for_any_number_of_workers(pictures: Path, capsys) -> None:
    names = sorted(path.name for path in pictures.iterdir())
    alone = fingerprint_all(pictures, names, workers=1)
    assert [known.key for known in alone] == names
    assert fingerprint_all(pictures, names, workers=4) == alone
    assert "opening pictures" in capsys.readouterr().err


def test_small_table_is_clean() -> None:
    assert check_annotations(small_table()) == []
