"""From a table to a judge in one call: what is learnt, from which features, and how good it is."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beholder.auto.run import Trained, train

__all__ = ["Trained", "train"]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("beholder.auto.run"), name)
    raise AttributeError(f"module 'beholder.auto' has no attribute {name!r}")
