"""The one training loop, which knows no task by name, and what it needs around it.

`TrainConfig` loads no torch; `train` does, when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from beholder.training.config import TrainConfig

if TYPE_CHECKING:
    from beholder.training.loop import TrainResult, train

__all__ = ["TrainConfig", "TrainResult", "train"]


def __getattr__(name: str) -> object:
    if name in ("train", "TrainResult"):
        return getattr(import_module("beholder.training.loop"), name)
    raise AttributeError(f"module 'beholder.training' has no attribute {name!r}")
