"""Label Studio's exports: the prefix of uploads, choices, ratings and texts as JSON, annotators.

The tool stores an upload `photo.jpg` as `/data/upload/<project>/<8 hex digits>-photo.jpg`. Its CSV
and JSON-MIN exports have a column per control, in which several choices at once are JSON; its JSON
export has tasks with annotations with results.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from beholder.data.formats.raw_table import RawTable, frame_of_records
from beholder.errors import Problem

WANTS = "Label Studio's export: CSV, JSON-MIN, or JSON with data and annotations"
_UPLOAD = r"^.*?/data/upload/(?:\d+/)?(?:[0-9a-f]{8}-)?"
_UPLOAD_BARE = r"^/?data/upload/(?:\d+/)?(?:[0-9a-f]{8}-)?"
_LOCAL = r"^.*/data/local-files/?\?d="
SEVERAL = "\x00several"
"""Begins a cell that holds several labels at once, or none: a list of them in JSON follows."""


def is_export(content: list[Any]) -> bool:
    """Whether a JSON list is the full export: tasks with data and annotations."""
    first = content[0] if content else None
    return (
        isinstance(first, dict)
        and isinstance(first.get("data"), dict)
        and isinstance(first.get("annotations", first.get("completions")), list)
    )


def rows_of_export(content: list[Any], file: str) -> RawTable:
    """A row per annotation, with the task's data, the annotator and a column per control."""
    records: list[tuple[int, Mapping[str, Any]]] = []
    problems: list[Problem] = []
    for index, task in enumerate(content):
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(data, dict):
            message = f"The task has no data: {task!r:.60}."
            problems.append(Problem("error", "entry", message, file=file, row=index))
            continue
        done = task.get("annotations", task.get("completions")) or [{}]
        for annotation in done if isinstance(done, list) else [{}]:
            if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
                continue
            annotator = annotation.get("completed_by")
            if isinstance(annotator, dict):
                annotator = annotator.get("email") or annotator.get("id")
            results = annotation.get("result")
            controls = _controls(results if isinstance(results, list) else [])
            records.append((index, {**data, "annotator": annotator, **controls}))
    return RawTable(
        frame_of_records(records), "JSON", tuple(problems), format="label-studio",
    )  # fmt: skip


def _controls(results: Iterable[Any]) -> dict[str, Any]:
    result_values: dict[str, Any] = {}
    for result in results:
        value = result.get("value") if isinstance(result, dict) else None
        if not isinstance(value, dict):
            continue
        name = str(result.get("from_name") or result.get("type"))
        for kind in ("choices", "labels", "text", "rating", "number", "rectanglelabels"):
            if kind in value:
                result_values[name] = _single(value[kind])
                break
    return result_values


def _single(value: Any) -> Any:
    """One choice as it is; several, or none, as `SEVERAL` says."""
    if not isinstance(value, list):
        return value
    texts = [item for item in value if isinstance(item, (str, int, float))]
    return texts[0] if len(texts) == 1 else SEVERAL + json.dumps([str(text) for text in texts])


def is_table(header: Iterable[str]) -> bool:
    """Whether columns are those of the CSV or JSON-MIN export."""
    return {"annotation_id", "annotator", "lead_time"} <= {name.casefold() for name in header}


def without_prefixes(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Names of uploads as they were before the tool had them; and the columns concerned."""
    changed = []
    for name, dtype in frame.schema.items():
        if dtype != pl.String:
            continue
        values = frame[name].drop_nulls()
        head = values.head(1000)
        if len(head) and head.str.contains(r"/?data/(?:upload|local-files)/").all():
            changed.append(name)
    columns = [
        pl.col(name)
        .str.replace(_LOCAL, "")
        .str.replace(_UPLOAD, "")
        .str.replace(_UPLOAD_BARE, "")
        .str.replace_all("%20", " ", literal=True)
        for name in changed
    ]
    return frame.with_columns(columns), changed


def with_plain_choices(frame: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Cells of JSON choices, ratings and texts as plain text, or as lists of labels in columns of
    which cells hold several at once; and how many cells of which column do."""
    several: dict[str, int] = {}
    for name, dtype in frame.schema.items():
        if dtype != pl.String:
            continue
        cells = frame[name].str.strip_chars()
        coded = cells.str.contains(r"^(?:\{\"(?:choices|labels|text|rating)\"|\[\{\")")
        if coded.any():
            distinct = cells.filter(coded.fill_null(False)).unique()
            plain = {cell: _plain(cell) for cell in distinct}
            changed = cells.replace_strict(plain, default=cells, return_dtype=pl.String)
            frame = frame.with_columns(changed.alias(name))
        marked = frame[name].str.starts_with(SEVERAL).fill_null(False)
        if not marked.any():
            continue
        lists = [_choices(cell) for cell in frame[name]]
        count = sum(len(labels) > 1 for labels in lists if labels is not None)
        if count:
            several[name] = count
            frame = frame.with_columns(pl.Series(name, lists, dtype=pl.List(pl.String)))
        else:
            alone = pl.when(~marked).then(pl.col(name)).alias(name)
            frame = frame.with_columns(alone)
    return frame, several


def _choices(cell: str | None) -> list[str] | None:
    """The labels of a cell in a column of which cells hold several."""
    if cell is None or not cell.strip():
        return None
    return json.loads(cell.removeprefix(SEVERAL)) if cell.startswith(SEVERAL) else [cell.strip()]


def _plain(cell: str) -> str | None:
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list):  # of regions, each with labels of its own
        labels = [label for region in value for label in _labels_of(region)]
        return SEVERAL + json.dumps(labels) if labels else None
    if isinstance(value, dict):
        for kind in ("choices", "labels", "text", "rating"):
            if kind in value:
                single = _single(value[kind])
                return None if single is None else str(single)
    return cell


def _labels_of(region: Any) -> list[str]:
    if not isinstance(region, dict):
        return []
    kinds = ("choices", "labels", "rectanglelabels")
    lists = [region[kind] for kind in kinds if isinstance(region.get(kind), list)]
    return [str(label) for label in lists[0]] if lists else []
