"""The exponential moving average of the trained weights and of batch norms' statistics.

ema <- d ema + (1 - d) weights after every step, with d = min(decay, (1 + n) / (10 + n)) at the
n-th step (from 1), so that a short training's average is not mostly its first weights. The means
and variances of batch norms that move are averaged alike: those of the newest weights do not fit
averaged ones.

Not torch's `AveragedModel`: docs/decisions.md says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """Averages of `tensors` (name, and parameter or statistic), beside them on their device."""

    def __init__(self, tensors: Sequence[tuple[str, Tensor]], decay: float) -> None:
        self.decay = decay
        self._names = [name for name, _ in tensors]
        self._live = [tensor.detach() for _, tensor in tensors]
        self._average = [live.clone() for live in self._live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step`, the number of steps made, from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._average, self._live, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The module has the averages as its weights inside the `with`."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def restart(self) -> None:
        """Start again from the weights as they are."""
        for live, average in zip(self._live, self._average, strict=True):
            average.copy_(live)

    def state_dict(self) -> dict[str, Tensor]:
        return dict(zip(self._names, self._average, strict=True))

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load averages; those that `state` lacks (statistics, in older checkpoints) start again
        from the module's values."""
        for name, live, average in zip(self._names, self._live, self._average, strict=True):
            average.copy_(state.get(name, live))

    @torch.no_grad()
    def _swap(self) -> None:
        for live, average in zip(self._live, self._average, strict=True):
            kept = live.clone()
            live.copy_(average)
            average.copy_(kept)


def moving_statistics(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Means and variances that batch norms in training mode move, by name in the state_dict."""
    return [
        (f"{name}.{kind}" if name else kind, statistic)
        for name, part in module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training
        for kind, statistic in part.named_buffers(recurse=False)
        if kind in ("running_mean", "running_var")
    ]
