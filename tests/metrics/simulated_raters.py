"""Ratings drawn from the model of raters, with all that they were drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ratings:
    """Ratings [K] by index of picture and rater, and the truth."""

    picture: np.ndarray
    rater: np.ndarray
    score: np.ndarray
    quality: np.ndarray
    bias: np.ndarray
    inconsistency: np.ndarray

    def columns(self) -> tuple[list[str], list[str], list[float]]:
        """The arguments of `fit_opinions`."""
        return (
            [f"{index:04d}.jpg" for index in self.picture],
            [f"r{index}" for index in self.rater],
            self.score.tolist(),
        )


def draw_ratings(
    pictures: int,
    raters: int,
    per_picture: int,
    seed: int,
    noise: tuple[float, float] = (0.3, 0.9),
) -> Ratings:
    """`each` of the raters, drawn anew, rate every picture."""
    generator = np.random.default_rng(seed)
    quality = generator.normal(3.0, 1.0, pictures)
    bias = generator.normal(0.0, 0.4, raters)
    bias -= bias.mean()
    inconsistency = generator.uniform(*noise, raters)
    chosen = [
        np.sort(generator.choice(raters, per_picture, replace=False)) for _ in range(pictures)
    ]
    picture = np.repeat(np.arange(pictures), per_picture)
    rater = np.concatenate(chosen)
    score = quality[picture] + bias[rater]
    score += inconsistency[rater] * generator.standard_normal(len(rater))
    return Ratings(picture, rater, score, quality, bias, inconsistency)
