from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from beholder.data.test_time_augmentation import ViewConfig, read_views
from beholder.data.transforms import EvalTransform, native_crop
from beholder.errors import JudgeError

NATIVE = EvalTransform(size=(16, 16), resize="native")


def picture(width: int, height: int) -> Image.Image:
    chance = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(chance.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_large_pictures_are_seen_in_detail_and_reduced() -> None:
    image = picture(120, 80)
    views = read_views(NATIVE, image, ViewConfig(crops=2, shorter_sides=(20, 40)))

    forty = image.resize((60, 40), Image.Resampling.LANCZOS, reducing_gap=3.0)
    twenty = forty.resize((30, 20), Image.Resampling.LANCZOS, reducing_gap=3.0)
    corners = [(0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]
    expected = [
        NATIVE.fitted(native_crop(scaled, (16, 16), corner))
        for scaled in (image, forty, twenty)
        for corner in corners
    ]
    np.testing.assert_array_equal(views, np.stack(expected))


def test_one_part_of_every_size() -> None:
    image = picture(50, 40)
    views = read_views(NATIVE, image, ViewConfig(shorter_sides=(20,)))
    reduced = image.resize((25, 20), Image.Resampling.LANCZOS, reducing_gap=3.0)
    np.testing.assert_array_equal(views, np.stack([NATIVE(image), NATIVE(reduced)]))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 3), st.booleans())
def test_small_pictures_are_not_enlarged(width: int, height: int, crops: int, flip: bool) -> None:
    image = picture(width, height)
    plain = read_views(NATIVE, image, ViewConfig(crops=crops, flip=flip))
    both = read_views(NATIVE, image, ViewConfig(crops=crops, flip=flip, shorter_sides=(60,)))
    np.testing.assert_array_equal(plain, both)


def test_a_picture_and_its_copy_share_the_reduced_views() -> None:
    smooth = Image.fromarray(
        np.outer(np.linspace(0, 255, 160), np.ones(240)).astype(np.uint8)
    ).convert("RGB")
    config = ViewConfig(crops=2, shorter_sides=(40,))
    large = read_views(NATIVE, smooth, config)
    small = read_views(NATIVE, smooth.resize((60, 40), Image.Resampling.LANCZOS), config)
    # one column is as good as another: parts that have the same pixels count once
    assert np.abs(large[-len(small) :] - small).max() < 0.05


@pytest.mark.parametrize("config", [ViewConfig(crops=2), ViewConfig(shorter_sides=(64,))])
def test_sizes_need_native_resolution(config: ViewConfig) -> None:
    with pytest.raises(JudgeError, match="native resolution"):
        config.check(EvalTransform(size=(16, 16), resize="squash"))


def test_absurd_sizes_are_refused() -> None:
    for sides in [(0,), (100_000,), (1, 2, 3, 4, 5)]:
        with pytest.raises(ValidationError):
            ViewConfig(shorter_sides=sides)


def test_descriptions_of_older_judges_stay_as_they_were() -> None:
    assert ViewConfig(crops=2).model_dump() == {"flip": False, "crops": 2}
