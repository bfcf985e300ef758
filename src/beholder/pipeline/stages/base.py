"""What every kind of stage offers to the runner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, get_args

from beholder.pipeline.checks import Problems
from beholder.pipeline.context import RunContext
from beholder.pipeline.cost import Cost
from beholder.pipeline.schema import Config, StageConfig


@dataclass(frozen=True)
class StageResult:
    """What a stage made.

    Args:
        outputs: name -> (path, its hash).
        metrics: those worth keeping.
        signature: of those metrics.
        timings: seconds of parts of the work, for estimates.
    """

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


class Stage(ABC, Generic[Config]):
    """One stage of a recipe, bound to a run. Torch is imported in `run`, `check` and `cost` only.

    Attributes:
        schema: what a recipe says of such a stage.
        everywhere: whether every process of a distributed run runs it; else the main one alone.
    """

    schema: ClassVar[type[StageConfig]]
    everywhere: ClassVar[bool] = False

    def __init__(self, name: str, config: Config, context: RunContext) -> None:
        self.name = name
        self.config = config
        self.context = context

    @classmethod
    def kind(cls) -> str:
        """As recipes name it."""
        (kind,) = get_args(cls.schema.model_fields["kind"].annotation)
        return str(kind)

    @abstractmethod
    def check(self, problems: Problems) -> None:
        """Note everything that recipe, table and file headers tell against the stage; nothing is
        computed and no picture is read."""

    @abstractmethod
    def run(self, folder: Path) -> StageResult:
        """Do the work in `folder`, resuming what an earlier, stopped run has left there."""

    def smoke_config(self) -> Config:
        """The stage's configuration for a smoke run: fewer repetitions of the same work."""
        return self.config

    def cost(self, smoke: SmokeRun) -> Cost:
        """What the whole stage will take, estimated from its smoke run; the same for work that does
        not grow with the table."""
        return smoke.cost
