"""The project's own tasks in the loop: a step in pieces is a step in one."""

from __future__ import annotations

import pytest
import torch
from tiny_training import TinySource, config, weights

from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.models.config import HeadConfig
from beholder.tasks.attributes import AttributesTask
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
def test_a_step_in_pieces_is_a_step_in_one(kind, tmp_path):
    source = Opinions(50, missing=6)
    found = []
    for name, sizes in {
        "pieces": {"batch_size": 4, "accumulate": 4},
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
        found.append(weights(task))
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], rtol=0, atol=1e-5)
    assert any(not torch.equal(found[0][name], before[name]) for name in before)
