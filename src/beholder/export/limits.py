"""How far an exported file may be from its original, by precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from beholder.judge.store.manifest import Precision


@dataclass(frozen=True)
class Limits:
    """How far an export may be from its original.

    Args:
        score: largest difference of a score; None: not limited.
        moved: share of scores that may differ by more than a quarter of their interval's width, 0
            to 1; of a judge with intervals.
        coverage: what of the share of given scores within their intervals may be lost, 0 to 1.
        same: every label and comment must be the same.
        srcc, accuracy: what they may lose, 0 to 1.
        cider: part of CIDEr-D that may be lost, 0 to 1.
    """

    score: float | None = None
    moved: float = 0.1
    coverage: float = 0.01
    same: bool = False
    srcc: float = 0.0
    accuracy: float = 0.0
    cider: float = 0.0


LIMITS: Mapping[Precision, Limits] = {
    "fp32": Limits(score=1e-3, same=True),
    "fp16": Limits(srcc=0.005, accuracy=0.02, cider=0.05),
    "int8": Limits(srcc=0.02, accuracy=0.02, cider=0.05),
}
