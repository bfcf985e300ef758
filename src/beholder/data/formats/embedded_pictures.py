"""Pictures inside a table: which columns hold them, and what each of them is called.

A column holds pictures where it has the fields `bytes` and `path`, as the images of a Hugging Face
data set, or the bytes of picture files. What is kept of a picture while a table is read is a few
words: its path, a hash of its bytes, and the ending that suits them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import polars as pl
from PIL import Image

from beholder.data.formats.column_profile import PICTURE_NAME
from beholder.data.formats.pictures import from_address
from beholder.data.keys import make_key
from beholder.data.signatures import recognise

_ENDINGS = {
    "JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tiff", "GIF": ".gif", "BMP": ".bmp",
    "HEIC": ".heic", "AVIF": ".avif", "JPEG XL": ".jxl", "JPEG 2000": ".jp2",
}  # fmt: skip
_UNKNOWN_ENDING = ".bin"
_HEAD = 32  # bytes that tell a format
_TEXT = 1000  # bytes kept of a binary column that holds no pictures
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")
_PATH, _HASH, _ENDING, _TEXT_OF = "\x00path", "\x00hash", "\x00ending", "\x00text"
_OF_IMAGES = pl.Struct({_PATH: pl.String, _HASH: pl.UInt64, _ENDING: pl.String})
_OF_BYTES = pl.Struct({_TEXT_OF: pl.String, _HASH: pl.UInt64, _ENDING: pl.String})

Picture = tuple[bytes | None, str | None]
"""The bytes and the path of a picture, each where it has them."""

_HAS_ENDING = re.compile(PICTURE_NAME)
_DRIVE = re.compile(r"^[A-Za-z]:")


def may_hold_pictures(dtype: pl.DataType) -> bool:
    """Whether a column of this type may hold pictures."""
    if isinstance(dtype, pl.Struct):
        return {"bytes", "path"} <= {field.name for field in dtype.fields}
    return dtype == pl.Binary


def without_bytes(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with marks in place of the bytes in its columns that may hold pictures."""
    marked = [_marks(c) for c in frame.iter_columns() if may_hold_pictures(c.dtype)]
    return frame.with_columns(marked)


def is_marked(column: pl.Series) -> bool:
    """Whether a column holds the marks of `without_bytes`."""
    return column.dtype in (_OF_IMAGES, _OF_BYTES)


def bytes_of(column: pl.Series) -> pl.Series:
    """The bytes of a column that holds pictures, null where a row has none."""
    if isinstance(column.dtype, pl.Struct):
        column = column.struct.field("bytes")
    return column.cast(pl.Binary)


def _marks(column: pl.Series) -> pl.Series:
    content = bytes_of(column)
    heads = content.bin.head(_HEAD).to_list()
    endings = [None if head is None else ending_of(head) for head in heads]
    ending = pl.Series(_ENDING, endings, dtype=pl.String)
    if isinstance(column.dtype, pl.Struct):
        texts = column.struct.field("path").cast(pl.String).alias(_PATH)
    else:
        starts = content.set(ending.is_not_null(), None).bin.head(_TEXT)
        texts = pl.Series(_TEXT_OF, map(_text_in, starts), dtype=pl.String)
    hashes = content.hash().set(content.is_null(), None).alias(_HASH)
    return pl.DataFrame([texts, hashes, ending]).to_struct(column.name)


def _text_in(content: bytes | None) -> str | None:
    """Text that a program wrote as bytes."""
    try:
        return None if content is None else content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def ending_of(head: bytes) -> str | None:
    """The ending of a picture file that begins with these bytes; None: it is none that is known."""
    return _ENDINGS.get(recognise(io.BytesIO(head)) or "")


