"""The one choice of a device.

It is taken from, in this order: the argument, `using_device` (which `--device` sets), the
environment's `BEHOLDER_DEVICE`, the best that this machine has. Importing this loads no torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from beholder.errors import DeviceError

if TYPE_CHECKING:
    import torch

VARIABLE = "BEHOLDER_DEVICE"

_chosen_by_option: str | None = None


class AskedDevice(NamedTuple):
    """A requested device, and where it was requested: `device`, `--device` or `BEHOLDER_DEVICE`."""

    name: str
    origin: str


def asked_device(device: str | torch.device | None = None) -> AskedDevice | None:
    """The requested device, whether it exists or not; None if none was requested."""
    if device is not None:
        return AskedDevice(str(device), "device")
    if _chosen_by_option is not None:
        return AskedDevice(_chosen_by_option, "--device")
    name = os.environ.get(VARIABLE, "").strip()
    return AskedDevice(name, VARIABLE) if name else None


@contextmanager
def using_device(name: str | None) -> Iterator[None]:
    """Inside the `with`, everything in this process computes on this device unless another is
    passed explicitly. None leaves the choice as it is."""
    global _chosen_by_option
    before = _chosen_by_option
    _chosen_by_option = name or before
    try:
        yield
    finally:
        _chosen_by_option = before


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """The requested device, or the best available one: CUDA, MPS, CPU.

    With several devices of a type and no index (`cuda`), it is the local rank's under torchrun,
    otherwise the first.

    Args:
        device: `cpu`, `cuda`, `cuda:1`, `mps`, or any type whose torch module says that it is
            available; None: see the top of the file.

    Choosing CUDA allows float32 products in TF32 in this process: several times as fast, with 11
    bits of each factor instead of 24, relative errors of 5e-4 per factor; sums stay float32. Only
    `NVIDIA_TF32_OVERRIDE=0` in the environment switches it off.

    Raises:
        DeviceError: there is no such device.
    """
    import torch

    wanted = asked_device(device)
    if wanted is None:
        best = next(kind for kind in ("cuda", "mps", "cpu") if count_devices(kind))
        return _set_up(_with_index(torch.device(best)))
    try:
        chosen = torch.device(wanted.name)
    except RuntimeError as error:
        raise _not_there(wanted, f"{wanted.name!r} is not the name of a device.") from error
    count = count_devices(chosen.type)
    if not count:
        raise _not_there(wanted, f"There is no device {wanted.name!r} here.")
    if chosen.index is not None and chosen.index >= count:
        devices = "is one" if count == 1 else f"are {count}, counted from 0"
        raise _not_there(
            wanted, f"There is no device {wanted.name!r} here: of {chosen.type} there {devices}."
        )
    return _set_up(_with_index(chosen))


def count_devices(kind: str) -> int:
    """How many devices of a type this machine has; 0 if torch does not know the type."""
    import torch

    module = getattr(torch, kind, None)
    is_available = getattr(module, "is_available", None)
    return module.device_count() if module and is_available and is_available() else 0


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in double precision; MPS does not."""
    import torch

    try:
        torch.zeros((), device=device, dtype=torch.float64)
    except (TypeError, RuntimeError):  # which of them depends on the backend
        return False
    return True


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on the device, without waiting for the device's current work: only page-locked
    memory is copied while it computes."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _with_index(device: torch.device) -> torch.device:
    """This process's device among those of its type; a device with an index as it is."""
    import torch

    if device.index is not None or device.type in ("cpu", "mps"):
        return device
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device(device.type, local % count_devices(device.type))


def _set_up(device: torch.device) -> torch.device:
    """The device, ready: on CUDA, matrix products and convolutions of float32 may be TF32."""
    import torch

    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
    return device


@contextmanager
def exact_float32() -> Iterator[None]:
    """Inside the `with`, float32 is computed in float32 on CUDA, not in TF32."""
    import torch

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def _not_there(wanted: AskedDevice, what: str) -> DeviceError:
    usable = []
    for kind in ("cuda", "mps", "xpu", _custom_type(), "cpu"):
        count = count_devices(kind)
        usable += [kind] if count == 1 else [f"{kind}:{index}" for index in range(count)]
    return DeviceError(what, where=wanted.origin, fix=f"Use one of: {', '.join(usable)}.")


def _custom_type() -> str:
    """The name under which a backend outside torch has registered itself."""
    import torch

    return str(torch._C._get_privateuse1_backend_name())
