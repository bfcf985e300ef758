"""What every kind of stage offers to the runner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from beholder.pipeline.context import RunContext


@dataclass(frozen=True)
class StageResult:
    """What a stage made: output name -> (path, its hash), the numbers worth keeping, and the
    signatures of those numbers."""

    outputs: dict[str, tuple[Path, str]]
    metrics: dict[str, float] = field(default_factory=dict)
    signature: dict[str, str] = field(default_factory=dict)


class Stage(ABC):
    """One stage of a recipe, bound to a run."""

    # Training runs in every process of a distributed run; everything else in the first only.
    everywhere = False

    def __init__(self, name: str, context: RunContext) -> None:
        self.name = name
        self.context = context

    @abstractmethod
    def rehearse(self) -> float | None:
        """Do one step for real, e.g. one forward and backward pass, writing nothing.

        Returns:
            The estimated seconds of the whole stage; None if it can't be told.

        Raises:
            BeholderError: the stage would fail.
        """

    @abstractmethod
    def run(self, folder: Path) -> StageResult:
        """Do the work in `folder`, going on from what an earlier, stopped run has left there."""
