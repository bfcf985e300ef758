"""How scores are fitted on frozen features: the schema alone, so that a recipe is read fast."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MemberName = Literal["ridge", "kernel", "trees", "mlp"]


class EnsembleConfig(BaseModel):
    """Beholder's own stack of regressors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["ensemble"] = "ensemble"
    members: tuple[MemberName, ...] = Field(
        ("ridge", "kernel", "trees", "mlp"),
        min_length=1,
        description="what is stacked: linear ridge, kernel ridge (Gaussian), LightGBM's trees, a "
        "network of one hidden layer",
    )
    folds: int = Field(
        5, ge=2, description="parts, never dividing a group, behind strengths and stacking weights"
    )

    @field_validator("members")
    @classmethod
    def _each_once(cls, members: tuple[MemberName, ...]) -> tuple[MemberName, ...]:
        if len(set(members)) < len(members):
            raise ValueError("a member stands twice")
        return members


class AutoGluonConfig(BaseModel):
    """AutoGluon's tabular predictor, see docs/samsung-iqa-score.md for its environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["autogluon"]
    time_limit: float | None = Field(None, gt=0, description="seconds per fit; null: no limit")
    presets: str = Field("medium_quality", description="AutoGluon's own name for its effort")


RegressorConfig = Annotated[EnsembleConfig | AutoGluonConfig, Field(discriminator="kind")]
