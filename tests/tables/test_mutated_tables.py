"""Any bytes are a table or problems: the given tables, damaged in every way a file gets damaged."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from beholder.data.formats import scan_annotations
from beholder.errors import BeholderError

DATA = Path(__file__).parent / "data"
SOURCES = sorted(path for path in DATA.iterdir() if path.is_file())
SIGNS = [b",", b";", b"\t", b"|", b'"', b"'", b"\n", b"\r", b"\0", b"[", b"]", b"{", b"}", b"\\"]
SIGNS += [b"nan", b"-1", b"1e999", b"\xff", b"\xef\xbb\xbf", b"\xb0\xa1", "\u2028".encode(), b"#"]
SIGNS += [b"image", b"score", b"column1", b"sep=", b"=", b"../", b"http://", b" ", b"9" * 400]


def mutated(content: bytes, chance: random.Random) -> bytes:
    """One to six changes: cut, repeat, swap, insert, overwrite, re-encode, blow up a line."""
    for _ in range(chance.randint(1, 6)):
        position = chance.randrange(len(content) + 1)
        length = chance.choice([1, 3, 20, 200])
        kind = chance.randrange(8)
        part = content[position : position + length]
        if kind == 0:
            content = content[:position] + content[position + length :]
        elif kind == 1:
            content = content[:position] + part * chance.choice([2, 3, 30]) + content[position:]
        elif kind == 2:
            content = content[position:] + content[:position]
        elif kind in (3, 4):
            content = content[:position] + chance.choice(SIGNS) + content[position:]
        elif kind == 5:
            content = (
                content[:position] + chance.randbytes(len(part)) + content[position + length :]
            )
        elif kind == 6:
            lines = content.split(b"\n")
            chance.shuffle(lines)
            content = b"\n".join(lines)
        else:
            text = content.decode("utf-8", errors="replace")
            encoding = chance.choice(["utf-16", "utf-8-sig", "cp949", "gb18030", "shift_jis"])
            content = text.encode(encoding, errors="replace")
    return content


def read_any(path: Path) -> None:
    """No exception but a user's error, and either a table or an error."""
    try:
        scan = scan_annotations(path, images=DATA / "pictures")
    except BeholderError:
        return
    assert scan.table is not None or any(p.severity == "error" for p in scan.problems)
    scan.read.to_dict()
    scan.read.lines()


def run(count: int, seed: int, folder: Path) -> None:
    chance = random.Random(seed)
    for number in range(count):
        source = SOURCES[number % len(SOURCES)]
        content = mutated(source.read_bytes(), chance)
        path = folder / f"{number}{source.suffix}"
        path.write_bytes(content)
        try:
            read_any(path)
        except Exception as error:
            error.add_note(f"seed {seed}, number {number}, {source.name}: {content[:300]!r}")
            raise
        path.unlink()


def test_damaged_tables_give_no_traceback(tmp_path: Path) -> None:
    run(2 * len(SOURCES), 0, tmp_path)


@pytest.mark.slow
def test_two_thousand_damaged_tables_give_no_traceback(tmp_path: Path) -> None:
    run(2000, 1, tmp_path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"MATLAB 5.0 MAT-file, Platform", "MATLAB"),
        (b"\x93NUMPY\x01\x00", "NumPy"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00", "pickle"),
        (b"<!-- x --><html><body></body></html>", "web page"),
        (b"PK\x03\x04 something.csv", "ZIP"),
        (b"\x89PNG\r\n\x1a\n", "picture"),
        (b"<?xml version='1.0'?><annotation></annotation>", "XML"),
        (b"text,label\nI liked this film,pos\nIt was not good,neg\n" * 3, "texts"),
    ],
)
def test_what_is_no_table_of_pictures_is_named(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    scan = scan_annotations(path)
    assert kind in "\n".join(map(str, scan.problems))
