"""From a task's config and the training table to the judge that the task trains.

Here the data determine the vocabulary, the longest comment, the classes and the range of scores,
all from the training rows alone.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from beholder.data.annotations import VOTES, AnnotationTable
from beholder.data.vocabulary import SubwordVocabulary, Vocabulary
from beholder.errors import DataError, RecipeError
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeConfig
from beholder.models.expansionnet_config import LONGEST, ExpansionNetConfig
from beholder.tasks.config import (
    AttributesTaskConfig,
    CommentTaskConfig,
    DistillationTaskConfig,
    ScoreTaskConfig,
    SingleTaskConfig,
    TaskConfig,
)


def judge_config(
    task: TaskConfig,
    table: AnnotationTable,
    *,
    backbone: BackboneConfig,
    pooled_dim: int,
    token_dim: int,
    score_range: tuple[float, float] | None = None,
) -> JudgeConfig:
    """The judge with the heads that `task` trains.

    Args:
        table: the training rows.
        pooled_dim, token_dim: sizes of the backbone's pooled vector and tokens.
        score_range: lowest and highest score that the judge may give; None: those of the table.

    Raises:
        DataError: the table has none of the opinions that the task learns.
        RecipeError: the head reads more features than the backbone has.
    """
    check_task(task, table, pooled_dim)
    fields: dict[str, Any] = {}
    for part in task.parts.values():
        fields |= _head_fields(part, table, pooled_dim, token_dim)
    if score_range is not None and "score_range" in fields:
        fields["score_range"] = score_range
    return JudgeConfig(backbone=backbone, pooled_dim=pooled_dim, token_dim=token_dim, **fields)


def check_task(task: TaskConfig, table: AnnotationTable, pooled_dim: int) -> None:
    """Check that the rows have what `task` learns and the backbone what its heads read, without
    building a vocabulary.

    Raises:
        DataError, RecipeError: as for `judge_config`.
    """
    for name, part in task.parts.items():
        _check_part(part, table, pooled_dim, "task" if part is task else f"task.tasks.{name}")


def _check_part(
    task: SingleTaskConfig, table: AnnotationTable, pooled_dim: int, where: str
) -> None:
    if not isinstance(task, CommentTaskConfig) and (task.head.inputs or 0) > pooled_dim:
        raise RecipeError(
            f"The head reads {task.head.inputs} features, but the backbone pools {pooled_dim}.",
            where=f"{where}.head.inputs",
            fix=f"Set it to at most {pooled_dim}, or leave it out.",
        )
    if isinstance(task, ScoreTaskConfig):
        if table.frame["score"].drop_nulls().is_empty():
            raise _nothing_to_learn("score", "a column of scores", task)
        if task.emd:
            _rating_bins(table)
    elif isinstance(task, AttributesTaskConfig):
        if not table.classes:
            raise _nothing_to_learn("attribute", "attribute columns", task)
        unknown = sorted(set(task.attributes) - set(table.classes))
        if unknown:
            raise RecipeError(
                f"The table has no attribute {', '.join(unknown)}.",
                where=f"{where}.attributes",
                fix=f"Attributes: {', '.join(table.classes)}.",
            )
        classes = _classes(task, table)
        single = [
            name
            for name, labels in classes.items()
            if len(labels) < (1 if name in table.multi_label else 2)
        ]
        if single:
            raise DataError(
                f"Attributes with only one class: {', '.join(single)}; there is nothing to learn.",
                fix="Remove the column, give the table rows of other classes, or name the other "
                "attributes in the task's `attributes`.",
            )
        if isinstance(task, DistillationTaskConfig):
            _check_form(task, table, where)
        _check_attribute_inputs(task, table, pooled_dim, where)
    elif not table.frame["comments"].list.len().sum():
        raise _nothing_to_learn("comment", "comments", task)


def _head_fields(
    task: SingleTaskConfig, table: AnnotationTable, pooled_dim: int, token_dim: int
) -> dict[str, Any]:
    """The fields of a judge's config for the head that `task` trains."""
    if isinstance(task, ScoreTaskConfig):
        scores = table.frame["score"].drop_nulls()
        low, high = float(scores.min()), float(scores.max())  # type: ignore[arg-type]
        rating_bins = _rating_bins(table) if task.emd else ()
        return {"score": task.head, "score_grades": rating_bins, "score_range": (low, high)}
    if isinstance(task, AttributesTaskConfig):
        return {
            "attributes": task.head,
            "attribute_inputs": task.inputs,
            "classes": _classes(task, table),
            "multi_label": _several(task, table),
        }
    comments = [text for texts in table.frame["comments"].to_list() for text in texts]
    vocabulary = (
        Vocabulary.build(comments, task.min_count)
        if task.subwords is None
        else SubwordVocabulary.build_subwords(comments, task.subwords, task.min_count)
    )
    width = token_dim if task.reads == "tokens" else pooled_dim
    head = comment_config(task, vocabulary, comments, width)
    return {"comment": head, "comment_reads": task.reads, "vocabulary": vocabulary.to_dict()}


