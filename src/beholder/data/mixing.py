"""MixUp and CutMix: each picture of a batch is blended with, or pasted into, its neighbour.

Sources: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; Yun et al.,
"CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV
2019. What is drawn depends on (seed, epoch, keys of the batch) only. A batch is what one process
sees in one forward pass.

Shape suffixes: B pictures, H and W sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beholder.data.augment import AugmentConfig, generator_of


class Mixture(NamedTuple):
    """What each picture of a batch has become.

    partner_B: int64, the row that it was mixed with.
    share_B: float32 in [0, 1], how much of it is its own; the rest is its partner's.
    """

    partner_B: NDArray[np.int64]
    share_B: NDArray[np.float32]


def mix(
    pixels_B3HW: NDArray[np.float32],
    config: AugmentConfig,
    *,
    seed: int,
    epoch: int,
    keys: Sequence[str],
) -> tuple[NDArray[np.float32], Mixture]:
    """The mixed pictures [B, 3, H, W], and what is in them. A single picture stays as it is.

    With `mixup` the share of each is drawn from Beta(mixup, mixup), with `cutmix` likewise, where
    it is the part of the area that is not pasted over; with both, either is as likely per batch.
    """
    rows = len(keys)
    generator = generator_of(seed, epoch, "\n".join(keys), "mix")
    pastes = config.cutmix > 0.0 and (config.mixup == 0.0 or generator.random() < 0.5)
    order = generator.permutation(rows)
    partner_B = np.empty(rows, np.int64)
    partner_B[order] = np.roll(order, 1)  # a round: nobody is their own partner
    strength = config.cutmix if pastes else config.mixup
    share_B = generator.beta(strength, strength, rows).astype(np.float32)
    places = generator.random((rows, 2))
    mixed = pixels_B3HW.copy()
    for row, partner in enumerate(partner_B):
        if pastes:
            top, bottom, left, right = _patch(pixels_B3HW.shape[2:], share_B[row], places[row])
            part = (row, slice(None), slice(top, bottom), slice(left, right))
            mixed[part] = pixels_B3HW[(partner, *part[1:])]
            whole = pixels_B3HW.shape[2] * pixels_B3HW.shape[3]
            share_B[row] = 1.0 - (bottom - top) * (right - left) / whole
        else:
            share = share_B[row]
            mixed[row] = share * pixels_B3HW[row] + (1.0 - share) * pixels_B3HW[partner]
    return mixed, Mixture(partner_B, share_B)


def _patch(
    size: tuple[int, ...], share: float, place: NDArray[np.float64]
) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of a rectangle of the picture's proportions and 1 - share of its
    area, with its centre anywhere in it; what reaches out is cut off."""
    ends: list[int] = []
    for side, centre in zip(size, place, strict=True):
        long = round(side * math.sqrt(1.0 - share))
        start = int(centre * side) - long // 2
        ends += [max(0, start), min(side, start + long)]
    return ends[0], ends[1], ends[2], ends[3]
