"""Folders that are whole or refused: a JSON card holds the hash of every other file and its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beholder import __version__
from beholder.data.files import sha256_file, write_json
from beholder.errors import BeholderError


@dataclass(frozen=True)
class Seal:
    """What is kept in folders of one kind.

    Args:
        card: the name of the card, e.g. `judge.json`.
        what: a word for what the folder holds.
        format: of this version; newer ones are refused.
        error: what is raised.
        again: how to mend a folder that is not whole.
    """

    card: str
    what: str
    format: int
    error: type[BeholderError]
    again: str

    def write(self, folder: Path, content: Mapping[str, Any]) -> None:
        """Write the card of a folder, which holds all of its other files already."""
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
                told = f"The {self.what}'s file {name} was changed after it was written."
                raise self._refusal(told, file)
        return card

    def read_card(self, folder: Path) -> dict[str, Any]:
        """The card alone: the files that it names are not looked at.

        Raises:
            BeholderError: of the seal's kind: there is none, or it is newer or changed.
        """
        path = folder / self.card
        try:
            card: dict[str, Any] = json.loads(path.read_text("utf-8"))
            newer, _ = card["format"] > self.format, dict(card["files"])
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self.error(
                f"There is no {self.what} here.",
                where=str(folder),
                fix=f"Name the folder that holds {self.card}.",
            ) from error
        except (ValueError, TypeError, KeyError) as error:
            raise self._refusal(f"{self.card} can't be read.", path) from error
        if newer:
            raise self.error(
                f"This {self.what} was written by a newer Beholder (format {card['format']}).",
                where=str(path),
                fix="Update Beholder.",
            )
        if card.get("sha256") != own_hash(card):
            raise self._refusal(f"{self.card} was changed after it was written.", path)
        return card

    def _refusal(self, what: str, where: Path) -> BeholderError:
        return self.error(what, where=str(where), fix=self.again)


def own_hash(card: Mapping[str, Any]) -> str:
    """The SHA-256 of a card over all that it says but this hash."""
    rest = {name: value for name, value in card.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
