"""English sentences of real prose, from the documentation that lies on the machine.

Used only while a test runs; nothing of it is kept. Sources: package documentation and licences,
man pages, package descriptions, docstrings of installed Python packages.
"""

from __future__ import annotations

import ast
import gzip
import re
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

_SENTENCE_END = re.compile(r"(?<=[.!?])['\")\]]*\s+(?=['\"(\[]?[A-Z])")
_TROFF = re.compile(r"\\f[A-Z]|\\f\([A-Z]{2}|\\f\[[A-Z]*\]|\\&|\\[|^]|\\s[-+]?\d|\\/|\\,")
_TROFF_WORDS = {
    r"\-": "-", r"\(em": "—", r"\(en": "–", r"\(aq": "'", r"\(lq": "“", r"\(rq": "”",
    r"\(cq": "’", r"\(oq": "‘", r"\(bu": "•", r"\e": "\\", r"\ ": " ", r"\~": " ",
}  # fmt: skip
_MAX_FILE = 3_000_000


def sentences(limit: int) -> list[str]:
    """Up to `limit` distinct sentences, in an order that depends on the files alone."""
    distinct: dict[str, None] = {}
    for paragraph in _paragraphs():
        for sentence in _SENTENCE_END.split(" ".join(paragraph.split())):
            if _is_prose(sentence):
                distinct[sentence] = None
        if len(distinct) >= limit:
            break
    return list(distinct)[:limit]


def _is_prose(text: str) -> bool:
    words = text.split()
    if not 5 <= len(words) <= 60 or text[-1] not in ".!?" or not re.match(r"['\"(\[]?[A-Z]", text):
        return False
    if not text.isprintable():  # control characters and line separators: not prose
        return False
    plain = sum(word.strip(".,;:!?()'\"").isalpha() for word in words)
    return plain >= 0.7 * len(words) and bool(
        {"the", "a", "of", "to", "is", "and", "in", "for", "be", "you"} & set(words)
    )


def _paragraphs() -> Iterator[str]:
    """Paragraphs of all sources in turn, so that any limit holds a mixture."""
    streams = [_docs(), _man_pages(), _docstrings(), _descriptions()]
    while streams:
        for stream in list(streams):
            some = list(islice(stream, 200))
            yield from some
            if not some:
                streams.remove(stream)


def _docs() -> Iterator[str]:
    places = [Path("/usr/share/doc"), Path("/usr/share/common-licenses"), Path("/usr/share/perl")]
    packages = Path(sysconfig.get_paths()["purelib"])
    for folder in [*places, packages]:
        suffixes = {".txt", ".md", ".rst", ".gz", ".html", "", ".pod", ".pm"}
        for path in sorted(folder.rglob("*")):
            is_prose = path.suffix in suffixes and not path.name.startswith("changelog")
            if path.is_file() and not path.is_symlink() and is_prose:
                text = _read(path)
                if text.lstrip().startswith("<"):
                    text = re.sub(r"<[^>]*>", "", text)
                yield from re.split(r"\n\s*\n|\n\s*[-*•#>|]\s", text)


def _man_pages() -> Iterator[str]:
    for path in sorted(Path("/usr/share/man").glob("man*/*.gz")):
        lines: list[str] = []
        for line in _read(path).splitlines():
            if line.startswith((".", "'")):
                macro = line.split(" ", 1)
                if macro[0] in (".B", ".I", ".BR", ".IR", ".RB", ".RI") and len(macro) == 2:
                    parts = macro[1].replace('"', "").split()
                    joint = "" if len(macro[0]) == 3 else " "
                    lines.append(joint.join(parts))
                    continue
                yield _plain_troff(" ".join(lines))
                lines = []
            else:
                lines.append(line)
        yield _plain_troff(" ".join(lines))


def _plain_troff(text: str) -> str:
    for code, sign in _TROFF_WORDS.items():
        text = text.replace(code, sign)
    return _TROFF.sub("", text)


def _docstrings() -> Iterator[str]:
    paths = sysconfig.get_paths()
    for folder in (paths["stdlib"], paths["purelib"]):
        for path in sorted(Path(folder).rglob("*.py")):
            try:
                tree = ast.parse(_read(path))
            except (SyntaxError, ValueError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    yield from re.split(r"\n\s*\n", ast.get_docstring(node) or "")


def _descriptions() -> Iterator[str]:
    status = Path("/var/lib/dpkg/status")
    if status.exists():
        for entry in status.read_text(encoding="utf-8").split("\n\n"):
            text = entry.partition("\nDescription:")[2]
            yield from re.split(r"\n \.\n", text)


def _read(path: Path) -> str:
    if path.stat().st_size > _MAX_FILE:
        return ""
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (gzip.BadGzipFile, EOFError):
            return ""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return ""
