"""In which number type a judge's weights are stored.

Only matrices are narrowed: norms, biases and the statistics that inputs are standardised with are
a few kilobytes, and reach further than half precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from beholder.errors import JudgeError

NumberType = Literal["float32", "float16"]


def stored_as(state: Mapping[str, Tensor], dtype: NumberType) -> dict[str, Tensor]:
    """The tensors as they are stored; loading them widens them again.

    Raises:
        JudgeError: a weight is beyond what float16 can hold.
    """
    stored = narrowed(state, dtype)
    for name, tensor in stored.items():
        if tensor is not state[name] and tensor.isinf().any() and not state[name].isinf().any():
            raise JudgeError(
                "A weight is beyond what float16 can hold (65504).",
                where=name,
                fix="Store the judge as float32.",
            )
    return stored


def narrowed(state: Mapping[str, Tensor], dtype: NumberType) -> dict[str, Tensor]:
    """The same, whether or not the weights fit: for tensors that hold no numbers yet."""
    if dtype == "float32":
        return dict(state)
    return {name: _half(tensor) for name, tensor in state.items()}


def is_matrix(tensor: Tensor) -> bool:
    """Whether a tensor is one of those that are narrowed."""
    return tensor.ndim >= 2 and tensor.dtype == torch.float32


def _half(tensor: Tensor) -> Tensor:
    return tensor.half() if is_matrix(tensor) else tensor
