"""The judge as a network: a backbone, its heads, and what is needed to build them again.

Shape suffixes: B pictures, N tokens, C token features, P pooled features, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    field_validator,
    model_validator,
)
from torch import Tensor, nn

from beholder.data.test_time_augmentation import ViewConfig
from beholder.data.vocabulary import Vocabulary
from beholder.errors import JudgeError
from beholder.features.backbones import Backbone, Features, create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge.calibration import Calibration
from beholder.judge.store.limits import (
    MOST_BINS,
    MOST_WRITERS,
    Classes,
    MultiLabel,
    check_multi_label,
)
from beholder.models.config import MOST_FEATURES, HeadConfig
from beholder.models.expansionnet import ExpansionNet
from beholder.models.expansionnet_config import ExpansionNetConfig
from beholder.models.heads import AttributeHeads, ScoreHead, Standardise


class JudgeConfig(BaseModel):
    """All of a judge but its weights: `JudgeModel.from_config` builds it again.

    A head whose config is None is absent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: BackboneConfig
    pooled_dim: int = Field(
        ge=1, le=MOST_FEATURES, description="pooled features that score and attributes read"
    )
    token_dim: int = Field(
        ge=1, le=MOST_FEATURES, description="features of a token that the comment head reads"
    )
    score: HeadConfig | None = None
    score_grades: tuple[FiniteFloat, ...] = Field(
        (),
        max_length=MOST_BINS,
        description="rating bins whose probabilities the score is the mean of; empty: a plain "
        "score",
    )
    attributes: HeadConfig | None = None
    comment: ExpansionNetConfig | None = None
    comment_reads: Literal["tokens", "pooled"] = Field(
        "tokens", description="what the comment head reads; pooled: as one standardised token"
    )
    attribute_inputs: dict[str, int] = Field(
        {}, description="attributes that read only so many of the first pooled features"
    )
    classes: Classes = Field({}, description="attribute -> labels, in order")
    multi_label: MultiLabel = Field(
        (), description="attributes of which several labels may hold at once"
    )
    ensemble: int = Field(
        1,
        ge=1,
        le=MOST_WRITERS,
        description="comment heads that write together, probabilities averaged",
    )
    own_backbones: bool = Field(
        False, description="every further comment head has a backbone of its own"
    )
    vocabulary: dict[str, Any] | None = Field(None, description="`Vocabulary.to_dict()`")
    views: ViewConfig = Field(
        ViewConfig(), description="views of a picture that scores and attributes are means over"
    )
    score_range: tuple[FiniteFloat, FiniteFloat] | None = Field(
        None, description="lowest and highest score that it may give"
    )
    calibration: Calibration = Field(
        Calibration(), description="how far the opinions can be trusted"
    )

    @field_validator("backbone", mode="after")
    @classmethod
    def _plain(cls, backbone: BackboneConfig) -> BackboneConfig:
        """How a training has computed it is not the judge's."""
        return backbone.plain()

    @model_validator(mode="after")
    def _fits_together(self) -> JudgeConfig:
        for head in (self.score, self.attributes):
            if head is not None and (head.inputs or 0) > self.pooled_dim:
                raise ValueError(
                    f"a head of {head.inputs} inputs, but {self.pooled_dim} pooled features"
                )
        if self.attributes is not None and not self.classes:
            raise ValueError("an attribute head without classes")
        check_multi_label(self.multi_label, self.classes)
        if self.comment is not None:
            if self.vocabulary is None:
                raise ValueError("a comment head without a vocabulary")
            words = len(Vocabulary.from_dict(self.vocabulary))
            if words != self.comment.vocab_size:
                raise ValueError(
                    f"the comment head knows {self.comment.vocab_size} words, "
                    f"the vocabulary has {words}"
                )
            given = self.token_dim if self.comment_reads == "tokens" else self.pooled_dim
            if self.comment.feature_dim != given:
                raise ValueError(
                    f"the comment head reads tokens of {self.comment.feature_dim} features, "
                    f"the backbone gives {given}"
                )
        return self


class Opinions(NamedTuple):
    """What the heads on pooled features say; None and {} where there is no such head."""

    score_B: Tensor | None
    """On the scale of the training table, not cut to its range."""
    probabilities_BK: dict[str, Tensor]
    """Per attribute, summing to 1 over its classes; of a multi-label one each of its own."""
    distribution_BK: Tensor | None = None
    """Of the score's rating bins, summing to 1; None: a head without them."""


