"""Whether a batch of pictures as a whole is unlike those that a judge was trained on.

Were the batch exchangeable with the training pictures, the familiarity of its pictures would be
spread as that of the calibration pictures is: evenly over [0, 1]. The one-sided two-sample test of
Kolmogorov and Smirnov tells how probable so many unfamiliar ones are then. It finds what no single
picture shows: a batch of which each is only a little stranger than usual.

Source: Bates et al., "Testing for Outliers with Conformal p-values", Annals of Statistics 51, 2023;
that calibration pictures are few, and their chance all pictures of the batch have in common, is
heeded by comparing with as many even steps as there are calibration pictures, or groups of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from beholder.errors import DataError, JudgeError
from beholder.evaluation.stored import read_verdicts
from beholder.judge.verdict import Judged, Verdict
from beholder.metrics.familiarity import Familiarity

if TYPE_CHECKING:
    from beholder.judge import Judge

LEVEL = 0.01  # below it a batch is called unlike the training pictures


@dataclass(frozen=True)
class Drift:
    """How a batch compares with the training pictures."""

    pictures: int
    p_value: float
    """How probable so unfamiliar a batch is, were it like the training pictures, 0 to 1."""
    unfamiliar: int
    """Pictures that are unlike them by themselves."""

    @property
    def drifted(self) -> bool:
        """Whether the batch is unlike the training pictures, at a level of 1 %."""
        return self.p_value < LEVEL

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "pictures": self.pictures,
            "drifted": self.drifted,
            "p_value": self.p_value,
            "unfamiliar": self.unfamiliar,
        }

    def __str__(self) -> str:
        relation = "is unlike" if self.drifted else "can't be told from"
        chance = "p < 0.0001" if self.p_value < 1e-4 else f"p = {self.p_value:.4f}"
        few = f"; {self.unfamiliar} of them are unfamiliar by themselves" if self.unfamiliar else ""
        count = "picture" if self.pictures == 1 else "pictures"
        return (
            f"The batch of {self.pictures} {count} as a whole {relation} the pictures that the "
            f"judge was trained on ({chance}, Kolmogorov-Smirnov){few}."
        )


def drift_of(judged: Iterable[Judged], known: Familiarity | None) -> Drift:
    """Compare the verdicts on a batch with what the judge knows; failures are left out.

    Args:
        known: `judge.calibration.familiarity`.

    Raises:
        JudgeError: the judge does not know what is familiar.
        DataError: no picture has a familiarity.
    """
    from scipy.stats import ks_2samp

    if known is None:
        raise JudgeError(
            "The judge does not know what its training pictures look like.",
            fix="Assemble it again, with familiarity: true, which is the default.",
        )
    verdicts = [entry for entry in judged if isinstance(entry, Verdict)]
    values = [verdict.familiarity for verdict in verdicts if verdict.familiarity is not None]
    if not values:
        raise DataError(
            "No verdict tells how familiar its picture is.",
            fix="Judge the pictures again with this judge.",
        )
    even = np.arange(1, known.units + 1) / (known.units + 1.0)
    test = ks_2samp(values, even, alternative="greater")
    return Drift(len(values), float(test.pvalue), sum(bool(v.unfamiliar) for v in verdicts))


def drift_of_file(path: Path, judge: Judge) -> Drift:
    """The same of verdicts that were written before (`evaluation.stored`).

    Raises:
        JudgeError: the judge does not know what is familiar.
        DataError: the file can't be read, holds another judge's verdicts, or tells nothing.
    """
    judged = list(read_verdicts(path))
    for entry in judged:
        other = entry.judge if isinstance(entry, Verdict) else None
        if other and judge.identity and _digest(other) != _digest(judge.identity):
            raise DataError(
                f"The verdicts are those of {other}, not of {judge.identity}.",
                where=str(path),
                fix="Name the judge that gave them.",
            )
    return drift_of(judged, judge.calibration.familiarity)


def _digest(identity: str) -> str:
    """What of an identity does not depend on where the judge lies."""
    return identity.rpartition("@")[2]
