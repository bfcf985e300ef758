"""Evaluation transforms: the pixels of timm and torchvision, byte for byte, every time."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from beholder.data.images import read_image
from beholder.data.transforms import EvalTransform, clip_box
from beholder.errors import PictureError

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth enough to be a picture, with noise that shows any other resampling."""
    rng = np.random.default_rng(seed)
    rows = np.linspace(0, 200, height)[:, None, None]
    columns = np.linspace(50, 0, width)[None, :, None]
    noise = rng.integers(0, 56, (height, width, 3))
    return Image.fromarray((rows * [1.0, 0.5, 0.2] + columns + noise).clip(0, 255).astype(np.uint8))


def levels(array: np.ndarray) -> np.ndarray:
    """The 8-bit pixels [H, W, 3] behind a plainly normalised array."""
    return np.rint(array.transpose(1, 2, 0) * 255).astype(int)


@given(
    st.integers(1, 300), st.integers(1, 300), st.sampled_from([(32, 32), (30, 47), (1, 1)]),
    st.sampled_from(["squash", "crop", "pad", "native"]), st.sampled_from([0.6, 0.875, 1.0]),
)  # fmt: skip
@settings(max_examples=120, deadline=None)
def test_any_size_gives_the_asked_size(
    width: int, height: int, size: tuple[int, int], resize: str, fraction: float
) -> None:
    transform = EvalTransform(size=size, resize=resize, crop_fraction=fraction)  # type: ignore[arg-type]
    image = picture(width, height)
    array = transform(image)
    assert array.shape == (3, *size)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    assert np.isfinite(array).all()
    assert transform(image.copy()).tobytes() == array.tobytes()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("shape", [(321, 240), (240, 321), (200, 200), (97, 800), (31, 40)])
@pytest.mark.parametrize(
    ("resize", "size", "fraction"),
    [
        ("crop", (224, 224), 0.875), ("crop", (224, 224), 1.0), ("crop", (96, 96), 0.9),
        ("crop", (128, 96), 0.875), ("squash", (224, 224), 1.0), ("squash", (128, 96), 1.0),
    ],
)  # fmt: skip
def test_same_numbers_as_timm(
    interpolation: str, shape: tuple[int, int], resize: str, size: tuple[int, int], fraction: float
) -> None:
    data = pytest.importorskip("timm.data")
    ours = EvalTransform(
        size=size,
        resize=resize,
        crop_fraction=fraction,
        interpolation=interpolation,  # type: ignore[arg-type]
    )
    theirs = data.create_transform(
        input_size=(3, *size),
        is_training=False,
        interpolation=interpolation,
        mean=ours.mean,
        std=ours.std,
        crop_pct=fraction,
        crop_mode="center" if resize == "crop" else "squash",
    )
    image = picture(*shape)
    assert np.array_equal(ours(image), theirs(image).numpy())


def test_pad_is_the_picture_in_a_black_square() -> None:
    image = picture(60, 20)
    square = np.zeros((60, 60, 3), np.uint8)
    square[20:40] = np.asarray(image)
    expected = Image.fromarray(square).resize((30, 30), Image.Resampling.BILINEAR)
    array = EvalTransform(size=(30, 30), resize="pad", interpolation="bilinear", **PLAIN)(image)
    assert np.array_equal(levels(array), np.asarray(expected))
    assert levels(array)[:8].max() == 0


def test_native_never_resamples() -> None:
    image = picture(61, 48)
    array = EvalTransform(size=(32, 32), resize="native", **PLAIN)(image)
    assert np.array_equal(levels(array), np.asarray(image)[8:40, 14:46])
    same = EvalTransform(size=(48, 61), resize="native", **PLAIN)(image)
    assert np.array_equal(levels(same), np.asarray(image))


def test_native_continues_small_pictures_by_reflection() -> None:
    image = picture(5, 40)
    array = levels(EvalTransform(size=(32, 9), resize="native", **PLAIN)(image))
    middle = np.asarray(image)[4:36]
    columns = [2, 1, 0, 1, 2, 3, 4, 3, 2]
    assert np.array_equal(array, middle[:, columns])
    pixels = EvalTransform(size=(4, 4), resize="native", **PLAIN)(Image.new("RGB", (1, 1), "red"))
    assert np.array_equal(levels(pixels).reshape(-1, 3), [[255, 0, 0]] * 16)


