"""METEOR's language data, read from the user's installed pycocoevalcap package.

Function words, non-breaking prefixes, synonym sets and exceptions lie in `meteor-1.5.jar` (a zip
file), the paraphrase table beside it. The first use writes them as sorted arrays to the user's
cache folder; later uses map those files into memory. Nothing is run and nothing is downloaded.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from beholder.data.files import atomic_path, write_json
from beholder.errors import BeholderError, OutputError
from beholder.metrics.captions.meteor.word_forms import base_candidates

log = logging.getLogger("beholder")

_FORMAT = 1
_SHIFT = np.uint64(32)
_LINES_AT_ONCE = 300_000
# names of the arrays, as fields and as files
_SYNONYMS = ("words", "word_sets", "sets")
_EXCEPTIONS = ("inflected", "base_of", "bases")
_PARAPHRASES = ("phrases", "pairs")
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class MeteorData:
    """The tables, as arrays that are searched by the hash of a word or phrase.

    Args:
        function_words: words that count less.
        prefixes: words after which a full stop does not end a sentence.
        words, word_sets, sets: hash of each word, where its synonym sets start, their numbers.
        inflected, base_of, bases: hash of each irregular form, where its base forms start, and
            their hashes.
        phrases: sorted hashes of all phrases of the paraphrase table.
        pairs: sorted (number of a phrase << 32 | number of its paraphrase).
        longest: words of the longest phrase.
    """

    function_words: frozenset[str]
    prefixes: frozenset[str]
    words: Hashes
    word_sets: NDArray[np.int64]
    sets: NDArray[np.int64]
    inflected: Hashes
    base_of: NDArray[np.int64]
    bases: Hashes
    phrases: Hashes
    pairs: Hashes
    longest: int

    def synonyms(self, word: str) -> frozenset[int]:
        """Numbers of the synonym sets of a word and of its base forms."""
        numbers = self._sets(_hash(word))
        forms = self._bases(word)
        if forms is not None:
            return frozenset([*numbers, *(number for form in forms for number in self._sets(form))])
        for candidates in base_candidates(word):
            known = filter(None, (self._sets(_hash(candidate)) for candidate in candidates))
            numbers += next(known, [])
        return frozenset(numbers)

    def phrase_number(self, phrase: str) -> int | None:
        """The number of a phrase (words joined by spaces) in the paraphrase table."""
        return _find(self.phrases, _hash(phrase))

    def paraphrases(self, first: Sequence[int], second: Sequence[int]) -> NDArray[np.bool_]:
        """[F, S]: whether the table lists the second phrase for the first."""
        rows = np.asarray(first, dtype=np.uint64)[:, None] << _SHIFT
        wanted = rows | np.asarray(second, dtype=np.uint64)[None]
        position = np.searchsorted(self.pairs, wanted)
        position[position == len(self.pairs)] = 0
        return np.asarray(self.pairs[position] == wanted)

    def _sets(self, word: int) -> list[int]:
        row = _find(self.words, word)
        if row is None:
            return []
        return self.sets[self.word_sets[row] : self.word_sets[row + 1]].tolist()

    def _bases(self, word: str) -> list[int] | None:
        row = _find(self.inflected, _hash(word))
        if row is None:
            return None
        return self.bases[self.base_of[row] : self.base_of[row + 1]].tolist()


def _find(hashes: Hashes, value: int) -> int | None:
    row = int(np.searchsorted(hashes, np.uint64(value)))
    return row if row < len(hashes) and int(hashes[row]) == value else None


def _hash(text: str) -> int:
    # 64 bits: among a million phrases an accidental match is less likely than 1 in 10^7 look-ups
    return _hash_bytes(text.encode())


def _hash_bytes(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


@lru_cache(maxsize=1)
def meteor_data() -> MeteorData:
    """The data of the installed package; the first call ever prepares them, for all processes to
    come if the user's cache can be written.

    Raises:
        BeholderError: pycocoevalcap is not installed, or lacks METEOR's files.
    """
    jar, table = _sources()
    name = f"meteor-{_fingerprint(jar, table)}"
    folder = _cache_folder() / name
    try:
        _prepare(jar, table, folder)
    except OutputError as error:
        log.warning("METEOR's data are prepared for this time only. %s", error.what)
        # mapped into memory, they outlive their folder
        with TemporaryDirectory(ignore_cleanup_errors=True) as elsewhere:
            _prepare(jar, table, Path(elsewhere) / name)
            return _load(Path(elsewhere) / name)
    return _load(folder)


def _prepare(jar: Path, table: Path, folder: Path) -> None:
    if not (folder / "done.json").exists():
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            _build(jar, table, temporary)


def _sources() -> tuple[Path, Path]:
    spec = find_spec("pycocoevalcap")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        jar = Path(folder) / "meteor" / "meteor-1.5.jar"
        table = Path(folder) / "meteor" / "data" / "paraphrase-en.gz"
        if jar.exists() and table.exists():
            return jar, table
    raise BeholderError(
        "METEOR needs the synonyms and paraphrases that come with the pycocoevalcap package"
        + (", whose files are incomplete here." if folders else ", which is not installed."),
        fix="pip install pycocoevalcap (no Java needed), or leave METEOR out of `metrics`; "
        "every other metric works without it.",
    )


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "beholder"


def _fingerprint(*paths: Path) -> str:
    """Names the cache: another version of the package or of this file makes another one."""
    seed = [str(_FORMAT), *(f"{path.name}:{path.stat().st_size}" for path in paths)]
    return hashlib.sha256("|".join(seed).encode()).hexdigest()[:16]


def _build(jar: Path, table: Path, folder: Path) -> None:
    with zipfile.ZipFile(jar) as archive:

        def lines(name: str) -> list[str]:
            return archive.read(name).decode("utf-8").splitlines()

        prefixes = [line for line in lines("nonbreaking/english.prefixes") if line[:1] != "#"]
        words = {
            "function_words": lines("function/english.words"),
            "prefixes": [line for line in prefixes if line.strip() and "#" not in line],
        }
        synsets, exceptions = lines("synonym/english.synsets"), lines("synonym/english.exceptions")
    word_lists = {
        _hash(word): [int(number) for number in numbers.split()]
        for word, numbers in zip(synsets[::2], synsets[1::2], strict=True)
    }
    _save_lists(folder, _SYNONYMS, word_lists, np.int64)
    base_lists: dict[int, list[int]] = {}
    for base, forms in zip(exceptions[::2], exceptions[1::2], strict=True):
        for form in forms.split():
            base_lists.setdefault(_hash(form), []).append(_hash(base))
    _save_lists(folder, _EXCEPTIONS, base_lists, np.uint64)
    longest = _save_paraphrases(folder, table)
    write_json(folder / "done.json", {**words, "longest": longest})


def _save_lists(
    folder: Path, names: Sequence[str], lists: dict[int, list[int]], kind: type
) -> None:
    keys = sorted(lists)
    starts = np.cumsum([0, *(len(lists[key]) for key in keys)], dtype=np.int64)
    items: NDArray = np.array([item for key in keys for item in lists[key]], dtype=kind)
    _save(folder, dict(zip(names, (np.array(keys, dtype=np.uint64), starts, items), strict=True)))


def _save_paraphrases(folder: Path, table: Path) -> int:
    """The table holds three lines per pair: probability, phrase, paraphrase."""
    numbers: defaultdict[bytes, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    pairs = []
    with gzip.open(table, "rb") as stream:
        while lines := list(islice(stream, _LINES_AT_ONCE)):
            chosen = [
                np.fromiter(map(numbers.__getitem__, lines[row::3]), np.int64) for row in (1, 2)
            ]
            pairs.append(np.stack(chosen))
    first, second = np.concatenate(pairs, axis=1)
    phrases = [line.rstrip(b"\n") for line in numbers]
    hashes = np.fromiter(map(_hash_bytes, phrases), dtype=np.uint64, count=len(phrases))
    order = np.argsort(hashes)
    rank = np.empty(len(order), dtype=np.uint64)
    rank[order] = np.arange(len(order), dtype=np.uint64)
    pairs_of_ranks = np.unique((rank[first] << _SHIFT) | rank[second])
    _save(folder, dict(zip(_PARAPHRASES, (hashes[order], pairs_of_ranks), strict=True)))
    return max(phrase.count(b" ") for phrase in phrases) + 1


def _save(folder: Path, arrays: dict[str, NDArray]) -> None:
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values, allow_pickle=False)


def _load(folder: Path) -> MeteorData:
    words = json.loads((folder / "done.json").read_text(encoding="utf-8"))
    return MeteorData(
        function_words=frozenset(words["function_words"]),
        prefixes=frozenset(words["prefixes"]),
        longest=words["longest"],
        **{
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in (*_SYNONYMS, *_EXCEPTIONS, *_PARAPHRASES)
        },
    )