class JudgeModel(nn.Module):
    """A backbone (None while heads are trained on frozen features) and its heads.

    `heads` holds `score` (ScoreHead), `attributes` (AttributeHeads) and `comment` (ExpansionNet),
    those that the config has. `others` holds what writes comments together with `heads.comment`:
    for each a `comment` and, if it was trained end to end, a `backbone`.
    """

    backbone: Backbone | None

    def __init__(
        self,
        config: JudgeConfig,
        backbone: Backbone | None = None,
        other_backbones: Sequence[Backbone] = (),
    ) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = (
            None if config.vocabulary is None else Vocabulary.from_dict(config.vocabulary)
        )
        self.heads = nn.ModuleDict()
        if config.score is not None:
            self.heads["score"] = ScoreHead(config.pooled_dim, config.score, config.score_grades)
        if config.attributes is not None:
            self.heads["attributes"] = AttributeHeads(
                config.pooled_dim, config.classes, config.attributes, config.attribute_inputs,
                config.multi_label,
            )  # fmt: skip
        if config.comment is not None:
            self.heads["comment"] = ExpansionNet(config.comment)
        self.comment_input = None
        if config.comment is not None and config.comment_reads == "pooled":
            self.comment_input = Standardise(config.pooled_dim, HeadConfig().clamp)
        self.backbone = None
        if backbone is not None:
            self.attach(backbone)
        self.others = nn.ModuleList()
        for index in range(config.ensemble - 1):
            assert config.comment is not None, "an ensemble of comment heads without one"
            other = nn.ModuleDict({"comment": ExpansionNet(config.comment)})
            if config.own_backbones:
                other["backbone"] = other_backbones[index]
            self.others.append(other)

    @classmethod
    def from_config(cls, config: JudgeConfig, *, with_backbone: bool = True) -> JudgeModel:
        """The judge with random weights, to load its own into.

        Raises:
            BackboneError: the backbone is unknown here.
            JudgeError: the backbone gives other features than the heads were made for.
        """
        if not with_backbone:
            return cls(config)
        count = config.ensemble if config.own_backbones else 1
        first, *rest = (create_backbone(config.backbone, load_weights=False) for _ in range(count))
        return cls(config, first, rest)

    def attach(self, backbone: Backbone) -> None:
        """Put the backbone in place.

        Raises:
            JudgeError: it gives other features than the heads were made for.
        """
        expected = (self.config.token_dim, self.config.pooled_dim)
        if (backbone.token_dim, backbone.pooled_dim) != expected:
            raise JudgeError(
                f"The backbone gives {backbone.token_dim} token and {backbone.pooled_dim} pooled "
                f"features; the heads expect {expected[0]} and {expected[1]}.",
                where=backbone.config.name,
                fix="Use the backbone and pooling that the heads were trained on.",
            )
        self.backbone = backbone

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        return self.config.classes

    @property
    def multi_label(self) -> frozenset[str]:
        return frozenset(self.config.multi_label)

    @property
    def score_range(self) -> tuple[float, float] | None:
        return self.config.score_range

    @property
    def comment(self) -> ExpansionNet:
        """The comment head.

        Raises:
            JudgeError: there is none.
        """
        if "comment" not in self.heads:
            raise JudgeError("The judge has no comment head.")
        return cast(ExpansionNet, self.heads["comment"])

    def comment_tokens(self, features: Features) -> Tensor:
        """What the comment head reads [B, N, C]: the tokens, or the pooled features as one."""
        if self.comment_input is None:
            return features.tokens_BNC
        return self.comment_input(features.pooled_BP)[:, None]

    def writers(self, pixels_B3HW: Tensor, features: Features) -> list[tuple[ExpansionNet, Tensor]]:
        """All comment heads, each with the tokens it reads [B, N, C]; `features` are the judge's
        own of these pixels."""
        writers = [(self.comment, self.comment_tokens(features))]
        for other in self.others:
            parts = cast(nn.ModuleDict, other)
            seen = parts["backbone"](pixels_B3HW) if "backbone" in parts else features
            writers.append((cast(ExpansionNet, parts["comment"]), self.comment_tokens(seen)))
        return writers

    @property
    def reads_tokens(self) -> bool:
        """Whether the comment head, if there is one, reads tokens and not the pooled features."""
        return "comment" in self.heads and self.comment_input is None

    def features(self, batch: Mapping[str, Any], *, tokens: bool = True) -> Features:
        """Features of a batch: the frozen ones in it, or else those of its pixels; without
        `tokens`, where nobody reads them, the backbone does no more than the pooled ones need.

        A batch of frozen features may lack the kind that nobody reads; that one is then empty,
        `[B, 0, C]` or `[B, 0]`.
        """
        if "tokens" not in batch and "pooled" not in batch:
            assert self.backbone is not None, "pixels, but no backbone"
            return self.backbone(batch["pixels"], tokens=tokens)
        # stored features may be float16: they are widened where they are computed with
        given = {name: batch[name].float() for name in ("tokens", "pooled") if name in batch}
        known: Tensor = next(iter(given.values()))
        rows = known.shape[0]
        return Features(
            given.get("tokens", known.new_zeros(rows, 0, self.config.token_dim)),
            given.get("pooled", known.new_zeros(rows, 0)),
        )

    def opinions(self, features: Features) -> Opinions:
        """Scores and attribute probabilities; comments come from `beholder.decoding`."""
        score_B, distribution_BK, probabilities = None, None, {}
        if "score" in self.heads:
            head = cast(ScoreHead, self.heads["score"])
            score_B = head(features.pooled_BP)
            if len(head.bins_K):
                distribution_BK = head.distribution(features.pooled_BP)
        if "attributes" in self.heads:
            heads = cast(AttributeHeads, self.heads["attributes"])
            probabilities = heads.probabilities(features.pooled_BP)
        return Opinions(score_B, probabilities, distribution_BK)
