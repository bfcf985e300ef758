"""The tasks of a recipe: which heads to train, how they are built, what the loss is.

Only schemas, no torch, so that a recipe is read and checked without delay.
"""

from __future__ import annotations

import logging
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from beholder.models.config import HeadConfig
from beholder.models.expansionnet_config import LONGEST, ExpansionNetConfig

log = logging.getLogger("beholder")


class _TaskConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    train_backbone: bool = Field(
        False,
        description="whether to train the backbone too, which takes pictures, not frozen features",
    )
    freeze_bn_stats: bool = Field(
        False,
        description="keep the means and variances of a trained backbone's batch norms as they are, "
        "which is better where pictures are few; false: they follow the batches",
    )

    @model_validator(mode="before")
    @classmethod
    def _old_name_of_freeze_bn_stats(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "train_statistics" not in values:
            return values
        if "freeze_bn_stats" in values:
            raise ValueError("train_statistics is the old name of freeze_bn_stats: give one")
        follow = values["train_statistics"]
        if not isinstance(follow, bool):
            raise ValueError("train_statistics must be true or false")
        log.warning(
            "train_statistics: %s is now freeze_bn_stats: %s; the next version only reads that.",
            *(str(follow).lower(), str(not follow).lower()),
        )
        rest = {name: value for name, value in values.items() if name != "train_statistics"}
        return {**rest, "freeze_bn_stats": not follow}

    @property
    def parts(self) -> dict[str, SingleTaskConfig]:
        """The single-head tasks that it consists of, by name."""
        raise NotImplementedError

    @property
    def opinions(self) -> tuple[str, ...]:
        """The heads of a judge that it trains."""
        return tuple(part.opinion for part in self.parts.values())

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of its tasks."""
        return frozenset(part.kind for part in self.parts.values())


class _SingleTaskConfig(_TaskConfig):
    # which head of a judge it trains
    opinion: ClassVar[str]

    @property
    def parts(self) -> dict[str, SingleTaskConfig]:
        only = cast("SingleTaskConfig", self)
        return {only.kind: only}


class ScoreTaskConfig(_SingleTaskConfig):
    """Scores from pooled features. All losses are of scores in deviations from their mean."""

    opinion = "score"
    kind: Literal["score"] = "score"
    head: HeadConfig = HeadConfig(hidden=(64,), dropout=0.5, input_dropout=0.2)
    plcc: float = Field(1.0, ge=0.0, description="weight of (1 - linear correlation) / 2")
    rank: float = Field(0.5, ge=0.0, description="weight of the pairwise logistic rank loss")
    l1: float = Field(1.0, ge=0.0, description="weight of the absolute error")
    smooth_l1: float = Field(
        0.0,
        ge=0.0,
        description="error in deviations below which the L1 loss becomes quadratic; 0: plain L1",
    )
    emd: float = Field(
        0.0,
        ge=0.0,
        description="weight of the squared earth mover's distance to the raters' votes; above 0 "
        "the head predicts the probability of each rating bin, and the score is their mean",
    )

    @model_validator(mode="after")
    def _some_loss(self) -> ScoreTaskConfig:
        if self.plcc + self.rank + self.l1 + self.emd == 0.0:
            raise ValueError("plcc, rank, l1 and emd are all 0: there is nothing to learn from")
        return self


class AttributesTaskConfig(_SingleTaskConfig):
    """Labels of the table's attributes from pooled features."""

    opinion = "attributes"
    kind: Literal["attributes"] = "attributes"
    head: HeadConfig = HeadConfig(input_dropout=0.2)
    attributes: tuple[str, ...] = Field(
        (),
        exclude_if=lambda names: not names,
        description="the attributes of the table that are learnt; empty: all",
    )
    label_smoothing: float = Field(
        0.1,
        ge=0.0,
        lt=1.0,
        description="share of the target spread over all classes; where several labels may hold at "
        "once, over holding and not",
    )
    inputs: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {}, description="attribute -> how many of the first pooled features its head reads"
    )
    class_weights: Literal["power", "effective"] = Field(
        "power",
        description="how classes are weighted; power: count^-class_weight_power; effective: by the "
        "effective number of pictures, (1 - beta) / (1 - beta^count); where several labels may "
        "hold at once, the two classes of each are that it holds and that it does not",
    )
    class_weight_power: float = Field(
        1.0,
        ge=0.0,
        le=1.0,
        description="exponent of `class_weights: power`; 0: no weighting, 1: inverse frequency",
    )
    effective_beta: float = Field(
        0.999,
        ge=0.0,
        lt=1.0,
        description="beta of `class_weights: effective`: pictures beyond 1 / (1 - beta) count "
        "little",
    )
    logit_adjustment: float = Field(
        0.0,
        ge=0.0,
        description="factor of the logarithm of the class's frequency that is added to its logit "
        "in training; 0: none, 1: as if classes were equally frequent",
    )

    @property
    def weighs_classes(self) -> bool:
        """Whether rare classes weigh more than frequent ones."""
        if self.class_weights == "effective":
            return self.effective_beta > 0.0
        return self.class_weight_power > 0.0


