"""The formats that tables of opinions come in, and the two that they are written in."""

from __future__ import annotations

from beholder.data.formats.captions import captioner_ids, write_captioner_json
from beholder.data.formats.reading import FORMATS, Scan, read_annotations, scan_annotations

__all__ = [
    "FORMATS",
    "Scan",
    "captioner_ids",
    "read_annotations",
    "scan_annotations",
    "write_captioner_json",
]
