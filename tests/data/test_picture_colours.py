"""Every mode becomes the RGB that its numbers mean: no white 16-bit, no black gray."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from beholder.data.colours import to_rgb8
from beholder.data.images import read_image

H, W = 12, 20
GRAY = np.linspace(0, 255, H * W).round().astype(np.uint8).reshape(H, W)
COLOUR = np.stack([GRAY, GRAY[::-1], GRAY[:, ::-1]], axis=-1)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels(source: object) -> np.ndarray:
    image = read_image(source)  # type: ignore[arg-type]
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def on_white(colour_HWC: np.ndarray, alpha_HW: np.ndarray) -> np.ndarray:
    share = alpha_HW[..., None] / 255.0
    return colour_HWC * share + 255.0 * (1.0 - share)


def gray3(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None].astype(int), 3, axis=-1)


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG written by hand, for depths that Pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = b"".join(chunk(e[:4], e[4:]) for e in extra) + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def rows_of(values: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in values)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_one_bit(kind: str) -> None:
    bits = Image.fromarray(GRAY > 100)
    assert bits.mode == "1"
    assert np.array_equal(pixels(encoded(bits, kind)), gray3((GRAY > 100) * 255))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_gray(kind: str) -> None:
    assert np.array_equal(pixels(encoded(Image.fromarray(GRAY), kind)), gray3(GRAY))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_rgb_is_untouched(kind: str) -> None:
    assert np.array_equal(pixels(encoded(Image.fromarray(COLOUR), kind)), COLOUR)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_put_on_white(mode: str, kind: str) -> None:
    colour = gray3(GRAY) if mode == "LA" else COLOUR
    alpha = np.roll(GRAY, 7)
    image = Image.fromarray(COLOUR if mode == "RGBA" else GRAY)
    image.putalpha(Image.fromarray(alpha))
    assert image.mode == mode
    assert np.abs(pixels(encoded(image, kind)) - on_white(colour, alpha)).max() <= 1


def test_lossless_webp_alpha() -> None:
    image = Image.fromarray(COLOUR)
    image.putalpha(Image.fromarray(np.where(GRAY > 127, 255, 0).astype(np.uint8)))
    data = encoded(image, "WEBP", lossless=True, exact=True)
    expected = np.where(GRAY[..., None] > 127, COLOUR, 255)
    assert np.array_equal(pixels(data), expected)


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied_alpha(mode: str) -> None:
    straight = Image.fromarray(COLOUR if mode == "RGBa" else GRAY)
    straight.putalpha(Image.fromarray(np.full((H, W), 128, np.uint8)))
    colour = COLOUR if mode == "RGBa" else gray3(GRAY)
    expected = on_white(colour, np.full((H, W), 128))
    assert np.abs(pixels(straight.convert(mode)) - expected).max() <= 2


def test_palette() -> None:
    image = Image.fromarray(GRAY // 64, "P")
    image.putpalette([250, 0, 0, 0, 250, 0, 0, 0, 250, 9, 9, 9])
    table = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250], [9, 9, 9]])
    for kind in ("PNG", "GIF", "BMP", "TIFF"):
        assert np.array_equal(pixels(encoded(image, kind)), table[GRAY // 64])


@pytest.mark.parametrize("transparency", [1, b"\xff\x00\x80\xff"])
def test_palette_with_transparency(transparency: int | bytes) -> None:
    image = Image.fromarray(GRAY // 64, "P")
    image.putpalette([250, 0, 0, 0, 250, 0, 0, 0, 250, 9, 9, 9])
    data = encoded(image, "PNG", transparency=transparency)
    alpha = [255, 0, 128 if isinstance(transparency, bytes) else 255, 255]
    table = on_white(
        np.array([[[250, 0, 0], [0, 250, 0], [0, 0, 250], [9, 9, 9]]]), np.array([alpha])
    )[0]
    assert np.abs(pixels(data) - table[GRAY // 64]).max() <= 1


def test_palette_with_alpha() -> None:
    image = Image.fromarray(COLOUR).quantize(8).convert("PA")
    image.putalpha(Image.fromarray(np.zeros((H, W), np.uint8)))
    assert image.mode == "PA"
    assert pixels(image).min() == 255


def test_transparent_colour_of_gray_and_rgb() -> None:
    gray = encoded(Image.fromarray(GRAY), "PNG", transparency=int(GRAY[3, 4]))
    shade = GRAY[3, 4]
    assert np.array_equal(pixels(gray), gray3(np.where(shade == GRAY, 255, GRAY)))
    key = COLOUR[3, 4]
    rgb = encoded(Image.fromarray(COLOUR), "PNG", transparency=tuple(key.tolist()))
    is_key = (key == COLOUR).all(axis=-1, keepdims=True)
    assert np.array_equal(pixels(rgb), np.where(is_key, 255, COLOUR))


def test_transparent_colour_at_other_depths() -> None:
    four_bits = png(4, 1, 4, 0, b"\0\x01\x9f", b"tRNS\0\x09")
    assert pixels(four_bits)[0, :, 0].tolist() == [0, 17, 255, 255]
    two_bits = png(4, 1, 2, 0, b"\0\x1b", b"tRNS\0\x00")
    assert pixels(two_bits)[0, :, 0].tolist() == [255, 85, 170, 255]
    sixteen = np.array([[1000, 40000, 65535]], ">u2")
    data = png(3, 1, 16, 0, rows_of(sixteen), b"tRNS" + struct.pack(">H", 1000))
    assert pixels(data)[0, :, 0].tolist() == [255, 156, 255]
    colours = np.array([[[1000, 2000, 3000], [40000, 20000, 0]]], ">u2")
    data = png(2, 1, 16, 2, rows_of(colours), b"tRNS" + struct.pack(">3H", 1000, 2000, 3000))
    assert pixels(data)[0].tolist() == [[255, 255, 255], [156, 78, 0]]


SIXTEEN = (np.arange(H * W, dtype=np.uint32) * 65535 // (H * W - 1)).astype(np.uint16)
SIXTEEN = SIXTEEN.reshape(H, W)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled_not_clipped(kind: str) -> None:
    data = encoded(Image.fromarray(SIXTEEN), kind)
    actual = pixels(data)
    assert np.abs(actual - gray3(np.rint(SIXTEEN / 257.0))).max() == 0
    assert 120 < actual.mean() < 135
    # the generic conversion turns it white, so this test can see the difference
    assert np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).mean() > 240


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_16_bit_in_memory(mode: str) -> None:
    order = ">u2" if mode == "I;16B" else "<u2"
    image = Image.frombytes(mode, (W, H), SIXTEEN.astype(order).tobytes())
    assert np.array_equal(pixels(image), gray3(np.rint(SIXTEEN / 257.0)))


def test_16_bit_big_endian_tiff() -> None:
    image = Image.frombytes("I;16B", (W, H), SIXTEEN.astype(">u2").tobytes())
    assert np.array_equal(pixels(encoded(image, "TIFF")), gray3(np.rint(SIXTEEN / 257.0)))


def test_16_bit_png_in_colour_and_with_alpha() -> None:
    colour = np.stack([SIXTEEN, SIXTEEN[::-1], SIXTEEN[:, ::-1]], axis=-1).astype(">u2")
    actual = pixels(png(W, H, 16, 2, rows_of(colour)))
    assert np.abs(actual - colour / 257.0).max() <= 1
    alpha = np.full((H, W, 1), 0x8080, ">u2")
    actual = pixels(png(W, H, 16, 6, rows_of(np.concatenate([colour, alpha], -1).astype(">u2"))))
    assert np.abs(actual - on_white(colour / 257.0, np.full((H, W), 128))).max() <= 2
    gray = np.stack([SIXTEEN, np.full((H, W), 0x8080)], -1).astype(">u2")
    actual = pixels(png(W, H, 16, 4, rows_of(gray)))
    assert np.abs(actual - on_white(gray3(SIXTEEN) / 257.0, np.full((H, W), 128))).max() <= 2


def tiff(values: np.ndarray, *, bits: int, sample_format: int, photometric: int = 1) -> bytes:
    """A little-endian uncompressed gray TIFF with one strip, written by hand."""
    body = values.tobytes()
    tags = [
        (256, 3, W), (257, 3, H), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
        (273, 4, 8), (277, 3, 1), (278, 3, H), (279, 4, len(body)), (339, 3, sample_format),
    ]  # fmt: skip
    directory = struct.pack("<H", len(tags))
    for number, kind, value in tags:
        directory += struct.pack("<HHII", number, kind, 1, value)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory + b"\0\0\0\0"


def test_tiffs_whose_zero_is_white() -> None:
    inverted = gray3(255 - np.rint(SIXTEEN / 257.0).astype(int))
    data = tiff(SIXTEEN.astype("<u2"), bits=16, sample_format=1, photometric=0)
    assert np.array_equal(pixels(data), inverted)
    shares = (SIXTEEN / 65535.0).astype("<f4")
    data = tiff(shares, bits=32, sample_format=3, photometric=0)
    assert np.abs(pixels(data) - inverted).max() <= 1


def test_12_bit_tiff_uses_its_own_range() -> None:
    values = (np.arange(H * W) * 4095 // (H * W - 1)).reshape(H, W)
    first, second = values[:, ::2], values[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)
    data = tiff(packed.astype(np.uint8), bits=12, sample_format=1)
    assert np.array_equal(pixels(data), gray3(np.rint(values * (255 / 4095))))


@pytest.mark.parametrize(
    ("kind", "bits", "sample_format", "high"),
    [("<i2", 16, 2, 32767), ("<u4", 32, 1, 2**32 - 1), ("<i4", 32, 2, 2**31 - 1)],
)
def test_other_integers_use_the_range_of_their_type(
    kind: str, bits: int, sample_format: int, high: int
) -> None:
    shares = np.linspace(0, 1, H * W).reshape(H, W)
    values = np.floor(shares * high).astype(kind)
    actual = pixels(tiff(values, bits=bits, sample_format=sample_format))
    assert np.abs(actual - gray3(np.rint(shares * 255))).max() <= 1


@pytest.mark.parametrize("high", [255, 65535, 2**31 - 1])
def test_integers_in_memory_use_the_range_that_holds_them(high: int) -> None:
    shares = np.linspace(0, 1, H * W).reshape(H, W)
    image = Image.fromarray(np.floor(shares * high).astype(np.int32))
    assert image.mode == "I"
    assert np.abs(pixels(image) - gray3(np.rint(shares * 255))).max() <= 1


@pytest.mark.parametrize("high", [0.7, 1.0, 3.5, 255.0, 65535.0])
@pytest.mark.parametrize("in_file", [True, False])
def test_floats(high: float, in_file: bool) -> None:
    shares = np.linspace(0, 1, H * W, dtype=np.float32).reshape(H, W)
    image = Image.fromarray(shares * np.float32(high))
    assert image.mode == "F"
    actual = pixels(encoded(image, "TIFF") if in_file else image)
    # 0.7 lies in 0..1 and stays 70 % gray; 3.5 is past the range, so it becomes white
    expected = np.rint(shares * (255 * high if high <= 1.0 else 255))
    assert np.abs(actual - gray3(expected)).max() <= 1


def test_floats_that_are_no_numbers() -> None:
    values = np.array([[np.nan, -1.0, 0.5, np.inf, -np.inf]], np.float32)
    assert pixels(Image.fromarray(values))[0, :, 0].tolist() == [0, 0, 128, 255, 0]
    assert pixels(Image.fromarray(np.full((2, 2), np.nan, np.float32))).max() == 0


def test_cmyk_tiff_and_adobe_jpeg() -> None:
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 1], ink[..., 3] = 200, 40  # magenta and some black
    image = Image.fromarray(ink, "CMYK")
    expected = np.array([215, 215 * 55 / 255, 215])
    for data in (encoded(image, "TIFF"), encoded(image, "JPEG", quality=100)):
        assert np.abs(pixels(data) - expected).max() <= 3
    # Pillow writes CMYK JPEGs as Adobe does: inverted, with an APP14 mark
    assert b"Adobe" in encoded(image, "JPEG")


def test_ycbcr_hsv_and_gray_jpeg() -> None:
    image = Image.new("RGB", (16, 16), (200, 60, 30))
    for mode in ("YCbCr", "HSV"):
        assert np.abs(pixels(image.convert(mode)) - [200, 60, 30]).max() <= 4
    data = encoded(image.convert("YCbCr"), "JPEG", quality=100)
    assert np.abs(pixels(data) - [200, 60, 30]).max() <= 4
    gray = encoded(Image.new("L", (16, 16), 77), "JPEG", quality=100)
    assert np.abs(pixels(gray) - 77).max() <= 1


def test_lab_becomes_srgb() -> None:
    # CIELAB (D50) of sRGB red is (54.3, 80.8, 69.9); a and b are stored with 128 added
    image = Image.new("LAB", (8, 8), (round(54.3 * 2.55), 128 + 81, 128 + 70))
    assert np.abs(pixels(image) - [255, 0, 0]).max() <= 6
    assert np.abs(pixels(encoded(image, "TIFF")) - [255, 0, 0]).max() <= 6


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (24, 16), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3  # type: ignore[attr-defined]
    assert np.array_equal(np.unique(pixels(data).reshape(-1, 3), axis=0), [[255, 0, 0]])


def test_profiles_are_left_alone() -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    data = encoded(Image.fromarray(COLOUR), "PNG", icc_profile=profile)
    assert np.array_equal(pixels(data), COLOUR)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_any_size_keeps_shape_and_order(width: int, height: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 65536, (height, width)).astype(np.uint16)
    rgb = np.asarray(to_rgb8(Image.fromarray(values))).astype(int)
    assert rgb.shape == (height, width, 3)
    # brighter stays brighter: the conversion is monotone
    order = np.argsort(values.ravel(), kind="stable")
    assert (np.diff(rgb[..., 0].ravel()[order]) >= 0).all()


def test_no_mode_turns_black_or_white(tmp_path: Path) -> None:
    """The published captioner replaces every picture that is not RGB by a black one."""
    colour = Image.fromarray(COLOUR)
    for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16"):
        source = colour.convert("L").convert(mode) if mode == "I;16" else colour.convert(mode)
        if mode == "I;16":
            source = Image.fromarray(SIXTEEN)
        mean = pixels(source).mean()
        assert 60 < mean < 195, mode
