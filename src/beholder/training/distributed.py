"""Joining the other processes of a training under torchrun."""

from __future__ import annotations

import atexit
import os
from datetime import timedelta

import torch
import torch.distributed as dist

from beholder.data.sharing import Processes
from beholder.features import device as devices

# rank 0 evaluates while the others wait; a process that dies is noticed at once all the same
TIMEOUT = timedelta(hours=12)


def start(device: str | torch.device | None = None) -> Processes:
    """Find out where this process is, join the others when started by torchrun.

    The group stays up for later trainings in the same processes, until they exit.

    Args:
        device: see `features.device.choose_device`.

    Raises:
        DeviceError: the device asked for is not there.
    """
    chosen = devices.choose_device(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1 and not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)
        atexit.register(_leave)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if dist.is_initialized():
        return Processes(dist.get_rank(), dist.get_world_size(), chosen)
    return Processes(0, 1, chosen)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
