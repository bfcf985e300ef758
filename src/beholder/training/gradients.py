"""Gradients as a few flat buffers: the sum over processes, the norm, clipping and the check for
finite values are one operation each instead of one per parameter, and nothing is copied."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from beholder.data.sharing import Processes

BUCKET_BYTES = 64 * 2**20


class Gradients:
    """The gradients of `parameters`: each `.grad` is a view into a flat buffer.

    A parameter that a step does not use has a gradient of zeros, with one process or several.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._buckets: list[Tensor] = []
        groups: dict[tuple[torch.device, torch.dtype], list[nn.Parameter]] = {}
        for parameter in parameters:
            groups.setdefault((parameter.device, parameter.dtype), []).append(parameter)
        for members in groups.values():
            for bucket in _by_bytes(members):
                self._buckets.append(_flatten(bucket))

    def zero_(self) -> None:
        for bucket in self._buckets:
            bucket.zero_()

    def sum_(self, processes: Processes, *more: Tensor) -> None:
        """Sum gradients, and `more`, over all processes."""
        processes.all_reduce_([*self._buckets, *more])

    def norm(self) -> Tensor:
        """2-norm of all gradients, scalar on the device; not finite where one of them is not."""
        return torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(bucket.float()) for bucket in self._buckets])
        )

    def scale_(self, factor: Tensor | float) -> None:
        for bucket in self._buckets:
            bucket.mul_(factor)

    def clip_(self, norm: Tensor, longest: float) -> None:
        """Scale to norm `longest` where `norm` is above it; as torch's `clip_grad_norm_`."""
        self.scale_((longest / (norm + 1e-6)).clamp(max=1.0))

    def zero_where_(self, condition: Tensor) -> None:
        """All zeros if the scalar `condition` on the device is true, without reading it."""
        for bucket in self._buckets:
            bucket.masked_fill_(condition, 0.0)


def _by_bytes(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parts of about `BUCKET_BYTES`, in order."""
    buckets: list[list[nn.Parameter]] = [[]]
    size = 0
    for parameter in parameters:
        size += parameter.numel() * parameter.element_size()
        buckets[-1].append(parameter)
        if size >= BUCKET_BYTES:
            buckets.append([])
            size = 0
    return [bucket for bucket in buckets if bucket]


def _flatten(parameters: Sequence[nn.Parameter]) -> Tensor:
    flat = parameters[0].new_zeros(sum(parameter.numel() for parameter in parameters))
    offset = 0
    for parameter in parameters:
        count = parameter.numel()
        # laid out as the parameter, which may have its channels last
        part = flat[offset : offset + count]
        parameter.grad = part.as_strided(parameter.shape, parameter.stride(), part.storage_offset())
        offset += count
    return flat.detach()
