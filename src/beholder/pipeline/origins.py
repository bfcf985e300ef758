"""Whose backbone a stage works with: one of the recipe's, or what a train stage has made of it.

Decided from the recipe alone, without torch, so that features or weights of another origin are
refused before anything is loaded. Each kind of stage says its own, see `StageConfig.origin`.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from beholder.errors import BackboneError, RecipeError
from beholder.features.config import BackboneConfig
from beholder.pipeline.schema import Origin, RecipeOutline


def backbone_of(recipe: RecipeOutline, name: str) -> Origin:
    """The backbone that a stage starts with; the stage is one that does."""
    origin = recipe.stages[name].origin(recipe)
    assert origin is not None, f"{name} starts with no backbone"
    return origin


def backbone_after(recipe: RecipeOutline, name: str) -> Origin:
    """The backbone that the heads of train stage `name` belong to."""
    before = backbone_of(recipe, name)
    return Origin(before.backbone, name) if recipe.stages[name].trains_backbone else before


def config_of(recipe: RecipeOutline, origin: Origin) -> BackboneConfig:
    """What a backbone is made from; `check_origins` has made sure that the recipe says it."""
    config = recipe.backbones[origin.backbone] if origin.backbone else recipe.backbone
    assert config is not None, "a recipe without a backbone"
    return config


def check_origins(recipe: RecipeOutline) -> None:
    """Make sure that features, weights and backbones belong together.

    Every stage's needs must be there already, and of the right kind.

    Raises:
        RecipeError: they do not; names the stages.
    """
    for name, stage in recipe.stages.items():
        stage.check_origin(recipe, name)


def check_named(recipe: RecipeOutline, name: str, backbone: str | None) -> None:
    """Make sure that the backbone is there that a stage names, or takes by naming none.

    Raises:
        RecipeError: it is not.
    """
    where = f"stages.{name}.backbone"
    if backbone is None:
        if recipe.backbone is None and not recipe.stages[name].needs():
            raise RecipeError(
                f"Stage {name!r} names no backbone, and the recipe has no `backbone` of its own.",
                where=where,
                fix=f"Use one of: {', '.join(recipe.backbones)}."
                if recipe.backbones
                else "Give the recipe one, e.g. `backbone: {name: efficientnet-lite0}`.",
            )
    elif backbone not in recipe.backbones:
        near = difflib.get_close_matches(backbone, recipe.backbones, n=1, cutoff=0.0)
        hint = f" (nearest known: {near[0]!r})" if near else ""
        raise RecipeError(
            f"Stage {name!r} names the backbone {backbone!r}, which is unknown{hint}.",
            where=where,
            fix="Name one of the recipe's `backbones`, or add it there.",
        )


def check_tuned(recipe: RecipeOutline, name: str, source: str | None) -> None:
    """Make sure that the stage whose tuned backbone is to be used tunes one.

    Raises:
        RecipeError: it does not.
    """
    if source and backbone_after(recipe, source).tuned_by != source:
        raise RecipeError(
            f"Stage {source!r} trains no backbone that {name!r} could use.",
            where=f"stages.{name}.backbone_from",
            fix="Name a train stage with task.train_backbone: true, or leave it out.",
        )


def check_weights(recipe: RecipeOutline, origin: Origin) -> None:
    """Make sure that a backbone's weights are there, if they are to be read from a file.

    Raises:
        BackboneError: they are not.
    """
    config = config_of(recipe, origin)
    path = Path(config.weights)
    on_a_hub = not path.exists() and config.name.startswith("clip/")
    if config.weights in ("pretrained", "random") or path.is_file() or path.is_dir() or on_a_hub:
        return
    backbone_field = f"backbones.{origin.backbone}" if origin.backbone else "backbone"
    raise BackboneError(
        "The file of the backbone's weights does not exist.",
        where=f"{backbone_field}.weights: {config.weights}",
        fix="Name a file, or `pretrained` or `random`.",
    )
