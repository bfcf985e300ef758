"""A challenge's table of scores and comments: `img_name,mos,comments`, as the sample submission has
it, from files of predictions.

A name of the sample submission is looked for among the predictions' image keys as it stands, then
as a file name, then without the extension of a picture; one that several keys answer to is none of
them. Every row must get a score and a comment, or nothing is written and all that is wrong is told.
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from beholder.data.files import write_text
from beholder.data.formats.column_names import IMAGE_COLUMNS, first_of
from beholder.data.formats.delimited import ROW, parse_delimited
from beholder.data.formats.opening import open_table
from beholder.data.formats.options import ReadOptions
from beholder.data.formats.text import read_text
from beholder.data.images import EXTENSIONS
from beholder.data.keys import make_key
from beholder.errors import DataError, Problem

COLUMNS = ("img_name", "mos", "comments")
NAME_COLUMNS = (*IMAGE_COLUMNS, "image_id")
# what was predicted comes before what was given, where a file has both
SCORE_COLUMNS = ("predicted_score", "score", "mos")
COMMENT_COLUMNS = ("comment", "comments", "caption")

_FORMATS = "a CSV or Parquet file, or JSON lines as `beholder judge --format jsonl` prints them"


@dataclass(frozen=True)
class Submission:
    """What was written: `rows` pictures; `unused` predictions are of others."""

    rows: int
    unused: int


def write_challenge_table(
    sample: str | Path, scores: str | Path, comments: str | Path, target: str | Path
) -> Submission:
    """Join scores and comments into the table that a challenge wants.

    Args:
        sample: the sample submission, whose names, order and columns are kept.
        scores, comments: files of predictions with an image column and one of scores, of comments;
            they may be the same. CSV, Parquet, or JSON lines.
        target: the CSV to write, UTF-8.

    Raises:
        DataError: with everything wrong: files that can't be read, names without a prediction or
            with several, scores that are not numbers, empty comments. Nothing is written.
        OutputError: the target can't be written.
    """
    problems: list[Problem] = []
    names, header = _sample_names(Path(sample), problems)
    score_of = _predictions(Path(scores), SCORE_COLUMNS, problems)
    comment_of = _predictions(Path(comments), COMMENT_COLUMNS, problems)
    found_scores = _look_up(names, score_of, str(scores), "score", problems)
    found_comments = _look_up(names, comment_of, str(comments), "comment", problems)
    cells: dict[str, dict[str, str]] = {}
    for row, name in names.items():
        score = _score(name, row, found_scores.get(name), str(scores), problems)
        comment = _comment(name, row, found_comments.get(name), str(comments), problems)
        cells[name] = {"img_name": name, "mos": score, "comments": comment}
    if problems:
        raise DataError(
            f"The submission can't be written: {len(problems)} problem(s).",
            where=str(sample),
            fix="Every name of the sample submission needs one score and one comment.",
            problems=problems,
        )
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells.values())
    write_text(target, text.getvalue())
    used = {key for key, _ in [*found_scores.values(), *found_comments.values()]}
    return Submission(len(cells), len((score_of.keys() | comment_of.keys()) - used))


def _sample_names(path: Path, problems: list[Problem]) -> tuple[dict[int, str], list[str]]:
    """Line -> name as written, and the header as written."""
    frame, header = _read_delimited(path, problems)
    spelt = {name.casefold(): name for name in header}
    missing = [name for name in COLUMNS if name not in spelt]
    if frame is None or missing or len(header) != len(COLUMNS):
        if frame is not None:
            message = f"The columns are {', '.join(header)}; expected {', '.join(COLUMNS)}."
            problems.append(Problem("error", "columns", message, file=str(path), row=1))
        return {}, list(COLUMNS)
    names = dict(frame.select(ROW, spelt["img_name"]).iter_rows())
    first: dict[str, int] = {}
    for row, name in names.items():
        if first.setdefault(name, row) != row:
            message = f"The name is already in row {first[name]}."
            problems.append(Problem("error", "repeated", message, str(path), row, "img_name", name))
    if not names:
        problems.append(Problem("error", "empty", "There is no row.", file=str(path)))
    return names, [name.casefold() for name in header]


def _predictions(path: Path, columns: tuple[str, ...], problems: list[Problem]) -> dict[str, Any]:
    """Image key -> what is predicted of it, from the first of `columns` that is there."""
    frame = _read_predictions(path, problems)
    if frame is None:
        return {}
    image, value = first_of(NAME_COLUMNS, frame.columns), first_of(columns, frame.columns)
    for column, wanted in ((image, NAME_COLUMNS), (value, columns)):
        if column is None:
            message = f"There is no column {' or '.join(wanted)} among {', '.join(frame.columns)}."
            problems.append(Problem("error", "columns", message, file=str(path)))
    if image is None or value is None:
        return {}
    values: dict[str, Any] = {}
    for name, prediction in frame.select(image, value).iter_rows():
        key = make_key(str(name))
        if values.setdefault(key, prediction) != prediction:
            message = f"Two predictions: {values[key]!r} and {prediction!r}."
            problems.append(Problem("error", "repeated", message, str(path), field=value, key=key))
    return values


def _read_predictions(path: Path, problems: list[Problem]) -> pl.DataFrame | None:
    opened = open_table(path, ReadOptions())
    errors = [problem for problem in opened.problems if problem.severity == "error"]
    problems += errors
    if errors:
        return None
    named_json = path.suffix.lower() in (".jsonl", ".json")
    if named_json and opened.raw is not None and "JSON" not in opened.raw.container:
        message = f"The file is no JSON object per line; expected {_FORMATS}."
        problems.append(Problem("error", "unreadable", message, file=str(path)))
        return None
    if opened.table is not None:
        return opened.table.frame
    if opened.raw is None or not opened.raw.header:
        message = f"There is no table in the file; expected {_FORMATS}."
        problems.append(Problem("error", "unreadable", message, file=str(path)))
        return None
    return opened.raw.frame.drop(ROW)


def _read_delimited(
    path: Path, problems: list[Problem]
) -> tuple[pl.DataFrame | None, tuple[str, ...]]:
    before = len(problems)
    parsed = parse_delimited(_text(path, problems), str(path))
    problems += parsed.problems
    return (None if len(problems) > before else parsed.frame), parsed.header


def _text(path: Path, problems: list[Problem]) -> str:
    try:
        text = read_text(path)
    except OSError as error:
        message = f"The file can't be read: {error.strerror or error}."
        problems.append(Problem("error", "unreadable", message, file=str(path)))
        return ""
    problems += [problem for problem in text.problems if problem.severity == "error"]
    return text.content


def _look_up(
    names: Mapping[int, str],
    values: Mapping[str, Any],
    file: str,
    what: str,
    problems: list[Problem],
) -> dict[str, tuple[str, Any]]:
    """Name -> (image key, value), for the names that one key answers to."""
    answers: dict[str, set[str]] = defaultdict(set)
    for key in values:
        for form in _forms(key):
            answers[form].add(key)
    matched: dict[str, tuple[str, Any]] = {}
    for row, name in names.items():
        keys: list[str] = []
        for form in _forms(make_key(name)):
            keys = [form] if form in values else sorted(answers[form])
            if keys:
                break
        if len(keys) == 1:
            key = keys[0]
            matched[name] = key, values[key]
        elif values:
            message = f"There is no {what} of this picture in {file}."
            if keys:
                message = f"Several pictures in {file} answer to this name: {', '.join(keys)}."
            problems.append(Problem("error", "no_match", message, row=row, field=what, key=name))
    return matched


def _forms(key: str) -> list[str]:
    """What a picture may be called: its key, its file name, both without a picture's extension."""
    file_name = key.rsplit("/", 1)[-1]
    forms = [key, file_name]
    for form in (key, file_name):
        stem, dot, extension = form.rpartition(".")
        if stem and f"{dot}{extension}".lower() in EXTENSIONS:
            forms.append(stem)
    return list(dict.fromkeys(forms))


def _score(
    name: str, row: int, prediction: tuple[str, Any] | None, file: str, problems: list[Problem]
) -> str:
    if prediction is None:
        return ""
    try:
        value = float(prediction[1])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        message = f"The score in {file} is not a finite number: {prediction[1]!r}."
        problems.append(Problem("error", "score", message, row=row, field="mos", key=name))
    return repr(value)


def _comment(
    name: str, row: int, prediction: tuple[str, Any] | None, file: str, problems: list[Problem]
) -> str:
    if prediction is None:
        return ""
    text = " ".join(str(prediction[1] or "").split())
    if not text:
        message = f"The comment in {file} is empty."
        problems.append(Problem("error", "comment", message, row=row, field="comments", key=name))
    return text
