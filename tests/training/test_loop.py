"""The loop's rules in one process: accumulation, the guard, best and early stop, logs, refusals."""

from __future__ import annotations

import json
import logging
import math

import pytest
import torch
from tiny_training import CorrelationTask, TinySource, TinyTask, checkpoints, config, weights

import beholder.training.loop as loop
from beholder.errors import CheckpointError, OutOfMemory, OutputError, TrainingError
from beholder.training import train
from beholder.training.checkpoints import load_weights
from beholder.training.loader import Plan
from beholder.training.step import StepRunner


def lines(folder, **wanted):
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in entries if all(line[key] == value for key, value in wanted.items())]


def trained(folder, task=None, source=None, val=None, **values):
    task = task or TinyTask()
    result = train(task, source or TinySource(), val, config(**values), folder, "cpu")
    return task, result


@pytest.mark.parametrize("kind", [TinyTask, CorrelationTask])
@pytest.mark.parametrize("rows", [48, 45, 33])
def test_accumulated_micro_batches_are_one_large_batch(kind, rows, tmp_path):
    """Ragged last batches, and micro-batches with fewer known scores than rows, included."""
    source = TinySource(rows, missing=5, noise=0.2)
    settings = {"clip_norm": 1.0, "optimizer": {"name": "radam", "eps": 1e-6}, "epochs": 4}
    accumulated, _ = trained(
        tmp_path / "a", kind(double=True), source, batch_size=4, accumulate=4, **settings
    )
    whole, _ = trained(tmp_path / "b", kind(double=True), source, batch_size=16, **settings)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(accumulated.state_dict()[name], tensor, rtol=0, atol=1e-9)
    for left, at_once in zip(lines(tmp_path / "a"), lines(tmp_path / "b"), strict=True):
        assert left["loss"] == pytest.approx(at_once["loss"], abs=1e-9)
        assert left["grad_norm"] == pytest.approx(at_once["grad_norm"], abs=1e-9)


def test_knowing_all_rows_first_leaves_random_numbers_and_statistics_alone(tmp_path):
    """A task that gathers is run twice per micro-batch; dropout and batch norm see one run."""

    class Gathering(TinyTask):
        def forward(self, batch):
            self.gather(batch["score"])
            return super().forward(batch)

    options = {"dropout": 0.3, "norm": True}
    settings = {"batch_size": 4, "accumulate": 3}
    source = TinySource(48)
    plain, _ = trained(tmp_path / "a", TinyTask(**options), source, **settings)
    twice, _ = trained(tmp_path / "b", Gathering(**options), source, **settings)
    for name, tensor in weights(plain).items():
        assert torch.equal(twice.state_dict()[name], tensor), name


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_moves_nothing(value, tmp_path, monkeypatch):
    class Watching(TinyTask):
        def weight(self, batch):
            return float(len(batch["keys"]))

        def loss(self, prediction, score):
            return (prediction - score).square().mean()

        def forward(self, batch):
            self.before = weights(self)
            return super().forward(batch)

    source = TinySource(24)
    source.y[17] = value
    moves = []
    step = torch.optim.AdamW.step

    def counted(optimizer):
        moves.append(1)
        return step(optimizer)

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    task = Watching()
    with pytest.raises(TrainingError) as caught:
        trained(tmp_path, task, source, batch_size=4, accumulate=2, ema_decay=0.5)
    order = Plan(24, 4, 2, seed=0).order(0)
    bad_step = order.index(17) // 8 + 1
    first = order.index(17) // 4 * 4
    assert len(moves) == bad_step - 1
    keys = ", ".join(f"folder/{row}.jpg" for row in order[first : first + 4])
    assert caught.value.where == f"step {bad_step}, images: {keys}"
    assert caught.value.exit_code == 1
    for name, tensor in weights(task).items():
        assert torch.equal(tensor, task.before[name])
    assert not checkpoints(tmp_path)