class DistillationTaskConfig(AttributesTaskConfig):
    """Labels of the table's attributes, and the logits of the stage's `teacher`."""

    kind: Literal["distillation"] = "distillation"  # type: ignore[assignment]
    form: Literal["soft", "batchmean", "hard", "decoupled"] = Field(
        "soft",
        description="distillation loss; soft: divergence of softened probabilities divided by the "
        "number of logits; batchmean: the same divided by the number of pictures; hard: the "
        "teacher's best class; decoupled: DKD, not where several labels may hold at once",
    )
    tau: float = Field(4.0, gt=0.0, description="temperature that softens both sides")
    alpha: float = Field(
        0.9, ge=0.0, le=1.0, description="share of the distillation loss; the labels have the rest"
    )
    labelled_only: bool = Field(
        False,
        description="whether to copy the teacher only where there is a label: for attributes that "
        "do not apply to all pictures, which it can only guess",
    )
    target_weight: float = Field(
        1.0, ge=0.0, description="decoupled: weight of the true class's part"
    )
    others_weight: float = Field(
        8.0, ge=0.0, description="decoupled: weight of the other classes' part"
    )


class CommentHeadConfig(BaseModel):
    """The captioner's layers; what depends on the data (words, length, features) is added later."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    d_model: int = Field(512, ge=1, description="width of all layers")
    enc_layers: int = Field(3, ge=1, description="number of encoder layers")
    dec_layers: int = Field(3, ge=1, description="number of decoder layers")
    ff: int = Field(2048, ge=1, description="width of the feed-forward layers")
    heads: int = Field(8, ge=1, description="number of attention heads; divides d_model")
    enc_expansions: tuple[int, ...] = Field(
        (32, 64, 128, 256, 512), min_length=1, description="lengths the encoder expands to"
    )
    dec_expansions: int = Field(16, ge=1, description="length the decoder expands to")
    dropout_encoder: float = Field(0.1, ge=0.0, lt=1.0, description="dropout in encoder layers")
    dropout_decoder: float = Field(
        0.1, ge=0.0, lt=1.0, description="dropout in decoder layers; 0 trains faster"
    )
    dropout_encoder_input: float = Field(
        0.1, ge=0.0, lt=1.0, description="dropout of the projected tokens"
    )
    dropout_decoder_input: float = Field(
        0.1, ge=0.0, lt=1.0, description="dropout of the word embeddings"
    )
    dropout_other: float = Field(
        0.1, ge=0.0, lt=1.0, description="dropout after both fusions of layers"
    )

    def build(self, *, vocab_size: int, max_length: int, feature_dim: int) -> ExpansionNetConfig:
        """The whole head, for these words, this length and these features."""
        return ExpansionNetConfig(
            **self.model_dump(),
            vocab_size=vocab_size,
            max_length=max_length,
            feature_dim=feature_dim,
        )

    @model_validator(mode="after")
    def _heads_divide(self) -> CommentHeadConfig:
        self.build(vocab_size=2, max_length=2, feature_dim=1)
        return self


class CommentTaskConfig(_SingleTaskConfig):
    """The options that all objectives of the comment head share. Stages that start from each
    other's weights must agree in all of them but the beams."""

    opinion = "comment"
    head: CommentHeadConfig = CommentHeadConfig()
    reads: Literal["tokens", "pooled"] = Field(
        "tokens",
        description="what the head reads; tokens: the backbone's; pooled: its pooled features, "
        "standardised, as a single token",
    )
    min_count: int = Field(1, ge=1, description="count below which words become unknown")
    subwords: int | None = Field(
        None,
        ge=16,
        description="size of a subword vocabulary, for languages such as Korean; null: whole words",
    )
    max_length: int | None = Field(
        None,
        ge=3,
        le=LONGEST,
        description="most tokens of a comment with both ends; null: as the longest in training",
    )
    beam_sizes: tuple[Annotated[int, Field(ge=1, le=32)], ...] = Field(
        (3,),
        min_length=1,
        description="beam sizes that validation comments are written with, one after the other; "
        "the first one counts",
    )


