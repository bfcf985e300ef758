"""The exponential moving average of the trained weights.

ema <- d ema + (1 - d) weights after every step, with d = min(decay, (1 + n) / (10 + n)) at the
n-th step (from 1), so that a short training's average is not mostly its first weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """Averages of `parameters`, beside them on their device."""

    def __init__(self, parameters: Sequence[tuple[str, nn.Parameter]], decay: float) -> None:
        self.decay = decay
        self._names = [name for name, _ in parameters]
        self._live = [parameter for _, parameter in parameters]
        self._average = [parameter.detach().clone() for parameter in self._live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step`, the number of steps made, from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._average, [p.detach() for p in self._live], 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The module has the averages as its weights inside the `with`."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def restart(self) -> None:
        """Begin anew from the weights as they are."""
        for live, average in zip(self._live, self._average, strict=True):
            average.copy_(live.detach())

    def state_dict(self) -> dict[str, Tensor]:
        return dict(zip(self._names, self._average, strict=True))

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, average in zip(self._names, self._average, strict=True):
            average.copy_(state[name])

    @torch.no_grad()
    def _swap(self) -> None:
        for live, average in zip(self._live, self._average, strict=True):
            kept = live.detach().clone()
            live.copy_(average)
            average.copy_(kept)
