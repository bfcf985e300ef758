"""Evaluating a task during its training: in one process, or shared out over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch

from beholder.data.sharing import ALONE, Processes, joined_parts
from beholder.training.loader import Batch, Loader, to_device
from beholder.training.step import StepRunner
from beholder.training.termination import Interrupted, Termination


class Evaluator:
    """Runs the task's evaluation with averaged weights where there are any.

    Attributes:
        shared: whether every process evaluates a part, for the task can join the observations.
    """

    def __init__(
        self, task: Any, runner: StepRunner, processes: Processes, termination: Termination
    ) -> None:
        self._task = task
        self._runner = runner
        self._processes = processes
        self._termination = termination
        self.shared = processes.several and hasattr(task, "gather_observations")

    def evaluate(self, data: Loader) -> dict[str, float]:
        """The task's metrics of `data`.

        Raises:
            Interrupted: SIGTERM was received.
        """
        with ExitStack() as stack:
            if self.shared:
                before = self._task.gather_observations
                stack.callback(setattr, self._task, "gather_observations", before)
                self._task.gather_observations = self._gather_observations
            stack.enter_context(torch.no_grad())
            stack.enter_context(self._runner.autocast())
            if self._runner.ema:
                stack.enter_context(self._runner.ema.in_place())
            self._task.eval()
            try:
                metrics = self._task.evaluate(self._batches(data))
            finally:
                self._task.train()
        return {name: float(value) for name, value in metrics.items()}

    def _batches(self, data: Loader) -> Iterator[Batch]:
        """All of `data` in order, on the device; of a shared evaluation this process's part.

        Raises:
            Interrupted: SIGTERM was received; where others wait, `_gather_observations` raises it.
        """
        for batch in data.in_order(self._processes if self.shared else ALONE):
            if self._termination.requested:
                if self.shared:
                    return
                raise Interrupted
            yield to_device(batch, self._processes.device)

    def _gather_observations(self, observations: list[Any]) -> list[Any]:
        """The observations of all processes' batches, in order.

        Raises:
            Interrupted: one of them has received SIGTERM.
        """
        if self._processes.any(self._termination.requested)[0]:
            raise Interrupted
        return joined_parts(observations, self._processes)
