"""The size gate: how many bytes a judge's weights take, and which tensors take them.

Sizes are those of real files. A megabyte is 1,000,000 bytes: the stricter reading of a limit.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from beholder.errors import GateError
from beholder.judge.store.dtypes import is_matrix, stored_as

MEGABYTE = 1_000_000
LISTED = 5  # of the largest tensors or members


@dataclass(frozen=True)
class Sizes:
    """Bytes of a judge's weights as one safetensors file.

    Args:
        float32, float16: as an export stage stores them.
        int8_weights: matrices as int8 with a float32 scale per output channel, the rest float32.
            No judge is run from such a file; it says what a quantised one would come to.
    """

    float32: int
    float16: int
    int8_weights: int

    def megabytes(self) -> dict[str, float]:
        return {f"megabytes_{name}": value / MEGABYTE for name, value in asdict(self).items()}


def measure(state: Mapping[str, Tensor]) -> Sizes:
    """Write the weights in each number type and count the bytes."""
    wide = {name: tensor.float() if is_half(tensor) else tensor for name, tensor in state.items()}
    return Sizes(
        float32=_written(wide),
        float16=_written(stored_as(wide, "float16")),
        int8_weights=_written(int8_weights(wide)),
    )


def is_half(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float16


def int8_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as int8, symmetric, with a scale per output channel (`<name>.scale`)."""
    quantised: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not is_matrix(tensor):
            quantised[name] = tensor
            continue
        rows = tensor.flatten(1)
        scale = rows.abs().amax(dim=1).clamp_min(1e-30) / 127
        quantised[name] = (rows / scale[:, None]).round().to(torch.int8).reshape(tensor.shape)
        quantised[f"{name}.scale"] = scale
    return quantised


def check_size(path: Path, megabytes: float, state: Mapping[str, Tensor]) -> int:
    """The bytes of a file that must be small enough.

    Args:
        state: what it holds, for the error.

    Raises:
        GateError: it is larger; tells the bytes and the largest tensors.
    """
    size = path.stat().st_size
    if size > megabytes * MEGABYTE:
        raise too_large(f"The file of {size:,} bytes", str(path), megabytes, state)
    return size


def check_members(path: Path, megabytes: float) -> int:
    """The bytes of an exported judge, which must be small enough.

    Raises:
        GateError: it is larger; tells the bytes and the largest members.
    """
    size = path.stat().st_size
    if size > megabytes * MEGABYTE:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename: entry.compress_size for entry in archive.infolist()}
        fix = "Export with a lower precision, take a smaller backbone, or raise the limit."
        raise _over(f"The file of {size:,} bytes", path.name, megabytes, "members", sizes, fix)
    return size


def too_large(what: str, where: str, megabytes: float, state: Mapping[str, Tensor]) -> GateError:
    """The error of a size gate."""
    sizes = {f"{name} {list(tensor.shape)}": _bytes(tensor) for name, tensor in state.items()}
    fix = "Export with dtype: float16, take a smaller backbone, or raise the limit."
    return _over(what, where, megabytes, "tensors", sizes, fix)


def _over(
    what: str, where: str, megabytes: float, parts: str, sizes: Mapping[str, int], fix: str
) -> GateError:
    ordered = sorted(sizes.items(), key=lambda entry: -entry[1])
    largest = [f"{name}: {size:,}" for name, size in ordered[:LISTED]]
    return GateError(
        f"{what} is over the limit of {megabytes:g} MB ({megabytes * MEGABYTE:,.0f} bytes). "
        f"The largest {parts}, in bytes: {'; '.join(largest)}.",
        where=where,
        fix=fix,
    )


def state_bytes(state: Mapping[str, Tensor]) -> int:
    """Bytes of the tensors alone."""
    return sum(_bytes(tensor) for tensor in state.values())


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _written(state: Mapping[str, Tensor]) -> int:
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory(prefix="beholder-size-") as folder:
        path = Path(folder) / "weights.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
        return path.stat().st_size
