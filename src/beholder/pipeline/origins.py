"""Whose backbone a stage works with: one of the recipe's, or what a train stage has made of it.

Decided from the recipe alone, without torch, so that features or weights of another origin are
refused before anything is loaded.
"""

from __future__ import annotations

import difflib
from typing import NamedTuple

from beholder.errors import RecipeError
from beholder.features.config import BackboneConfig
from beholder.pipeline.recipe import (
    ExportStage,
    ExtractStage,
    Recipe,
    StageConfig,
    TrainStage,
    WriteStage,
)


class Origin(NamedTuple):
    """Where a backbone comes from."""

    backbone: str | None = None
    """Its name among the recipe's `backbones`; None: the recipe's `backbone`."""
    tuned_by: str | None = None
    """The train stage that has tuned it; None: as the recipe gives it."""

    def __str__(self) -> str:
        if self.tuned_by:
            return f"the backbone that {self.tuned_by!r} has trained"
        return f"the backbone {self.backbone!r}" if self.backbone else "the recipe's backbone"


def uses_backbone(stage: StageConfig) -> bool:
    """Whether a stage starts with a backbone, and not only with what other stages leave."""
    if isinstance(stage, WriteStage):
        return stage.stage is not None
    return isinstance(stage, ExtractStage | TrainStage | ExportStage)


def backbone_of(recipe: Recipe, name: str) -> Origin:
    """The backbone that a stage starts with; the stage is one that `uses_backbone`."""
    stage = recipe.stages[name]
    if isinstance(stage, ExtractStage):
        source = stage.backbone_from
        return backbone_after(recipe, source) if source else Origin(stage.backbone)
    if isinstance(stage, ExportStage):
        return backbone_after(recipe, stage.heads[0])
    if isinstance(stage, WriteStage):
        assert stage.stage is not None, "a judge brings its own backbone"
        return backbone_after(recipe, stage.stage)
    assert isinstance(stage, TrainStage)
    if stage.features:
        return backbone_of(recipe, stage.features)
    if stage.start_from:
        return backbone_after(recipe, stage.start_from)
    return Origin(stage.backbone)


def backbone_after(recipe: Recipe, name: str) -> Origin:
    """The backbone that the heads of train stage `name` belongs to."""
    stage = recipe.stages[name]
    assert isinstance(stage, TrainStage)
    before = backbone_of(recipe, name)
    return Origin(before.backbone, name) if stage.task.train_backbone else before


def config_of(recipe: Recipe, origin: Origin) -> BackboneConfig:
    """What a backbone is made from; `check_origins` has made sure that the recipe says it."""
    config = recipe.backbones[origin.backbone] if origin.backbone else recipe.backbone
    assert config is not None, "a recipe without a backbone"
    return config


def check_origins(recipe: Recipe) -> None:
    """Make sure that features, weights and backbones belong together.

    Every stage's needs must have been found to be there, and of the right kind.

    Raises:
        RecipeError: they do not; names the stages.
    """
    for name, stage in recipe.stages.items():
        if isinstance(stage, ExtractStage | TrainStage):
            _check_named(recipe, name, stage)
    for name, stage in recipe.stages.items():
        if isinstance(stage, ExtractStage) and stage.backbone_from:
            _check_tuned(recipe, name, stage.backbone_from)
        elif isinstance(stage, TrainStage) and stage.features and stage.start_from:
            _check_start(recipe, name, stage.features, stage.start_from)
        elif isinstance(stage, ExportStage):
            _check_export(recipe, name, stage.heads)


def _check_named(recipe: Recipe, name: str, stage: ExtractStage | TrainStage) -> None:
    """Make sure that the backbone is there that a stage names, or takes by naming none."""
    where = f"stages.{name}.backbone"
    if stage.backbone is None:
        if recipe.backbone is None and not stage.needs():
            raise RecipeError(
                f"Stage {name!r} names no backbone, and the recipe has no `backbone` of its own.",
                where=where,
                fix=f"Use one of: {', '.join(recipe.backbones)}."
                if recipe.backbones
                else "Give the recipe one, e.g. `backbone: {name: efficientnet-lite0}`.",
            )
    elif stage.backbone not in recipe.backbones:
        near = difflib.get_close_matches(stage.backbone, recipe.backbones, n=1, cutoff=0.0)
        hint = f" (nearest known: {near[0]!r})" if near else ""
        raise RecipeError(
            f"Stage {name!r} names the backbone {stage.backbone!r}, which is unknown{hint}.",
            where=where,
            fix="Name one of the recipe's `backbones`, or add it there.",
        )


def _check_tuned(recipe: Recipe, name: str, source: str) -> None:
    if backbone_after(recipe, source).tuned_by != source:
        raise RecipeError(
            f"Stage {source!r} trains no backbone that {name!r} could extract with.",
            where=f"stages.{name}.backbone_from",
            fix="Name a train stage with task.train_backbone: true, or leave it out.",
        )


def _check_start(recipe: Recipe, name: str, features: str, start: str) -> None:
    seen, known = backbone_of(recipe, features), backbone_after(recipe, start)
    if seen != known:
        raise RecipeError(
            f"The features of {features!r} are of {seen}, but the weights of {start!r} "
            f"belong to {known}.",
            where=f"stages.{name}.start_from",
            fix="Extract features with the backbone that the weights were trained with "
            "(backbone_from), and train on those.",
        )


def _check_export(recipe: Recipe, name: str, heads: list[str]) -> None:
    opinions: dict[str, str] = {}
    for head in heads:
        stage = recipe.stages[head]
        assert isinstance(stage, TrainStage)
        for opinion in stage.task.opinions:
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
                f"{first} and {head!r} to {own}.",
                where=f"stages.{name}.heads",
                fix="Train the other heads on features extracted with the same backbone "
                "(backbone, backbone_from), or export them apart.",
            )
