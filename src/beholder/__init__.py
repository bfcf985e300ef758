"""Beholder: score, comment and attributes of a picture, as people would give them.

    from beholder import Judge
    verdict = Judge.load("runs/demo/judge")("photo.jpg")

Importing this package loads nothing heavy: names are resolved when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from beholder.version import __version__

if TYPE_CHECKING:
    from beholder.auto import train
    from beholder.judge import Judge
    from beholder.judge.verdict import Attribute, Verdict

__all__ = ["Attribute", "Judge", "Verdict", "__version__", "train"]

_HOMES = {
    "Judge": "beholder.judge",
    "Verdict": "beholder.judge.verdict",
    "Attribute": "beholder.judge.verdict",
    "train": "beholder.auto",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'beholder' has no attribute {name!r}")
