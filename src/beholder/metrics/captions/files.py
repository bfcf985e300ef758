"""Caption metrics from files: what `beholder evaluate --references FILE --hypotheses FILE` does.

Readable are JSON `{"key": "caption"}` or `{"key": ["caption", ...]}`, JSON lists of
`{"image_id", "caption"}` (the COCO results format), COCO annotations (`{"annotations": [...]}`),
JSON lines of such entries (as `beholder judge --format jsonl` prints), and any table that
`data.formats` reads, with a column for the picture and one for the caption.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from beholder.data.formats.column_names import IMAGE_COLUMNS, first_of
from beholder.data.formats.delimited import ROW
from beholder.data.formats.interpreting import Interpreter
from beholder.data.formats.opening import open_table
from beholder.data.formats.options import ReadOptions
from beholder.data.formats.plain_cells import prepare
from beholder.data.formats.text import read_text
from beholder.errors import BeholderError, DataError, Problem
from beholder.metrics.captions.evaluate import CaptionScores, check_captions, evaluate_captions
from beholder.metrics.captions.meteor.data import meteor_data

KEY_COLUMNS = ("image_id", *IMAGE_COLUMNS, "key", "id")
_OF_FILES = ("unreadable", "not_json", "not_csv", "format", "columns")
TEXT_COLUMNS = ("caption", "comment", "comments", "hypothesis", "reference", "text")


@dataclass(frozen=True)
class _Row:
    """One caption of a file: its row, image key and text."""

    row: int
    key: str
    text: object


def evaluate_files(
    references: str | Path,
    hypotheses: str | Path,
    metrics: Sequence[str] | None = None,
) -> CaptionScores:
    """Metrics of a file of captions against a file of references.

    Without `metrics`: BLEU, ROUGE_L, CIDEr-D, and METEOR if its data is installed; its absence is
    among the problems of the result.

    Raises:
        DataError: with every problem of both files: not readable, no key or caption, a caption that
            is not text, two hypotheses for a picture, a picture in one file only.
        BeholderError: METEOR without its data, SPICE without Java.
    """
    problems: list[Problem] = []
    reference_rows = _read(Path(references), problems)
    hypothesis_rows = _read(Path(hypotheses), problems)
    groups: dict[str, list[object]] = {}
    for entry in reference_rows:
        groups.setdefault(entry.key, []).append(entry.text)
    chosen: dict[str, object] = {}
    for entry in hypothesis_rows:
        if entry.key in chosen:
            problems.append(
                Problem(
                    "error",
                    "duplicate",
                    "a second hypothesis for this picture",
                    file=str(hypotheses),
                    row=entry.row,
                    key=entry.key,
                )
            )
        chosen.setdefault(entry.key, entry.text)
    readable = not any(problem.code in _OF_FILES for problem in problems)
    if not problems:
        problems += check_captions(groups, chosen)  # type: ignore[arg-type]
    if any(problem.severity == "error" for problem in problems):
        pairs = "Give every picture of the one file exactly one hypothesis in the other."
        raise DataError(
            f"The captions can't be evaluated: {len(problems)} problem(s).",
            where=f"{references}, {hypotheses}",
            fix=pairs if readable else "Give JSON, JSON lines, CSV or TSV: see docs/metrics.md.",
            problems=problems,
        )
    if metrics is not None:
        return evaluate_captions(groups, chosen, metrics)  # type: ignore[arg-type]
    available, absent = ["BLEU", "ROUGE_L", "CIDEr-D"], []
    try:
        meteor_data()
        available.insert(2, "METEOR")
    except BeholderError as error:
        absent.append(Problem("warning", "no_meteor", f"{error.what} {error.fix}"))
    scores = evaluate_captions(groups, chosen, available)  # type: ignore[arg-type]
    return replace(scores, problems=(*absent, *scores.problems))


def _read(path: Path, problems: list[Problem]) -> list[_Row]:
    try:
        text = read_text(path)
    except OSError as error:
        message = f"can't be read: {error.strerror or error}"
        problems.append(Problem("error", "unreadable", message, file=str(path)))
        return []
    content = text.content
    if path.suffix.lower() == ".jsonl":
        return _read_lines(path, content, problems)
    if not content.lstrip().startswith(("[", "{")) and path.suffix.lower() != ".json":
        return _read_table(path, problems)
    problems += [problem for problem in text.problems if problem.severity == "error"]
    duplicates: list[str] = []

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        seen: set[str] = set()
        for key, _ in items:
            if key in seen:
                duplicates.append(key)
            seen.add(key)
        return dict(items)

    try:
        content_json = json.loads(content, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        message = f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        problems.append(Problem("error", "not_json", message, file=str(path)))
        return []
    problems += [
        Problem("error", "duplicate", "comes twice in the file", file=str(path), key=key)
        for key in duplicates
    ]
    if isinstance(content_json, dict) and isinstance(content_json.get("annotations"), list):
        content_json = content_json["annotations"]
    if isinstance(content_json, dict):
        return list(_of_mapping(content_json))
    if isinstance(content_json, list):
        return list(_of_entries(path, enumerate(content_json), problems))
    message = f"holds a {type(content_json).__name__}, neither a mapping nor a list of captions"
    problems.append(Problem("error", "format", message, file=str(path)))
    return []


def _of_mapping(captions: dict[str, object]) -> Iterable[_Row]:
    for row, (key, value) in enumerate(captions.items()):
        for text in value if isinstance(value, list) else [value]:
            yield _Row(row, key, text)


def _read_lines(path: Path, content: str, problems: list[Problem]) -> list[_Row]:
    entries = []
    for row, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            try:
                entries.append((row, json.loads(line)))
            except json.JSONDecodeError as error:
                message = f"is not JSON: {error.msg}"
                problems.append(Problem("error", "not_json", message, file=str(path), row=row))
    return list(_of_entries(path, entries, problems))


def _of_entries(
    path: Path, entries: Iterable[tuple[int, object]], problems: list[Problem]
) -> Iterable[_Row]:
    for row, entry in entries:
        names = entry.keys() if isinstance(entry, dict) else ()
        key = next((name for name in KEY_COLUMNS if name in names), None)
        text = next((name for name in TEXT_COLUMNS if name in names), None)
        if not isinstance(entry, dict) or key is None or text is None:
            problems.append(
                Problem("error", "format", "needs image_id and caption", file=str(path), row=row)
            )
            continue
        if type(entry[key]) not in (str, int):
            message = f"must be text or a whole number, not {json.dumps(entry[key])[:40]}"
            problems.append(Problem("error", "format", message, file=str(path), row=row, field=key))
            continue
        for value in entry[text] if isinstance(entry[text], list) else [entry[text]]:
            yield _Row(row, str(entry[key]), value)


def _read_table(path: Path, problems: list[Problem]) -> list[_Row]:
    """Any table that `data.formats` reads: columns of the usual names, or those that hold names of
    pictures and sentences."""
    opened = open_table(path, ReadOptions())
    errors = [problem for problem in opened.problems if problem.severity == "error"]
    codes = {"fields": "no_caption"}
    problems += [replace(caption, code=codes.get(caption.code, "not_csv")) for caption in errors]
    if opened.raw is None or not opened.raw.header:
        return []
    raw = prepare(opened.raw)
    key, text = first_of(KEY_COLUMNS, raw.header), first_of(TEXT_COLUMNS, raw.header)
    if key is None or text is None:
        roles = Interpreter(raw, str(path), ReadOptions()).roles()
        key, text = key or roles.get("image"), text or roles.get("comments")
    if key is None or text is None:
        message = (
            f"needs a column for the picture ({', '.join(KEY_COLUMNS)}) and one for the caption "
            f"({', '.join(TEXT_COLUMNS)}); it has {', '.join(raw.header)}"
        )
        problems.append(Problem("error", "columns", message, file=str(path), row=1))
        return []
    rows = []
    for line, name, captions in raw.frame.select(ROW, key, text).iter_rows():
        if not name:
            message = "names no picture"
            problems.append(Problem("error", "no_key", message, str(path), line, key))
        elif captions is None:
            message = "has no caption"
            problems.append(Problem("error", "no_caption", message, str(path), line, text))
        else:
            rows += [
                _Row(line, name, caption)
                for caption in (captions if isinstance(captions, list) else [captions])
            ]
    return rows
