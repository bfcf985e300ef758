"""Batch norms over several processes and over accumulated micro-batches.

In one process and without accumulation a batch norm sees the whole batch. Over several processes
it does where torch has a SyncBatchNorm (CUDA, XPU); elsewhere it sees the process's part. With
accumulation it sees one micro-batch at a time: the later ones are not known yet. All other values
of a step are those of one large batch; `batch_norm_limits` says where these are not.
"""

from __future__ import annotations

from timm.layers import convert_sync_batchnorm
from torch import nn

from beholder.data.sharing import Processes
from beholder.training.config import TrainConfig

# where torch.nn.SyncBatchNorm computes
SYNCHRONISED_DEVICES = ("cuda", "xpu")


class BatchNorms:
    """The batch norms of `task` that are in training mode, together or apart.

    Each has two forms with the same parameters and statistics: the module itself and, where the
    device has it, a synchronised one. Begins together.

    Attributes:
        count: how many there are.
        synchronised: whether they can be together.
    """

    def __init__(self, task: nn.Module, processes: Processes) -> None:
        norms = [
            (parent, name, norm)
            for parent in task.modules()
            for name, norm in parent.named_children()
            if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.training
        ]
        self.count = len(norms)
        can_synchronise = processes.several and processes.device.type in SYNCHRONISED_DEVICES
        self.synchronised = can_synchronise and bool(norms)
        self._pairs = [
            (parent, name, norm, convert_sync_batchnorm(norm))
            for parent, name, norm in (norms if can_synchronise else [])
        ]
        self._together = False
        self.use(True)

    def use(self, together: bool) -> None:
        """Normalise over all processes from now on, if the device can, or over this one alone.

        Together, every process must run the same forward and backward passes.
        """
        if together == self._together:
            return
        self._together = together
        for parent, name, apart, synchronised in self._pairs:
            old, new = (apart, synchronised) if together else (synchronised, apart)
            new.train(old.training)
            setattr(parent, name, new)


def batch_norm_limits(norms: BatchNorms, config: TrainConfig, processes: Processes) -> list[str]:
    """Sentences for the log about where batch norms do not see the whole batch."""
    if not norms.count:
        return []
    limits = []
    if processes.several and not norms.synchronised:
        limits.append(
            f"{norms.count} batch norms see each process's part of {config.batch_size} pictures, "
            f"not all of them, since {processes.device.type} has no SyncBatchNorm: the result is "
            "not quite that of one process"
        )
    if config.accumulate > 1:
        limits.append(
            f"{norms.count} batch norms see {config.batch_size} pictures at a time, not the "
            f"{config.batch_size * config.accumulate} of a step: the result is not quite that of "
            "one large batch"
        )
    return limits
