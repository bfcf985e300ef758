"""JSON tables of any shape to columns of text.

| shape | |
| --- | --- |
| `[{...}, ...]`, or a record per line | records |
| `{"data": [{...}]}` and the like | records, the one list of them |
| `{"images": [...], "annotations": [...]}` | COCO: captions, or a category per picture |
| `{"a.jpg": ["a caption", ...]}`, `{"a.jpg": 3.4}`, `{"a.jpg": {...}}` | by picture |
| `{"column": [...]}`, `{"column": {"0": ...}}`, `{"columns": [], "data": []}` | as pandas writes |
| `[{"data": {...}, "annotations": [{"result": [...]}]}]` | Label Studio's export |
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from beholder.data.formats.column_profile import could_be_pictures
from beholder.data.formats.delimited import ROW
from beholder.data.formats.label_studio import is_export, rows_of_export
from beholder.data.formats.raw_table import RawTable, frame_of_records, text_of
from beholder.errors import Problem

COCO_WANTS = "`images` with id and file_name, `annotations` with image_id and caption"
CAPTIONS_WANTS = "a mapping of picture to its sentence, sentences or score"
_RESERVED = {"images", "annotations", "categories", "info", "licenses", "data", "license"}
_MAX_DEPTH_MESSAGE = "The JSON is nested too deeply to be a table."


def parse_json(text: str, file: str) -> tuple[Any, bool, list[Problem]]:
    """The content of a JSON file, whether it was a value per line (then a list of `(line, value)`),
    and the problem with line and column where it breaks off."""
    try:
        return json.loads(text), False, []
    except json.JSONDecodeError as error:
        lines = _json_lines(text, file)
        if lines is not None:
            return lines[0], True, lines[1]
        message = f"The JSON breaks off at line {error.lineno}, column {error.colno}: {error.msg}."
        return None, False, [Problem("error", "json", message, file=file, row=error.lineno)]
    except (RecursionError, ValueError):
        return None, False, [Problem("error", "json", _MAX_DEPTH_MESSAGE, file=file)]


def _json_lines(text: str, file: str) -> tuple[list[tuple[int, Any]], list[Problem]] | None:
    """The values of a file with one per line; None where the first line is not a whole value."""
    values: list[tuple[int, Any]] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values.append((number, json.loads(line)))
        except (ValueError, RecursionError) as error:
            if not values:
                return None
            message = f"The line is not JSON: {str(error)[:80]}."
            problems.append(Problem("error", "json", message, file=file, row=number))
    return values, problems


def table_of_lines(values: list[tuple[int, Any]], file: str) -> RawTable:
    """JSON lines; what is not an object is a problem."""
    return _records(values, file, "JSON lines")


def table_of_json(content: Any, file: str) -> RawTable | Problem:
    """The table in the content of a JSON file; a Problem says that no shape fits."""
    if isinstance(content, list):
        if is_export(content):
            return rows_of_export(content, file)
        return _records(list(enumerate(content)), file, "JSON")
    if not isinstance(content, dict):
        return _no_shape(content, file)
    images, annotations = content.get("images"), content.get("annotations")
    if isinstance(images, list) and isinstance(annotations, list):
        return _coco(content, file)
    if isinstance(content.get("columns"), list) and isinstance(content.get("data"), list):
        columns = [str(name) for name in content["columns"]]
        rows = [dict(zip(columns, row, strict=False)) for row in content["data"] if _is_list(row)]
        return _records(list(enumerate(rows)), file, "JSON")
    lists = [value for value in content.values() if _is_list(value) and value]
    records = [value for value in lists if isinstance(value[0], dict)]
    if len(records) == 1:
        return _records(list(enumerate(records[0])), file, "JSON")
    values = list(content.values())
    by_name = could_be_pictures(list(content)) or (len(values) > 1 and not _RESERVED & set(content))
    if (
        values
        and by_name
        and all(isinstance(value, (str, int, float, list, dict)) for value in values)
    ):
        return _by_column(content, file) or _by_picture(content, file)
    return _no_shape(content, file)


def _no_shape(content: Any, file: str) -> Problem:
    held = sorted(map(str, content))[:20] if isinstance(content, dict) else type(content).__name__
    message = (
        f"The JSON holds {held}, which is not a table. Wanted: a list of records with a field for "
        f"the picture; captioner: a list of entries with img_id, split, path, captions; "
        f"coco: {COCO_WANTS}; captions: {CAPTIONS_WANTS}."
    )
    return Problem("error", "format", message, file=file)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _records(values: list[tuple[int, Any]], file: str, container: str) -> RawTable:
    problems = []
    records: list[tuple[int, Mapping[str, Any]]] = []
    for row, value in values:
        if isinstance(value, dict):
            records.append((row, value))
        else:
            message = f"The entry is not an object but {value!r:.40}."
            problems.append(Problem("error", "entry", message, file=file, row=row))
    return RawTable(frame_of_records(records), container, tuple(problems))


def _coco(content: Mapping[str, Any], file: str) -> RawTable:
    """A row per annotation, and per picture that has none. Categories by name, boxes by corners."""
    problems: list[Problem] = []
    names: dict[str, str] = {}
    for index, entry in enumerate(content["images"]):
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if isinstance(name, str) and "id" in entry:
            names[str(entry["id"])] = name
        else:
            message = f"An entry of `images` has no id and file_name: {entry!r:.60}."
            problems.append(Problem("error", "entry", message, file=file, row=index))
    categories = {
        str(entry.get("id")): text_of(entry.get("name"))
        for entry in content.get("categories") or []
        if isinstance(entry, dict)
    }
    rows: list[dict[str, Any]] = []
    for index, entry in enumerate(content["annotations"]):
        picture = names.get(str(entry.get("image_id"))) if isinstance(entry, dict) else None
        if picture is None:
            message = f"An annotation is of no picture in `images`: {entry!r:.60}."
            problems.append(Problem("error", "entry", message, file=file, row=index))
            continue
        row = {"image": picture, "comments": entry.get("caption"), ROW: index}
        if "caption" not in entry and str(entry.get("category_id")) in categories:
            row["attribute.category"] = categories[str(entry["category_id"])]
            row |= _corners(entry.get("bbox"))
        rows.append(row)
    seen = {row["image"] for row in rows}
    rows += [{"image": name, ROW: None} for name in names.values() if name not in seen]
    fields = [name for name in _COCO_FIELDS if any(row.get(name) is not None for row in rows)]
    data = {name: [text_of(row.get(name)) for row in rows] for name in fields}
    frame = pl.DataFrame(data, schema=dict.fromkeys(fields, pl.String)).with_columns(
        pl.Series(ROW, [row[ROW] for row in rows], dtype=pl.Int64)
    )
    return RawTable(
        frame, "JSON", tuple(problems), format="coco", columns={name: name for name in fields}
    )


_COCO_FIELDS = ("image", "comments", "attribute.category", "xmin", "ymin", "xmax", "ymax")


def _corners(box: Any) -> dict[str, Any]:
    """`[x, y, width, height]` as corners."""
    if not _is_list(box) or len(box) != 4 or not all(isinstance(v, (int, float)) for v in box):
        return {}
    x, y, width, height = box
    return {"xmin": x, "ymin": y, "xmax": x + width, "ymax": y + height}


def _by_column(content: Mapping[str, Any], file: str) -> RawTable | None:
    """`{column: [...]}` or `{column: {index: ...}}`, as pandas writes them: all of one length, and
    few columns beside the rows or one of lists that are no sentences."""
    values = list(content.values())
    if all(isinstance(value, dict) for value in values):
        keys = list(values[0])
        if not keys or any(list(value) != keys for value in values[1:]):
            return None
        if not all(key.isdigit() for key in keys):
            return None
        rows = [{name: column[key] for name, column in content.items()} for key in keys]
        return _records(list(enumerate(rows)), file, "JSON")
    if not all(_is_list(value) for value in values) or len({len(value) for value in values}) != 1:
        return None
    if len(values) < 2 or could_be_pictures(list(content)):
        return None
    if not any(could_be_pictures(value) for value in values):
        return None
    rows = [dict(zip(content, row, strict=True)) for row in zip(*values, strict=True)]
    return _records(list(enumerate(rows)), file, "JSON")


def _by_picture(content: Mapping[str, Any], file: str) -> RawTable:
    """`{picture: ...}`: sentences, a number, numbers, or a record of its own."""
    records: list[tuple[int, Mapping[str, Any]]] = []
    texts = False
    for index, (name, value) in enumerate(content.items()):
        if isinstance(value, dict):
            records.append((index, {"image": name, **value}))
        elif _is_text(value):
            texts = True
            records.append((index, {"image": name, "comments": value}))
        else:
            field = "score" if not isinstance(value, list) else "label"
            records.append((index, {"image": name, field: value}))
    columns = {"image": "image", "comments": "comments"} if texts else {"image": "image"}
    frame = frame_of_records(records)
    return RawTable(frame, "JSON", format="captions" if texts else None, columns=columns)


def _is_text(value: Any) -> bool:
    """A sentence, or a list of them."""
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return isinstance(value, str) and not _is_number(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
