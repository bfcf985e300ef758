"""Evaluating files of captions: formats, and every problem with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from beholder.errors import DataError
from beholder.metrics.captions.files import evaluate_files

REFERENCES = {"1": ["a dog runs", "the dog runs"], "2": ["a red car"]}
HYPOTHESES = {"1": "a dog runs", "2": "a blue car"}
METRICS = ("BLEU", "ROUGE_L", "CIDEr-D")


def write(path: Path, content: object) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


def test_all_formats_agree(tmp_path: Path) -> None:
    rows = [(key, text) for key, group in REFERENCES.items() for text in group]
    references = {
        "map.json": REFERENCES,
        "coco.json": {"annotations": [{"image_id": int(k), "caption": t} for k, t in rows]},
        "list.json": [{"image_id": k, "caption": t} for k, t in rows],
        "table.csv": "image,caption\n" + "".join(f"{k},{t}\n" for k, t in rows),
        "table.tsv": "image\tcaption\n" + "".join(f"{k}\t{t}\n" for k, t in rows),
    }
    hypotheses = {
        "h.json": HYPOTHESES,
        "one.json": {key: [text] for key, text in HYPOTHESES.items()},
        "results.json": [{"image_id": int(k), "caption": t} for k, t in HYPOTHESES.items()],
        "h.jsonl": "".join(
            json.dumps({"image": k, "score": None, "comment": t}) + "\n\n"
            for k, t in HYPOTHESES.items()
        ),
        "h.csv": "\ufeffimg_name,comments\n" + "".join(f"{k},{t}\n" for k, t in HYPOTHESES.items()),
    }
    read = [
        evaluate_files(write(tmp_path / a, x), write(tmp_path / b, y), METRICS)
        for a, x in references.items()
        for b, y in hypotheses.items()
    ]
    assert len(read) == 25
    assert all(scores.to_dict() == read[0].to_dict() for scores in read)
    assert read[0].corpus["BLEU-1"] == pytest.approx(5 / 6, abs=1e-6)
    text = read[0].render()
    assert "2 pictures, 3 references" in text
    assert "BLEU-4" in text and "signature: CIDEr-D|" in text
    assert json.loads(read[0].to_json())["per_image"]["ROUGE_L"]["1"] == 1.0


@pytest.mark.parametrize(
    ("content", "code", "row"),
    [
        ([{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}], "duplicate", 1),
        ('{"1": "a", "1": "b"}', "duplicate", None),
        ([{"image_id": 1, "caption": "a"}, {"image_id": 2}], "format", 1),
        ({"1": "a", "2": 5}, "not_text", None),
        ({"1": "a", "3": "b"}, "no_reference", None),
        ({"1": "a"}, "no_hypothesis", None),
        ("{", "not_json", None),
        ('"text"', "format", None),
        ([{"image_id": 1, "caption": "a"}, {"image_id": None, "caption": "b"}], "format", 1),
        ([{"image_id": True, "caption": "a"}], "format", 0),
        ([{"image_id": 1.0, "caption": "a"}], "format", 0),
    ],
)
def test_problems_have_a_place(tmp_path: Path, content: object, code: str, row: int | None) -> None:
    references = write(tmp_path / "r.json", REFERENCES)
    hypotheses = write(tmp_path / "h.json", content)
    with pytest.raises(DataError) as caught:
        evaluate_files(references, hypotheses, METRICS)
    problems = {problem.code: problem for problem in caught.value.problems}
    assert code in problems
    assert row is None or problems[code].row == row


@pytest.mark.parametrize(
    ("text", "code", "row"),
    [
        ("image,words\n1,a\n", "columns", 1),
        ("image,caption\n1,a\n,b\n", "no_key", 3),
        ("image,caption\n1,a\n2\n", "no_caption", 3),
        ("image,caption\n1,a\n1,b\n", "duplicate", 3),
        ('image,caption\n1,"' + "x" * 140_000, "not_csv", 2),
    ],
)
def test_problems_of_tables(tmp_path: Path, text: str, code: str, row: int) -> None:
    references = write(tmp_path / "r.json", REFERENCES)
    with pytest.raises(DataError) as caught:
        evaluate_files(references, write(tmp_path / "h.csv", text), METRICS)
    assert (code, row) in {(problem.code, problem.row) for problem in caught.value.problems}


def test_problems_of_lines(tmp_path: Path) -> None:
    references = write(tmp_path / "r.json", REFERENCES)
    lines = '{"image": "1", "comment": "a"}\n{"image": "2", "error": {}}\n{"image"\n[1]\n'
    with pytest.raises(DataError, match="Give JSON, JSON lines, CSV or TSV") as caught:
        evaluate_files(references, write(tmp_path / "h.jsonl", lines), METRICS)
    problems = {(problem.row, problem.code) for problem in caught.value.problems}
    assert problems == {(2, "format"), (3, "not_json"), (4, "format")}


def test_missing_file(tmp_path: Path) -> None:
    references = write(tmp_path / "r.json", REFERENCES)
    with pytest.raises(DataError, match=r"nowhere\.json"):
        evaluate_files(references, tmp_path / "nowhere.json", METRICS)


def test_without_meteor_data_the_rest_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from beholder.metrics.captions.meteor import data

    data.meteor_data.cache_clear()
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    scores = evaluate_files(
        write(tmp_path / "r.json", REFERENCES), write(tmp_path / "h.json", HYPOTHESES)
    )
    assert "METEOR" not in scores.corpus and "CIDEr-D" in scores.corpus
    assert [problem.code for problem in scores.problems] == ["no_meteor"]
    assert "pip install pycocoevalcap" in scores.render()
    data.meteor_data.cache_clear()