@pytest.mark.parametrize("name", ["radam", "adamw", "adam", "sgd"])
def test_the_deferred_guard_leaves_the_weights_of_before_the_bad_step(name, tmp_path, monkeypatch):
    """What CUDA does, done on the CPU: the flag stays with the device until the log line."""

    class Deferred(StepRunner):
        def __init__(self, *args):
            super().__init__(*args, defer_guard=True)

    class Watching(TinyTask):
        loads = 0

        def forward(self, batch):
            self.loads += 1
            self.seen = weights(self)
            outputs = super().forward(batch)
            if self.loads == 6:
                self.before = self.seen
                outputs["loss"] = outputs["loss"] / 0
            return outputs

    monkeypatch.setattr(loop, "StepRunner", Deferred)
    settings = {
        "optimizer": {"name": name, "weight_decay": 0.1},
        "log_every": 10,
        "clip_norm": 1.0,
        "schedule": {"name": "constant"},
    }
    task = Watching()
    with pytest.raises(TrainingError, match="step 6"):
        trained(tmp_path / "bad", task, **settings)
    assert task.loads == 10  # noticed where the loop reads anyway
    for key, tensor in weights(task).items():
        assert torch.equal(tensor, task.before[key])
    assert not lines(tmp_path / "bad")

    monkeypatch.undo()
    plain, _ = trained(tmp_path / "plain", **settings)
    monkeypatch.setattr(loop, "StepRunner", Deferred)
    deferred, _ = trained(tmp_path / "deferred", **settings)
    for key, tensor in weights(plain).items():
        torch.testing.assert_close(deferred.state_dict()[key], tensor, rtol=0, atol=1e-6)


def test_a_gradient_that_is_not_finite_is_told_from_a_loss(tmp_path):
    class Steep(TinyTask):
        def forward(self, batch):
            return {"loss": (self.head.weight * 0).abs().sqrt().sum()}  # 0, with gradient inf

    before = weights(Steep())
    task = Steep()
    task.prepare = None
    with pytest.raises(TrainingError, match="gradient is not finite at step 1") as caught:
        trained(tmp_path, task, batch_size=20, source=TinySource(20))
    assert "and 12 more" in caught.value.where
    for name, tensor in weights(task).items():
        assert torch.equal(tensor, before[name])


def test_the_best_checkpoint_is_kept_and_given_back(tmp_path):
    class Scripted(TinyTask):
        script = (3.0, 1.0, 2.0, math.nan, 1.5)

        def evaluate(self, batches):
            list(batches)
            self.kept = [*getattr(self, "kept", []), weights(self)]
            return {"rmse": self.script[len(self.kept) - 1], "mean": float(len(self.kept))}

    task = Scripted()
    _, result = trained(
        tmp_path, task, val=TinySource(5), epochs=5, save_every_steps=1, keep=2, batch_size=25
    )
    assert [entry.metrics["rmse"] for entry in result.history[:3]] == [3.0, 1.0, 2.0]
    assert result.best.step == 4
    assert result.metric == "rmse"
    assert checkpoints(tmp_path) == ["step-00000004", "step-00000009", "step-00000010"]
    assert result.checkpoint.name == "step-00000004"
    other = Scripted()
    load_weights(other, result.checkpoint)
    for name, tensor in weights(task).items():
        assert torch.equal(tensor, task.kept[1][name])
        assert torch.equal(tensor, other.state_dict()[name])
    assert not task.training
    assert lines(tmp_path, split="val")[3]["rmse"] is None

    class Highest(Scripted):
        pass

    _, result = trained(
        tmp_path / "max", Highest(), val=TinySource(5), epochs=5, batch_size=25,
        monitor={"metric": "mean"},
    )  # fmt: skip
    assert result.best.step == 10


def test_a_start_that_nothing_betters_is_kept(tmp_path):
    task = TinyTask()
    trained(tmp_path / "first", task, val=TinySource(5), epochs=30)
    task.warm_start = True
    before = weights(task)
    _, result = trained(tmp_path / "worse", task, val=TinySource(5), epochs=2, lr=10.0)
    assert [entry.step for entry in result.history] == [0, 7, 14]
    assert result.best.step == 0
    assert result.checkpoint.name == "step-00000000"
    for name, tensor in weights(task).items():
        assert torch.equal(tensor, before[name])
    assert lines(tmp_path / "worse", split="val")[0]["step"] == 0
    # what is on a par with the start counts as better
    level = TinyTask()
    level.warm_start, level.evaluate = True, lambda batches: {"rmse": float(len(list(batches)))}
    _, result = trained(tmp_path / "level", level, val=TinySource(5), epochs=2)
    assert (len(result.history), result.best.step) == (3, 7)
    # and a training that starts from nothing has no such evaluation
    _, result = trained(tmp_path / "anew", val=TinySource(5), epochs=2)
    assert [entry.step for entry in result.history] == [7, 14]


