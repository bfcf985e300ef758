"""Beam search, sampling, ensembles.

Importing this package loads no torch: `search` runs over any step with numpy alone, and the
functions for PyTorch models are resolved when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from beholder.decoding.beam import Step, search
from beholder.decoding.hypothesis import Hypothesis
from beholder.errors import MissingExtra

if TYPE_CHECKING:
    from beholder.decoding.torch_decode import beam_search, sample, sample_memory

__all__ = ["Hypothesis", "Step", "beam_search", "sample", "sample_memory", "search"]

_TORCH = ("beam_search", "sample", "sample_memory")


def __getattr__(name: str) -> object:
    if name not in _TORCH:
        raise AttributeError(f"module 'beholder.decoding' has no attribute {name!r}")
    try:
        return getattr(import_module("beholder.decoding.torch_decode"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra("Decoding with PyTorch", "train") from error