def names_of(column: pl.Series) -> tuple[pl.Series, int]:
    """The names of the pictures of a column of marks, and how many there are; or, where it holds
    no pictures, its text, and 0."""
    fields = column.struct.unnest()
    has_hash = fields[_HASH].is_not_null()
    if column.dtype == _OF_BYTES:
        if fields[_ENDING].count() <= has_hash.sum() / 2:
            return fields[_TEXT_OF].alias(column.name), 0
        paths = pl.Series([None] * len(column), dtype=pl.String)
    else:
        paths = fields[_PATH]
    rows = zip(paths, fields[_HASH], fields[_ENDING], strict=True)
    names = pl.Series(column.name, list(_distinct_names(rows)), dtype=pl.String)
    return names, names.filter(has_hash).n_unique()


def notes_on(name: str, column: pl.Series, count: int) -> list[str]:
    """What to tell of a column of marks that holds `count` pictures."""
    if count:
        return [f"{count} pictures are inside the table, in {name!r}."]
    if column.dtype == _OF_IMAGES:
        return [f"{name!r} has the paths of pictures, not the pictures themselves."]
    return []


def _distinct_names(
    rows: Iterable[tuple[str | None, int | None, str | None]],
) -> Iterator[str | None]:
    """A name for every row: by its path, else by its number. The same path with the same bytes is
    one picture; with other bytes it is another, whose name has its row's number."""
    taken: dict[str, int] = {}
    names: dict[tuple[str, int], str] = {}
    for row, (path, content, ending) in enumerate(rows):
        if content is None:
            yield path
            continue
        name = _usual_name(path, ending) if path else ""
        name = name or f"{row:06d}{ending or _UNKNOWN_ENDING}"
        # file systems that ignore case must not make one of two
        same = name.casefold()
        known = names.get((same, content)) if path else None
        if known is None:
            known, number = name, row
            while known.casefold() in taken:
                stem, suffix = _split_ending(name)
                known, number = f"{stem}-{number:06d}{suffix}", number + 1
            taken[known.casefold()] = content
            names[same, content] = known
        yield known


def _usual_name(path: str, ending: str | None) -> str:
    """A path as a name that can't leave its folder."""
    if "://" in path:
        path = path.split("::", 1)[0]  # a file in an archive: zip://a.jpg::/data/all.zip
    key = _DRIVE.sub("", make_key(from_address(path)).replace("\0", ""))
    key = make_key("/".join(part for part in key.split("/") if part not in ("", ".", "..")))
    if key and ending and not _HAS_ENDING.search(key):
        key += ending
    return key


def _split_ending(name: str) -> tuple[str, str]:
    suffix = PurePosixPath(name).suffix
    return (name[: -len(suffix)], suffix) if suffix else (name, "")


def picture_in(value: Any) -> Picture | None:
    """(bytes, path) of a picture in a record of Python: `{"bytes", "path"}`, bytes, or a PIL
    picture; None: it is none of these."""
    if isinstance(value, Mapping) and {"bytes", "path"} <= set(value):
        return value["bytes"], value["path"]
    if isinstance(value, (bytes, bytearray, memoryview)):
        content = bytes(value)
        return (content, None) if ending_of(content[:_HEAD]) else None
    if isinstance(value, Image.Image):
        return _encoded(value), None
    return None


def _encoded(picture: Image.Image) -> bytes:
    """A PIL picture as a file without loss."""
    stream = io.BytesIO()
    format = "PNG" if picture.mode in _PNG_MODES else "TIFF"
    picture.save(stream, format, exif=picture.getexif())
    return stream.getvalue()


def marks_of_records(pictures: Mapping[int, Picture], rows: int) -> pl.Series:
    """A column of marks of the pictures by place."""
    content = [pictures.get(row, (None, None))[0] for row in range(rows)]
    paths = [pictures.get(row, (None, None))[1] for row in range(rows)]
    fields = {
        "bytes": pl.Series(content, dtype=pl.Binary),
        "path": pl.Series(paths, dtype=pl.String),
    }
    return _marks(pl.DataFrame(fields).to_struct(""))
