"""Bytes of a table to text: which encoding, and where it breaks.

Tables arrive in UTF-8 with and without a byte order mark, UTF-16 from spreadsheets, and CP949 (of
which EUC-KR is a part) from Korean ones. All give the same text, with `\\n` line ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from beholder.errors import Problem

_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
_MOST_LISTED = 50
_SLIGHT_DAMAGE = 0.3  # of Korean text in CP949, UTF-8 decodes next to nothing


@dataclass(frozen=True)
class Text:
    """A decoded file. `content` holds U+FFFD where the problems say that bytes do not decode."""

    content: str
    encoding: str
    problems: tuple[Problem, ...]


def read_text(path: Path, encoding: str | None = None) -> Text:
    """Decode a file.

    Args:
        encoding: a name Python knows; by default recognised from the bytes.

    Raises:
        LookupError: no such encoding.
    """
    data = path.read_bytes()
    skip = 0
    if encoding is None:
        skip, encoding = recognise_encoding(data)
    content, problems = _decode(data[skip:], encoding, skip, str(path))
    return Text(content.replace("\r\n", "\n").replace("\r", "\n"), encoding, tuple(problems))


def recognise_encoding(data: bytes) -> tuple[int, str]:
    """The length of the byte order mark and the encoding behind it.

    Without a mark: UTF-16 where the beginning holds zero bytes, as its ASCII characters do (other
    text has none), by which half of the pairs they are in; UTF-8 where it decodes, or where it
    decodes most of what is beyond ASCII (a few damaged bytes may well be valid CP949, and would be
    read as other words); else CP949, or UTF-8 where that is less damaged.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return len(mark), encoding
    start = data[:4096]
    low, high = start[0::2].count(0), start[1::2].count(0)
    if max(low, high) >= max(3, len(start) / 50):
        return 0, "utf-16-le" if high > low else "utf-16-be"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        damage = _damage(data, "utf-8")
        if damage > _SLIGHT_DAMAGE and damage > _damage(data, "cp949"):
            return 0, "cp949"
    return 0, "utf-8"


def _damage(data: bytes, encoding: str) -> float:
    """Undecodable places per place beyond ASCII, from 0 (none) to 1 (all)."""
    text = data.decode(encoding, errors="replace")
    bad = text.count("\ufffd")
    beyond = len(text) - len(text.encode("ascii", errors="ignore"))
    return bad / max(beyond, 1)


def _decode(data: bytes, encoding: str, skipped: int, file: str) -> tuple[str, list[Problem]]:
    """Text and a problem per undecodable place, with its line and its offset in the file."""
    pieces: list[str] = []
    problems: list[Problem] = []
    position, line, places = 0, 1, 0
    while position < len(data):
        try:
            pieces.append(data[position:].decode(encoding))
            break
        except UnicodeDecodeError as error:
            good = data[position : position + error.start].decode(encoding)
            line += good.count("\n")
            pieces += [good, "\ufffd"]
            places += 1
            if places > _MOST_LISTED:
                rest = data[position + error.start :].decode(encoding, errors="replace")
                pieces.append(rest)
                break
            problems.append(_undecodable(file, encoding, data, position, error, line, skipped))
            position += error.end
    if places > _MOST_LISTED:
        message = f"More bytes do not decode as {encoding}; the first {_MOST_LISTED} are listed."
        problems.append(Problem("error", "encoding", message, file=file))
    return "".join(pieces), problems


def _undecodable(
    file: str,
    encoding: str,
    data: bytes,
    position: int,
    error: UnicodeDecodeError,
    line: int,
    skipped: int,
) -> Problem:
    bad = data[position + error.start : position + error.end].hex(" ")
    offset = skipped + position + error.start
    message = (
        f"The bytes {bad} at offset {offset} do not decode as {encoding}. "
        "Save the file as UTF-8, or name its encoding."
    )
    return Problem("error", "encoding", message, file=file, row=line)
