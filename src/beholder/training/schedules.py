"""Learning rates by step, as closed formulas. No torch, no state: resuming needs only the step.

Steps count from 0; the rate of step `it` is the one that its move is made with.
"""

from __future__ import annotations

import math

from beholder.training.config import (
    ConstantSchedule,
    CosineRestartsSchedule,
    CosineSchedule,
    ScheduleConfig,
    WarmupAnnealSchedule,
)


def learning_rate(
    schedule: ScheduleConfig,
    it: int,
    *,
    lr: float,
    steps_per_epoch: int,
    total_steps: int,
    accumulate: int = 1,
) -> float:
    """The learning rate of step `it`, at least 0.

    Args:
        it: steps already made.
        lr: peak learning rate.
        steps_per_epoch: at least 1.
        total_steps: of the whole training.
        accumulate: micro-batches per step.
    """
    match schedule:
        case ConstantSchedule():
            return lr * _warm(it, schedule.warmup_steps)
        case CosineSchedule():
            return _cosine(schedule, it, lr, total_steps)
        case WarmupAnnealSchedule():
            return _warmup_anneal(schedule, it, lr, steps_per_epoch, accumulate)
        case CosineRestartsSchedule():
            return _cosine_restarts(schedule, it, lr, steps_per_epoch)


def _warm(it: int, warmup: int) -> float:
    """(it + 1) / warmup up to 1: the first step moves already, step `warmup - 1` is full."""
    return min(1.0, (it + 1) / warmup) if warmup else 1.0


def _cosine(schedule: CosineSchedule, it: int, lr: float, total_steps: int) -> float:
    """From lr at the end of the warm-up towards min_lr, half a cosine; min_lr itself would be
    the rate of the step after the last."""
    warmup = schedule.warmup_steps
    if it < warmup:
        return lr * _warm(it, warmup)
    done = min(1.0, (it - warmup) / max(1, total_steps - warmup))
    return schedule.min_lr + (lr - schedule.min_lr) * (1 + math.cos(math.pi * done)) / 2


def _warmup_anneal(
    schedule: WarmupAnnealSchedule, it: int, lr: float, steps_per_epoch: int, accumulate: int
) -> float:
    """max([n >= warmup] min_lr, lr / max(warmup - n, 1) * c^floor(it / (steps * every)))

    n is `it`, or with `warmup_unit: micro-batch` the number of the step's first micro-batch.

    Source: Hu et al., arXiv 2208.06551, published training code: its schedule moves on after every
    micro-batch, and its optimiser steps at those whose number `num_accum` divides.
    """
    n = it * accumulate if schedule.warmup_unit == "micro-batch" else it
    anneals = math.floor(it / (steps_per_epoch * schedule.every_epochs))
    rate = lr / max(schedule.warmup_steps - n, 1) * schedule.coefficient**anneals
    return max(schedule.min_lr, rate) if n >= schedule.warmup_steps else rate


def _cosine_restarts(
    schedule: CosineRestartsSchedule, it: int, lr: float, steps_per_epoch: int
) -> float:
    """With t the epochs since the cycle began and w its warm-up, from min to the cycle's peak:
    linear for t < w, then (1 + cos(pi (t - w) / (cycle - w))) / 2.

    Source: Loshchilov and Hutter, arXiv 1608.03983, with warm-up and decaying peaks.
    """
    # in steps, so that an epoch's first step has the rate of exactly that epoch
    cycle_steps = schedule.cycle_epochs * steps_per_epoch
    warmup_steps = schedule.warmup_epochs * steps_per_epoch
    cycle, t = divmod(it, cycle_steps)
    peak = max(schedule.min_lr, lr * schedule.factor**cycle)
    if t < warmup_steps:
        height = t / warmup_steps
    else:
        height = (1 + math.cos(math.pi * (t - warmup_steps) / (cycle_steps - warmup_steps))) / 2
    return schedule.min_lr + (peak - schedule.min_lr) * height
