"""What every member of a score ensemble offers.

Legend: N pictures to fit on, B to predict, P features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]
Scores = NDArray[np.float64]
Folds = NDArray[np.int64]


@dataclass(frozen=True)
class Packed:
    """A fitted member as plain data: arrays by name, and text for what has a text form."""

    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    text: str | None = None


class Member(ABC):
    """One regressor from standardised features to standardised scores."""

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def fit(cls, x_NP: Features, y_N: Scores, folds_N: Folds, seed: int) -> tuple[Member, Scores]:
        """Fit on all rows, with the strength that is best on held-out folds.

        Args:
            x_NP: features of mean 0 and deviation 1.
            y_N: scores of mean 0 and deviation 1.
            folds_N: the fold of each row, from 0.
            seed: of everything drawn.

        Returns:
            The fitted member, and out of fold predictions [N]: each row's by a fit of that strength
            on the other folds.
        """

    @abstractmethod
    def predict(self, x_BP: Features) -> Scores:
        """Predictions [B]."""

    @abstractmethod
    def pack(self) -> Packed:
        """All that `unpack` needs to predict the very same."""

    @classmethod
    @abstractmethod
    def unpack(cls, packed: Packed) -> Member:
        """The member that was packed."""


def mean_squared(held_out_LN: NDArray[np.float64], y_N: Scores) -> NDArray[np.float64]:
    """Mean squared error [L] of each row of predictions."""
    return np.square(held_out_LN - y_N).mean(axis=1)
