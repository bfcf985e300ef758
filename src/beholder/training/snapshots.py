"""Saving a running training as checkpoints, and restoring it.

Only the main process reads and writes; it broadcasts what it has read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from beholder.data.sharing import Processes
from beholder.errors import CheckpointError
from beholder.training.checkpoints import (
    Checkpoint,
    CheckpointFolder,
    load_checkpoint,
    put_weights,
)
from beholder.training.config import TrainConfig
from beholder.training.loader import BatchSource
from beholder.training.optimisers import load_optimizer_state, optimizer_state
from beholder.training.random_state import random_state, restore_random_state, seed_everything
from beholder.training.results import Position
from beholder.training.step import StepRunner


class Snapshots:
    """Saves and restores one training.

    Args:
        parameters: the trainable ones; other parameters are not saved, buffers are.
        data: `fingerprint` of the training pictures.

    Attributes:
        saved: name of the newest checkpoint that is known to match the current state.
    """

    def __init__(
        self,
        task: nn.Module,
        parameters: Sequence[tuple[str, nn.Parameter]],
        runner: StepRunner,
        config: TrainConfig,
        processes: Processes,
        folder: CheckpointFolder,
        data: str,
    ) -> None:
        self.saved: str | None = None
        self._task = task
        self._parameters = parameters
        self._runner = runner
        self._config = config
        self._processes = processes
        self._folder = folder
        self._data = data
        trainable = {id(parameter) for _, parameter in parameters}
        self._frozen = {name for name, p in task.named_parameters() if id(p) not in trainable}

    def save(self, name: str, position: Position, lines: int) -> None:
        """Write a checkpoint. `lines`: how many lines of metrics.jsonl belong to it."""
        random_states = self._processes.all_gather(random_state(self._processes.device))
        runner = self._runner
        averages = runner.averages.state_dict()
        self.saved = name
        if not self._processes.is_main:
            return
        kept = {n: t for n, t in self._task.state_dict().items() if n not in self._frozen}
        tensors = {
            "weights": kept,
            "optimizer": optimizer_state(runner.optimizer, self._parameters),
            "interval": averages,
            "random": {
                f"{rank}:{generator}": tensor
                for rank, states in enumerate(random_states)
                for generator, tensor in states.items()
            },
        }
        if runner.ema:
            tensors["ema"] = runner.ema.state_dict()
        state = {
            "position": position.to_dict(),
            "lines": lines,
            "loss_scale": runner.scaler.state_dict() or None,
            "config": self._config.model_dump(mode="json"),
            "data": self._data,
            "processes": self._processes.world_size,
        }
        self._folder.save(name, Checkpoint(state, tensors), best=position.best_name)

    def restore(self, path: Path) -> tuple[Position, int]:
        """Restore a checkpoint; its position, and how many lines of metrics.jsonl belong to it.

        Raises:
            CheckpointError: damaged, or of another configuration or other pictures.
        """
        checkpoint = self._read(path)
        state, tensors = checkpoint.state, checkpoint.tensors
        self._check_same(state, path)
        put_weights(self._task, tensors["weights"], where=str(path))
        runner = self._runner
        load_optimizer_state(runner.optimizer, self._parameters, tensors["optimizer"])
        runner.averages.load_state_dict(tensors["interval"])
        if runner.ema:
            runner.ema.load_state_dict(tensors["ema"])
        if runner.scaler.is_enabled() and state["loss_scale"]:
            runner.scaler.load_state_dict(_scaler_state(runner.scaler, state["loss_scale"]))
        position = Position.from_dict(state["position"])
        rank = self._processes.rank
        if state["processes"] == self._processes.world_size:
            states = {
                name.partition(":")[2]: tensor
                for name, tensor in tensors["random"].items()
                if name.startswith(f"{rank}:")
            }
            restore_random_state(states, self._processes.device)
        else:
            seed_everything(self._config.seed + position.step, rank)
        self.saved = path.name
        return position, int(state["lines"])

    def give_weights(self, path: Path) -> None:
        """Give the task a checkpoint's weights, averaged ones where it has them."""
        tensors = self._read(path).tensors
        put_weights(self._task, {**tensors["weights"], **tensors.get("ema", {})}, where=str(path))

    def _read(self, path: Path) -> Checkpoint:
        loaded: Checkpoint | CheckpointError | None = None
        if self._processes.is_main:
            try:
                loaded = load_checkpoint(path)
            except CheckpointError as error:
                loaded = error  # for all processes, so that none waits for the others
        loaded = self._processes.broadcast(loaded)
        if isinstance(loaded, CheckpointError):
            raise loaded
        assert loaded is not None
        return loaded

    def _check_same(self, state: dict[str, Any], path: Path) -> None:
        before = TrainConfig.model_validate(state["config"]).changes_result()
        current = self._config.changes_result()
        changed = [name for name in current if current[name] != before[name]]
        if changed:
            name = changed[0]
            raise CheckpointError(
                f"The checkpoint is of another configuration: {name} was {before[name]}, "
                f"is {current[name]}.",
                where=str(path),
                fix="Train into another folder, or set it back.",
            )
        if state["data"] != self._data:
            raise CheckpointError(
                "The checkpoint is of other training pictures.",
                where=str(path),
                fix="Train into another folder, or use the table it was made with.",
            )


def _scaler_state(scaler: torch.amp.GradScaler, saved: dict[str, Any]) -> dict[str, Any]:
    """A GradScaler's state; older checkpoints have its `value` and `good_steps`."""
    if "value" not in saved:
        return saved
    return {
        **scaler.state_dict(), "scale": saved["value"], "_growth_tracker": saved["good_steps"]
    }  # fmt: skip


def fingerprint(source: BatchSource) -> str:
    """A hash of the pictures and their order, which the position in an epoch depends on."""
    digest = hashlib.sha256()
    for key in source.keys:
        digest.update(key.encode("utf-8") + b"\0")
    return digest.hexdigest()
