"""Verdicts that were written before, by `beholder batch` or `beholder judge`, against a table.

JSON lines, a folder of Parquet parts or one Parquet file, and CSV are read, in the columns of
`judge.row` or of the version before it. A picture of the table without a verdict is a failure.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from beholder.data.annotations import AnnotationTable
from beholder.data.keys import make_key
from beholder.data.labels import split_labels
from beholder.errors import DataError, shortened
from beholder.evaluation.evaluate import Evaluation, compare_verdicts
from beholder.judge.row import LABEL, PROBABILITY, parse_row
from beholder.judge.verdict import Attribute, Failure, Judged, Verdict

UNJUDGED = "unjudged"


def compare_stored(path: Path, table: AnnotationTable, root: Path) -> Evaluation:
    """Compare a file of verdicts with the opinions that a table gives.

    Args:
        root: folder that the table's image keys start from: the verdicts' names may start with it.

    Raises:
        DataError: the file can't be read, or has no verdict on a picture of the table.
    """
    if len(table) == 0:
        raise DataError("There is no row to evaluate on.", fix="Choose another table or split.")
    keys = set(table.keys)
    known: dict[str, Judged] = {}
    for judged in read_verdicts(path):
        key = _key_of(judged.image, root, keys)
        known[key] = replace(judged, image=key)
    judged_rows = [
        known.get(key) or Failure(key, UNJUDGED, "The file has no verdict on it.")
        for key in table.keys
    ]
    verdicts = [entry for entry in judged_rows if isinstance(entry, Verdict)]
    if not verdicts:
        raise DataError(
            "The file has no verdict on any picture of the table.",
            where=str(path),
            fix="Name the folder of the pictures with --images: names are compared below it.",
        )
    classes = classes_of(verdicts, table)
    several = {
        name
        for name in classes
        if name in table.multi_label
        or any(v.attributes[name].multi_label for v in verdicts if name in v.attributes)
    }
    judged_rows = [_with_several(judged, several) for judged in judged_rows]
    return compare_verdicts(judged_rows, table, classes, multi_label=several)


def _with_several(judged: Judged, several: Collection[str]) -> Judged:
    """A verdict whose attributes of these names have several labels, which a row with one label
    does not tell."""
    if not isinstance(judged, Verdict):
        return judged
    attributes = {
        name: Attribute.of_several(split_labels(attribute.label), attribute.probabilities)
        if name in several and not attribute.multi_label
        else attribute
        for name, attribute in judged.attributes.items()
    }
    return replace(judged, attributes=attributes)


def has_verdicts(path: Path, table: AnnotationTable, root: Path) -> bool:
    """Whether a file says anything of a table's pictures, or at least why not.

    Raises:
        DataError: the file can't be read.
    """
    keys = set(table.keys)
    return any(_key_of(judged.image, root, keys) in keys for judged in read_verdicts(path))


def classes_of(verdicts: list[Verdict], table: AnnotationTable) -> dict[str, tuple[str, ...]]:
    """Attribute -> the labels that verdicts know, in the table's order where it has them."""
    labels: dict[str, dict[str, None]] = {}
    for verdict in verdicts:
        for name, attribute in verdict.attributes.items():
            labels.setdefault(name, {}).update(dict.fromkeys(attribute.probabilities))
    classes = {}
    for name, known in labels.items():
        ordered = [label for label in table.classes.get(name, ()) if label in known]
        classes[name] = (*ordered, *sorted(known.keys() - set(ordered)))
    return classes


def read_verdicts(path: Path) -> Iterator[Judged]:
    """The verdicts and failures of a file, in its order.

    Raises:
        DataError: it is missing, of another kind, or a row is none of a verdict.
    """
    if not path.exists():
        raise DataError("There is no file of verdicts here.", where=str(path))
    number = 1
    try:
        for row in _rows(path):
            yield parse_row(_of_today(row))
            number += 1
    except (KeyError, TypeError, ValueError, OSError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"Row {number} is not a verdict: {shortened(repr(error), 100)}.",
            where=str(path),
            fix="Name a file that beholder batch or beholder judge wrote (.jsonl, .parquet, .csv).",
        ) from error


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".parquet" or path.is_dir():
        parts = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
        for part in parts:
            yield from pl.read_parquet(part).iter_rows(named=True)
    elif path.suffix == ".csv":
        csv.field_size_limit(sys.maxsize)
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from csv.DictReader(stream)
    else:
        with path.open(encoding="utf-8") as stream:
            for line in stream:
                try:
                    yield json.loads(line)
                except ValueError:
                    if line.endswith("\n"):
                        raise
                    return  # the work was stopped while it wrote the line


def _of_today(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of Parquet as the version before wrote it, in the columns of today."""
    if "error_code" not in row:
        return row
    today = {}
    for column, value in row.items():
        if column.startswith("attribute."):
            today[LABEL + column.removeprefix("attribute.")] = value
        elif column.startswith(PROBABILITY) or column not in ("error", "error_code"):
            today[column] = value
    if row["error_code"] is not None:
        today["error"] = {"code": row["error_code"], "message": row["error"]}
    return today


def _key_of(name: str, root: Path, keys: set[str]) -> str:
    """The image key of a verdict's name: it is a key, or a path below the root."""
    key = make_key(name, str(root))
    return key if key in keys else make_key(str(Path(name).absolute()), str(root.absolute()))
