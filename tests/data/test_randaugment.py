"""RandAugment: what is drawn, and how strong it is."""

from __future__ import annotations

import numpy as np
from PIL import Image

from beholder.data.augment import Augmentation, AugmentConfig


def picture(width: int = 61, height: int = 47) -> Image.Image:
    small = np.random.default_rng(0).integers(20, 220, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def test_changes_are_of_seed_epoch_and_key_and_follow_each_other() -> None:
    image = picture()
    once = Augmentation(AugmentConfig(flip=0.0, rand_changes=1, rand_strength=0.5))
    twice = Augmentation(AugmentConfig(flip=0.0, rand_changes=2, rand_strength=0.5))
    changed = [once(image, seed=0, epoch=epoch, key="a").tobytes() for epoch in range(60)]
    assert changed == [once(image, seed=0, epoch=epoch, key="a").tobytes() for epoch in range(60)]
    assert 20 <= len(set(changed)) <= 24  # 9 changes in two directions, 4 in one, and none
    assert twice(image, seed=0, epoch=0, key="a") != once(image, seed=0, epoch=0, key="a")
    assert once(image, seed=1, epoch=0, key="a") != once(image, seed=0, epoch=0, key="a")
    off = Augmentation(AugmentConfig(flip=0.0))
    assert off(image, seed=0, epoch=0, key="a") == image
    assert not AugmentConfig(rand_changes=1).preserves_quality


def test_strength_scales_every_change() -> None:
    image = picture()
    pixels = np.asarray(image, np.int16)
    differences = []
    for strength in (0.0, 0.2, 0.9):
        augment = Augmentation(AugmentConfig(flip=0.0, rand_changes=1, rand_strength=strength))
        changed = [augment(image, seed=0, epoch=epoch, key="a") for epoch in range(80)]
        assert all(other.size == image.size and other.mode == "RGB" for other in changed)
        differences.append(np.mean([np.abs(np.asarray(c, np.int16) - pixels) for c in changed]))
    assert differences[0] < differences[1] < differences[2]
