"""Computing a backbone with less memory or less time for the same features.

Gradient checkpointing: Chen et al., "Training Deep Nets with Sublinear Memory Cost",
arXiv 1604.06174; timm's own, by blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from beholder.errors import BackboneError

Result = TypeVar("Result")

COMPILER = "inductor"


def checkpoint_gradients(trunk: Any, name: str) -> None:
    """Make a timm model keep only the maps between its blocks and compute the rest again in the
    backward pass.

    Batch norms' moving statistics still move only once per step.

    Raises:
        BackboneError: the family does not support it.
    """
    try:
        trunk.set_grad_checkpointing(True)
    except (AssertionError, AttributeError) as error:
        raise BackboneError(
            f"{name} has no gradient checkpointing.",
            where="backbone.gradient_checkpointing",
            fix="Leave it out and lower batch_size (with a higher accumulate), or choose another "
            "family, e.g. ViT, Swin, ConvNeXt or EfficientNet.",
        ) from error
    for module in trunk.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(_hold_statistics)
            # also where the second pass stops early because it has all that is needed
            module.register_forward_hook(_release_statistics, always_call=True)


def compiled(function: Callable[..., Result], name: str) -> Callable[..., Result]:
    """The function through torch.compile; the first call with each input shape takes minutes.

    Raises:
        BackboneError: (when called) it can't be compiled here.
    """
    fast = torch.compile(function, backend=COMPILER)

    def run(*args: Any, **options: Any) -> Result:
        try:
            return fast(*args, **options)
        except TorchDynamoException as error:
            cause = getattr(error, "inner_exception", error)
            reason = str(cause).strip().splitlines()[0]
            raise BackboneError(
                f"{name} can't be compiled here: {reason}",
                where="backbone.compile",
                fix="Leave it out; torch.compile needs a C++ compiler, and Triton on CUDA.",
            ) from error

    return run


def channels_last(tensor: Tensor) -> Tensor:
    """Convolution kernels [out, in, h, w] on an accelerator with channels last, which its
    convolutions are fastest with; other tensors unchanged. MPS does not have this layout."""
    if tensor.ndim != 4 or tensor.device.type in ("cpu", "meta", "mps"):
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)


def _hold_statistics(module: Any, args: Any) -> None:
    """Keep statistics still in the second forward pass, which the backward pass makes."""
    if module.training and torch._C._current_graph_task_id() != -1:
        module.held = (module.momentum, module.num_batches_tracked.clone())
        module.momentum = 0.0


def _release_statistics(module: Any, args: Any, output: Tensor | None) -> None:
    held = module.__dict__.pop("held", None)
    if held is not None:
        module.momentum, tracked = held
        module.num_batches_tracked.copy_(tracked)
