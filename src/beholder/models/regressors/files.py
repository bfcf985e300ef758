"""A score ensemble as a folder: `ensemble.json`, `arrays.safetensors`, `<member>.txt`.

`ensemble.json` holds the hash of every other file and of itself, so that an ensemble which is
incomplete or changed is refused. Nothing is pickled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beholder.data.files import atomic_path
from beholder.data.sealed import Seal
from beholder.errors import RegressorError, shortened
from beholder.models.regressors.members import Learnt

FORMAT = 1
_CARD, _ARRAYS = "ensemble.json", "arrays.safetensors"
_SEAL = Seal(
    _CARD, "score ensemble", FORMAT, RegressorError, "Fit it again, or copy it again as a whole."
)

Parts = tuple[dict[str, Learnt], dict[str, NDArray[Any]], dict[str, dict[str, float]]]


def save_parts(
    folder: Path,
    members: dict[str, Learnt],
    arrays: dict[str, NDArray[Any]],
    quality: dict[str, dict[str, float]],
) -> None:
    """Write an ensemble's members, its own arrays and its quality, atomically."""
    from safetensors.numpy import save_file

    tensors = {f"ensemble.{name}": np.ascontiguousarray(array) for name, array in arrays.items()}
    for member, learnt in members.items():
        for name, array in learnt.arrays.items():
            tensors[f"{member}.{name}"] = np.ascontiguousarray(array)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        save_file(tensors, temporary / _ARRAYS)
        for member, learnt in members.items():
            if learnt.text is not None:
                (temporary / f"{member}.txt").write_text(learnt.text, "utf-8", newline="\n")
        _SEAL.write(temporary, {"members": list(members), "quality": quality})


def load_parts(folder: Path) -> Parts:
    """Read what `save_parts` wrote.

    Raises:
        RegressorError: missing, incomplete, changed, or of a newer format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    card = _SEAL.read(folder)
    try:
        tensors = load_file(folder / _ARRAYS)
        known = {member: f"{member}.txt" in card["files"] for member in card["members"]}
        quality = dict(card["quality"])
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise RegressorError(
            f"The score ensemble can't be read: {shortened(error)}.",
            where=str(folder),
            fix=_SEAL.again,
        ) from error

    def with_prefix(prefix: str) -> dict[str, NDArray[Any]]:
        return {n.removeprefix(prefix): a for n, a in tensors.items() if n.startswith(prefix)}

    members = {}
    for name, has_text in known.items():
        text = (folder / f"{name}.txt").read_text("utf-8") if has_text else None
        members[name] = Learnt(with_prefix(f"{name}."), text)
    return members, with_prefix("ensemble."), quality
