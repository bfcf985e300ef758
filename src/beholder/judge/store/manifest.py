"""What a judge says of itself, wherever it is kept: in the card of its folder (`judge.json`) or in
the manifest of its one file. Both hold a `Description`, which is read without weights or graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator, model_validator

from beholder.data.files import sha256_file
from beholder.data.sealed import Seal
from beholder.data.test_time_augmentation import ViewConfig
from beholder.data.transforms import EvalTransform
from beholder.errors import JudgeError
from beholder.judge.calibration import Calibration
from beholder.judge.store.limits import (
    MOST_BEAMS,
    MOST_BINS,
    MOST_WRITERS,
    Classes,
    MultiLabel,
    check_multi_label,
)
from beholder.models.expansionnet_config import LONGEST
from beholder.version import __version__

FORMAT = 1
HEADS = ("score", "attributes", "comment")
CARD, WEIGHTS, VOCABULARY = "judge.json", "weights.safetensors", "vocabulary.json"
FOLDER_SEAL = Seal(
    CARD, "judge", FORMAT, JudgeError, "Export the judge again, or copy it as a whole."
)
Precision = Literal["fp32", "fp16", "int8"]


class Description(BaseModel):
    """What is known of a judge without its networks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heads: tuple[str, ...] = Field(description="those it has of score, attributes, comment")
    classes: Classes = Field({}, description="attribute -> labels, in order")
    multi_label: MultiLabel = Field(
        (), description="attributes of which several labels may hold at once"
    )
    score_range: tuple[FiniteFloat, FiniteFloat] | None = Field(
        None, description="lowest and highest score that it may give"
    )
    rating_bins: tuple[FiniteFloat, ...] = Field(
        (), max_length=MOST_BINS, description="whose shares it predicts with the score"
    )
    views: ViewConfig = ViewConfig()
    calibration: Calibration = Calibration()
    beam_size: int = Field(1, ge=1, le=MOST_BEAMS, description="beams when a comment is written")
    max_length: int = Field(
        2, ge=2, le=LONGEST, description="longest comment in tokens, both ends included"
    )
    writers: int = Field(1, ge=1, le=MOST_WRITERS, description="comment heads that write together")
    provenance: dict[str, Any] = Field({}, description="recipe, seed, stages")

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Description:
        """Of a folder's card: its `config` is a `JudgeConfig` as JSON, without the vocabulary.

        Raises:
            ValueError, TypeError, KeyError: it is none.
        """
        config = card["config"]
        comment, labels = config.get("comment"), config.get("attributes") is not None
        return Description(
            heads=tuple(name for name in HEADS if config.get(name) is not None),
            classes=config.get("classes", {}) if labels else {},
            multi_label=config.get("multi_label", ()) if labels else (),
            score_range=config.get("score_range"),
            rating_bins=config.get("score_grades", ()) if config.get("score") is not None else (),
            views=config.get("views", {}),
            calibration=config.get("calibration", {}),
            beam_size=card["beam_size"],
            max_length=2 if comment is None else comment["max_length"],
            writers=1 if comment is None else config.get("ensemble", 1),
            provenance=card["provenance"],
        )

    @property
    def comments(self) -> bool:
        """Whether it writes."""
        return "comment" in self.heads

    @field_validator("heads")
    @classmethod
    def _those_there_are(cls, heads: tuple[str, ...]) -> tuple[str, ...]:
        if not heads or len(set(heads)) < len(heads) or not set(heads) <= set(HEADS):
            raise ValueError(f"heads must be some of {', '.join(HEADS)}, each once")
        return heads

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if ("attributes" in self.heads) != bool(self.classes):
            raise ValueError("classes without an attribute head, or a head without classes")
        if any(not labels or len(set(labels)) < len(labels) for labels in self.classes.values()):
            raise ValueError("an attribute without classes, or with a class that comes twice")
        check_multi_label(self.multi_label, self.classes)
        if "comment" not in self.heads and self.writers > 1:
            raise ValueError("several writers without a comment head")
        return self


class Member(BaseModel):
    """One member of the file: its bytes and their hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int = Field(ge=0, description="bytes, not deflated")
    sha256: str


class Manifest(Description):
    """All of an exported judge but graphs and vocabulary."""

    format: int = FORMAT
    beholder: str = Field(__version__, description="the version that wrote it")
    precision: Precision
    floating: str = Field("", description="in words: what of it is in floating point")
    transform: dict[str, Any] = Field(description="`EvalTransform.to_dict()`")
    parity: dict[str, Any] = Field({}, description="how it was compared with the folder")
    files: dict[str, Member] = Field({}, max_length=1024)

    @field_validator("transform")
    @classmethod
    def _known(cls, transform: dict[str, Any]) -> dict[str, Any]:
        EvalTransform.from_dict(transform)
        return transform


def require_judge(path: Path) -> Path:
    """The path, if something is there.

    Raises:
        JudgeError: nothing is.
    """
    if not path.exists():
        raise JudgeError("There is no judge here.", where=str(path), fix="Check the path.")
    return path


def short_identity(path: Path, name: str | None = None) -> str:
    """Which judge a file or folder holds, for people: its name (None: that of the file, or of the
    folder with the one around it), and the beginning of the SHA-256 of the file, or of the folder's
    card."""
    if path.is_file():
        return f"{name or path.name}@{sha256_file(path)[:12]}"
    name = name or "/".join(path.absolute().parts[-2:])  # most folders are called judge
    return f"{name}@{sha256_file(path / CARD)[:12]}"
