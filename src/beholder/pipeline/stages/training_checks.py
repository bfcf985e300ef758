"""What of a train stage's options contradicts itself, or does the same twice."""

from __future__ import annotations

from beholder.data.augment import AugmentConfig
from beholder.errors import RecipeError
from beholder.tasks.config import AttributesTaskConfig, TaskConfig
from beholder.training.config import TrainConfig


def check_options(
    where: str,
    task: TaskConfig,
    features: str | None,
    augment: AugmentConfig | None,
    training: TrainConfig,
) -> None:
    """What no single field can say.

    Raises:
        RecipeError: options that contradict each other.
    """
    if features and task.train_backbone:
        raise RecipeError(
            "A backbone can't be trained on its own frozen features.",
            where=where,
            fix="Leave `features` out, or set task.train_backbone to false.",
        )
    if training.layer_decay is not None and not task.train_backbone:
        raise RecipeError(
            "There is no layer of a backbone to train at a lower rate.",
            where=f"{where}.training.layer_decay",
            fix="Leave it out, or set task.train_backbone to true.",
        )
    if features and augment:
        raise RecipeError(
            "Frozen features can't be augmented.",
            where=f"{where}.augment",
            fix="Leave `features` out to train on pictures, or `augment`.",
        )


def balancing_options(task: TaskConfig, training: TrainConfig) -> list[str]:
    """By which options rare classes count for more than they are frequent."""
    ways = ["training.sampling"] if training.sampling == "balanced" else []
    for part in task.parts.values():
        if isinstance(part, AttributesTaskConfig):
            ways += ["task.class_weights"] if part.weighs_classes else []
            ways += ["task.logit_adjustment"] if part.logit_adjustment else []
    return ways
