"""A backbone's weights from a local file: read without executing anything, fitted exactly.

Weights are never loaded partially: the first tensor that is missing, left over or of another shape
is an error that names it.
"""

from __future__ import annotations

import pickle
import struct
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from beholder.errors import BackboneError, shortened
from beholder.features import efficientnet_lite

# keys under which training code stores the tensors in a checkpoint
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
# what torch raises for a checkpoint that is cut off, or made to exhaust memory or stack
UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError,
    AttributeError, AssertionError, ArithmeticError, MemoryError, struct.error, zipfile.BadZipFile,
)  # fmt: skip

# prefix of the backbone's tensors in an end-to-end checkpoint of the published ExpansionNet v2
_PUBLISHED_SWIN = "swin_transf."


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or a torch checkpoint, by name; from a published captioner
    only the backbone's.

    Raises:
        BackboneError: the file is missing, damaged, or holds more than tensors.
    """
    if not path.is_file():
        raise BackboneError("The file of the backbone's weights does not exist.", where=str(path))
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, *UNREADABLE) as error:
        raise BackboneError(
            f"The backbone's weights can't be read: {shortened(error) or type(error).__name__}",
            where=str(path),
            fix="Give a safetensors file, or a torch checkpoint that holds only tensors.",
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    entries = content.items() if isinstance(content, dict) else ()
    tensors = {k: v for k, v in entries if isinstance(k, str) and isinstance(v, Tensor)}
    if any(name.startswith(_PUBLISHED_SWIN) for name in tensors):
        tensors = {
            name.removeprefix(_PUBLISHED_SWIN): tensor
            for name, tensor in tensors.items()
            if name.startswith(_PUBLISHED_SWIN)
        }
    if not tensors:
        raise BackboneError("The file holds no tensors.", where=str(path))
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def fit_weights(trunk: Any, state: Mapping[str, Tensor], source: str) -> None:
    """Load `state` into a timm model without classifier; every tensor must fit.

    Tensors of the classifier are ignored. Names and position embeddings of other releases are
    converted by timm's own filter of the family.

    Raises:
        BackboneError: a tensor is missing, of another shape, or left over.
    """
    if efficientnet_lite.is_original(state):
        state = efficientnet_lite.rename(state, [len(stage) for stage in trunk.blocks])
    problem = _misfit(trunk, state)
    if problem:
        filtered = _filtered(trunk, state)
        if filtered is not None:
            problem = _misfit(trunk, filtered)
            state = filtered
        if problem:
            raise BackboneError(
                problem, where=source, fix="Use weights of the same architecture and input size."
            )
    names = trunk.state_dict().keys()
    trunk.load_state_dict({name: state[name] for name in names})


def _misfit(trunk: nn.Module, state: Mapping[str, Tensor]) -> str | None:
    """The first tensor that does not fit, in the model's order; None if all do."""
    expected = trunk.state_dict()
    for name, tensor in expected.items():
        shape = tuple(tensor.shape)
        if name not in state:
            return f"The weights lack the tensor {name!r} of shape {shape}."
        if tuple(state[name].shape) != shape:
            actual = tuple(state[name].shape)
            return f"The tensor {name!r} has shape {actual}, the backbone needs {shape}."
    classifiers = _classifier_names(trunk)
    for name in state:
        if name not in expected and not name.startswith(classifiers):
            shape = tuple(state[name].shape)
            return f"The weights hold a tensor {name!r} of shape {shape} that the backbone lacks."
    return None


def _classifier_names(trunk: Any) -> tuple[str, ...]:
    names = trunk.pretrained_cfg.get("classifier") or ()
    names = (names,) if isinstance(names, str) else names
    return tuple(f"{name}." for name in names)


def _filtered(trunk: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
    """The state converted by the family's filter for weights of other releases; None if it
    can't."""
    filter_fn = getattr(sys.modules[type(trunk).__module__], "checkpoint_filter_fn", None)
    if filter_fn is None:
        return None
    try:
        return filter_fn(dict(state), trunk)
    except (KeyError, ValueError, RuntimeError, AttributeError, IndexError):
        # the filter expects a release of this family; the caller reports what does not fit, in
        # terms of the user's file
        return None


def hash_tensors(tensors: Iterable[tuple[str, Tensor]], into: object) -> None:
    """Feed names, dtypes, shapes and bytes of tensors to a hash object, sorted by name."""
    update = into.update  # type: ignore[attr-defined]
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            update(flat.view(torch.uint8).numpy().data)