def test_early_stopping_counts_evaluations_without_gain(tmp_path):
    class Scripted(TinyTask):
        def evaluate(self, batches):
            self.times = getattr(self, "times", 0) + 1
            return {"rmse": 9.0 if self.times > 2 else -self.times}

    settings = {"epochs": 20, "early_stop": {"metric": "rmse", "patience": 3}}
    _, result = trained(tmp_path, Scripted(), val=TinySource(5), **settings)
    assert result.stopped_early
    assert (result.epochs, len(result.history)) == (5, 5)
    assert result.best.epoch == 2
    # and it stays stopped
    _, again = trained(tmp_path, Scripted(), val=TinySource(5), **settings)
    assert again.stopped_early
    assert (again.steps, again.resumed_from) == (result.steps, result.steps)


def test_unknown_and_directionless_metrics_are_refused(tmp_path):
    with pytest.raises(TrainingError, match="no metric 'srcc'") as caught:
        trained(tmp_path, val=TinySource(5), monitor={"metric": "srcc", "mode": "max"})
    assert "rmse, mean" in caught.value.fix
    with pytest.raises(TrainingError, match="high or low"):
        trained(tmp_path, val=TinySource(5), monitor={"metric": "srcc"})


def test_a_finished_training_is_not_done_again(tmp_path):
    source = TinySource()
    task, result = trained(tmp_path, source=source, val=TinySource(5), ema_decay=0.9)
    source.loaded.clear()
    text = (tmp_path / "metrics.jsonl").read_text()
    again, second = trained(tmp_path, source=source, val=TinySource(5), ema_decay=0.9)
    assert not source.loaded
    assert second.history == result.history
    assert (tmp_path / "metrics.jsonl").read_text() == text
    for name, tensor in weights(task).items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_more_epochs_go_on_from_where_it_ended(tmp_path):
    settings = {"schedule": {"name": "constant"}, "optimizer": {"name": "radam"}}
    trained(tmp_path / "a", epochs=2, **settings)
    longer, result = trained(tmp_path / "a", epochs=5, **settings)
    whole, _ = trained(tmp_path / "b", epochs=5, **settings)
    assert result.resumed_from == 14
    for name, tensor in weights(whole).items():
        assert torch.equal(longer.state_dict()[name], tensor)
    assert [line["step"] for line in lines(tmp_path / "a")] != []


def test_preparing_is_done_once(tmp_path):
    task = TinyTask()
    trained(tmp_path, task, max_steps=2)
    assert task.prepared == 1
    again = TinyTask()
    trained(tmp_path, again, max_steps=4)
    assert again.prepared == 0
    assert torch.equal(again.shift, task.shift)


def test_frozen_parameters_are_neither_moved_nor_saved(tmp_path):
    class Frozen(TinyTask):
        def trainable(self):
            return [(n, p) for n, p in self.named_parameters() if n.startswith("head")]

    from safetensors.torch import load_file

    before = weights(Frozen())
    task, result = trained(tmp_path, Frozen(), ema_decay=0.5)
    assert torch.equal(task.backbone.weight, before["backbone.weight"])
    assert not torch.equal(task.head.weight, before["head.weight"])
    saved = load_file(result.checkpoint / "weights.safetensors")
    assert set(saved) == {"head.weight", "head.bias", "shift"}


