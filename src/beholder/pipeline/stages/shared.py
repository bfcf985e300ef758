"""What several kinds of stages need: backbones, trained weights, costs of verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import polars as pl

from beholder.data.annotations import AnnotationTable
from beholder.data.files import sha256_file
from beholder.errors import CheckpointError
from beholder.evaluation.evaluate import find_requests
from beholder.features.config import BackboneConfig
from beholder.judge import Judge
from beholder.judge.runner import judge_pictures
from beholder.pipeline.checks import Problems
from beholder.pipeline.context import RunContext
from beholder.pipeline.cost import Cost, larger, measured
from beholder.pipeline.origins import backbone_of, check_weights, config_of
from beholder.pipeline.schema import Origin

if TYPE_CHECKING:
    from beholder.features.backbones import Backbone
    from beholder.pipeline.stages.stage_weights import StageWeights

T = TypeVar("T")

QUARANTINE = "quarantine.csv"  # beside a feature store, and in the run's folder
JUDGED_TOGETHER = 32  # pictures, where a stage judges many
_KEPT = "backbone"  # in `live`: the last backbone with its identity


def once(context: RunContext, name: str, build: Callable[[], T]) -> T:
    """Build something costly once per run and process."""
    if name not in context.live:
        context.live[name] = build()
    value: T = context.live[name]
    return value


def stage_backbone(context: RunContext, stage: str) -> Backbone:
    """The backbone that a stage starts with, in evaluation mode: one of the recipe's, or what a
    train stage has made of it.

    Shared between stages that work with the same one: whoever trains it takes a copy. Only the
    last is kept, so that several large ones are never in memory together.

    Raises:
        CheckpointError: the tuned weights are not those that the manifest records.
    """
    origin = backbone_of(context.recipe, stage)
    identity = _identity(context, origin)
    kept: tuple[str, Backbone] | None = context.live.pop(_KEPT, None)
    if kept is None or kept[0] != identity:
        kept = None  # let go of it before the next one is built
        kept = identity, _build(context, origin)
    context.live[_KEPT] = kept
    return kept[1]


def stage_fingerprint(context: RunContext, stage: str) -> str:
    """The fingerprint of `stage_backbone`, computed once per backbone."""
    identity = _identity(context, backbone_of(context.recipe, stage))
    return once(context, f"fingerprint {identity}", stage_backbone(context, stage).fingerprint)


def outlined_backbone(context: RunContext, stage: str) -> Backbone:
    """The architecture of `stage_backbone`, on the meta device: no weights, no memory.

    Raises:
        BackboneError: there is no such backbone, or not of this size.
    """
    from beholder.features.backbones import outline_backbone

    config = stage_config(context, stage)
    return once(context, f"outline {config.model_dump_json()}", lambda: outline_backbone(config))


def check_backbone(context: RunContext, stage: str, problems: Problems) -> None:
    """Note what is wrong with the backbone that a stage starts with, as far as names tell."""
    with problems:
        outlined_backbone(context, stage)
    with problems:
        check_weights(context.recipe, backbone_of(context.recipe, stage))


def stage_config(context: RunContext, stage: str) -> BackboneConfig:
    """What `stage_backbone` is made from."""
    return config_of(context.recipe, backbone_of(context.recipe, stage))


def _identity(context: RunContext, origin: Origin) -> str:
    if origin.tuned_by is None:
        return f"of the recipe: {origin.backbone}"
    return f"tuned: {context.record(origin.tuned_by).outputs_hash()}"


def _build(context: RunContext, origin: Origin) -> Backbone:
    from beholder.features.backbones import create_backbone
    from beholder.pipeline.stages.stage_weights import part_of

    config = config_of(context.recipe, origin)
    if origin.tuned_by is None:
        return create_backbone(config)
    backbone = create_backbone(config, load_weights=False)
    state = stage_weights(context, origin.tuned_by).state
    backbone.load_state_dict(part_of(state, "backbone."), strict=True)
    return backbone.eval()


def stage_weights(context: RunContext, stage: str) -> StageWeights:
    """What a train stage has left, after it has been found to be what the manifest records.

    Raises:
        CheckpointError: the file has changed, or is of another run.
    """
    from beholder.pipeline.stages.stage_weights import load_weights

    weights = context.output(stage, "model")
    if sha256_file(weights) != context.record(stage).outputs["model"].sha256:
        raise CheckpointError(
            f"The weights are not those that stage {stage!r} has written.",
            where=str(weights),
            fix="Put the file back, or delete it: the stage will run again.",
        )
    return load_weights(weights.parent)


def quarantined_keys(path: Path) -> list[str]:
    """Image keys of a `quarantine.csv`; none when there is no such file."""
    if not path.exists():
        return []
    return pl.read_csv(path, schema_overrides={"image": pl.String})["image"].to_list()


def with_verdicts(
    cost: Cost,
    judges: Iterable[Judge],
    few: AnnotationTable,
    root: Path,
    pictures: int,
    *,
    processes: int = 1,
) -> Cost:
    """A cost with verdicts on more pictures, as another look of the same judges tells.

    Args:
        cost: of a smoke run, which has judged the few.
        few: its rows; batches as large as the whole will have are made of them, for their memory.
        pictures: how many there will be.
        processes: that share them.
    """
    requests, _ = find_requests(few, root)
    further = max(0, pictures - len(few))
    if not requests or not further:
        return cost
    batch = [requests[index % len(requests)] for index in range(min(pictures, JUDGED_TOGETHER))]
    for judge in judges:
        with measured() as meter:
            for _ in judge_pictures(judge, batch, batch_size=JUDGED_TOGETHER):
                pass
        cost = Cost(
            cost.seconds + meter.seconds / len(batch) * further / processes,
            larger(cost.host_bytes, meter.host_bytes),
            larger(cost.device_bytes, meter.device_bytes),
            cost.disk_bytes,
        )
    return cost
