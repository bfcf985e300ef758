"""MixUp and CutMix by timm: each picture of a batch is blended with, or pasted over by, another.

Sources: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; Yun et al.,
"CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV
2019. What is drawn depends on (seed, epoch, keys of the batch) only. A batch is what one process
sees in one forward pass.

Shape suffixes: B pictures, H and W sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beholder.data.augment import AugmentConfig, global_chance


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
    it is the part of the area that is not pasted over; with both, either is as likely.
    """
    import torch
    from timm.data.mixup import Mixup

    count = len(keys)
    # timm pairs the first with the last, and so on, of an even number: the first stands in
    rows = torch.arange(count + count % 2) % count
    mixup = Mixup(config.mixup, config.cutmix, mode="elem", label_smoothing=0.0, num_classes=count)
    with global_chance(seed, epoch, "\n".join(keys), "mix"):
        mixed, weights = mixup(torch.from_numpy(pixels_B3HW)[rows], rows)
    partner_B = rows.flip(0)[:count].numpy()
    share_B = weights.diagonal().numpy().astype(np.float32)
    return mixed[:count].numpy(), Mixture(partner_B, share_B)
