"""Folders that are intact or refused: a JSON card holds the hash of every other file and its
own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from beholder.data.files import sha256_file, write_json
from beholder.errors import BeholderError, shortened
from beholder.version import __version__

_LONGEST_NAME, _UP = 200, (".", "..")


@dataclass(frozen=True)
class Seal:
    """The kind of a sealed folder.

    Args:
        card: the name of the card, e.g. `judge.json`.
        what: a word for what the folder holds.
        format: this version's format; newer ones are refused.
        error: the error to raise.
        again: how to repair a folder that is not intact.
    """

    card: str
    what: str
    format: int
    error: type[BeholderError]
    again: str

    def write(self, folder: Path, content: Mapping[str, Any]) -> None:
        """Write the card of a folder that has all of its other files already."""
        files = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
        card = {"format": self.format, "beholder": __version__, **content, "files": files}
        write_json(folder / self.card, card | {"sha256": own_hash(card)})

    def read(self, folder: Path) -> dict[str, Any]:
        """The card, after every file it names has been found unchanged.

        Raises:
            BeholderError: of the seal's kind: there is none, or it is newer, incomplete, changed.
        """
        card = self.read_card(folder)
        for name, expected in card["files"].items():
            file = folder / name
            if not file.is_file():
                raise self._refusal(f"The {self.what} lacks its file {name}.", folder)
            if sha256_file(file) != expected:
                message = f"The {self.what}'s file {name} was changed after it was written."
                raise self._refusal(message, file)
        return card

    def read_card(self, folder: Path) -> dict[str, Any]:
        """The card alone: the files that it names are not checked.

        Raises:
            BeholderError: of the seal's kind: there is none, or it is newer or changed.
        """
        path = folder / self.card
        try:
            card: dict[str, Any] = read_json(path.read_bytes())
            newer, changed = card["format"] > self.format, card.get("sha256") != own_hash(card)
            plain = all(map(_is_plain, dict(card["files"])))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self.error(
                f"There is no {self.what} here.",
                where=str(folder),
                fix=f"Name the folder that holds {self.card}.",
            ) from error
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            raise self._refusal(f"{self.card} can't be read: {_why(error)}.", path) from error
        if newer:
            raise self.error(
                f"This {self.what} was written by a newer Beholder "
                f"(format {shortened(card['format'])}).",
                where=str(path),
                fix="Update Beholder.",
            )
        if changed:
            raise self._refusal(f"{self.card} was changed after it was written.", path)
        if not plain:
            raise self._refusal(f"{self.card} names files outside of its folder.", path)
        return card

    def _refusal(self, what: str, where: Path) -> BeholderError:
        return self.error(what, where=str(where), fix=self.again)


def read_json(content: bytes) -> Any:
    """Parse JSON of a file that may be untrusted.

    NaN and Infinity are accepted: a run's metrics may have them. Schemas refuse them where it
        matters.

    Raises:
        ValueError: it is not JSON or not UTF-8, is nested too deeply, or has a number of thousands
            of digits.
    """
    try:
        return json.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _is_plain(name: str) -> bool:
    """Whether a name is that of a file in the folder itself."""
    return 0 < len(name) <= _LONGEST_NAME and not set(name) & set("/\\\0") and name not in _UP


def _why(error: Exception) -> str:
    """The error in a few words; a decoding error would show the whole content."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, (KeyError, TypeError, AttributeError)):
        return "it lacks what every card has"
    return shortened(error)


def why_invalid(error: ValidationError) -> str:
    """The first error of a schema, with its location."""
    first = error.errors(include_url=False)[0]
    return shortened(": ".join([".".join(map(str, first["loc"])), first["msg"]]).removeprefix(": "))


def own_hash(card: Mapping[str, Any]) -> str:
    """The SHA-256 of a card's content without this hash.

    Raises:
        ValueError: it is nested too deeply.
    """
    rest = {name: value for name, value in card.items() if name != "sha256"}
    try:
        return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
