"""Means over the steps since the last log line, kept on the device until they are asked for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from beholder.data.sharing import Processes
from beholder.features.device import has_float64


class MetricAverages:
    """Running sums of named scalars, each kept where it is, on the device or the host; nothing
    waits for the device before `means`."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._dtype = torch.float64 if has_float64(processes.device) else torch.float32
        self._shared: dict[str, Tensor] = {}
        self._same: dict[str, Tensor] = {}
        self.steps = 0

    def add_share(self, name: str, value: Tensor, share: float) -> None:
        """A micro-batch's value with its share of the step; the step's value is the sum of them."""
        self._add(self._shared, name, value.detach().to(self._dtype) * share)

    def add(self, name: str, value: Tensor) -> None:
        """A value of the whole step, the same in every process."""
        self._add(self._same, name, value.detach().to(self._dtype))

    def means(self) -> dict[str, float]:
        """Mean per step of everything, by name, the same in every process; then start again."""
        names, sums = self._summed()
        same = sorted(self._same)
        values = torch.stack([*sums, *(self._same[name].to(sums) for name in same)]).tolist()
        del values[len(names)]
        steps = max(1, self.steps)
        result = {name: value / steps for name, value in zip([*names, *same], values, strict=True)}
        self._shared, self._same, self.steps = {}, {}, 0
        return result

    def state_dict(self) -> dict[str, Tensor]:
        """For a checkpoint, so that the next log line is the same after resuming. Sums over all
        processes: to be called in every one."""
        names, sums = self._summed()
        return {
            **{f"shared:{name}": sums[index] for index, name in enumerate(names)},
            **{f"same:{name}": value for name, value in self._same.items()},
            "steps": torch.tensor(self.steps),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.steps = int(state["steps"])
        for name, value in state.items():
            kind, _, short = name.partition(":")
            value = value.to(self._processes.device)
            if kind == "same":
                self._same[short] = value
            elif kind == "shared":
                # the sum goes to the main process; the others start from 0
                self._shared[short] = value if self._processes.is_main else torch.zeros_like(value)

    def _summed(self) -> tuple[list[str], Tensor]:
        """Names, and their sums over all processes, with a 0 at the end."""
        names_by_rank = self._processes.all_gather(list(self._shared))
        names = sorted({name for rank_names in names_by_rank for name in rank_names})
        zero = torch.zeros((), dtype=self._dtype, device=self._processes.device)
        sums = torch.stack([self._shared.get(name, zero).to(zero) for name in names] + [zero])
        self._processes.all_reduce_([sums])
        return names, sums

    def _add(self, target: dict[str, Tensor], name: str, value: Tensor) -> None:
        target[name] = target[name] + value if name in target else value
