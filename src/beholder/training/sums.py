"""Means over the steps since the last log line, kept on the device until they are asked for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from beholder.training.distributed import Processes


class IntervalSums:
    """Running sums of named scalars; nothing waits for the device before `means`."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        # MPS has no double precision
        self._dtype = torch.float32 if processes.device.type == "mps" else torch.float64
        self._shared: dict[str, Tensor] = {}
        self._same: dict[str, Tensor] = {}
        self.steps = 0

    def add_share(self, name: str, value: Tensor, share: float) -> None:
        """A piece's value, with its share of the step; the step's is the sum of all pieces'."""
        self._add(self._shared, name, value.detach().to(self._dtype) * share)

    def add(self, name: str, value: Tensor) -> None:
        """A value of the whole step, the same in every process."""
        self._add(self._same, name, value.detach().to(self._dtype))

    def means(self) -> dict[str, float]:
        """Mean per step of everything, by name, the same in every process; starts anew."""
        shared = self._shared
        names = sorted({name for names in self._processes.from_all(list(shared)) for name in names})
        zero = torch.zeros((), dtype=self._dtype, device=self._processes.device)
        sums = torch.stack([shared.get(name, zero) for name in names] + [zero])
        self._processes.sum_([sums])
        values = torch.stack([*sums[:-1], *self._same.values(), zero]).cpu().tolist()
        steps = max(1, self.steps)
        result = {
            name: value / steps
            for name, value in zip([*names, *self._same], values[:-1], strict=True)
        }
        self._shared, self._same, self.steps = {}, {}, 0
        return result

    def state_dict(self) -> dict[str, Tensor]:
        """For a checkpoint, so that the next line is the same after resuming."""
        return {
            **{f"shared:{name}": value for name, value in self._shared.items()},
            **{f"same:{name}": value for name, value in self._same.items()},
            "steps": torch.tensor(self.steps),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.steps = int(state["steps"])
        for target, prefix in ((self._shared, "shared:"), (self._same, "same:")):
            for name, value in state.items():
                if name.startswith(prefix):
                    target[name.removeprefix(prefix)] = value.to(self._processes.device)

    def _add(self, target: dict[str, Tensor], name: str, value: Tensor) -> None:
        target[name] = target[name] + value if name in target else value
