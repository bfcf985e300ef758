"""What every kind of stage offers to the runner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from beholder.pipeline.checks import Problems
from beholder.pipeline.context import RunContext
from beholder.pipeline.cost import Cost
from beholder.pipeline.recipe import StageConfig


@dataclass(frozen=True)
class StageResult:
    """What a stage made: output name -> (path, its hash), the metrics worth keeping, the
    signatures of those metrics, and seconds of parts of the work, for estimates."""

    outputs: dict[str, tuple[Path, str]]
    metrics: dict[str, float] = field(default_factory=dict)
    signature: dict[str, str] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SmokeRun:
    """A stage's smoke run: what it worked in, what it made, and what that took."""

    context: RunContext
    result: StageResult
    cost: Cost


class Stage(ABC):
    """One stage of a recipe, bound to a run."""

    # Training runs in every process of a distributed run; everything else in the main one only.
    everywhere = False

    def __init__(self, name: str, context: RunContext) -> None:
        self.name = name
        self.context = context

    @abstractmethod
    def check(self, problems: Problems) -> None:
        """Note everything that recipe, table and file headers tell against the stage; nothing is
        computed and no picture is read."""

    @abstractmethod
    def run(self, folder: Path) -> StageResult:
        """Do the work in `folder`, going on from what an earlier, stopped run has left there."""

    def smoke_config(self) -> StageConfig:
        """The stage's configuration for a smoke run: fewer repetitions of the same work."""
        return self.context.recipe.stages[self.name]

    def cost(self, smoke: SmokeRun) -> Cost:
        """What the whole stage will take, from what its smoke run has come to; the same for work
        that does not grow with the table."""
        return smoke.cost
