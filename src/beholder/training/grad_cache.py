"""Losses that are a statistic of the whole batch (correlation, ranks), over its micro-batches.

GradCache (Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
RepL4NLP 2021, arXiv 2101.06983), for rows that are predictions and for several processes.

How a task says so: in `forward` it calls `self.gather(rows)` on what it predicts and on what it
compares with, [B, ...] -> [B of the whole step, ...], and takes the loss of those. Rules:

- one row per picture of the batch, in the batch's order (missing values are marked, not dropped);
- every forward makes the same calls in the same order;
- nothing that is passed to `gather` depends on what an earlier call returned;
- what is computed from gathered rows is the same function in every process and micro-batch.

Then every micro-batch i holds the same loss L of all rows, and the objective, sum over i of
(w_i / W) L, is L. Only a micro-batch's own rows carry gradient, so theirs is scaled by W / w_i:
the sum over micro-batches is the gradient of L, as if the step were one batch in one process, and
the backward pass exchanges nothing.

With gradient accumulation, the rows of later micro-batches are not known yet at the first. All
micro-batches are then run once without gradient, with the random state of the second run, to know
all rows; one more forward pass, for such tasks only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from beholder.data.sharing import Processes


class GradCache:
    """What the loop puts in place of `task.gather`.

    Attributes:
        used: whether the task gathers at all; None until a first forward pass has shown it.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self.used: bool | None = None
        self._counts_MR: Sequence[Sequence[int]] = ()
        self._micro_batch = 0
        self._call = 0
        self._scale = 0.0
        self._recording = False
        # per call and micro-batch: the rows of this process; after `exchange`: of all processes
        self._local: list[list[Tensor]] = []
        self._all: list[list[Tensor]] | None = None

    def begin(self, counts_MR: Sequence[Sequence[int]]) -> None:
        """A new step: rows per micro-batch M and process R."""
        self._counts_MR = counts_MR
        self._local, self._all = [], None

    def record(self, micro_batch: int) -> None:
        """The next forward pass, without gradient, only shows the rows of this micro-batch."""
        self._micro_batch, self._call, self._recording = micro_batch, 0, True

    def exchange(self) -> None:
        """All micro-batches of this process are recorded: learn those of the others."""
        rank_counts = [sum(column) for column in zip(*self._counts_MR, strict=True)]
        self._all = []
        for local_M in self._local:
            rows_R = self._processes.all_gather_rows(torch.cat(local_M), rank_counts)
            rows_RM = [
                rows.split([counts_R[rank] for counts_R in self._counts_MR])
                for rank, rows in enumerate(rows_R)
            ]
            # batch order: by micro-batch, within it by rank
            self._all.append([rows for part_R in zip(*rows_RM, strict=True) for rows in part_R])

    def run(self, micro_batch: int, scale: float) -> None:
        """The next forward pass is for the gradient of this micro-batch; `scale` is its W / w."""
        self._micro_batch, self._call, self._recording = micro_batch, 0, False
        self._scale = scale

    def gather_with_grad(self, rows: Tensor) -> Tensor:
        """This process's rows [B, ...] -> those of the whole step, gradient to its own only."""
        self.used = True
        call, self._call = self._call, self._call + 1
        rank, world_size = self._processes.rank, self._processes.world_size
        counts_R = self._counts_MR[self._micro_batch]
        local = rows[: counts_R[rank]]
        if self._recording:
            if call == len(self._local):
                self._local.append([])
            self._local[call].append(local.detach())
            return rows
        if self._all is None:
            gathered, index = self._processes.all_gather_rows(local.detach(), counts_R), rank
        else:
            gathered, index = list(self._all[call]), self._micro_batch * world_size + rank
        gathered[index] = _scale_gradient(local, self._scale)
        return torch.cat(gathered)


def _scale_gradient(rows: Tensor, scale: float) -> Tensor:
    if rows.requires_grad:
        rows = rows.view_as(rows)  # the hook must not see gradients of other uses
        rows.register_hook(lambda gradient: gradient * scale)
    return rows
