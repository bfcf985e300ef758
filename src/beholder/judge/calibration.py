"""How far a judge's opinions can be trusted: what was learnt about it on pictures it did not see.

Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017): softmax of
logits / T, one T per attribute, which makes probabilities agree with how often the label is right.
It keeps the order of the classes, so that no label changes. Where several labels of an attribute
may hold at once it is sigmoid of logits / T, and each label has a threshold of its own. A score
gets an interval that covers the target scores of so many pictures as it says:
`metrics.conformal`.

Shape suffixes: B pictures, K classes of an attribute.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from beholder.errors import DataError
from beholder.metrics.classification import UNLABELLED
from beholder.metrics.conformal import ConformalInterval
from beholder.metrics.familiarity import Familiarity
from beholder.metrics.multi_label import THRESHOLD

LOWEST, HIGHEST = 0.05, 20.0  # temperatures that are tried
TINY = 1e-45  # the smallest probability that a float32 softmax tells from 0


class Calibration(BaseModel):
    """What a judge knows of its own reliability; stored with it in `judge.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperatures: dict[str, Annotated[float, Field(ge=1e-3, le=1e3)]] = Field(
        {}, description="attribute -> temperature of its probabilities; absent: not calibrated"
    )
    thresholds: dict[str, dict[str, Annotated[float, Field(ge=0.0, le=1.0)]]] = Field(
        {},
        description="multi-label attribute -> label -> probability from which on it holds; absent: "
        "0.5",
    )
    score: ConformalInterval | None = Field(
        None, description="how wide a score's interval is; None: not calibrated, no interval"
    )

    familiarity: Familiarity | None = Field(
        None, description="what the training pictures look like; None: nothing is known of it"
    )

    @field_validator("score")
    @classmethod
    def _without_spread(cls, score: ConformalInterval | None) -> ConformalInterval | None:
        if score is not None and score.floor is not None:
            raise ValueError("a judge knows no spread to normalise its intervals with")
        return score

    def interval(self, score: float) -> tuple[float, float] | None:
        """Lowest and highest score that the picture may well have; None: not calibrated."""
        if self.score is None:
            return None
        margin = float(self.score.margins_at([score])[0])
        return score - margin, score + margin

    def probabilities(
        self, attribute: str, raw_BK: NDArray[np.float64], *, multi_label: bool = False
    ) -> NDArray[np.float64]:
        """Calibrated probabilities [B, K] of the network's own, 0 to 1.

        Args:
            multi_label: several labels may hold at once: each has a probability of its own.
        """
        temperature = self.temperatures.get(attribute)
        if temperature is None:
            return raw_BK
        if multi_label:
            return each_temperature_scaled(raw_BK, temperature)
        return temperature_scaled(raw_BK, temperature)

    def thresholds_of(self, attribute: str, labels: Sequence[str]) -> list[float]:
        """From which probability on each label of a multi-label attribute holds."""
        known = self.thresholds.get(attribute, {})
        return [known.get(label, THRESHOLD) for label in labels]


def temperature_scaled(
    probabilities_BK: NDArray[np.float64], temperature: float
) -> NDArray[np.float64]:
    """softmax(log p / T) [B, K]: above 1 less sure, below 1 surer; 1 / T undoes T."""
    with np.errstate(divide="ignore"):
        log_BK = np.log(probabilities_BK)  # minus infinity stays what it is: 0 remains 0
    return np.exp(_log_temperature_scaled(log_BK, temperature))


def each_temperature_scaled(
    probabilities_BK: NDArray[np.float64], temperature: float
) -> NDArray[np.float64]:
    """sigmoid(logit(p) / T) of each label [B, K], where several may hold at once."""
    return temperature_scaled(_pairs(probabilities_BK), temperature)[:, 1].reshape(
        probabilities_BK.shape
    )


def fit_each_temperature(
    probabilities_BK: NDArray[np.float64], target_BK: NDArray[np.float64]
) -> float:
    """As `fit_temperature`, one temperature of all labels of an attribute, each of which holds or
    does not.

    Args:
        target_BK: 1 or 0; rows of NaN are left out.

    Raises:
        DataError: nothing is known of any picture.
    """
    known_B = ~np.isnan(target_BK).any(axis=1)
    target_N = (target_BK[known_B] > 0).astype(np.int64).reshape(-1)
    return fit_temperature(_pairs(probabilities_BK[known_B]), target_N)


def _pairs(probabilities_BK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every label's probabilities that it does not hold, and that it does [B K, 2]."""
    holds_N = probabilities_BK.reshape(-1)
    return np.stack([1.0 - holds_N, holds_N], axis=1)


def fit_temperature(probabilities_BK: NDArray[np.float64], target_B: NDArray[np.int64]) -> float:
    """The temperature with the lowest negative log-likelihood of the target classes.

    Each target class counts for 1 - s and all classes together for s = 1 / (labelled + 1), as in
    Platt, "Probabilistic Outputs for Support Vector Machines" (1999): where every picture is right
    the plain likelihood would ask for certainty, however few the pictures.

    Args:
        probabilities_BK: the network's own, 0 to 1.
        target_B: class indices; -1 (unlabelled) is left out.

    Returns:
        0.05 to 20; 1 where no temperature is better than none, e.g. of equal probabilities.

    Raises:
        DataError: nothing is labelled, or a class index is none.
    """
    from scipy.optimize import minimize_scalar

    labelled_B = target_B != UNLABELLED
    if not labelled_B.any():
        raise DataError("There is no labelled picture to fit a temperature on.")
    classes = probabilities_BK.shape[1]
    if target_B.max() >= classes or target_B.min() < UNLABELLED:
        raise DataError(f"Class indices must be within 0 to {classes - 1}.")
    log_BK = np.log(np.maximum(probabilities_BK[labelled_B], TINY))
    target_B = target_B[labelled_B]

    def loss(log_temperature: float) -> float:
        return smoothed_nll(_log_temperature_scaled(log_BK, math.exp(log_temperature)), target_B)

    # The loss is convex in 1 / T: in log T it has one valley, which bounded search can't miss.
    bounds = (math.log(LOWEST), math.log(HIGHEST))
    fitted = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return math.exp(fitted.x) if fitted.fun < loss(0.0) else 1.0


def is_better(
    probabilities_BK: NDArray[np.float64],
    target_B: NDArray[np.int64],
    groups_B: Sequence[Hashable],
) -> bool:
    """Whether a temperature makes probabilities better on groups that it was not fitted on: the
    negative log-likelihood of their target classes is lower, with five folds of whole groups, or
    of pictures where all are of one group. Of a single picture nothing is better.

    Args:
        probabilities_BK: the network's own, 0 to 1.
        target_B: class indices, all of them labelled.
        groups_B: what each picture belongs to.
    """
    if len(set(groups_B)) < 2:
        groups_B = range(len(target_B))
    indices: dict[Hashable, int] = {}
    fold_B = np.array([indices.setdefault(group, len(indices)) for group in groups_B]) % 5
    if len(indices) < 2:
        return False
    log_BK = np.log(np.maximum(probabilities_BK, TINY))
    gain = 0.0
    for fold in np.unique(fold_B):
        held, rest = fold_B == fold, fold_B != fold
        temperature = fit_temperature(probabilities_BK[rest], target_B[rest])
        scaled_BK = _log_temperature_scaled(log_BK[held], temperature)
        right_B = np.arange(int(held.sum())), target_B[held]
        gain += float((scaled_BK[right_B] - log_BK[held][right_B]).sum())
    return gain > 0.0


def smoothed_nll(log_BK: NDArray[np.float64], target_B: NDArray[np.int64]) -> float:
    """Mean negative log-likelihood in nats, the target classes smoothed as `fit_temperature` says.

    Args:
        log_BK: log-probabilities.
        target_B: class indices, all of them labelled.
    """
    smoothing = 1.0 / (len(target_B) + 1)
    right_B = log_BK[np.arange(len(target_B)), target_B]
    return float(-((1.0 - smoothing) * right_B + smoothing * log_BK.mean(axis=1)).mean())


def _log_temperature_scaled(log_BK: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    scaled_BK = log_BK / temperature
    scaled_BK = scaled_BK - scaled_BK.max(axis=1, keepdims=True)
    return scaled_BK - np.log(np.exp(scaled_BK).sum(axis=1, keepdims=True))
