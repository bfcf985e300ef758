"""Caption tables in JSON: the published captioner's list and the Karpathy split of COCO.

The captioner's list is `[{"img_id", "split", "path", "captions"}, ...]`, its paths often absolute;
the Karpathy file is `{"images": [{"filepath", "filename", "split", "sentences": [{"raw"}]}]}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from beholder.data.annotations import AnnotationTable
from beholder.data.files import write_text
from beholder.data.formats.delimited import ROW
from beholder.data.keys import make_key
from beholder.errors import DataError, Problem

CAPTIONER_WANTS = "a list of entries with img_id, split, path, captions"
NAMES: dict[str, dict[str, str]] = {
    "captioner": {"image": "path", "split": "split", "comments": "captions"},
    "karpathy": {"image": "filename", "split": "split", "comments": "sentences[].raw"},
}
"""What the fields of the annotations are called in each of the formats."""
KARPATHY_WANTS = (
    "`images`, a list of entries with filename, split, sentences[].raw or sentences[] (and "
    "filepath)"
)

_SCHEMA: dict[str, pl.DataType] = {
    ROW: pl.Int64(),
    "image": pl.String(),
    "split": pl.String(),
    "comments": pl.List(pl.String),
}
_Parsed = tuple[str, str | None, list[str]]


class _Unusable(Exception):
    """An entry does not have what it needs: (field, sentence)."""


def recognise_json(content: Any) -> str | None:
    """ "captioner", "karpathy" or None, by the shape of the content."""
    if isinstance(content, list):
        likely = any(isinstance(entry, dict) and "captions" in entry for entry in content)
        paths = any(isinstance(entry, dict) and "path" in entry for entry in content)
        return "captioner" if likely and paths else None
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        entries = [entry for entry in content["images"] if isinstance(entry, dict)]
        if not entries or any("sentences" in entry for entry in entries):
            return None if "annotations" in content else "karpathy"
    return None


def json_rows(content: Any, format: str, file: str) -> tuple[pl.DataFrame, list[Problem]]:
    """The entries as rows (`ROW` is the index, from 0); unusable entries are problems."""
    parse: Callable[[Mapping[str, Any]], _Parsed]
    if format == "captioner":
        entries, parse = content, _captioner_entry
    else:
        entries, parse = content["images"], _karpathy_entry
    rows: list[tuple[int, str, str | None, list[str]]] = []
    problems: list[Problem] = []
    for index, entry in enumerate(entries):
        try:
            if not isinstance(entry, dict):
                raise _Unusable(None, f"The entry is not an object but {entry!r:.40}.")
            rows.append((index, *parse(entry)))
        except _Unusable as error:
            name, message = error.args
            problems.append(Problem("error", "entry", message, file=file, row=index, field=name))
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row"), problems


def captioner_ids(path: str | Path, root: str | None = None) -> dict[str, str]:
    """Image key -> `img_id` of a captioner's list, as the published feature files name pictures.

    Args:
        root: what absolute paths in the file start with.

    Raises:
        DataError: the file is not a captioner's list.
    """
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
        return {make_key(entry["path"], root): str(entry["img_id"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"The file is not a captioner's list: {error!r}.",
            where=str(path),
            fix=f"It has to be {CAPTIONER_WANTS}.",
        ) from error


def write_captioner_json(table: AnnotationTable, path: str | Path, *, root: str = "") -> None:
    """Write the captioner's list: sorted by image key, one entry per line, always the same bytes.

    `img_id` counts the entries from 0. Scores, boxes and attributes have no place in it.

    Args:
        root: put before every image key; the captioner joins no paths itself.

    Raises:
        DataError: a picture has no split; the captioner would leave it out silently.
        OutputError: the place can't be written.
    """
    unsplit = table.frame.filter(pl.col("split").is_null())["image"].to_list()
    if unsplit:
        raise DataError(
            f"{len(unsplit)} pictures have no split, e.g. {unsplit[0]}.",
            fix="Assign splits before writing the captioner's list.",
        )
    prefix = root.rstrip("/") + "/" if root else ""
    rows = table.frame.sort("image").select("image", "split", "comments").iter_rows()
    entries = [
        {"img_id": index, "split": split, "path": prefix + key, "captions": comments}
        for index, (key, split, comments) in enumerate(rows)
    ]
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    write_text(path, f"[\n{lines}\n]\n" if entries else "[]\n")


def _captioner_entry(entry: Mapping[str, Any]) -> _Parsed:
    captions = _list(entry, "captions")
    return _string(entry, "path"), _split(entry), _strings(captions, "captions")


def _karpathy_entry(entry: Mapping[str, Any]) -> _Parsed:
    name = _string(entry, "filename")
    folder = _string(entry, "filepath") if entry.get("filepath") else ""
    sentences = _list(entry, "sentences")
    if not all(isinstance(sentence, (dict, str)) for sentence in sentences):
        raise _Unusable("sentences", "A sentence is neither text nor an object.")
    texts = [text.get("raw") if isinstance(text, dict) else text for text in sentences]
    raw = _strings(texts, "sentences[].raw")
    return f"{folder}/{name}" if folder else name, _split(entry), raw


def _string(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        raise _Unusable(name, f"`{name}` is {value!r}; expected text.")
    return value


def _split(entry: Mapping[str, Any]) -> str | None:
    return None if entry.get("split") is None else _string(entry, "split")


def _list(entry: Mapping[str, Any], name: str) -> list[Any]:
    value = entry.get(name)
    if not isinstance(value, list):
        raise _Unusable(name, f"`{name}` is {value!r:.40}; expected a list.")
    return value


def _strings(values: list[Any], name: str) -> list[str]:
    for value in values:
        if not isinstance(value, str):
            raise _Unusable(name, f"`{name}` holds {value!r:.40}; expected text.")
    return values