class CaptionTaskConfig(CommentTaskConfig):
    """Comments from feature tokens by cross-entropy, each word given the true words before it."""

    kind: Literal["caption"] = "caption"
    label_smoothing: float = Field(
        0.1, ge=0.0, le=0.5, description="share of the target spread over all other words"
    )


class SelfCriticalTaskConfig(CommentTaskConfig):
    """Comments drawn from the head itself, rewarded by CIDEr-D. Start from a trained head."""

    kind: Literal["self_critical"] = "self_critical"
    samples: int = Field(5, ge=2, le=64, description="number of comments drawn per picture")
    sample_length: int = Field(
        20, ge=2, description="most words of a drawn comment, including its end"
    )


SingleTaskConfig = (
    ScoreTaskConfig
    | AttributesTaskConfig
    | DistillationTaskConfig
    | CaptionTaskConfig
    | SelfCriticalTaskConfig
)

JoinedTaskConfig = Annotated[
    ScoreTaskConfig | AttributesTaskConfig | DistillationTaskConfig | CaptionTaskConfig,
    Field(discriminator="kind"),
]


class JointTaskConfig(_TaskConfig):
    """Several tasks on one backbone at once; a picture may lack any of the opinions."""

    kind: Literal["joint"] = "joint"
    tasks: dict[Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*$")], JoinedTaskConfig] = Field(
        min_length=2, description="tasks by the names that prefix their metrics, as in `score.srcc`"
    )
    weights: dict[str, Annotated[float, Field(ge=0.0)]] = Field(
        {}, description="weights of the tasks' losses, 1 by default; 0: the loss is only logged"
    )

    @property
    def parts(self) -> dict[str, SingleTaskConfig]:
        return dict(self.tasks)

    def weight_of(self, name: str) -> float:
        """How much the loss of a task counts."""
        return self.weights.get(name, 1.0)

    @model_validator(mode="after")
    def _one_task_per_head(self) -> JointTaskConfig:
        owner: dict[str, str] = {}
        for name, task in self.tasks.items():
            if task.opinion in owner:
                raise ValueError(
                    f"{owner[task.opinion]!r} and {name!r} both train the {task.opinion} head"
                )
            owner[task.opinion] = name
            if task.train_backbone or task.freeze_bn_stats:
                raise ValueError(
                    f"one backbone is trained for all tasks: set train_backbone and "
                    f"freeze_bn_stats beside `tasks`, not in {name!r}"
                )
        return self

    @model_validator(mode="after")
    def _weights_of_tasks(self) -> JointTaskConfig:
        unknown = sorted(set(self.weights) - set(self.tasks))
        if unknown:
            raise ValueError(
                f"weights of {', '.join(unknown)}, but the tasks are {', '.join(self.tasks)}"
            )
        if not any(self.weight_of(name) for name in self.tasks):
            raise ValueError("all weights are 0: there is nothing to learn from")
        return self


TaskConfig = Annotated[SingleTaskConfig | JointTaskConfig, Field(discriminator="kind")]
