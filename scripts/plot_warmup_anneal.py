"""Plot the learning rate of `custom_warmup_anneal` in the four trainings of samsung-iqa-comments.

    python scripts/plot_warmup_anneal.py

Writes docs/images/custom_warmup_anneal.png from the shipped recipe, for 50,000 pictures.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from beholder.data.files import atomic_path
from beholder.pipeline.recipe import find_recipe, load_recipe
from beholder.pipeline.stages.train import TrainStage
from beholder.training.config import WarmupAnnealSchedule
from beholder.training.schedules import learning_rate

PICTURES = 50_000
TARGET = Path(__file__).parents[1] / "docs" / "images" / "custom_warmup_anneal.png"


def rates(stage: TrainStage) -> tuple[list[float], int]:
    """The rate of every step, and how many steps an epoch has."""
    training = stage.training
    per_epoch = -(-PICTURES // (training.batch_size * training.accumulate))
    total = training.epochs * per_epoch
    rates_by_step = [
        learning_rate(
            training.schedule,
            it,
            lr=training.lr,
            steps_per_epoch=per_epoch,
            total_steps=total,
            accumulate=training.accumulate,
        )
        for it in range(total)
    ]
    return rates_by_step, per_epoch


def draw(name: str, stage: TrainStage, whole: Axes, start: Axes) -> None:
    rates_by_step, per_epoch = rates(stage)
    whole.plot([it / per_epoch for it in range(len(rates_by_step))], rates_by_step, linewidth=1.2)
    whole.set_title(name, fontsize=9)
    whole.set_xlabel("epoch", fontsize=8)
    first = rates_by_step[:400]
    start.plot(range(len(first)), first, linewidth=1.2)
    schedule = stage.training.schedule
    assert isinstance(schedule, WarmupAnnealSchedule)
    warmup = schedule.warmup_steps
    if schedule.warmup_unit == "micro-batch":
        warmup = -(-warmup // stage.training.accumulate)
    start.axvline(warmup, color="0.7", linewidth=0.8, linestyle="--")
    start.set_xlabel(f"step; warm-up ends at {warmup}", fontsize=8)
    for axes in (whole, start):
        axes.tick_params(labelsize=7)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        axes.yaxis.get_offset_text().set_fontsize(7)
        axes.set_ylim(bottom=0)


def main() -> None:
    recipe = load_recipe(find_recipe("samsung-iqa-comments"))
    stages = {name: s for name, s in recipe.stages.items() if isinstance(s, TrainStage)}
    figure, grid = plt.subplots(2, len(stages), figsize=(11, 4.4), layout="constrained")
    for column, (name, stage) in enumerate(stages.items()):
        draw(name, stage, grid[0, column], grid[1, column])
    grid[0, 0].set_ylabel("learning rate", fontsize=8)
    grid[1, 0].set_ylabel("first 400 steps", fontsize=8)
    with atomic_path(TARGET) as temporary:
        figure.savefig(temporary, dpi=110, format="png", metadata={"Software": None})


if __name__ == "__main__":
    main()
