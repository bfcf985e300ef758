"""How heads are built: the schema alone, so that a recipe is read without torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class HeadConfig(BaseModel):
    """How a score or attribute head gets from its standardised input to its outputs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: int | None = Field(
        None,
        ge=1,
        description="reads only the first so many pooled features; with `pooling: stages` those "
        "of the early stages; null: all",
    )
    bottleneck: int | None = Field(
        None, ge=1, description="width of a linear layer before all others; null: no such layer"
    )
    hidden: tuple[int, ...] = Field((), description="widths of the GELU layers; empty: linear")
    input_dropout: float = Field(0.0, ge=0.0, lt=1.0, description="on the standardised features")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="after the bottleneck and each layer")
    clamp: float = Field(
        8.0, gt=0.0, description="standardised features are cut to +- this many deviations"
    )
