"""The formats that tables of opinions come in, and the two that they are written in."""

from __future__ import annotations

from beholder.data.formats.captions import captioner_ids, write_captioner_json
from beholder.data.formats.catalogue import FORMATS
from beholder.data.formats.interpreting import Scan
from beholder.data.formats.options import ReadOptions
from beholder.data.formats.reading import (
    listed_rows,
    pictures_inside,
    read_annotations,
    read_with,
    scan_annotations,
    scan_with,
    usable_table,
)
from beholder.data.formats.reading_record import Reading

__all__ = [
    "FORMATS",
    "ReadOptions",
    "Reading",
    "Scan",
    "captioner_ids",
    "listed_rows",
    "pictures_inside",
    "read_annotations",
    "read_with",
    "scan_annotations",
    "scan_with",
    "usable_table",
    "write_captioner_json",
]
