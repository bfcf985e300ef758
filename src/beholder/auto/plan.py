"""What a training has chosen, kept in the run as `plan.json`, so that one that was stopped goes on
with it, and another can be made alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from beholder.auto.search import Candidate, Standing
from beholder.auto.teachable import Opinion
from beholder.data.files import write_json
from beholder.errors import RecipeError
from beholder.features.config import BackboneConfig
from beholder.report.collect import PLAN


class Compared(BaseModel):
    """A line of the leaderboard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: str
    backbone: BackboneConfig
    skill: float
    parts: dict[str, float]
    class_weight_power: float
    seconds: float
    pictures: int

    def standing(self) -> Standing:
        """What `auto.search` gave."""
        return Standing(
            Candidate(self.candidate, self.backbone),
            self.skill,
            self.parts,
            self.class_weight_power,
            self.seconds,
            self.pictures,
        )


class Plan(BaseModel):
    """The choices, and what they were made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    made_from: str = Field(description="hash of table, pictures, and what was asked for")
    opinions: tuple[Opinion, ...]
    leaderboard: tuple[Compared, ...] = Field(min_length=1, description="best first")
    comment_epochs: int = Field(ge=1, description="passes over the comments")

    @property
    def chosen(self) -> Standing:
        """The features that are learnt from."""
        return self.leaderboard[0].standing()

    def save(self, folder: Path) -> None:
        write_json(folder / PLAN, self.model_dump(mode="json"))


def compared(standing: Standing) -> Compared:
    """A standing as the plan keeps it."""
    return Compared(
        candidate=standing.candidate.name,
        backbone=standing.candidate.backbone,
        skill=standing.skill,
        parts=standing.parts,
        class_weight_power=standing.class_weight_power,
        seconds=round(standing.seconds, 3),
        pictures=standing.pictures,
    )


def read_plan(path: Path) -> Plan:
    """Read a plan from its file.

    Raises:
        RecipeError: it can't be read, or is none.
    """
    try:
        return Plan.model_validate_json(path.read_bytes())
    except (OSError, ValidationError, ValueError) as error:
        raise RecipeError(
            "This is not a plan of a training.",
            where=str(path),
            fix="Name a run's plan.json, or remove it: another is made.",
        ) from error


def matching_plan(folder: Path, made_from: str) -> Plan | None:
    """The plan that a training of the same table and wishes has left here; None: there is none."""
    path = folder / PLAN
    if not path.exists():
        return None
    plan = read_plan(path)
    return plan if plan.made_from == made_from else None


def leaderboard_rows(plan: Plan) -> list[dict[str, Any]]:
    """The leaderboard as rows of a table: candidate, skill, its parts, seconds, pictures."""
    names = sorted({name for line in plan.leaderboard for name in line.parts})
    return [
        {
            "candidate": line.candidate,
            "skill": line.skill,
            **{name: line.parts.get(name) for name in names},
            "seconds": line.seconds,
            "pictures": line.pictures,
        }
        for line in plan.leaderboard
    ]
