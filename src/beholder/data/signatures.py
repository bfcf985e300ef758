"""What a file is that Pillow can't open: another format, or a supported one that is cut off.

Only used to explain a failure; it does not affect pictures that open.
"""

from __future__ import annotations

import os
from typing import BinaryIO

# format -> (offset, bytes) that all have to be there; the readable ones first
_MAGIC: dict[str, tuple[tuple[int, bytes], ...]] = {
    "JPEG": ((0, b"\xff\xd8\xff"),),
    "PNG": ((0, b"\x89PNG\r\n\x1a\n"),),
    "WEBP": ((0, b"RIFF"), (8, b"WEBP")),
    "TIFF": ((0, b"II*\0"),),
    "TIFF (big-endian)": ((0, b"MM\0*"),),
    "GIF": ((0, b"GIF8"),),
    "AVIF": ((4, b"ftypavi"),),
    "HEIC": ((4, b"ftyp"),),
    "JPEG XL": ((0, b"\xff\x0a"),),
    "JPEG XL (container)": ((4, b"JXL \r\n"),),
    "JPEG 2000": ((4, b"jP  \r\n"),),
    "Photoshop": ((0, b"8BPS"),),
    "PDF": ((0, b"%PDF"),),
    "PostScript": ((0, b"%!PS"),),
    "SVG": ((0, b"<svg"),),
    "Icon": ((0, b"\0\0\1\0"),),
    "PPM": ((0, b"P6"),),
    "PGM": ((0, b"P5"),),
    "OpenEXR": ((0, b"\x76\x2f\x31\x01"),),
    "BMP": ((0, b"BM"),),
}
_TAIL = 65536


def recognise(stream: BinaryIO) -> str | None:
    """The format that the first bytes announce, e.g. "JPEG" or "HEIC"; None if unknown."""
    stream.seek(0)
    head = stream.read(32)
    for name, marks in _MAGIC.items():
        if all(head[offset : offset + len(mark)] == mark for offset, mark in marks):
            return name.split(" (")[0]
    return None


def is_cut_off(name: str, stream: BinaryIO) -> bool:
    """Whether a file of the format `name` ends before its own end mark or announced length."""
    length = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(32)
    stream.seek(max(0, length - _TAIL))
    tail = stream.read()
    if name == "JPEG":
        return b"\xff\xd9" not in tail
    if name == "PNG":
        return b"IEND" not in tail
    if name == "GIF":
        return b";" not in tail[-16:]
    if name == "WEBP":
        return length < 8 + int.from_bytes(head[4:8], "little")
    if name == "BMP":
        return length < int.from_bytes(head[2:6], "little")
    if name == "TIFF":
        first_directory = head[4:8] if head[:2] == b"MM" else head[4:8][::-1]
        return length < 8 or length <= int.from_bytes(first_directory, "big")
    return False
