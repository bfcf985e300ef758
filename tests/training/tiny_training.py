"""A small task and source for the tests of the training room, and for processes they start."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from beholder.errors import PictureError
from beholder.training import TrainConfig

FEATURES = 6


class TinySource:
    """Vectors with a score; each load adds noise that is a function of (epoch, key).

    Args:
        missing: every so many rows, one has no score; 0: all have.
        noise: size of the noise.
        seconds: that a load takes.
    """

    def __init__(
        self, rows: int = 50, *, missing: int = 0, noise: float = 0.0, seconds: float = 0.0
    ) -> None:
        self.keys: Sequence[str] = [f"folder/{row}.jpg" for row in range(rows)]
        generator = torch.Generator().manual_seed(3)
        self.x = torch.randn(rows, FEATURES, generator=generator)
        self.y = self.x.sin().sum(1) + 0.1 * torch.randn(rows, generator=generator)
        if missing:
            self.y[::missing] = float("nan")
        self.noise, self.seconds = noise, seconds
        self.loaded: list[tuple[int, list[int]]] = []
        self.broken: int | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def load(self, indices: Sequence[int], epoch: int) -> dict[str, Any]:
        rows = list(indices)
        self.loaded.append((epoch, rows))
        if self.broken in rows:
            raise PictureError("broken", code="truncated", where=self.keys[self.broken])
        time.sleep(self.seconds)
        noise = np.stack(
            [np.random.default_rng([epoch, row]).normal(size=FEATURES) for row in rows]
        )
        pooled = self.x[rows] + self.noise * torch.from_numpy(noise).float()
        return {"keys": [self.keys[row] for row in rows], "pooled": pooled, "score": self.y[rows]}


class TinyTask(nn.Module):
    """Mean squared error of known scores; optionally batch norm and dropout."""

    directions: ClassVar = {"rmse": "min", "mean": "max"}

    def __init__(self, *, dropout: float = 0.0, norm: bool = False, double: bool = False) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.backbone = nn.Linear(FEATURES, 16)
        self.norm = nn.BatchNorm1d(16) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(16, 1)
        self.register_buffer("shift", torch.zeros(FEATURES))
        self.prepared = 0
        if double:
            self.double()

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        return list(self.named_parameters())

    def no_weight_decay(self) -> set[str]:
        return set()

    def prepare(self, batches: Iterable[dict[str, Any]]) -> None:
        assert not self.training
        self.prepared += 1
        self.shift.copy_(torch.cat([batch["pooled"] for batch in batches]).mean(0))

    def predict(self, batch: dict[str, Any]) -> Tensor:
        x = batch["pooled"].to(self.shift.dtype) - self.shift
        return self.head(self.drop(torch.tanh(self.norm(self.backbone(x)))))[:, 0]

    def weight(self, batch: dict[str, Any]) -> float:
        return float(batch["score"].isfinite().sum())

    def loss(self, prediction: Tensor, score: Tensor) -> Tensor:
        known = score.isfinite()
        return (prediction[known] - score[known]).square().mean()

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        prediction = self.predict(batch)
        known = batch["score"].isfinite()
        return {"loss": self.loss(prediction, batch["score"]), "mean": prediction[known].mean()}

    def evaluate(self, batches: Iterable[dict[str, Any]]) -> dict[str, float]:
        assert not self.training and not torch.is_grad_enabled()
        torch.rand(3)  # an evaluation may draw; the training must not notice
        pairs = [(self.predict(batch), batch["score"]) for batch in batches]
        prediction, score = (torch.cat(part) for part in zip(*pairs, strict=True))
        return {"rmse": float(self.loss(prediction, score).sqrt()), "mean": float(score.nanmean())}


class CorrelationTask(TinyTask):
    """1 - PLCC over the whole step, plus a local mean: the hardest mixture."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gather = lambda rows: rows

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        prediction = self.predict(batch)
        everyone, score = self.gather(prediction), self.gather(batch["score"])
        known = score.isfinite()
        a, b = (value[known] - value[known].mean() for value in (everyone, score))
        correlation = (a * b).sum() / (a.square().sum() * b.square().sum() + 1e-6).sqrt()
        local = self.loss(prediction, batch["score"])
        return {"loss": 1 - correlation + 0.1 * local, "correlation": correlation}


def config(**values: Any) -> TrainConfig:
    return TrainConfig(**{"epochs": 3, "batch_size": 8, "lr": 0.01, "log_every": 4, **values})


# name -> task, rows, configuration: the same result in one process as in several
SCENARIOS: dict[str, tuple[type[TinyTask], int, dict[str, Any]]] = {
    "plain": (TinyTask, 50, {"batch_size": 8}),
    "accumulated": (TinyTask, 45, {"batch_size": 6, "accumulate": 3, "clip_norm": 0.5}),
    "ragged": (TinyTask, 17, {"batch_size": 4, "accumulate": 2, "ema_decay": 0.9}),
    "correlation": (CorrelationTask, 50, {"batch_size": 10}),
    "correlation ragged": (CorrelationTask, 33, {"batch_size": 8}),
    "correlation accumulated": (CorrelationTask, 61, {"batch_size": 6, "accumulate": 5}),
}

# with batch norms that are synchronised: the same result too
NORMED: dict[str, type[TinyTask]] = {"normed": TinyTask, "normed correlation": CorrelationTask}


def normed(name: str) -> tuple[TinyTask, TinySource, TrainConfig]:
    settings = {"optimizer": {"name": "sgd"}, "clip_norm": 1.0, "ema_decay": 0.5}
    source = TinySource(50, missing=7, noise=0.3)
    return NORMED[name](norm=True), source, config(batch_size=10, **settings)


def scenario(name: str, **more: Any) -> tuple[TinyTask, TinySource, TrainConfig]:
    kind, rows, values = SCENARIOS[name]
    source = TinySource(rows, missing=7, noise=0.3)
    return kind(), source, config(**{**values, **more})


def weights(task: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in task.state_dict().items()}


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("step-*") if path.is_dir())
