"""Backgrounds: what is left of pictures whose truth is known, always the same, everywhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

import beholder
from beholder.data.annotations import AnnotationTable
from beholder.data.augment import Augmentation, AugmentConfig
from beholder.data.background import without_background
from beholder.data.test_time_augmentation import ViewConfig, read_views
from beholder.data.transforms import EvalTransform
from beholder.errors import MissingExtra
from beholder.training.sources import PictureSource

cv2 = pytest.importorskip("cv2")

BOX = (90, 60, 230, 300)


def coat(seed: int = 0, width: int = 320, height: int = 360) -> tuple[Image.Image, np.ndarray]:
    """A striped coat before a wall with light and shade and grain, and where the coat is."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    wall = 120 + 60 * np.sin(columns / 90)[..., None] * [1.0, 0.8, 0.5] + rows[..., None] / 8
    stripes = np.where((rows // 12 % 2)[..., None], [170, 30, 60], [60, 25, 110])
    mask = Image.new("L", (width, height))
    draw = ImageDraw.Draw(mask)
    draw.polygon([(130, 65), (190, 65), (225, 295), (95, 295)], fill=255)
    draw.ellipse((100, 90, 220, 190), fill=255)
    shown = np.asarray(mask) > 0
    pixels = np.where(shown[..., None], stripes, wall) + generator.normal(0, 6, (height, width, 3))
    return Image.fromarray(pixels.clip(1, 255).astype(np.uint8)), shown


def agreement(left: Image.Image, shown: np.ndarray) -> float:
    """Intersection over union of what is not black with the truth."""
    kept = np.asarray(left).any(axis=-1)
    return float((kept & shown).sum() / (kept | shown).sum())


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_is_the_thing_in_the_box(seed: int) -> None:
    image, shown = coat(seed)
    left = without_background(image, BOX)
    assert left.size == image.size
    assert agreement(left, shown) > 0.95
    kept = np.asarray(left).any(axis=-1)
    assert (np.asarray(left)[kept] == np.asarray(image)[kept]).all()
    assert agreement(without_background(image), shown) > 0.9
    # a box that leaves nothing outside is not a box
    everything = (0, 0, *image.size)
    assert without_background(image, everything) == without_background(image)


def test_it_depends_on_nothing_else() -> None:
    image, _ = coat()
    first = without_background(image, BOX)
    cv2.setRNGSeed(99)
    cv2.randu(np.zeros((5, 5), np.uint8), 0, 255)
    without_background(coat(4)[0])
    assert without_background(image, BOX) == first


def test_a_picture_without_a_foreground_stays_as_it_is() -> None:
    for image in (Image.new("RGB", (50, 40), (9, 90, 200)), Image.new("RGB", (2, 2), (1, 2, 3))):
        assert without_background(image) == image


@given(width=st.integers(1, 60), height=st.integers(1, 60), seed=st.integers(0, 9), data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_size_and_box_survive(width: int, height: int, seed: int, data: st.DataObject) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right = data.draw(st.integers(left + 1, width))
    bottom = data.draw(st.integers(top + 1, height))
    cut = without_background(Image.fromarray(noise), (left, top, right, bottom))
    assert cut.size == (width, height)
    pixels = np.asarray(cut)
    assert ((pixels == noise) | (pixels == 0)).all()


def test_the_transform_clears_first_and_says_so() -> None:
    image, _ = coat()
    plain, cleared = (
        EvalTransform(size=(64, 64), resize="pad", background=kind) for kind in ("keep", "grabcut")
    )
    expected = plain(without_background(image, BOX), BOX)
    assert np.array_equal(cleared(image, BOX), expected)
    assert np.array_equal(cleared.read(image, BOX), expected)
    assert not np.array_equal(plain(image, BOX), expected)
    assert EvalTransform.from_dict(cleared.to_dict()) == cleared
    assert cleared.fingerprint() != plain.fingerprint()
    with pytest.raises(ValueError, match="background must be one of"):
        EvalTransform(background="blur")  # type: ignore[arg-type]


def test_training_sees_what_the_judge_sees(tmp_path: Path) -> None:
    image, _ = coat()
    image.save(tmp_path / "a.png")
    table = AnnotationTable.from_columns(["a.png"], box=[[float(edge) for edge in BOX]])
    transform = EvalTransform(size=(48, 48), background="grabcut")
    expected = transform.read(tmp_path / "a.png", BOX)
    for augmentation in (None, Augmentation(AugmentConfig(flip=0.0))):
        source = PictureSource(tmp_path, table, transform, augmentation)
        assert np.array_equal(source.load([0], 0)["pixels"][0].numpy(), expected)
    native = EvalTransform(size=(48, 48), resize="native", background="grabcut")
    views = read_views(native, tmp_path / "a.png", ViewConfig(crops=2), BOX)
    assert np.array_equal(views[0], native.read(tmp_path / "a.png", BOX))


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    image, _ = coat()
    EvalTransform()(image)
    with pytest.raises(MissingExtra, match="background") as caught:
        EvalTransform(background="grabcut")(image)
    assert "beholder[background]" in str(caught.value)


def test_a_submissions_files_do_the_same(tmp_path: Path) -> None:
    from beholder.challenges.fascode import COPIED

    image, _ = coat()
    image.save(tmp_path / "a.png")
    for name in COPIED:
        (tmp_path / "beholder" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(beholder.__file__).parent / name, tmp_path / "beholder" / name)
    (tmp_path / "beholder" / "__init__.py").write_text("")
    transform = EvalTransform(size=(48, 48), background="grabcut")
    script = (
        "import numpy, sys; sys.path.insert(0, '.')\n"
        "import beholder; assert not hasattr(beholder, '__version__')  # the copy\n"
        "from beholder.data.transforms import EvalTransform\n"
        f"transform = EvalTransform.from_dict({transform.to_dict()!r})\n"
        f"numpy.save('seen.npy', transform.read('a.png', {BOX}))\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    assert np.array_equal(np.load(tmp_path / "seen.npy"), transform.read(tmp_path / "a.png", BOX))
