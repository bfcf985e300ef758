"""The pictures of a training, as frozen features or as files, and the check of its warm start."""

from __future__ import annotations

from typing import Any

from beholder.data.annotations import AnnotationTable
from beholder.data.augment import Augmentation, AugmentConfig
from beholder.data.vocabulary import Vocabulary
from beholder.errors import CheckpointError, VocabularyError
from beholder.features.store import FeatureStore
from beholder.judge.model import JudgeConfig
from beholder.pipeline.context import RunContext
from beholder.pipeline.stages.shared import (
    QUARANTINE,
    quarantined_keys,
    stage_backbone,
    stage_fingerprint,
)
from beholder.training.sources import FeatureSource, PictureSource


def feature_source(
    context: RunContext, stage: str, features: str, table: AnnotationTable, config: JudgeConfig
) -> FeatureSource:
    """The rows of a table by their frozen features.

    Args:
        stage: the train stage.
        features: the extract stage.
        config: of the judge that is trained.

    Raises:
        StoreError: the features are of another backbone.
    """
    folder = context.output(features, "store")
    return FeatureSource(
        FeatureStore.open(folder, expect_fingerprint=stage_fingerprint(context, stage)),
        table,
        tokens=config.comment is not None,
        quarantined=quarantined_keys(folder / QUARANTINE),
        **_comment_options(config),
    )


def picture_source(
    context: RunContext,
    stage: str,
    table: AnnotationTable,
    config: JudgeConfig,
    *,
    augment: AugmentConfig | None,
    seed: int,
) -> PictureSource:
    """The rows of a table by their pictures, without those that an extract stage has found
    unusable.

    Args:
        stage: the train stage.
        config: of the judge that is trained.
    """
    return PictureSource(
        context.data.root,
        table,
        stage_backbone(context, stage).transform,
        Augmentation(augment) if augment else None,
        seed=seed,
        quarantined=quarantined_keys(context.folder / QUARANTINE),
        **_comment_options(config),
    )


def check_same_head(trained: JudgeConfig, config: JudgeConfig, where: str) -> None:
    """Make sure that a head's weights mean here what they meant where they were trained.

    Raises:
        VocabularyError: words have other ids here.
        CheckpointError: another head; names the first value that differs.
    """
    then, now = (head.model_dump(exclude={"score_range"}) for head in (trained, config))
    if then.pop("vocabulary") != now.pop("vocabulary"):
        raise VocabularyError(
            "The vocabulary is not the one that the weights were trained with.",
            where=where,
            fix="Give both stages the same training rows, task and min_count.",
        )
    for name in now:
        if then[name] == now[name]:
            continue
        old, new, inner = then[name], now[name], name
        if isinstance(old, dict) and isinstance(new, dict):
            inner = next(key for key in new if old.get(key) != new[key])
            old, new, inner = old.get(inner), new[inner], f"{name}.{inner}"
        raise CheckpointError(
            f"The weights are of another head: {inner} was {old}, here it is {new}.",
            where=where,
            fix="Give both stages the same task and head.",
        )


def _comment_options(config: JudgeConfig) -> dict[str, Any]:
    """What a source needs to give comments; nothing for heads that learn none."""
    if config.comment is None:
        return {}
    assert config.vocabulary is not None, "a comment head always comes with a vocabulary"
    vocabulary = Vocabulary.from_dict(config.vocabulary)
    return {"vocabulary": vocabulary, "max_length": config.comment.max_length}
