"""What a run has to do: the order of the stages, the hash of each one's inputs, what is done.

All of it from the recipe, the manifest and the data's hash; nothing heavy is imported, so that
an unchanged recipe is recognised at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from beholder.data.files import sha256_file
from beholder.data.progress import quiet
from beholder.errors import RecipeError
from beholder.pipeline.context import RunContext
from beholder.pipeline.identity import result_identity, set_values, working_identity
from beholder.pipeline.manifest import Change, Manifest, digest, what_changed
from beholder.pipeline.origins import check_weights, config_of
from beholder.pipeline.schema import Origin, RecipeOutline, StageConfig
from beholder.pipeline.stages import parse_stage
from beholder.version import __version__


def stage_order(recipe: RecipeOutline) -> list[str]:
    """Stage names, each after those it needs; otherwise in the order of the recipe.

    Raises:
        RecipeError: a stage needs one that is not there, is of the wrong kind, or needs itself.
    """
    needs = {name: stage.needs() for name, stage in recipe.stages.items()}
    for name, wanted in needs.items():
        for other, kinds in wanted.items():
            if other not in recipe.stages:
                raise RecipeError(
                    f"Stage {name!r} needs stage {other!r}, which the recipe does not have.",
                    where=f"stages.{name}",
                    fix=f"Use one of: {', '.join(recipe.stages)}.",
                )
            if recipe.stages[other].kind not in kinds:
                raise RecipeError(
                    f"Stage {name!r} needs a stage of kind {' or '.join(kinds)}; "
                    f"{other!r} is of kind {recipe.stages[other].kind!r}.",
                    where=f"stages.{name}",
                )
    order: list[str] = []
    while len(order) < len(needs):
        ready = [name for name in needs if name not in order and set(needs[name]) <= set(order)]
        if not ready:
            circle = ", ".join(name for name in needs if name not in order)
            raise RecipeError(f"These stages need each other in a circle: {circle}.")
        order.append(ready[0])
    return order


def inputs_hash(name: str, context: RunContext) -> str:
    """The hash of everything that a stage's result depends on.

    The stages that it needs must be in the manifest.
    """
    config = context.recipe.stages[name]
    return digest({"config": result_identity(config), **_surroundings(name, context)})


def stage_folder(name: str, context: RunContext) -> Path:
    """Where a stage works, relative to the run.

    A feature store holds pictures by content and can be added to, so its folder depends only on
    what makes features. A training goes on where its checkpoints are when it is given more epochs.
    Apart from that a stage starts afresh when anything that it depends on changes.
    """
    config = context.recipe.stages[name]
    if config.content_fields is not None:
        content = config.model_dump(mode="json", include=set(config.content_fields))
        identity = digest([_backbone_identity(name, context), content])
    else:
        identity = digest({"config": working_identity(config), **_surroundings(name, context)})
    return Path("stages") / name / identity[:12]


def _surroundings(name: str, context: RunContext) -> dict[str, object]:
    """What a stage depends on beside its own configuration."""
    recipe = context.recipe
    config = recipe.stages[name]
    upstream = {other: context.record(other).outputs_hash() for other in config.needs()}
    for judge in config.judges():
        path = Path(judge)
        card = path if path.is_file() else path / "judge.json"  # with the hashes of all other files
        upstream[f"judge {judge}"] = sha256_file(card) if card.is_file() else ""
    surroundings: dict[str, object] = {
        "seed": recipe.seed,
        "backbone": _backbone_identity(name, context),
        "data": context.data.digest,
        "upstream": upstream,
        "code": __version__,
    }
    if config.keeps_score_name:
        surroundings["score_name"] = recipe.data.score_name
    return surroundings


def may_be_done(recipe: RecipeOutline, manifest: Manifest | None) -> bool:
    """Whether every stage has a record of the same configuration, so that perhaps nothing is to be
    done: that is known when the data have been read."""
    records = [manifest.find(name) for name in recipe.stages] if manifest else [None]
    return all(
        record is not None and _says_the_same(record.config, recipe.stages[record.name])
        for record in records
    )


def _says_the_same(recorded: dict[str, Any], config: StageConfig) -> bool:
    """Whether a manifest's record of a configuration, perhaps under former names, is this one."""
    try:
        with quiet():
            return parse_stage(recorded) == config
    except ValidationError:
        return False


def why_not_done(name: str, context: RunContext) -> str:
    """Why a stage must run; empty if its recorded result still holds."""
    record = context.manifest.find(name)
    if record is None:
        return "not run yet"
    for other in context.recipe.stages[name].needs():
        if context.manifest.find(other) is None:
            return f"{other} has not run"
    if record.inputs_hash != inputs_hash(name, context):
        return "what it depends on has changed"
    return next((change.why for _, change in damaged_outputs(name, context)), "")


def damaged_outputs(name: str, context: RunContext) -> list[tuple[Path, Change]]:
    """The outputs of a finished stage that are no longer what it left, and in which way."""
    record = context.manifest.find(name)
    if record is None:
        return []
    thoroughly = context.verify and name not in context.verified
    damaged = []
    for output in record.outputs.values():
        change = what_changed(output, context.folder, thoroughly=thoroughly)
        if change is not None:
            damaged.append((context.folder / output.path, change))
    if not damaged:
        context.verified.add(name)
    return damaged


def _backbone_identity(name: str, context: RunContext) -> list[object] | None:
    """The backbone that a stage starts with: its config, the content of a file of its weights, and
    the outputs of the train stage that has tuned it. None: the stage works on what others leave."""
    recipe = context.recipe
    origin = recipe.stages[name].origin(recipe)
    if origin is None:
        return None
    record = context.manifest.find(origin.tuned_by) if origin.tuned_by else None
    return [
        set_values(config_of(recipe, origin).plain()),
        _weights_hash(recipe, origin),
        record.outputs_hash() if record else None,
    ]


def _weights_hash(recipe: RecipeOutline, origin: Origin) -> str | None:
    """The content of a local weights file; a name stands for itself."""
    check_weights(recipe, origin)
    weights = config_of(recipe, origin).weights
    if weights in ("pretrained", "random"):
        return None
    path = Path(weights)
    if path.is_file():
        return sha256_file(path)
    # a CLIP's folder, or a name on a hub that stands for itself
    files = sorted(path.glob("*.safetensors")) or sorted(path.glob("*.bin"))
    return digest([sha256_file(file) for file in files]) if files else None