def _rating_bins(table: AnnotationTable) -> tuple[float, ...]:
    """The rating bins of the training rows' votes."""
    if not table.rating_bins or table.frame[VOTES].drop_nulls().is_empty():
        raise DataError(
            "No training row has votes, which the emd loss of the score task needs.",
            fix="Give the table a column votes.<grade> per grade, or set task.emd to 0.",
        )
    low, high = table.rating_bins[0], table.rating_bins[-1]
    outside = table.frame.filter(~pl.col("score").is_between(low, high))
    if outside.height:
        raise DataError(
            f"{outside.height} scores are not between the lowest and highest rating bin ({low:g} "
            f"to {high:g}), e.g. {outside['score'][0]:g} of {outside['image'][0]}.",
            fix="Give scores on the scale of the votes, or set task.emd to 0.",
        )
    return table.rating_bins


def _several(task: AttributesTaskConfig, table: AnnotationTable) -> tuple[str, ...]:
    """The attributes that the task learns of which several labels may hold at once."""
    return tuple(name for name in _classes(task, table) if name in table.multi_label)


def _check_form(task: DistillationTaskConfig, table: AnnotationTable, where: str) -> None:
    several = _several(task, table)
    if task.form == "decoupled" and several:
        raise RecipeError(
            f"Of {', '.join(several)} several labels may hold at once: there is no true class to "
            "decouple from the others.",
            where=f"{where}.form",
            fix="Set it to soft, batchmean or hard.",
        )


def _check_attribute_inputs(
    task: AttributesTaskConfig, table: AnnotationTable, pooled_dim: int, where: str
) -> None:
    classes = _classes(task, table)
    unknown = sorted(set(task.inputs) - set(classes))
    wide = {name: width for name, width in task.inputs.items() if width > pooled_dim}
    if unknown or wide:
        raise RecipeError(
            f"There is no attribute {', '.join(unknown)} to learn."
            if unknown
            else f"The backbone pools {pooled_dim} features; more are asked for: {wide}.",
            where=f"{where}.inputs",
            fix=f"Attributes: {', '.join(classes)}; at most {pooled_dim} features.",
        )


def _classes(task: AttributesTaskConfig, table: AnnotationTable) -> dict[str, tuple[str, ...]]:
    """Those of the attributes that are learnt, in the table's order."""
    chosen = task.attributes or tuple(table.classes)
    return {name: labels for name, labels in table.classes.items() if name in chosen}


def comment_config(
    task: CommentTaskConfig, vocabulary: Vocabulary, comments: list[str], width: int
) -> ExpansionNetConfig:
    """The comment head for these comments: long enough for the longest, unless the task sets its
    length or no head can be that long."""
    longest = max(len(vocabulary.encode(text)) for text in comments)
    return task.head.build(
        vocab_size=len(vocabulary),
        max_length=task.max_length or min(longest, LONGEST),
        feature_dim=width,
    )


def _nothing_to_learn(opinion: str, wanted: str, task: SingleTaskConfig) -> DataError:
    article = "an" if opinion == "attribute" else "a"
    return DataError(
        f"No training row has {article} {opinion}, which the {task.kind} task learns.",
        fix=f"Give the table {wanted}, or leave the {task.kind} stage out; `beholder train TABLE` "
        "learns what a table has.",
    )
