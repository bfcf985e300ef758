"""Averages of weights and of batch norms' statistics: the formula, evaluation, resumption."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from tiny_training import TinySource, TinyTask, config, weights
from torch import nn

from beholder.training import loop, train
from beholder.training.checkpoints import load_checkpoint, save_checkpoint
from beholder.training.ema import EMA, moving_statistics
from beholder.training.step import StepRunner

STATISTICS = ["norm.running_mean", "norm.running_var"]


def test_ema_is_its_formula():
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    ema = EMA([("w", parameter)], decay=0.5)
    expected = np.array([1.0, -2.0])
    for step, value in enumerate([3.0, 7.0, -1.0, 2.0, 5.0, 5.0, 5.0, 5.0, 9.0], start=1):
        with torch.no_grad():
            parameter.fill_(value)
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(ema.state_dict()["w"], torch.tensor(expected).float())
    with ema.in_place():
        torch.testing.assert_close(parameter.data, torch.tensor(expected).float())
    assert parameter.tolist() == [9.0, 9.0]


def test_only_statistics_that_move_are_averaged():
    task = TinyTask(norm=True)
    task.train()
    assert [name for name, _ in moving_statistics(task)] == STATISTICS
    task.norm.eval()  # as `freeze_bn_stats` and a teacher's are
    assert moving_statistics(task) == []
    assert [name for name, _ in moving_statistics(nn.BatchNorm1d(2))] == [
        "running_mean",
        "running_var",
    ]


def test_evaluation_and_result_have_averaged_statistics(tmp_path, monkeypatch):
    """Statistics of the newest weights would not fit averaged ones."""

    class Recording(StepRunner):
        seen: list[dict[str, torch.Tensor]] = []  # noqa: RUF012

        def run(self, micro_batches, step, lr):
            super().run(micro_batches, step, lr)
            self.seen.append(weights(self._task))

    class Watching(TinyTask):
        def evaluate(self, batches):
            self.evaluated = weights(self)
            return super().evaluate(batches)

    monkeypatch.setattr(loop, "StepRunner", Recording)
    task = Watching(norm=True)
    start = weights(task)
    settings = config(epochs=1, ema_decay=0.9)
    result = train(task, TinySource(50), TinySource(20), settings, tmp_path, "cpu")
    newest = Recording.seen[-1]
    for name in [*STATISTICS, "head.weight"]:
        expected = start[name].double()
        for step, values in enumerate(Recording.seen, start=1):
            decay = min(0.9, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * values[name].double()
        torch.testing.assert_close(task.evaluated[name].double(), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(task.state_dict()[name], task.evaluated[name])
        assert not torch.equal(task.evaluated[name], newest[name])
    count = "norm.num_batches_tracked"
    assert int(task.state_dict()[count]) == int(newest[count]) == len(Recording.seen)
    assert set(load_checkpoint(result.checkpoint).tensors["ema"]) == {
        *(name for name, _ in task.named_parameters()),
        *STATISTICS,
    }


@pytest.mark.parametrize("old", [False, True])
def test_averages_go_on_from_a_checkpoint(old, tmp_path):
    """An older checkpoint, with averages of parameters alone, goes on too."""
    settings = config(schedule={"name": "constant"}, epochs=2, ema_decay=0.9)
    whole, again = TinyTask(norm=True), TinyTask(norm=True)
    train(whole, TinySource(50), None, settings, tmp_path / "whole", "cpu")
    stopped = settings.model_copy(update={"max_steps": 5})
    result = train(again, TinySource(50), None, stopped, tmp_path / "two", "cpu")
    if old:
        checkpoint = load_checkpoint(result.checkpoint)
        for name in STATISTICS:
            del checkpoint.tensors["ema"][name]
        shutil.rmtree(result.checkpoint)
        save_checkpoint(result.checkpoint, checkpoint)
    train(again, TinySource(50), None, settings, tmp_path / "two", "cpu")
    for name, tensor in weights(whole).items():
        same = torch.equal(tensor, again.state_dict()[name])
        assert same == (not old or name not in STATISTICS), name
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0.2, atol=0.2)
