"""Bytes of a table to text: which encoding, and where it breaks.

Tables arrive in UTF-8 with and without a byte order mark, UTF-16 from spreadsheets, and in what the
programs of a country write: CP949 (of which EUC-KR is a part), GB18030 (GBK, GB2312), Big5, CP932
(Shift-JIS), EUC-JP, CP1252 (Latin-1). All give the same text, with `\\n` line ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from charset_normalizer import from_bytes

from beholder.data.formats.words import beyond_latin
from beholder.errors import Problem

_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
_MOST_LISTED = 50
_SLIGHT_DAMAGE = 0.5  # of text in another encoding, UTF-8 decodes next to nothing
_CANDIDATES = ("cp949", "gb18030", "big5", "cp932", "euc_jp", "cp1252")
_SAMPLE = 24_000  # bytes that tell one encoding from another
_KNOWN_WORDS = 0.7  # of the measure of mess, if all lines have known words
_UNTIDY = 0.6  # the mess of what is too messy to be measured
_ALIKE = 0.06  # of the measure of mess, 0 to 1; readings nearer than that are as good


@dataclass(frozen=True)
class Text:
    """A decoded file. `content` holds U+FFFD where the problems say that bytes do not decode;
    `sure` is False where another encoding reads as well."""

    content: str
    encoding: str
    problems: tuple[Problem, ...]
    sure: bool = True


def read_text(path: Path, encoding: str | None = None) -> Text:
    """Decode a file.

    Args:
        encoding: a name Python knows; by default recognised from the bytes.

    Raises:
        LookupError: no such encoding.
    """
    return decode(path.read_bytes(), str(path), encoding)


def decode(data: bytes, file: str, encoding: str | None = None) -> Text:
    """Decode bytes; arguments as for `read_text`.

    Raises:
        LookupError: no such encoding.
    """
    skip, sure = 0, True
    if encoding is None:
        skip, encoding, sure = recognise_encoding(data)
    content, problems = _decode(data[skip:], encoding, skip, file)
    if not sure:
        message = (
            f"The file is read as {encoding}, which is likely, not certain. If words look wrong, "
            "say what it is (--encoding), or save it as UTF-8."
        )
        problems.append(Problem("warning", "encoding", message, file=file))
    text = content.replace("\r\n", "\n").replace("\r", "\n")
    return Text(text, encoding, tuple(problems), sure)


def recognise_encoding(data: bytes) -> tuple[int, str, bool]:
    """The length of the byte order mark, the encoding behind it, and whether that is certain.

    Without a mark: UTF-16 where the beginning holds zero bytes, as its ASCII characters do (other
    text has none), by which half of the pairs they are in; UTF-8 where it decodes, or where it
    decodes most of what is beyond ASCII (a few damaged bytes may well be valid in another encoding,
    and would be read as other words); else the one of `_CANDIDATES` that gives the tidiest text, as
    `charset-normalizer` measures it, or UTF-8 where that is less damaged than any.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return len(mark), encoding, True
    start = data[:4096]
    low, high = start[0::2].count(0), start[1::2].count(0)
    if max(low, high) >= max(3, len(start) / 50):
        return 0, "utf-16-le" if high > low else "utf-16-be", True
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        damage = _damage(data, "utf-8")
        if damage > _SLIGHT_DAMAGE:
            return 0, *_tidiest(_beyond_ascii(data), damage)
    return 0, "utf-8", True


def _beyond_ascii(data: bytes) -> bytes:
    """The lines that are not ASCII, as many as a decision needs; the first line is one of them."""
    lines: list[bytes] = []
    size = 0
    for index, line in enumerate(data.replace(b"\r", b"\n").split(b"\n")):
        if (index == 0 or not line.isascii()) and line:
            lines.append(line)
            size += len(line)
        if size > _SAMPLE:
            break
    return b"\n".join(lines)


def _tidiest(sample: bytes, utf8_damage: float) -> tuple[str, bool]:
    """The encoding that reads best, and whether no other reads as well.

    Words that columns are called by speak for an encoding in which they appear. Of those that are
    equally good, the first of `_CANDIDATES`. CP1252, as which nearly every byte decodes, is never
    certain.
    """
    ranks: list[tuple[float, int, str]] = []
    for order, encoding in enumerate(_CANDIDATES):
        damage = _damage(sample, encoding)
        if damage > _SLIGHT_DAMAGE:
            continue
        text = sample.decode(encoding, errors="replace").replace("\ufffd", "")
        match = from_bytes(text.encode(encoding), cp_isolation=[encoding], threshold=1.0).best()
        mess = damage + (match.chaos if match else _UNTIDY)
        ranks.append((mess - _KNOWN_WORDS * _lines_with_known_words(text), order, encoding))
    if not ranks or utf8_damage < min(rank[0] for rank in ranks) / 2:
        return "utf-8", True
    least = min(rank[0] for rank in ranks)
    near = sorted(rank[1:] for rank in ranks if rank[0] <= least + _ALIKE)
    encoding = near[0][-1]
    return encoding, len(near) == 1 and encoding != "cp1252"


def _lines_with_known_words(text: str) -> float:
    """Share of the lines beyond ASCII in which a word stands that columns are called by."""
    lines = [line for line in text.split("\n") if not line.isascii()]
    known = sum(beyond_latin(line[:200]) is not None for line in lines)
    return known / len(lines) if lines else 0.0


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
