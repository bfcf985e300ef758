"""The project's own tasks in the loop: a step in micro-batches is a step in one."""

from __future__ import annotations

import pytest
import torch
from tiny_training import TinySource, config, weights

from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.models.config import HeadConfig
from beholder.tasks.attributes import AttributesTask
from beholder.tasks.config import ScoreTaskConfig
from beholder.tasks.score import ScoreTask
from beholder.training import train

CLASSES = {"light": ("dark", "bright"), "kind": ("a", "b", "c")}


class Opinions(TinySource):
    def load(self, indices, epoch):
        batch = super().load(indices, epoch)
        rows = torch.tensor(list(indices))
        kind = torch.where(rows % 4 == 0, -1, rows % 3)
        return {**batch, "attributes": {"light": (self.x[rows, 0] > 0).long(), "kind": kind}}


@pytest.mark.parametrize("kind", [ScoreTask, AttributesTask])
def test_a_step_in_micro_batches_is_a_step_in_one(kind, tmp_path):
    source = Opinions(50, missing=6)
    results = []
    for name, sizes in {
        "micro-batches": {"batch_size": 4, "accumulate": 4},
        "one": {"batch_size": 16},
    }.items():
        torch.manual_seed(2)
        heads = HeadConfig(hidden=(8,))
        judge = JudgeConfig(
            backbone=BackboneConfig(name="efficientnet-lite0"),
            pooled_dim=6,
            token_dim=6,
            score=heads if kind is ScoreTask else None,
            attributes=heads if kind is AttributesTask else None,
            classes=CLASSES if kind is AttributesTask else {},
        )
        task = kind(JudgeModel.from_config(judge, with_backbone=False))
        before = weights(task)
        result = train(task, source, source, config(**sizes, epochs=4), tmp_path / name, "cpu")
        assert result.history[-1].metrics["loss"] < result.history[0].metrics["loss"]
        results.append(weights(task))
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], rtol=0, atol=1e-5)
    assert any(not torch.equal(results[0][name], before[name]) for name in before)


def test_the_whole_network_learns_with_layer_decay(tmp_path):
    class Pictures(TinySource):
        def load(self, indices, epoch):
            batch = super().load(indices, epoch)
            del batch["pooled"]
            level = self.x[torch.tensor(list(indices)), 0]
            pixels = level[:, None, None, None].expand(-1, 3, 32, 32).contiguous()
            return {**batch, "pixels": pixels, "score": level}

    torch.manual_seed(0)
    backbone = create_backbone(BackboneConfig(name="timm/resnet10t", weights="random", size=32))
    judge = JudgeConfig(
        backbone=backbone.config,
        pooled_dim=backbone.pooled_dim,
        token_dim=backbone.token_dim,
        score=HeadConfig(),
    )
    task = ScoreTask(JudgeModel(judge, backbone), ScoreTaskConfig(train_backbone=True))
    names = {name for name, _ in task.trainable()}
    assert task.depths().keys() == {name for name in names if ".backbone." in name}
    before = weights(task)
    settings = config(
        batch_size=8,
        epochs=2,
        layer_decay=0.01,
        optimizer={"name": "sgd"},
        schedule={"name": "constant"},
    )
    train(task, Pictures(16), None, settings, tmp_path, "cpu")
    moved = {name: float((weights(task)[name] - before[name]).norm()) for name in names}
    stem = moved["model.backbone.trunk.conv1.0.weight"]
    top = moved["model.backbone.trunk.layer4.0.conv2.weight"]
    assert 0 < 100 * stem < top < moved["model.heads.score.layers.0.weight"]