def test_normalisation() -> None:
    transform = EvalTransform(size=(2, 2), mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    array = transform(Image.new("RGB", (2, 2), (255, 0, 51)))
    assert np.allclose(array[:, 0, 0], [1.0, -1.0, 0.1], atol=1e-7)


def test_long_and_narrow_pictures_do_not_fill_the_memory() -> None:
    ribbon = Image.new("RGB", (40_000, 1))
    for resize in ("crop", "pad"):
        with pytest.raises(PictureError) as caught:
            EvalTransform(resize=resize)(ribbon)  # type: ignore[arg-type]
        assert caught.value.code == "too_large"
    for resize in ("squash", "native"):
        assert EvalTransform(resize=resize)(ribbon).shape == (3, 224, 224)  # type: ignore[arg-type]


# --- boxes ---


def test_box_is_cropped_first() -> None:
    image = picture(64, 48)
    transform = EvalTransform(size=(16, 16), **PLAIN)
    expected = transform(image.crop((10, 5, 40, 30)))
    assert np.array_equal(transform(image, [10, 5, 40, 30]), expected)
    assert np.array_equal(transform(image, [10.7, 5.2, 39.1, 29.5]), expected)
    assert np.array_equal(transform(image, [-50, -1, 999, 48.0]), transform(image))


@pytest.mark.parametrize(
    "box",
    [
        [70, 0, 90, 10], [0, 50, 10, 60], [-20, 0, -1, 10], [10, 10, 10, 20], [20, 10, 10, 20],
        [0, 0, float("nan"), 10], [0, 0, float("inf"), 10], [1, 2, 3],
    ],
)  # fmt: skip
def test_empty_boxes_are_refused(box: list[float]) -> None:
    with pytest.raises(PictureError) as caught:
        EvalTransform()(picture(64, 48), box)
    assert caught.value.code == "box"


@given(
    st.lists(st.floats(-100, 200, allow_nan=False), min_size=4, max_size=4),
    st.integers(1, 90), st.integers(1, 90),
)  # fmt: skip
def test_clipped_boxes_lie_inside(box: list[float], width: int, height: int) -> None:
    try:
        left, top, right, bottom = clip_box(box, (width, height))
    except PictureError:
        return
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


# --- identity ---


def test_dict_round_trip_through_json() -> None:
    transform = EvalTransform(
        size=(300, 200), resize="pad", interpolation="lanczos", mean=(0, 0, 0)
    )
    again = EvalTransform.from_dict(json.loads(json.dumps(transform.to_dict())))
    assert again == transform
    assert hash(again) == hash(transform)
    assert again.fingerprint() == transform.fingerprint()


def test_whole_numbers_and_floats_are_the_same_transform() -> None:
    assert EvalTransform(mean=(0, 0, 0), crop_fraction=1) == EvalTransform(
        mean=(0.0, 0.0, 0.0), crop_fraction=1.0
    )
    assert (
        EvalTransform(mean=(0, 0, 0), crop_fraction=1).fingerprint()
        == EvalTransform(mean=(0.0, 0.0, 0.0), crop_fraction=1.0).fingerprint()
    )


def test_every_field_is_in_the_fingerprint() -> None:
    base = EvalTransform()
    others = {
        "size": (224, 225), "resize": "native", "crop_fraction": 0.9, "interpolation": "lanczos",
        "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "reduced_decoding": True,
        "background": "grabcut",
    }  # fmt: skip
    assert set(others) == {field.name for field in dataclasses.fields(EvalTransform)}
    prints = {base.fingerprint()}
    prints |= {dataclasses.replace(base, **{k: v}).fingerprint() for k, v in others.items()}  # type: ignore[arg-type]
    assert len(prints) == len(others) + 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": [224]}, {"size": [0, 5]}, {"resize": "stretch"}, {"interpolation": "nearest"},
        {"crop_fraction": 0.0}, {"crop_fraction": 1.1}, {"std": [1, 1, 0]}, {"mean": [1, 1]},
        {"colour": 3}, {"crop_fraction": float("nan")}, {"size": [2.5, 3]},
    ],
)  # fmt: skip
def test_wrong_fields_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EvalTransform.from_dict({**EvalTransform().to_dict(), **wrong})


def test_same_bytes_in_another_process(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    picture(333, 222).save(path, quality=90)
    program = (
        "import sys, hashlib; from beholder.data.transforms import EvalTransform; "
        "array = EvalTransform(resize=sys.argv[2]).read(sys.argv[1]); "
        "print(hashlib.sha256(array.tobytes()).hexdigest(), 'torch' in sys.modules)"
    )
    for resize in ("crop", "native"):
        command = [sys.executable, "-c", program, str(path), resize]
        outputs = {subprocess.run(command, capture_output=True, text=True, check=True).stdout
                 for _ in range(2)}  # fmt: skip
        import hashlib

        ours = hashlib.sha256(EvalTransform(resize=resize).read(path).tobytes()).hexdigest()  # type: ignore[arg-type]
        assert outputs == {f"{ours} False\n"}


# --- reduced decoding is the transform's choice ---


def test_reduced_decoding_is_chosen_by_the_transform() -> None:
    stream = io.BytesIO()
    picture(900, 700).save(stream, "JPEG", quality=92)
    data = stream.getvalue()
    whole = EvalTransform(size=(64, 64))
    reduced = dataclasses.replace(whole, reduced_decoding=True)
    assert whole.at_least is None
    assert reduced.at_least == 64
    assert dataclasses.replace(reduced, resize="crop", crop_fraction=0.5).at_least == 128
    assert dataclasses.replace(reduced, resize="native").at_least is None
    assert np.array_equal(whole.read(data), whole(read_image(data)))
    assert np.array_equal(reduced.read(data), reduced(read_image(data, at_least=64)))
    assert not np.array_equal(reduced.read(data), whole.read(data))
    assert np.abs(levels(reduced.read(data)) - levels(whole.read(data))).mean() < 2.0
    # boxes are in pixels of the whole picture, so it is decoded in full
    box = [100, 100, 500, 600]
    assert np.array_equal(reduced.read(data, box), whole.read(data, box))
