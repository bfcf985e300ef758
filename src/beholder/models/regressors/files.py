"""A score ensemble as a folder: `ensemble.json`, `arrays.safetensors`, `<member>.txt`.

`ensemble.json` holds the hash of every other file and of itself, so that an ensemble which is
incomplete or changed is refused. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from beholder import __version__
from beholder.data.files import atomic_path, sha256_file, write_json
from beholder.errors import RegressorError
from beholder.models.regressors.member import Packed

FORMAT = 1
_CARD, _ARRAYS = "ensemble.json", "arrays.safetensors"
_AGAIN = "Fit it again, or copy it again as a whole."

Parts = tuple[dict[str, Packed], dict[str, NDArray[Any]], dict[str, dict[str, float]]]


def save_parts(
    folder: Path,
    members: dict[str, Packed],
    arrays: dict[str, NDArray[Any]],
    quality: dict[str, dict[str, float]],
) -> None:
    """Write an ensemble's members, its own arrays and its quality, atomically."""
    tensors = {f"ensemble.{name}": np.ascontiguousarray(array) for name, array in arrays.items()}
    for member, packed in members.items():
        for name, array in packed.arrays.items():
            tensors[f"{member}.{name}"] = np.ascontiguousarray(array)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        save_file(tensors, temporary / _ARRAYS)
        for member, packed in members.items():
            if packed.text is not None:
                (temporary / f"{member}.txt").write_text(packed.text, "utf-8", newline="\n")
        card = {
            "format": FORMAT,
            "beholder": __version__,
            "members": list(members),
            "quality": quality,
            "files": {path.name: sha256_file(path) for path in sorted(temporary.iterdir())},
        }
        write_json(temporary / _CARD, card | {"sha256": _own_hash(card)})


def load_parts(folder: Path) -> Parts:
    """Read what `save_parts` wrote.

    Raises:
        RegressorError: missing, incomplete, changed, or of a newer format.
    """
    card = _read_card(folder)
    tensors = load_file(folder / _ARRAYS)

    def own(prefix: str) -> dict[str, NDArray[Any]]:
        return {n.removeprefix(prefix): a for n, a in tensors.items() if n.startswith(prefix)}

    members = {}
    for name in card["members"]:
        text = folder / f"{name}.txt"
        with_text = text.read_text("utf-8") if text.name in card["files"] else None
        members[name] = Packed(own(f"{name}."), with_text)
    return members, own("ensemble."), card["quality"]


def _read_card(folder: Path) -> dict[str, Any]:
    """`ensemble.json`, after every file it names has been found unchanged."""
    path = folder / _CARD
    try:
        card: dict[str, Any] = json.loads(path.read_text("utf-8"))
        newer, files = card["format"] > FORMAT, dict(card["files"])
    except FileNotFoundError as error:
        raise RegressorError(
            "There is no score ensemble here.",
            where=str(folder),
            fix="Name the folder that holds ensemble.json.",
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise RegressorError(f"{_CARD} can't be read.", where=str(path), fix=_AGAIN) from error
    if newer:
        raise RegressorError(
            f"This ensemble was written by a newer Beholder (format {card['format']}).",
            where=str(path),
            fix="Update Beholder.",
        )
    if card.get("sha256") != _own_hash(card):
        raise RegressorError(
            f"{_CARD} was changed after it was written.", where=str(path), fix=_AGAIN
        )
    for name, expected in files.items():
        file = folder / name
        if not file.is_file() or sha256_file(file) != expected:
            state = "was changed after it was written" if file.is_file() else "is missing"
            raise RegressorError(
                f"The ensemble's file {name} {state}.", where=str(folder), fix=_AGAIN
            )
    return card


def _own_hash(card: dict[str, Any]) -> str:
    """The hash of a card, without the hash that it holds."""
    rest = {name: value for name, value in card.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