def test_ema_weights_are_evaluated_kept_and_given_back(tmp_path):
    class Watching(TinyTask):
        def evaluate(self, batches):
            self.evaluated = weights(self)
            return super().evaluate(batches)

    task, result = trained(tmp_path, Watching(), val=TinySource(20), epochs=1, ema_decay=0.9)
    plain, _ = trained(tmp_path / "plain", epochs=1)
    for name, tensor in weights(task).items():
        assert torch.equal(tensor, task.evaluated[name])
    assert not torch.equal(task.head.weight, plain.head.weight)
    load_weights(task, result.checkpoint, average=False)
    assert torch.equal(task.head.weight, plain.head.weight)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_narrow_arithmetic_learns_and_resumes(amp, tmp_path):
    settings = {"amp": amp, "schedule": {"name": "constant"}, "epochs": 6, "max_steps": 30}
    task, result = trained(tmp_path / "a", val=TinySource(), **settings)
    values = [entry.metrics["rmse"] for entry in result.history]
    assert values[-1] < 0.9 * values[0]
    trained(tmp_path / "b", val=TinySource(), **{**settings, "max_steps": 11})
    again, _ = trained(tmp_path / "b", val=TinySource(), **settings)
    for name, tensor in weights(task).items():
        assert tensor.dtype == torch.float32
        assert torch.equal(again.state_dict()[name], tensor)


def test_training_lines_are_means_over_the_interval(tmp_path):
    class Counting(TinyTask):
        def forward(self, batch):
            self.times = getattr(self, "times", 0) + 1
            return {**super().forward(batch), "times": torch.tensor(float(self.times))}

    trained(tmp_path, Counting(), log_every=3, max_steps=8, batch_size=10)
    train_lines = lines(tmp_path, split="train")
    assert [line["step"] for line in train_lines] == [3, 6, 8]
    assert [line["times"] for line in train_lines] == [2.0, 5.0, 7.5]
    assert [line["epoch"] for line in train_lines] == [1, 2, 2]
    assert all(line["lr"] > 0 and line["grad_norm"] > 0 for line in train_lines)


def test_what_a_run_leaves_to_read(tmp_path):
    train(TinyTask(), TinySource(), TinySource(5), config(), tmp_path, "cpu", "first")
    train(TinyTask(), TinySource(), TinySource(5), config(), tmp_path, "cpu", "second")
    assert {line["stage"] for line in lines(tmp_path)} == {"first", "second"}
    log = (tmp_path / "log.txt").read_text()
    assert log.count("first: training: 50 pictures, 21 steps of 8") == 1
    assert "second: epoch 3 step 21 validation: rmse" in log
    assert not [h for h in logging.getLogger("beholder").handlers if hasattr(h, "baseFilename")]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard" / "first"))
    events.Reload()
    assert [event.step for event in events.Scalars("val/rmse")] == [7, 14, 21]


def test_another_configuration_or_other_pictures_are_refused(tmp_path):
    trained(tmp_path, max_steps=2)
    with pytest.raises(CheckpointError, match=r"lr was 0.01, is 0.02"):
        trained(tmp_path, lr=0.02)
    with pytest.raises(CheckpointError, match="other training pictures"):
        trained(tmp_path, source=TinySource(40))
    wider = TinyTask()
    wider.head = torch.nn.Linear(16, 2)
    with pytest.raises(CheckpointError, match=r"head.bias has shape \(1,\) there, \(2,\)"):
        trained(tmp_path, wider)
    trained(tmp_path, workers=1, log_every=1, keep=7)  # these change nothing that counts


def test_checkpoints_go_where_they_are_wanted(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    result = train(
        TinyTask(),
        TinySource(),
        None,
        config(),
        tmp_path / "run",
        "cpu",
        "tiny",
        checkpoint_dir=elsewhere,
    )
    assert result.checkpoint.parent == elsewhere
    assert (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"log\.txt"):
        trained(tmp_path / "file" / "run")


def test_saving_by_time(tmp_path, monkeypatch):
    trained(tmp_path, save_every_minutes=1e-9, keep=100)
    assert len(checkpoints(tmp_path)) == 21


def test_out_of_memory_names_what_needs_less(tmp_path):
    class Large(TinyTask):
        def forward(self, batch):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    with pytest.raises(OutOfMemory) as caught:
        trained(tmp_path, Large())
    for setting in ("batch_size", "accumulate", "gradient_checkpointing"):
        assert setting in caught.value.fix
