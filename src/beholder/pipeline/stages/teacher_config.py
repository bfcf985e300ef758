"""The teacher of a distillation, as a train stage names it."""

from __future__ import annotations

from pydantic import Field, model_validator

from beholder.pipeline.schema import Strict


class TeacherConfig(Strict):
    """Whose opinions a student learns: several are averaged in probability."""

    stages: list[str] = Field([], description="earlier train stages")
    judges: list[str] = Field([], description="folders of judges")
    epoch: int | None = Field(
        None, ge=1, description="of the stages' training; null: each one's best weights"
    )
    cached_views: int | None = Field(
        None,
        ge=1,
        description="ask the teacher once, about so many augmented views of each picture, which "
        "come again after as many epochs; as many as epochs: the same as null, which asks it in "
        "every step",
    )

    @model_validator(mode="after")
    def _somebody(self) -> TeacherConfig:
        if not self.stages and not self.judges:
            raise ValueError("a teacher needs stages or judges")
        return self
