"""Checkpoints: the whole state of a training as a folder of safetensors and JSON.

    checkpoints/step-00000120/
        weights.safetensors     trained parameters and buffers; frozen parameters are not repeated
        ema.safetensors         averaged parameters and moving statistics, if there is an EMA
        optimizer.safetensors   the optimiser's state, `<parameter>:<entry>`
        random.safetensors      random states, `<rank>:<generator>`
        interval.safetensors    sums of metrics since the last log line
        state.json              step, history of metrics, best, configuration
        checksums.json          SHA-256 of each of the above

A folder appears complete under its name or not at all. Its name says the step, and whether the
evaluation due at that step was still to be done (`-before-evaluation`), so that saving never has
to replace a good folder. The newest is the one with the highest step; clocks play no part.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from beholder.data.files import atomic_path, sha256_file
from beholder.errors import CheckpointError

FORMAT = 1
CHECKPOINTS = "checkpoints"  # the folder of a training's checkpoints
CHECKSUMS = "checksums.json"
STATE = "state.json"
_NAME = re.compile(r"step-(\d{8,})(-before-evaluation)?")


@dataclass
class Checkpoint:
    """What a checkpoint holds. `tensors`: file name without ending -> tensors by name."""

    state: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint's folder, atomically.

    Raises:
        OutputError: the folder can't be written.
    """
    with atomic_path(path) as temporary:
        temporary.mkdir()
        for name, tensors in checkpoint.tensors.items():
            save_file(_plain(tensors), temporary / f"{name}.safetensors")
        state = {"format": FORMAT, **checkpoint.state}
        (temporary / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        checksums = {file.name: sha256_file(file) for file in sorted(temporary.iterdir())}
        (temporary / CHECKSUMS).write_text(json.dumps(checksums, indent=1) + "\n", encoding="utf-8")


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint's folder.

    Raises:
        CheckpointError: missing, damaged, or of another format; names the checkpoint before it.
    """
    if not path.is_dir():
        raise CheckpointError("There is no such checkpoint.", where=str(path))
    try:
        _verify(path)
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        tensors = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"The checkpoint is damaged: {error}.", where=str(path), fix=_fix_for(path)
        ) from error
    if state.get("format") != FORMAT:
        raise CheckpointError(
            f"The checkpoint has format {state.get('format')}; this version reads {FORMAT}.",
            where=str(path),
            fix="Use the version of Beholder that wrote it.",
        )
    return Checkpoint(state, tensors)


def load_weights(module: nn.Module, path: Path, *, average: bool = True) -> None:
    """Give `module` a checkpoint's weights, e.g. to evaluate, ensemble or average checkpoints.

    Args:
        module: the task that was trained, or one built like it.
        average: take the EMA's weights where the checkpoint has them.

    Raises:
        CheckpointError: damaged, or of another configuration; names the first tensor that differs.
    """
    checkpoint = load_checkpoint(path)
    weights = checkpoint.tensors["weights"]
    if average:
        weights = {**weights, **checkpoint.tensors.get("ema", {})}
    put_weights(module, weights, where=str(path))


def put_weights(module: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Copy `weights` into the tensors of the same names; those not named stay.

    Raises:
        CheckpointError: names the first tensor that is unknown or has another shape.
    """
    current = module.state_dict()
    for name, tensor in weights.items():
        shape = tuple(current[name].shape) if name in current else "none"
        if shape != tuple(tensor.shape):
            raise CheckpointError(
                f"The checkpoint is of another configuration: {name} has shape "
                f"{tuple(tensor.shape)} there, {shape} here.",
                where=where,
                fix="Train into another folder, or use the configuration it was made with.",
            )
    for name, tensor in weights.items():
        current[name].copy_(tensor)  # the tensors of a state_dict are the module's own


class CheckpointFolder:
    """The checkpoints of one training.

    Args:
        path: the folder that holds them, made when the first is saved.
        keep: how many of the newest stay; the best stays too.
    """

    def __init__(self, path: Path, keep: int) -> None:
        self.path = path
        self._keep = keep

    def names(self) -> list[str]:
        """The names of all checkpoints, lowest step first."""
        if not self.path.is_dir():
            return []
        return sorted((p.name for p in self.path.iterdir() if _NAME.fullmatch(p.name)), key=_order)

    def steps(self) -> list[Path]:
        """The last checkpoint of every step that has one, lowest step first."""
        by_step = {_order(name)[0]: self.path / name for name in self.names()}
        return list(by_step.values())

    def newest(self) -> Path | None:
        names = self.names()
        return self.path / names[-1] if names else None

    def save(self, name: str, checkpoint: Checkpoint, best: str | None) -> Path:
        """Write a checkpoint, then remove those that are not to be kept."""
        save_checkpoint(self.path / name, checkpoint)
        kept = {best, *self.names()[-self._keep :]}
        for stale in self.names():
            if stale not in kept:
                # renamed first, so that nobody ever finds half of it
                hidden = self.path / f".{stale}.removed"
                shutil.rmtree(hidden, ignore_errors=True)
                (self.path / stale).rename(hidden)
                shutil.rmtree(hidden)
        return self.path / name

    def sweep(self) -> None:
        """Remove what a killed process was writing or removing."""
        if self.path.is_dir():
            for leftover in self.path.glob(".step-*"):
                shutil.rmtree(leftover, ignore_errors=True)


def checkpoint_name(step: int, *, evaluation_due: bool) -> str:
    return f"step-{step:08d}" + ("-before-evaluation" if evaluation_due else "")


def _order(name: str) -> tuple[int, bool]:
    match = _NAME.fullmatch(name)
    assert match
    return int(match[1]), match[2] is None


def _verify(path: Path) -> None:
    """Raises ValueError or OSError if a file is missing, changed or does not belong here."""
    checksums = json.loads((path / CHECKSUMS).read_text(encoding="utf-8"))
    present = {file.name for file in path.iterdir()} - {CHECKSUMS}
    if missing := sorted(set(checksums) - present):
        raise ValueError(f"{missing[0]} is missing")
    if extra := sorted(present - set(checksums)):
        raise ValueError(f"{extra[0]} does not belong to it")
    for name, expected in checksums.items():
        if sha256_file(path / name) != expected:
            raise ValueError(f"{name} has changed since it was written")


def _fix_for(path: Path) -> str:
    siblings = CheckpointFolder(path.parent, keep=1).names()
    earlier = [name for name in siblings if _order(name) < _order(path.name)] if siblings else []
    if earlier:
        return f"Delete the folder {path.name} to resume from {earlier[-1]}."
    return f"Delete the folder {path.name} to start from the beginning: it is the only checkpoint."


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous, on the CPU, no two sharing memory (tied parameters are written twice)."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        copy = tensor.detach().cpu().contiguous()
        if copy.untyped_storage().nbytes() != copy.nbytes or copy.data_ptr() in seen:
            copy = copy.clone()
        seen.add(copy.data_ptr())
        result[name] = copy
    return result
