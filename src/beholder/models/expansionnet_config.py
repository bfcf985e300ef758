"""The shape of an ExpansionNet v2: the schema alone, so that a recipe is read without torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from beholder.models.config import MOST_FEATURES, WIDEST

LONGEST = 1024
"""Tokens of a comment, both ends included."""


class ExpansionNetConfig(BaseModel):
    """Widths, depths and dropouts of an ExpansionNet v2. The defaults are the published model.

    Dropouts are 0 unless asked for; the published training has 0.1 everywhere. With
    `dropout_decoder` above 0 training takes the slow path through the dynamic expansion (see
    `models.expansion`); decoding is always fast.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocab_size: int = Field(ge=2, le=1_000_000, description="words, the special ones included")
    d_model: int = Field(512, ge=1, le=8192, description="width of all layers")
    enc_layers: int = Field(3, ge=1, le=64)
    dec_layers: int = Field(3, ge=1, le=64)
    ff: int = Field(2048, ge=1, le=WIDEST, description="width inside the feed-forward layers")
    heads: int = Field(8, ge=1, le=1024, description="of the cross-attention; divides d_model")
    enc_expansions: tuple[Annotated[int, Field(le=8192)], ...] = Field(
        (32, 64, 128, 256, 512),
        min_length=1,
        max_length=64,
        description="lengths of the static expansions",
    )
    dec_expansions: int = Field(
        16, ge=1, le=1024, description="dynamic expansion vectors per position"
    )
    max_length: int = Field(
        74, ge=2, le=LONGEST, description="longest sequence, both ends included"
    )
    feature_dim: int = Field(
        1536, ge=1, le=MOST_FEATURES, description="width of the backbone's tokens"
    )
    dropout_encoder: float = Field(0.0, ge=0.0, lt=1.0, description="inside encoder layers")
    dropout_decoder: float = Field(0.0, ge=0.0, lt=1.0, description="inside decoder layers")
    dropout_encoder_input: float = Field(0.0, ge=0.0, lt=1.0, description="on the projected tokens")
    dropout_decoder_input: float = Field(0.0, ge=0.0, lt=1.0, description="on the word embeddings")
    dropout_other: float = Field(0.0, ge=0.0, lt=1.0, description="on both fusions of layers")

    @model_validator(mode="after")
    def _consistent(self) -> ExpansionNetConfig:
        if self.d_model % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide d_model ({self.d_model})")
        if min(self.enc_expansions) < 1:
            raise ValueError("every length in enc_expansions must be at least 1")
        return self
