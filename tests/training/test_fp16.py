"""Scaled losses of fp16: overflows leave a step out, the scale goes into checkpoints and back."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tiny_training import TinySource, TinyTask, config, weights

from beholder.errors import TrainingError
from beholder.training import loop, train
from beholder.training.checkpoints import load_checkpoint, save_checkpoint
from beholder.training.step import LOWEST_SCALE, StepRunner


class Overflowing(TinyTask):
    """Gradients, not losses, overflow in the third forward pass."""

    def __init__(self, always=False):
        super().__init__()
        self.passes, self.always = 0, always

    def forward(self, batch):
        self.passes += 1
        outputs = super().forward(batch)
        if self.passes == 3 or self.always:
            outputs["loss"].register_hook(lambda gradient: gradient * float("inf"))
        return outputs


class Recording(StepRunner):
    """Begins with a scale at which nothing else overflows."""

    def __init__(self, *args):
        super().__init__(*args)
        self.scaler.update(2.0**8)

    def run(self, micro_batches, step, lr):
        before = weights(self._task)
        super().run(micro_batches, step, lr)
        after = weights(self._task)
        moved = any(not torch.equal(before[name], after[name]) for name in before)
        self._task.record = [*getattr(self._task, "record", []), (moved, self.scaler.get_scale())]


@pytest.mark.parametrize("name", ["adamw", "sgd", "radam"])  # fused, and not
def test_an_overflow_leaves_the_step_out_and_halves_the_scale(name, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "StepRunner", Recording)
    settings = config(amp="fp16", optimizer={"name": name}, epochs=1, clip_norm=1.0)
    task = Overflowing()
    train(task, TinySource(56), None, settings, tmp_path, "cpu")
    moved = [step_moved for step_moved, _ in task.record]
    # RAdam's sixth move is the seventh step, since the third was none
    expected = [False] * 6 + [True] if name == "radam" else [True, True, False, *[True] * 4]
    assert moved == expected
    assert [scale for _, scale in task.record] == [2.0**8] * 2 + [2.0**7] * 5
    assert all(tensor.isfinite().all() for tensor in weights(task).values())


def test_endless_overflows_stop_the_training(tmp_path):
    task = Overflowing(always=True)
    before = weights(task)
    with pytest.raises(TrainingError, match="gradient is not finite at step 31"):
        train(task, TinySource(), None, config(amp="fp16", epochs=9), tmp_path, "cpu")
    assert 2.0 ** (16 - 31) < LOWEST_SCALE == 2.0 ** (16 - 30)
    assert torch.equal(task.head.weight, before["head.weight"])


@pytest.mark.parametrize("old", [False, True])
def test_the_scale_goes_on_from_a_checkpoint(old, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "StepRunner", Recording)
    settings = config(amp="fp16", schedule={"name": "constant"}, epochs=2)
    stopped = settings.model_copy(update={"max_steps": 5})
    result = train(Overflowing(), TinySource(50), None, stopped, tmp_path, "cpu")
    checkpoint = load_checkpoint(result.checkpoint)
    scale = checkpoint.state["loss_scale"]
    assert (scale["scale"], scale["_growth_tracker"]) == (2.0**7, 2)
    if old:
        checkpoint.state["loss_scale"] = {"value": 2.0**7, "good_steps": 2}
        shutil.rmtree(result.checkpoint)
        save_checkpoint(result.checkpoint, checkpoint)
    result = train(TinyTask(), TinySource(50), None, settings, tmp_path, "cpu")
    state = json.loads((result.checkpoint / "state.json").read_text())
    scale = state["loss_scale"]
    assert (scale["scale"], scale["_growth_tracker"]) == (2.0**7, 2 + result.steps - 5)
