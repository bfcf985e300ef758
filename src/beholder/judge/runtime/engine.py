"""What runs a judge's networks: pixels in, the heads' outputs out, as numpy arrays.

The judge needs nothing else of PyTorch or of any other runtime.

Legend: B pictures, K classes of an attribute or rating bins, P pooled features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from beholder.errors import JudgeError
from beholder.judge.generation import GenerationConfig


@dataclass(frozen=True)
class HeadOutputs:
    """What the heads say of a batch; None and {} where there is no such head.

    `distribution_BK` holds the share of each rating bin, `pooled_BP` the backbone's pooled features
    where they were asked for.
    `comments_B` holds the token ids of each picture's comments, with both ends, best first.
    """

    score_B: NDArray[np.float64] | None = None
    probabilities_BK: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    comments_B: list[list[list[int]]] | None = None
    distribution_BK: NDArray[np.float64] | None = None
    pooled_BP: NDArray[np.float32] | None = None


def joined(parts: Sequence[HeadOutputs]) -> HeadOutputs:
    """The scores, probabilities and distributions of several batches as one."""
    scores = [part.score_B for part in parts if part.score_B is not None]
    distributions = [part.distribution_BK for part in parts if part.distribution_BK is not None]
    return HeadOutputs(
        np.concatenate(scores) if scores else None,
        {
            name: np.concatenate([part.probabilities_BK[name] for part in parts])
            for name in parts[0].probabilities_BK
        },
        distribution_BK=np.concatenate(distributions) if distributions else None,
    )


def mean_opinions(first: HeadOutputs, further: HeadOutputs, counts_B: Sequence[int]) -> HeadOutputs:
    """The opinions of pictures seen in several views: mean scores and probabilities, the first
    view's comments and pooled features.

    Args:
        first: of the first view of each picture.
        further: of all their other views, picture by picture.
        counts_B: how many other views each picture has.
    """
    owner = np.repeat(np.arange(len(counts_B)), counts_B)
    views_B = np.asarray(counts_B) + 1

    def mean(first_B: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
        total = first_B.copy()
        np.add.at(total, owner, others)
        return total / views_B.reshape(-1, *[1] * (first_B.ndim - 1))

    score_B = None
    if first.score_B is not None and further.score_B is not None:
        score_B = mean(first.score_B, further.score_B)
    probabilities_BK = {
        name: mean(first_BK, further.probabilities_BK[name])
        for name, first_BK in first.probabilities_BK.items()
    }
    distribution_BK = None
    if first.distribution_BK is not None and further.distribution_BK is not None:
        distribution_BK = mean(first.distribution_BK, further.distribution_BK)
    return HeadOutputs(
        score_B, probabilities_BK, first.comments_B, distribution_BK, first.pooled_BP
    )


class Engine(Protocol):
    """Runs backbone, heads and decoding."""

    def opinions(
        self, pixels_B3HW: NDArray[np.float32], generation: GenerationConfig | None
    ) -> HeadOutputs:
        """What the heads say; None for `generation` writes no comment."""
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


def opinions_of_views(
    engine: Engine, views: Sequence[NDArray[np.float32]], generation: GenerationConfig | None
) -> HeadOutputs:
    """What an engine says of prepared pictures [V, 3, H, W] each; comments of the first view."""
    raw = engine.opinions(np.stack([picture[0] for picture in views]), generation)
    others = np.concatenate([picture[1:] for picture in views])
    if not len(others):
        return raw
    size = len(views)
    further = [
        engine.opinions(others[start : start + size], None) for start in range(0, len(others), size)
    ]
    return mean_opinions(raw, joined(further), [len(picture) - 1 for picture in views])


def lost_in_a_fork(what: str) -> JudgeError:
    """What a process is told that was forked after a judge was loaded, where the runtime does not
    survive that.

    Args:
        what: the judge, e.g. "A judge on cuda:0".
    """
    return JudgeError(
        f"{what} can't be used in a process that was forked after it was loaded.",
        fix="Start processes with multiprocessing's spawn or forkserver, or load the judge in each "
        "of them.",
    )
