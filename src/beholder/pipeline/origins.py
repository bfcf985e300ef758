"""Whose backbone a stage works with: the recipe's own, or one that a train stage has tuned.

Decided from the recipe alone, without torch, so that features or weights of another origin are
refused before anything is loaded.
"""

from __future__ import annotations

from beholder.errors import RecipeError
from beholder.pipeline.recipe import ExportStage, ExtractStage, Recipe, TrainStage


def backbone_of(recipe: Recipe, name: str) -> str | None:
    """The train stage whose tuned backbone a stage starts with; None: the recipe's own."""
    stage = recipe.stages[name]
    if isinstance(stage, ExtractStage):
        return stage.backbone_from
    if isinstance(stage, ExportStage):
        return backbone_after(recipe, stage.heads[0])
    if not isinstance(stage, TrainStage):
        return None
    if stage.features:
        return backbone_of(recipe, stage.features)
    return backbone_after(recipe, stage.start_from) if stage.start_from else None


def backbone_after(recipe: Recipe, name: str) -> str | None:
    """The train stage whose backbone the head of train stage `name` belongs to; None: the
    recipe's own."""
    stage = recipe.stages[name]
    assert isinstance(stage, TrainStage)
    return name if stage.task.train_backbone else backbone_of(recipe, name)


def check_origins(recipe: Recipe) -> None:
    """Make sure that features, weights and backbones belong together.

    Every stage's needs must have been found to be there, and of the right kind.

    Raises:
        RecipeError: they do not; names the stages.
    """
    for name, stage in recipe.stages.items():
        if isinstance(stage, ExtractStage) and stage.backbone_from:
            _check_tuned(recipe, name, stage.backbone_from)
        elif isinstance(stage, TrainStage) and stage.features and stage.start_from:
            _check_start(recipe, name, stage.features, stage.start_from)
        elif isinstance(stage, ExportStage):
            _check_export(recipe, name, stage.heads)


def _check_tuned(recipe: Recipe, name: str, source: str) -> None:
    if backbone_after(recipe, source) != source:
        raise RecipeError(
            f"Stage {source!r} trains no backbone that {name!r} could extract with.",
            where=f"stages.{name}.backbone_from",
            fix="Name a train stage with task.train_backbone: true, or leave it out.",
        )


def _check_start(recipe: Recipe, name: str, features: str, start: str) -> None:
    seen, known = backbone_of(recipe, features), backbone_after(recipe, start)
    if seen != known:
        raise RecipeError(
            f"The features of {features!r} are of {_whose(seen)}, but the weights of {start!r} "
            f"belong to {_whose(known)}.",
            where=f"stages.{name}.start_from",
            fix="Extract features with the backbone that the weights were trained with "
            "(backbone_from), and train on those.",
        )


def _check_export(recipe: Recipe, name: str, heads: list[str]) -> None:
    opinions: dict[str, str] = {}
    for head in heads:
        stage = recipe.stages[head]
        assert isinstance(stage, TrainStage)
        opinion = stage.task.opinion
        if opinion in opinions:
            raise RecipeError(
                f"Stages {opinions[opinion]!r} and {head!r} both give the judge "
                f"its {opinion} head.",
                where=f"stages.{name}.heads",
                fix="Name one of them.",
            )
        opinions[opinion] = head
        first, own = backbone_after(recipe, heads[0]), backbone_after(recipe, head)
        if own != first:
            raise RecipeError(
                f"Heads of one judge share its backbone, but {heads[0]!r} belongs to "
                f"{_whose(first)} and {head!r} to {_whose(own)}.",
                where=f"stages.{name}.heads",
                fix="Train the other heads on features extracted with the tuned backbone "
                "(backbone_from), or export them apart.",
            )


def _whose(origin: str | None) -> str:
    return f"the backbone that {origin!r} has trained" if origin else "the recipe's backbone"
