"""Losses that are a statistic of the whole batch (correlation, ranks), over pieces of it.

How a task says so: in `forward` it calls `self.gather(rows)` on what it predicts and on what it
compares with, [B, ...] -> [B of the whole step, ...], and takes the loss of those. Rules:

- one row per picture of the batch, in the batch's order (missing values are marked, not dropped);
- every forward makes the same calls in the same order;
- nothing that is given to `gather` depends on what an earlier call returned;
- what is computed from gathered rows is the same function in every process and piece.

Then every piece i holds the same loss L of all rows, and the objective, sum over i of
(w_i / W) L, is L. Only a piece's own rows carry gradient, so theirs is scaled by W / w_i: the sum
over pieces is the gradient of L, as if the step were one batch in one process, and the backward
pass exchanges nothing.

With gradient accumulation, rows of later pieces are not known yet at the first. All pieces are
then run once without gradient, with the random state of the second run, to know all rows
(Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
arXiv 2101.06983); one more forward pass, for such tasks only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from beholder.training.distributed import Processes


class WholeBatch:
    """What the loop puts in place of `task.gather`.

    Attributes:
        used: whether the task gathers at all; None until a first forward pass has shown it.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self.used: bool | None = None
        self._counts_MR: Sequence[Sequence[int]] = ()
        self._piece = 0
        self._call = 0
        self._scale = 0.0
        self._recording = False
        # per call and piece: this process's rows; after `exchange`: everybody's, in batch order
        self._own: list[list[Tensor]] = []
        self._all: list[list[Tensor]] | None = None

    def begin(self, counts_MR: Sequence[Sequence[int]]) -> None:
        """A new step: rows per piece M and process R."""
        self._counts_MR = counts_MR
        self._own, self._all = [], None

    def record(self, piece: int) -> None:
        """The next forward pass, without gradient, only tells the rows of `piece`."""
        self._piece, self._call, self._recording = piece, 0, True

    def exchange(self) -> None:
        """All pieces of this process are recorded: learn those of the others."""
        rank_counts = [sum(column) for column in zip(*self._counts_MR, strict=True)]
        self._all = []
        for own_M in self._own:
            rows_R = self._processes.rows_of_all(torch.cat(own_M), rank_counts)
            pieces_RM = [
                rows.split([counts[rank] for counts in self._counts_MR])
                for rank, rows in enumerate(rows_R)
            ]
            # batch order: piece by piece, in a piece by rank
            self._all.append([rows for piece_R in zip(*pieces_RM, strict=True) for rows in piece_R])

    def run(self, piece: int, scale: float) -> None:
        """The next forward pass is for the gradient of `piece`; `scale` is W / w of it."""
        self._piece, self._call, self._recording, self._scale = piece, 0, False, scale

    def gather_with_grad(self, rows: Tensor) -> Tensor:
        """This process's rows [B, ...] -> those of the whole step, gradient to its own only."""
        self.used = True
        call, self._call = self._call, self._call + 1
        rank, size = self._processes.rank, self._processes.size
        counts_R = self._counts_MR[self._piece]
        own = rows[: counts_R[rank]]
        if self._recording:
            if call == len(self._own):
                self._own.append([])
            self._own[call].append(own.detach())
            return rows
        if self._all is None:
            pieces, place = self._processes.rows_of_all(own.detach(), counts_R), rank
        else:
            pieces, place = list(self._all[call]), self._piece * size + rank
        pieces[place] = _scale_gradient(own, self._scale)
        return torch.cat(pieces)


def _scale_gradient(rows: Tensor, scale: float) -> Tensor:
    if rows.requires_grad:
        rows = rows.view_as(rows)  # the hook must not see gradients of other uses
        rows.register_hook(lambda gradient: gradient * scale)
    return rows
