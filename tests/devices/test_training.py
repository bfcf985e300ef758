"""Training on the device: the CPU's steps, evaluations and log lines; a stop changes nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compared import PRETENDS, assert_same, lines_of
from objectives import NAMES, Sixteen, make
from PIL import Image
from safetensors.torch import load_file

from beholder.data.annotations import AnnotationTable
from beholder.data.augment import Augmentation, AugmentConfig
from beholder.data.transforms import EvalTransform
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.models.config import HeadConfig
from beholder.models.heads import AttributeHeads
from beholder.models.teachers import Member, Teacher
from beholder.tasks import create_task
from beholder.tasks.base import Task
from beholder.tasks.config import DistillationTaskConfig
from beholder.training import TrainConfig, TrainResult, train
from beholder.training.cached_teacher_logits import CachedTeacherSource, write_teacher_logits
from beholder.training.distributed import start
from beholder.training.sources import PictureSource

CLASSES = {"light": ("bright", "dim", "dark"), "mood": ("calm", "wild")}
TRANSFORM = EvalTransform(size=(32, 32))


def settings(**values: Any) -> TrainConfig:
    """Plain descent: Adam makes a step of what is no more than rounding, as of biases of keys."""
    options = {"epochs": 2, "batch_size": 4, "accumulate": 2, "lr": 1e-2, "log_every": 2}
    options |= {
        "workers": 0,
        "amp": "off",
        "ema_decay": 0.9,
        "clip_norm": 1.0,
        "optimizer": {"name": "sgd"},
    }
    return TrainConfig(**{**options, **values})


def fit(name: str, folder: Path, where: str | None, source: Sixteen | None = None) -> TrainResult:
    task = make(name)
    result = train(task, source or Sixteen(), Sixteen(), settings(), folder, where)
    parameter = next(task.parameters())
    assert parameter.device.type == start(where).device.type, "it was trained elsewhere"
    return result


def checkpoint(result: TrainResult) -> dict[str, torch.Tensor]:
    return load_file(result.checkpoint / "weights.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_the_cpus_weights_metrics_and_log_lines(name: str, tmp_path: Path) -> None:
    here, there = fit(name, tmp_path / "cpu", "cpu"), fit(name, tmp_path / "device", None)
    assert here.steps == there.steps == 4
    assert_same([e.metrics for e in there.history], [e.metrics for e in here.history])
    assert_same(lines_of(tmp_path / "device"), lines_of(tmp_path / "cpu"))
    if PRETENDS:
        assert_same(checkpoint(there), checkpoint(here))


class Stopping(Sixteen):
    """Asks the training to stop when so many batches were loaded."""

    left = 9  # the batches of `prepare`, and those of two steps and a half

    def load(self, indices: Any, epoch: int) -> dict[str, Any]:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().load(indices, epoch)


def test_a_stopped_training_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    name = "self-critical"  # the one that draws, beside dropout
    whole = fit(name, tmp_path / "whole", None)
    with pytest.raises(SystemExit) as left:
        fit(name, tmp_path / "stopped", None, Stopping())
    assert left.value.code == 143
    resumed = fit(name, tmp_path / "stopped", None)
    assert 0 < resumed.resumed_from < resumed.steps
    assert_same(checkpoint(resumed), checkpoint(whole))
    assert_same(lines_of(tmp_path / "stopped"), lines_of(tmp_path / "whole"))
    if PRETENDS:
        for weights, expected in zip(
            checkpoint(resumed).values(), checkpoint(whole).values(), strict=True
        ):
            assert torch.equal(weights, expected)


@pytest.fixture
def pictures(tmp_path: Path) -> PictureSource:
    for row in range(6):
        noise = np.random.default_rng(row).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{row}.png")
    table = AnnotationTable.from_columns(
        [f"{row}.png" for row in range(6)],
        attributes={
            "light": [*["bright", "dim", "dark", "dim", "bright"], None],
            "mood": ["calm"] * 6,
        },
        classes=CLASSES,
    )
    return PictureSource(tmp_path, table, TRANSFORM, Augmentation(AugmentConfig(flip=0.5)))


def make_teacher() -> Teacher:
    """Two networks, one of which sees larger pictures."""
    members = []
    for seed, size in enumerate((32, 48)):
        config = BackboneConfig(name="timm/test_efficientnet", weights="random", size=size, seed=1)
        backbone = create_backbone(config)
        torch.manual_seed(seed)
        heads = AttributeHeads(backbone.pooled_dim, CLASSES)
        members.append(Member(backbone, heads, TRANSFORM))
    return Teacher(members, CLASSES)


def make_student(teacher: Teacher | None) -> Task:
    backbone = create_backbone(
        BackboneConfig(name="timm/test_resnet", weights="random", size=32, seed=2)
    )
    torch.manual_seed(3)
    config = JudgeConfig(
        backbone=backbone.config, pooled_dim=backbone.pooled_dim, token_dim=backbone.token_dim,
        attributes=HeadConfig(), classes=CLASSES,
    )  # fmt: skip
    model = JudgeModel(config, backbone)
    return create_task(DistillationTaskConfig(train_backbone=True), model, None, teacher)


@pytest.mark.parametrize("cached", [False, True], ids=["live", "cached"])
def test_a_teacher_teaches_the_same(cached: bool, pictures: PictureSource, tmp_path: Path) -> None:
    lines = []
    for where in ("cpu", None):
        processes, folder = start(where), tmp_path / str(where)
        teacher = make_teacher().to(processes.device)
        config = settings(accumulate=1, lr=1e-4)
        source: Any = pictures
        if cached:
            store = write_teacher_logits(teacher, pictures, folder / "said", 2, config, processes)
            source = CachedTeacherSource(pictures, store, CLASSES)
        task = make_student(None if cached else teacher)
        train(task, source, pictures if not cached else None, config, folder, where)
        lines.append(lines_of(folder))
    assert lines[0], "nothing was trained"
    assert_same(lines[1], lines[0])
