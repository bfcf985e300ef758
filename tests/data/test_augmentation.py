"""Augmentation is a pure function of picture, seed, epoch and key."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from beholder.data.augment import Augmentation, AugmentConfig, global_chance, uniform_draws
from beholder.errors import PictureError

EVERYTHING = AugmentConfig(
    flip=0.5,
    crop="resized",
    crop_size=(48, 40),
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    erase=0.5,
    box_jitter=0.1,
)
OFF = AugmentConfig(flip=0.0)

PROGRAM = """
import hashlib, sys
import numpy as np
from PIL import Image
from beholder.data.augment import AugmentConfig, Augmentation
image = Image.fromarray((np.arange(60 * 80 * 3) * 7919 % 251).astype(np.uint8).reshape(60, 80, 3))
augment = Augmentation(AugmentConfig.model_validate_json(sys.argv[1]))
keys = sorted({f"folder/{n}.jpg" for n in range(20)}, key=hash)
results = {k: augment(image, seed=5, epoch=2, key=k, box=(4, 4, 70, 50)).tobytes() for k in keys}
joined = b"".join(results[k] for k in sorted(keys))
print(hashlib.sha256(joined).hexdigest())
"""


def picture(width: int = 80, height: int = 60) -> Image.Image:
    values = np.arange(height * width * 3) * 7919 % 251
    return Image.fromarray(values.astype(np.uint8).reshape(height, width, 3))


def test_same_in_any_process_with_any_hash_seed() -> None:
    command = [sys.executable, "-c", PROGRAM, EVERYTHING.model_dump_json()]
    outputs = {
        subprocess.run(
            command, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in (0, 77)
    }  # fmt: skip
    keys = sorted(f"folder/{number}.jpg" for number in range(20))
    augment = Augmentation(EVERYTHING)

    def result(key: str) -> bytes:
        return augment(picture(), seed=5, epoch=2, key=key, box=(4, 4, 70, 50)).tobytes()

    np.random.seed(1)  # noqa: NPY002  # the global states have no say
    torch.manual_seed(1)
    with ThreadPoolExecutor(4) as pool:
        joined = b"".join(pool.map(result, keys))
    assert outputs == {f"{hashlib.sha256(joined).hexdigest()}\n"}


def test_seed_epoch_and_key_each_matter() -> None:
    augment = Augmentation(EVERYTHING)
    cases = [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"), (0, 0, "a/0"), (10, 0, "a")]
    results = {augment(picture(), seed=s, epoch=e, key=k).tobytes() for s, e, k in cases}
    assert len(results) == len(cases)


def test_global_chance_goes_on_as_if_nothing_had_been_drawn() -> None:
    def drawn() -> list[float]:
        return [float(np.random.random()), float(torch.rand(()))]  # noqa: NPY002

    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    expected = [drawn(), drawn()]
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    first = drawn()
    Augmentation(EVERYTHING)(picture(), seed=0, epoch=0, key="a")
    with pytest.raises(ZeroDivisionError), global_chance(0, 0, "a", "flip"):
        drawn()
        _ = 1 / 0
    assert [first, drawn()] == expected


def test_the_light_part_reads_the_schema_without_torch() -> None:
    program = "import sys; from beholder.data.augment import AugmentConfig; AugmentConfig(); "
    program += "sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_draws_are_uniform_and_independent() -> None:
    draws = np.array([uniform_draws(0, epoch, "a", "flip", 2) for epoch in range(4000)])
    counts = np.histogram(draws[:, 0], bins=10, range=(0, 1))[0]
    assert ((counts - 400) ** 2 / 400).sum() < 28  # chi-square, 9 degrees, 0.1 %
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.06
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.06


def test_known_draws_never_change() -> None:
    """Resuming a run with a newer version must see the same pictures."""
    assert uniform_draws(1, 2, "folder/é.jpg", "crop", 2) == [0.2886232063730144, 0.741501121223619]


def test_nothing_switched_on_changes_nothing() -> None:
    image = picture()
    result = Augmentation(OFF)(image, seed=0, epoch=0, key="a")
    assert result.tobytes() == image.tobytes()
    before = image.tobytes()
    for epoch in range(5):
        Augmentation(EVERYTHING)(image, seed=0, epoch=epoch, key="a")
    assert image.tobytes() == before


def test_switching_one_change_on_leaves_the_others_draws() -> None:
    plain = Augmentation(AugmentConfig(flip=0.5))
    cropped = Augmentation(AugmentConfig(flip=0.5, crop="native", crop_size=(60, 80)))
    for epoch in range(10):
        arguments = {"seed": 0, "epoch": epoch, "key": "a"}
        assert plain(picture(), **arguments) == cropped(picture(), **arguments)  # type: ignore[arg-type]


def test_flip_has_its_probability() -> None:
    image = picture()
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for probability in (0.0, 0.3, 1.0):
        augment = Augmentation(AugmentConfig(flip=probability))
        results = [augment(image, seed=0, epoch=e, key="a") for e in range(400)]
        assert all(r in (image, mirrored) for r in results)
        assert abs(sum(r == mirrored for r in results) / 400 - probability) < 0.08


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 50))
@settings(max_examples=80, deadline=None)
def test_native_crop_is_a_part_of_the_picture(width: int, height: int, epoch: int) -> None:
    image = picture(width, height)
    config = AugmentConfig(flip=0.0, crop="native", crop_size=(30, 40))
    result = np.asarray(Augmentation(config)(image, seed=0, epoch=epoch, key="a"))
    assert result.shape == (30, 40, 3)
    if width >= 40 and height >= 30:
        windows = np.lib.stride_tricks.sliding_window_view(np.asarray(image), (30, 40, 3))
        assert (windows[:, :, 0] == result).all(axis=(2, 3, 4)).any()
    else:
        present = {tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3)}
        assert {tuple(pixel) for pixel in result.reshape(-1, 3)} <= present


def test_native_crops_reach_every_corner() -> None:
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4).repeat(3).reshape(3, 4, 3))
    config = AugmentConfig(flip=0.0, crop="native", crop_size=(2, 2))
    corners = {
        np.asarray(Augmentation(config)(image, seed=0, epoch=e, key="a"))[0, 0, 0].item()
        for e in range(200)
    }
    assert corners == {0, 1, 2, 4, 5, 6}


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_any_size_survives_everything(width: int, height: int, epoch: int) -> None:
    result = Augmentation(EVERYTHING)(picture(width, height), seed=0, epoch=epoch, key="a")
    assert result.size == (40, 48)
    assert result.mode == "RGB"


def test_colours_stay_in_their_range_and_zero_is_off() -> None:
    gray = Image.new("RGB", (8, 8), (100, 100, 100))
    augment = Augmentation(AugmentConfig(flip=0.0, brightness=0.2))
    values = [np.asarray(augment(gray, seed=0, epoch=e, key="a"))[0, 0, 0] for e in range(200)]
    assert 80 <= min(values) < 85
    assert 115 < max(values) <= 120
    red = Image.new("RGB", (8, 8), (200, 40, 40))
    turned = Augmentation(AugmentConfig(flip=0.0, hue=0.5))
    hues = {
        turned(red, seed=0, epoch=e, key="a").convert("HSV").getpixel((0, 0))[0] for e in range(300)
    }  # type: ignore[index]
    assert len(hues) > 100  # all round the wheel
    # gray has no hue and no saturation to change
    colours = Augmentation(AugmentConfig(flip=0.0, hue=0.5, saturation=1.0))
    assert colours(gray, seed=0, epoch=1, key="a") == gray


def test_erasing_paints_one_rectangle_of_the_asked_area() -> None:
    image = picture(100, 80)
    augment = Augmentation(AugmentConfig(flip=0.0, erase=1.0, erase_area=(0.1, 0.2)))
    mean = np.asarray(image).reshape(-1, 3).mean(axis=0).round()
    for epoch in range(30):
        result = np.asarray(augment(image, seed=0, epoch=epoch, key="a"))
        changed = (result != np.asarray(image)).any(axis=-1)
        rows, columns = np.nonzero(changed.any(axis=1))[0], np.nonzero(changed.any(axis=0))[0]
        inside = result[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (inside == mean).all()
        assert 0.08 <= inside.shape[0] * inside.shape[1] / 8000 <= 0.22


def test_box_jitter_stays_near_and_inside() -> None:
    image = picture(100, 80)
    plain = Augmentation(OFF)(image, seed=0, epoch=0, key="a", box=(20, 10, 60, 50))
    assert plain == image.crop((20, 10, 60, 50))
    jitter = Augmentation(AugmentConfig(flip=0.0, box_jitter=0.1))
    sizes = {jitter(image, seed=0, epoch=e, key="a", box=(20, 10, 60, 50)).size for e in range(60)}
    assert len(sizes) > 10
    assert all(32 <= width <= 49 and 32 <= height <= 49 for width, height in sizes)
    whole = jitter(image, seed=0, epoch=0, key="a", box=(0, 0, 100, 80))
    assert whole.width <= 100
    assert whole.height <= 80
    with pytest.raises(PictureError) as caught:
        jitter(image, seed=0, epoch=0, key="a", box=(200, 0, 300, 10))
    assert caught.value.code == "box"


@pytest.mark.parametrize(
    "wrong",
    [
        {"flip": 1.5}, {"flip": -0.1}, {"rotate": 1}, {"crop": "native"}, {"crop": "centre"},
        {"crop": "resized", "crop_size": (0, 4)}, {"crop_area": (0.5, 0.2)}, {"crop_area": (0, 1)},
        {"crop_ratio": (0, 1)}, {"hue": 0.6}, {"box_jitter": 0.6}, {"brightness": float("nan")},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AugmentConfig.model_validate(wrong)


def test_which_changes_keep_the_quality() -> None:
    assert AugmentConfig().preserves_quality
    assert AugmentConfig(crop="native", crop_size=(8, 8), box_jitter=0.1).preserves_quality
    for change in ({"crop": "resized", "crop_size": (8, 8)}, {"hue": 0.1}, {"erase": 0.1}):
        assert not AugmentConfig.model_validate(change).preserves_quality
