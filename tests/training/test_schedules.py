"""Learning rates against values worked out by hand and against the formulas as written."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.scheduler import CosineLRScheduler

from beholder.training.config import (
    ConstantSchedule,
    CosineRestartsSchedule,
    CosineSchedule,
    WarmupAnnealSchedule,
)
from beholder.training.schedules import learning_rate


def rate(schedule, it, lr=1.0, per_epoch=10, total=100, accumulate=1):
    return learning_rate(
        schedule, it, lr=lr, steps_per_epoch=per_epoch, total_steps=total, accumulate=accumulate
    )


def test_constant_after_linear_warmup():
    schedule = ConstantSchedule(warmup_steps=4)
    assert [rate(schedule, it) for it in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert rate(ConstantSchedule(), 0, lr=0.3) == 0.3


def test_cosine_corners():
    schedule = CosineSchedule(warmup_steps=10, min_lr=0.1)
    assert rate(schedule, 0, total=110) == pytest.approx(0.1)
    assert rate(schedule, 9, total=110) == 1.0
    assert rate(schedule, 10, total=110) == 1.0
    assert rate(schedule, 60, total=110) == pytest.approx(0.55)
    assert rate(schedule, 109, total=110) == pytest.approx(0.1, rel=3e-3)
    assert rate(schedule, 110, total=110) == pytest.approx(0.1)


def test_cosine_of_one_step_is_the_full_rate():
    assert rate(CosineSchedule(), 0, total=1) == 1.0


def test_warmup_anneal_divides_by_the_steps_left():
    schedule = WarmupAnnealSchedule(
        name="custom_warmup_anneal", warmup_steps=300, coefficient=0.8, every_epochs=2, min_lr=5e-7
    )
    at = lambda it: rate(schedule, it, lr=5e-4, per_epoch=1000)  # noqa: E731
    assert at(0) == pytest.approx(5e-4 / 300)
    assert at(298) == pytest.approx(5e-4 / 2)
    assert at(299) == at(300) == at(1999) == pytest.approx(5e-4)
    assert at(2000) == pytest.approx(5e-4 * 0.8)
    assert at(14_999) == pytest.approx(5e-4 * 0.8**7)
    assert at(1_000_000) == 5e-7  # never below, once warm


def test_warmup_anneal_may_be_below_the_lowest_rate_while_warming():
    schedule = WarmupAnnealSchedule(name="custom_warmup_anneal", warmup_steps=300, min_lr=5e-7)
    actual = rate(schedule, 0, lr=1e-5)
    assert actual == pytest.approx(1e-5 / 300)
    assert actual < 5e-7


@given(
    it=st.integers(0, 5000),
    warmup=st.integers(0, 400),
    per_epoch=st.integers(1, 200),
    coefficient=st.floats(0.1, 1.0),
    every=st.integers(1, 5),
    accumulate=st.integers(1, 12),
)
def test_warmup_anneal_is_the_published_formula(
    it, warmup, per_epoch, coefficient, every, accumulate
):
    """The published schedule is called once a micro-batch, and its optimiser moves at those whose
    number `accumulate` divides."""
    schedule = WarmupAnnealSchedule(
        name="custom_warmup_anneal",
        warmup_steps=warmup,
        coefficient=coefficient,
        every_epochs=every,
        warmup_unit="micro-batch",
    )
    n, passes_per_epoch = it * accumulate, per_epoch * accumulate
    published = max(
        (n >= warmup) * 5e-7,
        (5e-4 / max(warmup - n, 1)) * coefficient ** (n // (passes_per_epoch * every)),
    )
    actual = rate(schedule, it, lr=5e-4, per_epoch=per_epoch, accumulate=accumulate)
    assert actual == pytest.approx(published, rel=1e-12)


def test_stage_6_is_warm_at_its_tenth_step():
    """100 micro-batches of which 12 make a step; counted in steps it would be the hundredth."""
    schedule = WarmupAnnealSchedule(
        name="custom_warmup_anneal", warmup_steps=100, warmup_unit="micro-batch", coefficient=0.7
    )
    rates = [rate(schedule, it, lr=1e-5, per_epoch=1000, accumulate=12) for it in range(11)]
    expected = [1e-5 / (100 - 12 * it) for it in range(9)] + [1e-5, 1e-5]
    assert rates == pytest.approx(expected)


def test_cosine_restarts_corners():
    schedule = CosineRestartsSchedule(
        name="cosine_restarts", warmup_epochs=5, cycle_epochs=30, factor=0.9, min_lr=4e-5
    )
    at = lambda epoch: rate(schedule, round(epoch * 20), lr=1e-3, per_epoch=20)  # noqa: E731
    assert at(0) == pytest.approx(4e-5)
    assert at(2.5) == pytest.approx((4e-5 + 1e-3) / 2)
    assert at(5) == pytest.approx(1e-3)
    assert at(17.5) == pytest.approx((4e-5 + 1e-3) / 2)
    assert at(30) == pytest.approx(4e-5)
    assert at(35) == pytest.approx(9e-4)
    assert at(65) == pytest.approx(8.1e-4)
    just_before = rate(schedule, 30 * 20 - 1, lr=1e-3, per_epoch=20)
    assert just_before == pytest.approx(4e-5, rel=1e-2)


def timms(per_epoch: int, epochs: float, **options) -> list[float]:
    """timm's rate of every step, set as its training script does it."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=options.pop("lr"))
    scheduler = CosineLRScheduler(
        optimizer, lr_min=4e-5, cycle_mul=1.0, cycle_limit=10**6, t_in_epochs=False, **options
    )
    rates = []
    for step in range(round(epochs * per_epoch)):
        scheduler.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize("per_epoch", [1, 7])
