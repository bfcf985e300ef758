"""From what the networks say of a batch to the verdict on one of its pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from beholder.data.vocabulary import Vocabulary, display_form
from beholder.judge.calibration import Calibration
from beholder.judge.runtime.engine import HeadOutputs
from beholder.judge.verdict import Attribute, Verdict


def verdicts_of(
    names: Sequence[str],
    raw: HeadOutputs,
    classes: Mapping[str, Sequence[str]],
    calibration: Calibration,
    vocabulary: Vocabulary | None,
    judge: str | None,
    score_range: tuple[float, float] | None,
    multi_label: Collection[str],
    rating_bins: Sequence[float],
) -> list[Verdict]:
    """The verdicts on all pictures of a batch; arguments as for `verdict_of`."""
    familiarity_B = None
    if calibration.familiarity is not None and raw.pooled_BP is not None:
        familiarity_B = calibration.familiarity.p_values(raw.pooled_BP)
    return [
        verdict_of(
            name, raw, row, classes, calibration, vocabulary, judge, score_range, multi_label,
            rating_bins, familiarity_B,
        )
        for row, name in enumerate(names)
    ]  # fmt: skip


def verdict_of(
    name: str,
    raw: HeadOutputs,
    row: int,
    classes: Mapping[str, Sequence[str]],
    calibration: Calibration,
    vocabulary: Vocabulary | None,
    judge: str | None,
    score_range: tuple[float, float] | None = None,
    multi_label: Collection[str] = (),
    rating_bins: Sequence[float] = (),
    familiarity_B: NDArray[np.float64] | None = None,
) -> Verdict:
    """The verdict on a picture of a batch.

    Args:
        name: that it is reported under.
        row: of the picture in the batch.
        classes: attribute -> labels in the order of the network's outputs.
        judge: `Judge.identity`.
        score_range: what scores and the ends of their intervals are cut to; None: to nothing.
        multi_label: attributes of which several labels may hold at once.
        rating_bins: in the order of the network's distribution.
        familiarity_B: of the whole batch; None: the judge does not know.
    """
    score = None if raw.score_B is None else float(raw.score_B[row])
    if score is not None and score_range is not None:
        score = within(score, score_range)
    # around the score as it is told, whose errors the interval was fitted to
    interval = None if score is None else calibration.interval(score)
    if interval is not None and score_range is not None:
        interval = (within(interval[0], score_range), within(interval[1], score_range))
    comments: list[str] = []
    if raw.comments_B is not None and vocabulary is not None:
        written = [vocabulary.decode(tokens) for tokens in raw.comments_B[row]]
        comments = list(dict.fromkeys(map(display_form, written)))
    distribution = None
    if raw.distribution_BK is not None:
        shares = (float(share) for share in raw.distribution_BK[row])
        distribution = dict(zip(rating_bins, shares, strict=True))
    attributes = {
        attribute: _attribute(
            attribute, raw.probabilities_BK[attribute][row : row + 1], labels, calibration,
            several=attribute in multi_label,
        )
        for attribute, labels in classes.items()
    }  # fmt: skip
    comment = comments[0] if comments else None
    alternatives = tuple(filter(None, comments[1:]))
    return Verdict(
        name, score, interval, comment, alternatives, attributes, judge=judge,
        distribution=distribution,
        familiarity=None if familiarity_B is None else float(familiarity_B[row]),
    )  # fmt: skip


def _attribute(
    name: str,
    raw_1K: NDArray[np.float64],
    labels: Sequence[str],
    calibration: Calibration,
    *,
    several: bool,
) -> Attribute:
    # of the network's own: rounding must not make another class the first
    order = np.argsort(-raw_1K[0], kind="stable")
    values = calibration.probabilities(name, raw_1K, multi_label=several)[0]
    ranked = {labels[index]: float(values[index]) for index in order}
    if not several:
        return Attribute(labels[order[0]], float(values[order[0]]), ranked)
    least = calibration.thresholds_of(name, labels)
    holding = tuple(n for n, threshold in zip(labels, least, strict=True) if ranked[n] >= threshold)
    return Attribute.of_several(holding, ranked)


def within(score: float, score_range: tuple[float, float]) -> float:
    """The score, or the end of the scale that it is beyond: nobody would give more than the highest
    score, and an interval that is cut to the scale covers what it covered."""
    low, high = score_range
    return min(max(score, low), high)
