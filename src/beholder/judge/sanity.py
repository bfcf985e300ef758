"""Whether what networks say is numbers at all, before a verdict is made of it.

Legend: B pictures, K classes of an attribute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from beholder.errors import OpinionError
from beholder.judge.runtime.engine import HeadOutputs

MOST_SCORE = 1e12
MOST_PROBABILITY = 1.001  # 1 and the rounding of half precision


def check_opinions(
    raw: HeadOutputs,
    classes: Mapping[str, Sequence[str]],
    names: Sequence[str],
    rating_bins: Sequence[float] = (),
) -> None:
    """Refuse what damaged or absurd weights, or a stranger's graphs, say of a batch.

    Args:
        classes: attribute -> labels.
        names: of the pictures [B].
        rating_bins: whose shares are told, if they are.

    Raises:
        OpinionError: a score or probability is not finite or far beyond any scale, or there is
            not one for every picture and class; names picture and opinion.
    """
    if raw.score_B is not None:
        _check("score", raw.score_B, (len(names),), names, -MOST_SCORE, MOST_SCORE)
    if raw.distribution_BK is not None:
        shape = (len(names), len(rating_bins))
        _check("distribution", raw.distribution_BK, shape, names, 0.0, MOST_PROBABILITY)
    for name, labels in classes.items():
        shape = (len(names), len(labels))
        _check(name, raw.probabilities_BK[name], shape, names, 0.0, MOST_PROBABILITY)


def _check(
    opinion: str,
    values: NDArray[np.float64],
    shape: tuple[int, ...],
    names: Sequence[str],
    least: float,
    most: float,
) -> None:
    if values.shape != shape:
        raise OpinionError(
            f"The judge gives {opinion} of shape {values.shape} for {len(names)} pictures, "
            f"instead of {shape}.",
            fix="Its graphs are not those of a judge: export it again.",
        )
    usable = (values >= least) & (values <= most)  # NaN is neither
    if not usable.all():
        row = int(np.flatnonzero(~usable.reshape(len(names), -1).all(axis=1))[0])
        worst = values[row][~usable[row]].ravel()[0]
        raise OpinionError(
            f"The judge gives no usable {opinion} of a picture: {worst:g}.",
            where=names[row],
            fix="Its weights are damaged or were trained to absurd values: train or export again.",
        )