@pytest.mark.parametrize("factor", [1.0, 0.9, 0.5])
def test_cosine_restarts_without_warmup_are_timms_at_every_step(per_epoch, factor):
    schedule = CosineRestartsSchedule(
        name="cosine_restarts", warmup_epochs=0, cycle_epochs=6, factor=factor, min_lr=4e-5
    )
    theirs = timms(per_epoch, 6 * 4.5, lr=1e-3, t_initial=6 * per_epoch, cycle_decay=factor)
    ours = [rate(schedule, it, lr=1e-3, per_epoch=per_epoch) for it in range(len(theirs))]
    assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize(("per_epoch", "warmup", "cycle"), [(1, 5, 30), (11, 2, 6), (4, 0.5, 2)])
def test_a_cycle_with_warmup_is_timms_first(per_epoch, warmup, cycle):
    """timm warms up once, before its first cycle; here each cycle is timm's first, begun anew."""
    schedule = CosineRestartsSchedule(
        name="cosine_restarts", warmup_epochs=warmup, cycle_epochs=cycle, factor=0.9, min_lr=4e-5
    )
    steps = cycle * per_epoch
    for number in range(3):
        warmed = round(warmup * per_epoch)
        theirs = timms(
            per_epoch, cycle, lr=1e-3 * 0.9**number, t_initial=steps - warmed, cycle_decay=0.9,
            warmup_t=warmed, warmup_lr_init=4e-5, warmup_prefix=True,
        )  # fmt: skip
        at = range(number * steps, (number + 1) * steps)
        ours = [rate(schedule, it, lr=1e-3, per_epoch=per_epoch) for it in at]
        assert ours == pytest.approx(theirs, rel=1e-9)
        assert theirs[0] == 4e-5
        assert theirs[warmed] == pytest.approx(1e-3 * 0.9**number)


@given(it=st.integers(0, 3000), factor=st.floats(0.2, 1.0), warmup=st.integers(0, 8))
def test_cosine_restarts_stays_between_lowest_and_peak(it, factor, warmup):
    schedule = CosineRestartsSchedule(
        name="cosine_restarts", warmup_epochs=warmup, cycle_epochs=9, factor=factor, min_lr=4e-5
    )
    actual = rate(schedule, it, lr=1e-3)
    peak = max(4e-5, 1e-3 * factor ** (it // 90))
    assert 4e-5 * (1 - 1e-9) <= actual <= peak * (1 + 1e-9)
    assert math.isfinite(actual)


def test_a_cycle_must_have_room_for_its_warmup():
    with pytest.raises(ValueError, match="warmup_epochs"):
        CosineRestartsSchedule(name="cosine_restarts", warmup_epochs=5, cycle_epochs=5)
