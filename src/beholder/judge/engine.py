"""What runs a judge's networks: pixels in, raw opinions out, as numpy arrays.

The judge needs nothing else of PyTorch or of any other runtime.

Legend: B pictures, K classes of an attribute.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RawOpinions:
    """What the heads say of a batch; None and {} where there is no such head.

    `comments_B` holds the token ids of the best comment of each picture, with both ends.
    """

    score_B: NDArray[np.float64] | None = None
    probabilities_BK: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    comments_B: list[list[int]] | None = None


class Engine(Protocol):
    """Runs backbone, heads and decoding."""

    def opinions(self, pixels_B3HW: NDArray[np.float32], beam_size: int | None) -> RawOpinions:
        """What the heads say; None for `beam_size` writes no comment."""
        ...


@runtime_checkable
class ExplainingEngine(Engine, Protocol):
    """An engine that can tell where an opinion comes from."""

    def heat_map(
        self, pixels_3HW: NDArray[np.float32], opinion: str, index: int | None
    ) -> NDArray[np.float32]:
        """Where a picture speaks for class `index` of an attribute, or (None) for the score
        [h, w], at least 0, over the whole input."""
        ...
