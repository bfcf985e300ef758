"""Each task, through the real loop, learns sixteen pictures with random features by heart."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sixteen import COMMENTS, ListSource

from beholder.judge.model import JudgeModel
from beholder.tasks import (
    AttributesTaskConfig,
    CaptionTaskConfig,
    ScoreTaskConfig,
    TaskConfig,
    create_task,
)
from beholder.tasks.base import Task
from beholder.training import TrainConfig, TrainResult, train
from beholder.training.config import OptimizerConfig

MakeJudge = Callable[..., JudgeModel]
Batch = dict[str, Any]


def learn(
    task: TaskConfig, judge: JudgeModel, batch: Batch, folder: Path, **values: Any
) -> tuple[Task, TrainResult]:
    source = ListSource(batch)
    settings = {"batch_size": 16, "lr": 1e-2, "clip_norm": 1.0, "log_every": 1000, **values}
    config = TrainConfig(optimizer=OptimizerConfig(weight_decay=0.0), **settings)
    trained = create_task(task, judge).eval()
    trained.prepare([batch])
    before = trained.evaluate([batch])["loss"]
    result = train(trained, source, source, config, folder, device="cpu")
    assert result.history[-1].metrics["loss"] < before / 3
    return trained, result


@pytest.mark.parametrize("head", [{}, {"bottleneck": 8}, {"hidden": (32,)}])
def test_scores(head: dict[str, Any], make_judge: MakeJudge, batch: Batch, tmp_path: Path) -> None:
    judge = make_judge("score", **head)
    _, result = learn(
        ScoreTaskConfig(), judge, batch, tmp_path, epochs=150, evaluate_every=50, batch_size=8
    )
    assert result.metric == "srcc"
    assert result.best is not None
    assert result.best.metrics["srcc"] > 0.99
    assert result.best.metrics["rmse"] < 5  # of scores between 10 and 90


def test_attributes(make_judge: MakeJudge, batch: Batch, tmp_path: Path) -> None:
    batch["attributes"]["light"][4] = -1
    judge = make_judge("attributes")
    config = AttributesTaskConfig(label_smoothing=0.0)
    _, result = learn(config, judge, batch, tmp_path, epochs=60, evaluate_every=20)
    assert result.metric == "top1"
    assert result.best is not None
    assert result.best.metrics["top1"] == 1.0
    probabilities = judge.opinions(judge.features(batch)).probabilities_BK
    for name, labels in batch["attributes"].items():
        known = labels >= 0
        assert torch.equal(probabilities[name].argmax(-1)[known], labels[known])


def test_comments(make_judge: MakeJudge, batch: Batch, tmp_path: Path) -> None:
    judge = make_judge("comment")
    config = CaptionTaskConfig(label_smoothing=0.0)
    task, result = learn(config, judge, batch, tmp_path, epochs=80, evaluate_every=40, lr=5e-3)
    assert result.metric == "CIDEr-D"
    with torch.no_grad():
        assert task.write(batch["tokens"]) == [captions[0] for captions in COMMENTS]
    # CIDEr-D gives 10 to a comment that is its only reference
    assert result.best is not None
    assert result.best.metrics["CIDEr-D"] == pytest.approx(10, abs=0.01)


def test_an_end_to_end_step_moves_the_backbone(
    make_judge: MakeJudge, batch: Batch, tmp_path: Path
) -> None:
    class TinyBackbone(torch.nn.Module):
        def __init__(self, token_dim: int, pooled_dim: int) -> None:
            super().__init__()
            self.token_dim, self.pooled_dim = token_dim, pooled_dim
            self.layer = torch.nn.Conv2d(3, pooled_dim, 4)

        def forward(self, pixels_B3HW: torch.Tensor, *, tokens: bool) -> Any:
            return judge.features({"pooled": self.layer(pixels_B3HW).mean((2, 3))})

    judge = make_judge("score")
    backbone = TinyBackbone(judge.config.token_dim, judge.config.pooled_dim)
    judge.attach(backbone)  # type: ignore[arg-type]
    before = backbone.layer.weight.detach().clone()
    pictures = {k: v for k, v in batch.items() if k not in ("tokens", "pooled")}
    pictures["pixels"] = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    config = ScoreTaskConfig(train_backbone=True)
    learn(config, judge, pictures, tmp_path, epochs=100, evaluate_every=50)
    assert not torch.equal(backbone.layer.weight, before)
    # a frozen one stays as it is
    before = backbone.layer.weight.detach().clone()
    train(
        create_task(ScoreTaskConfig(), judge),
        ListSource(pictures),
        None,
        TrainConfig(epochs=1),
        tmp_path / "frozen",
        device="cpu",
    )
    assert torch.equal(backbone.layer.weight, before)


@pytest.mark.parametrize("task", [ScoreTaskConfig(), AttributesTaskConfig(), CaptionTaskConfig()])
def test_accumulated_micro_batches_train_like_the_whole_batch(
    task: TaskConfig, make_judge: MakeJudge, batch: Batch, tmp_path: Path
) -> None:
    batch["score"][[1, 2, 3, 8]] = math.nan
    batch["attributes"]["light"][5:9] = -1
    batch["comments"][7] = []
    batch["comments"][0] = batch["comments"][0] * 3
    weights = []
    for size, accumulate in ((16, 1), (4, 4)):
        trained = create_task(task, make_judge())
        config = TrainConfig(
            epochs=5,
            batch_size=size,
            accumulate=accumulate,
            lr=1e-2,
            # Adam would blow up the rounding of gradients that are 0, such as of a key's bias
            optimizer=OptimizerConfig(name="sgd"),
        )
        folder = tmp_path / str(accumulate)
        train(trained, ListSource(batch), None, config, folder, device="cpu")
        weights.append(dict(trained.trainable()))
    for name, whole in weights[0].items():
        torch.testing.assert_close(weights[1][name], whole, rtol=1e-4, atol=1e-5)
