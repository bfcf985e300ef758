"""A judge whose score is the picture's brightness, so that a swapped answer shows."""

from __future__ import annotations

import numpy as np

from beholder.data.transforms import EvalTransform
from beholder.judge import Judge
from beholder.judge.runtime.engine import HeadOutputs


class Brightness:
    """An engine whose score is the picture's mean; keeps the sizes of its batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def opinions(self, pixels_B3HW: np.ndarray, beam_size: int | None) -> HeadOutputs:
        self.batches.append(len(pixels_B3HW))
        mean_B = pixels_B3HW.mean(axis=(1, 2, 3)).astype(np.float64)
        light_B2 = np.stack([1 - mean_B, mean_B], axis=1)
        return HeadOutputs(score_B=mean_B * 255, probabilities_BK={"light": light_B2})


def make_judge() -> Judge:
    transform = EvalTransform(size=(8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return Judge(Brightness(), transform, classes={"light": ("dark", "bright")})
