"""RandAugment's changes against torchvision's, and what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode, RandAugment
from torchvision.transforms.autoaugment import _apply_op

from beholder.data.augment import Augmentation, AugmentConfig
from beholder.data.randaugment import CHANGES, rand_augment

# torchvision's names in the order of ours
NAMES = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color",
    "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip


def picture(width: int = 61, height: int = 47) -> Image.Image:
    small = np.random.default_rng(0).integers(20, 220, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("magnitude", [0, 9, 17, 30])
@pytest.mark.parametrize("place", range(len(NAMES)))
@pytest.mark.parametrize("negative", [False, True])
def test_each_change_is_torchvisions(place: int, magnitude: int, negative: bool) -> None:
    image, name = picture(), NAMES[place]
    theirs = RandAugment()._augmentation_space(31, (image.height, image.width))
    magnitudes, signed = theirs[name]
    assert CHANGES[place][1] == signed
    value = float(magnitudes[magnitude].item()) if magnitudes.ndim else 0.0
    if signed and negative:
        value = -value
    expected = _apply_op(image, name, value, InterpolationMode.BILINEAR, None)
    which = (place + 0.5) / len(NAMES)
    found = rand_augment(image, magnitude / 30, [which, 0.2 if negative else 0.7])
    assert found.size == image.size
    difference = np.abs(np.asarray(found, np.int16) - np.asarray(expected, np.int16))
    assert difference.max() <= 1, name


def test_changes_are_of_seed_epoch_and_key_and_follow_each_other() -> None:
    image = picture()
    once = Augmentation(AugmentConfig(flip=0.0, rand_changes=1, rand_strength=0.5))
    twice = Augmentation(AugmentConfig(flip=0.0, rand_changes=2, rand_strength=0.5))
    found = [once(image, seed=0, epoch=epoch, key="a").tobytes() for epoch in range(60)]
    assert found == [once(image, seed=0, epoch=epoch, key="a").tobytes() for epoch in range(60)]
    assert 20 <= len(set(found)) <= 24  # 9 changes in two directions, 4 in one, and none
    assert twice(image, seed=0, epoch=0, key="a") != once(image, seed=0, epoch=0, key="a")
    assert once(image, seed=1, epoch=0, key="a") != once(image, seed=0, epoch=0, key="a")
    off = Augmentation(AugmentConfig(flip=0.0))
    assert off(image, seed=0, epoch=0, key="a") == image
    assert not AugmentConfig(rand_changes=1).preserves_quality


def test_several_changes_are_one_after_the_other() -> None:
    image = picture()
    draws = [5.5 / 14, 0.9, 8.5 / 14, 0.1]
    step = rand_augment(image, 0.4, draws[:2])
    assert rand_augment(image, 0.4, draws) == rand_augment(step, 0.4, draws[2:])
