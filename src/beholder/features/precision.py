"""The arithmetic of forward passes: one function decides, for training and everything else.

Matrix products and convolutions run in bf16 or fp16 under autocast; weights, norms, losses and the
small heads stay in float32.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch

from beholder.errors import DeviceError

Amp = Literal["auto", "off", "bf16", "fp16"]


def amp_dtype(choice: Amp, device: torch.device, *, where: str) -> torch.dtype | None:
    """The dtype of the forward pass's matrix products; None: the weights' own.

    `auto` is bf16 on an accelerator that has it, else fp16; on the CPU, and on a backend without
    autocast, it is off.

    Args:
        where: the option, for the error.

    Raises:
        DeviceError: the device does not support the requested dtype.
    """
    available = torch.amp.is_autocast_available(device.type)
    if choice == "off" or (choice == "auto" and (device.type == "cpu" or not available)):
        return None
    if choice == "auto":
        return torch.bfloat16 if has_bf16(device) else torch.float16
    if not available or (choice == "bf16" and not has_bf16(device)):
        raise DeviceError(
            f"{device.type} does not support {choice}.", where=where, fix="Set amp: auto."
        )
    return torch.bfloat16 if choice == "bf16" else torch.float16


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Forward passes inside the `with` compute in `dtype`; None: in the weights' dtype."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@cache
def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        ones = torch.ones(2, 2, dtype=torch.bfloat16, device=device)
        return float((ones @ ones)[0, 0]) == 2.0
    except (TypeError, RuntimeError):  # which of them depends on the backend
        return False
