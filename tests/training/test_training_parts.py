"""EMA, optimisers, gradients, order and random state, each against a plain computation."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import CorrelationTask, TinySource, TinyTask, config, weights
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from beholder.data.sharing import Processes, part_of
from beholder.errors import DataError, PictureError
from beholder.training import TrainConfig, train
from beholder.training.gradients import Gradients
from beholder.training.loader import Loader, Plan
from beholder.training.optimisers import (
    create_optimizer,
    load_optimizer_state,
    optimizer_state,
    set_learning_rate,
)
from beholder.training.random_state import random_state, restore_random_state, seed_everything
from beholder.training.step import StepRunner

ONE = Processes(0, 1, torch.device("cpu"))


class Labelled(TinySource):
    """Rows 0 to 39 are of one class, 40 to 47 of another, 48 and 49 of none."""

    labels = np.array([0] * 40 + [1] * 8 + [-1] * 2)

    def balanced_shares(self):
        return np.where(self.labels < 0, 1 / 50, 24 / 50 / np.where(self.labels == 0, 40, 8))


@given(
    shares=st.lists(st.floats(0.01, 10), min_size=1, max_size=40),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 99),
)
@settings(deadline=None)
def test_a_balanced_epoch_has_every_row_by_its_share(shares, seed, epoch):
    rows = len(shares)
    plan = Plan(rows, 4, 1, seed, np.array(shares))
    order = plan.order(epoch)
    assert len(order) == rows
    assert order == plan.order(epoch)
    expected = np.array(shares) / sum(shares) * rows
    counts = np.bincount(order, minlength=rows)
    assert (np.abs(counts - expected) < 1 + 1e-9).all()


def test_balanced_epochs_are_of_the_seed_and_go_by_class():
    source = Labelled(50)
    loader = Loader(source, config(sampling="balanced", batch_size=10), ONE)
    epochs = [loader.plan.order(epoch) for epoch in range(200)]
    assert len({tuple(order) for order in epochs}) == 200
    shares = np.bincount(source.labels[np.concatenate(epochs)] + 1) / (200 * 50)
    assert shares == pytest.approx([0.04, 0.48, 0.48], abs=0.01)
    assert set(np.concatenate(epochs)) == set(range(50))
    # neighbours in an epoch are not neighbours in the table
    assert abs(np.corrcoef(epochs[0][:-1], epochs[0][1:])[0, 1]) < 0.4
    # nothing is drawn when going through in order, and nothing asked for when shuffled
    assert [key for batch in loader.in_order() for key in batch["keys"]] == source.keys
    assert Loader(TinySource(50), config(), ONE).plan.shares is None


def test_a_balanced_training_goes_on_as_if_it_had_never_stopped(tmp_path):
    settings = config(sampling="balanced", schedule={"name": "constant"}, epochs=2)
    whole, again = TinyTask(), TinyTask()
    train(whole, Labelled(50), None, settings, tmp_path / "whole")
    train(again, Labelled(50), None, settings.model_copy(update={"max_steps": 5}), tmp_path / "two")
    train(again, Labelled(50), None, settings, tmp_path / "two")
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, again.state_dict()[name])


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("adamw", lambda p: torch.optim.AdamW(p, 0.01, (0.9, 0.98), 1e-9, weight_decay=0)),
        ("adam", lambda p: torch.optim.Adam(p, 0.01, (0.9, 0.98), 1e-9)),
        ("sgd", lambda p: torch.optim.SGD(p, 0.01, momentum=0.9)),
    ],
)
def test_training_equals_a_plain_loop_with_torch_s_optimiser(name, plain, tmp_path):
    source = TinySource(40)
    task = TinyTask()
    settings = config(
        optimizer={"name": name, "betas": (0.9, 0.98), "eps": 1e-9},
        schedule={"name": "constant"},
    )
    train(task, source, None, settings, tmp_path)

    other = TinyTask()
    other.eval()
    with torch.no_grad():
        other.prepare([source.load(range(40), 0)])
    optimizer = plain(other.parameters())
    for epoch, micro_batches in Plan(40, 8, 1, seed=0).steps(0, 15):
        optimizer.zero_grad()
        other(source.load(micro_batches[0], epoch))["loss"].backward()
        optimizer.step()
    for key, tensor in weights(other).items():
        torch.testing.assert_close(task.state_dict()[key], tensor, rtol=1e-5, atol=1e-7)


def test_layers_further_down_learn_more_slowly():
    task = TinyTask()
    settings = config(backbone_lr_factor=0.5, layer_decay=0.1)
    depths = {"backbone.weight": 3, "backbone.bias": 1}
    optimizer = create_optimizer(task.trainable(), settings, depths=depths)
    set_learning_rate(optimizer, 2.0)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    by_name = {name: rates[id(parameter)] for name, parameter in task.trainable()}
    assert by_name == pytest.approx(
        {"backbone.weight": 1e-3, "backbone.bias": 0.1, "head.weight": 2.0, "head.bias": 2.0}
    )


@pytest.mark.parametrize("name", ["radam", "adamw", "adam", "sgd"])
def test_optimiser_state_by_name_goes_round(name):
    def stepped(task, optimizer, times):
        for _ in range(times):
            optimizer.zero_grad()
            task(TinySource(8).load(range(8), 0))["loss"].backward()
            optimizer.step()

    settings = config(optimizer={"name": name, "weight_decay": 0.1}, backbone_lr_factor=0.5)
    first, second = TinyTask(), TinyTask()
    optimizer = create_optimizer(first.trainable(), settings)
    stepped(first, optimizer, 7)
    second.load_state_dict(first.state_dict())
    # in another order of parameters: names count
    parameters = second.trainable()
    again = create_optimizer(parameters, settings)
    state = {k: v.clone() for k, v in optimizer_state(optimizer, first.trainable()).items()}
    load_optimizer_state(again, parameters, dict(reversed(state.items())))
    stepped(first, optimizer, 3)
    stepped(second, again, 3)
    for mine, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_flat_gradients_are_the_gradients():
    task, plain = TinyTask(), TinyTask()
    batch = TinySource(8).load(range(8), 0)
    flat = Gradients([parameter for _, parameter in task.trainable()])
    for _ in range(2):  # accumulated
        task(batch)["loss"].backward()
        plain(batch)["loss"].backward()
    for mine, theirs in zip(task.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    norm = flat.norm()
    torch.testing.assert_close(norm, nn.utils.get_total_norm([p.grad for p in plain.parameters()]))
    flat.clip_(norm, 0.1)
    nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
    for mine, theirs in zip(task.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    flat.zero_()
    assert all(not parameter.grad.any() for parameter in task.parameters())


@given(
    rows=st.integers(1, 200),
    batch=st.integers(1, 20),
    accumulate=st.integers(1, 4),
    seed=st.integers(0, 5),
)
def test_every_epoch_sees_every_row_once(rows, batch, accumulate, seed):
    plan = Plan(rows, batch, accumulate, seed)
    steps = list(plan.steps(0, 2 * plan.steps_per_epoch))
    for epoch in (0, 1):
        seen = [
            row
            for e, micro_batches in steps
            if e == epoch
            for micro_batch in micro_batches
            for row in micro_batch
        ]
        assert sorted(seen) == list(range(rows))
        assert seen == plan.order(epoch)
    assert all(
        0 < len(micro_batch) <= batch for _, micro_batches in steps for micro_batch in micro_batches
    )
    assert all(len(micro_batches) <= accumulate for _, micro_batches in steps)


@given(start=st.integers(0, 30))
def test_the_plan_starts_anywhere_as_if_it_had_begun_at_0(start):
    plan = Plan(23, 3, 2, seed=1)
    assert list(plan.steps(start, 31)) == list(plan.steps(0, 31))[start:]


def test_orders_differ_by_seed_and_epoch():
    orders = {tuple(Plan(50, 5, 1, seed).order(epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@given(rows=st.integers(0, 40), size=st.integers(1, 7))
def test_shares_are_contiguous_and_even(rows, size):
    parts = [part_of(list(range(rows)), Processes(rank, size)) for rank in range(size)]
    assert [row for part in parts for row in part] == list(range(rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_does_not_depend_on_workers_and_skips_what_is_done(workers):
    source = TinySource(23, noise=0.5)
    settings = config(batch_size=4, accumulate=2, workers=workers)
    before = torch.get_rng_state()
    steps = list(Loader(source, settings, ONE).steps(4, 7))
    assert torch.equal(before, torch.get_rng_state())
    plan = Plan(23, 4, 2, seed=0)
    for micro_batches, (epoch, wanted) in zip(steps, plan.steps(4, 7), strict=True):
        assert [micro_batch.counts_R for micro_batch in micro_batches] == [
            (len(rows),) for rows in wanted
        ]
        for micro_batch, rows in zip(micro_batches, wanted, strict=True):
            assert torch.equal(micro_batch.batch["pooled"], source.load(rows, epoch)["pooled"])
    if not workers:
        loaded = source.loaded[: sum(len(micro_batches) for micro_batches in steps)]
        assert loaded == [
            (e, rows) for e, micro_batches in plan.steps(4, 7) for rows in micro_batches
        ]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_s_error_keeps_its_facts(workers):
    source = TinySource(9)
    source.broken = 5
    with pytest.raises(PictureError, match="broken") as caught:
        list(Loader(source, config(workers=workers), ONE).in_order())
    assert (caught.value.code, caught.value.where) == ("truncated", "folder/5.jpg")


def test_nothing_to_load_and_too_many_processes_are_refused():
    with pytest.raises(DataError, match="no picture in the data"):
        Loader(TinySource(0), config(), ONE)
    with pytest.raises(DataError, match="can't be shared"):
        Loader(TinySource(9), config(batch_size=2), Processes(0, 3, torch.device("cpu")))


@given(draws=st.integers(0, 5))
@settings(max_examples=10)
def test_random_state_goes_round(draws):
    seed_everything(5, 0)
    for _ in range(draws):
        random.gauss(0, 1), np.random.normal(), torch.randn(1)  # noqa: NPY002
    state = random_state(ONE.device)
    first = (random.gauss(0, 1), np.random.normal(), torch.randn(1).item())  # noqa: NPY002
    restore_random_state(state, ONE.device)
    assert first == (random.gauss(0, 1), np.random.normal(), torch.randn(1).item())  # noqa: NPY002


def test_ranks_draw_differently():
    seed_everything(5, 0)
    first = torch.rand(4)
    seed_everything(5, 1)
    assert not torch.equal(first, torch.rand(4))


def test_a_step_with_the_deferred_guard_reads_nothing_from_the_device(monkeypatch):
    """Every read of a tensor's value is an `_local_scalar_dense`, here as on CUDA."""
    reads = []

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten._local_scalar_dense.default:
                reads.append(1)
            return func(*args, **(kwargs or {}))

    # torch's own CPU step reads its step count, which CUDA's does not
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    task = CorrelationTask(dropout=0.1, norm=True)
    task.train()
    settings = config(accumulate=2, clip_norm=1.0, ema_decay=0.9)
    runner = StepRunner(task, task.trainable(), settings, ONE, defer_guard=True)
    steps = list(Loader(TinySource(64), settings, ONE).steps(0, 4))
    for micro_batches in steps:
        for micro_batch in micro_batches:
            units = float(len(micro_batch.batch["keys"]))
            monkeypatch.setattr(task, "weight", lambda batch, units=units: units)
        with Reads():
            runner.run(micro_batches, 1, 0.1)
    assert reads == []
    with Reads():
        runner.check()
    assert reads, "the test sees nothing"
    assert runner.averages.means()["loss"] > 0


def test_config_is_strict_and_described():
    with pytest.raises(ValueError, match="Extra inputs"):
        TrainConfig(learning_rate=1)
    with pytest.raises(ValueError, match="greater than or equal"):
        TrainConfig(batch_size=0)
    for name, entry in TrainConfig.model_fields.items():
        structured = name in {"optimizer", "schedule"}
        assert structured or entry.description, name
