"""Looks: what is alike and what is not, the search for it, and sets without chains."""

from __future__ import annotations

import io
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from beholder.data import lookalikes
from beholder.data.annotations import AnnotationTable
from beholder.data.fingerprints import COLOUR_PARTS, LOOK_BYTES, SHAPE, look_of
from beholder.data.images import read_image
from beholder.data.lookalikes import near_pairs, near_sets
from beholder.data.sample.builder import PHOTO_FOLDER
from beholder.data.splits import assign_splits, connected, held_out


def alike(a: bytes | None, b: bytes | None) -> bool:
    return near_pairs([a, b]) == [(0, 1)]


def made_up(shape: np.ndarray, colour: np.ndarray | float = 20.0, plain: bool = False) -> bytes:
    """A look from a shape [63] of any length, colours [32], and whether it is on plain ground."""
    unit = shape / np.linalg.norm(shape) * 127
    colours = np.broadcast_to(colour, 2 * COLOUR_PARTS**2)
    return (
        np.rint(np.concatenate([unit, colours, [plain]])).clip(-128, 127).astype(np.int8).tobytes()
    )


def turned(shape: np.ndarray, cosine: float, rng: np.random.Generator) -> np.ndarray:
    """Another unit vector at this cosine to the given one."""
    other = rng.standard_normal(SHAPE)
    other -= (other @ shape) * shape
    return cosine * shape + (1 - cosine**2) ** 0.5 * other / np.linalg.norm(other)


def random_shape(rng: np.random.Generator) -> np.ndarray:
    values = rng.standard_normal(SHAPE)
    return values / np.linalg.norm(values)


def said_alike(a: bytes, b: bytes) -> bool:
    """The rule as the module's docstring says it, value by value."""
    x, y = (np.frombuffer(look, np.int8).astype(float) for look in (a, b))
    shapes, colours = (x[:SHAPE], y[:SHAPE]), (x[SHAPE:-1], y[SHAPE:-1])
    cosine = shapes[0] @ shapes[1] / np.linalg.norm(shapes[0]) / np.linalg.norm(shapes[1])
    needed, rich = 0.93 if x[-1] or y[-1] else 0.8, True
    for shape in shapes:
        shares = shape**2 / (shape**2).sum()
        strong = 1 / (shares**2).sum()
        needed = max(needed, 0.8 + 0.18 * min(max((12 - strong) / 6, 0), 1))
        rich &= bool(strong >= 12)
    strength = [np.sqrt((colour**2).mean()) for colour in colours]
    gap = np.sqrt(((colours[0] - colours[1]) ** 2).mean())
    same = gap <= 8 + 0.5 * max(strength)
    grey = min(strength) < 3 and rich and cosine >= 0.95
    return bool(cosine >= needed and (same or grey))


# -- pictures


def photographs() -> dict[str, Image.Image]:
    return {file.stem: read_image(file) for file in sorted(PHOTO_FOLDER.glob("*.jpg"))}


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return read_image(stream.getvalue())


def cropped(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    x, y = round(share * width), round(share * height)
    return image.crop((x, y, width - x, height - y))


def test_copies_of_a_photograph_look_like_it_and_other_photographs_do_not() -> None:
    photos = photographs()
    looks = {name: look_of(image) for name, image in photos.items()}
    assert len(photos) > 10
    assert all(look is not None and len(look) == LOOK_BYTES for look in looks.values())
    for name, image in photos.items():
        copies = {
            "encoded again": as_jpeg(image, 30),
            "smaller": image.resize((image.width // 3, image.height // 3)),
            "cropped": cropped(image, 0.02),
            "darker": ImageEnhance.Brightness(image).enhance(0.7),
            "less contrast": ImageEnhance.Contrast(image).enhance(0.7),
            "pale": ImageEnhance.Color(image).enhance(0.6),
        }
        for what, copy in copies.items():
            assert alike(looks[name], look_of(copy)), (name, what)
    assert near_pairs(list(looks.values())) == []


def test_a_flat_picture_looks_like_nothing() -> None:
    flat = look_of(Image.new("RGB", (64, 64), "grey"))
    assert flat is None
    assert near_pairs([flat, flat]) == []


def product(seed: int, colour: str | None = None, margin: int = 0) -> Image.Image:
    """A thing of a few simple parts in the middle of a white picture, and a margin around it."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (200, 200), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        corners = rng.integers(40, 160, (2, 2))
        low, high = corners.min(axis=0), corners.max(axis=0) + 12
        product_colour = tuple(int(value) for value in rng.integers(20, 200, 3))
        shape = (draw.ellipse, draw.rectangle)[rng.integers(2)]
        shape([*low.tolist(), *high.tolist()], fill=colour or product_colour)
    return ImageOps.expand(image, margin, "white")


@pytest.mark.parametrize("margin", [0, 150])
def test_sixty_things_on_white_are_not_one_unit(margin: int) -> None:
    looks = [look_of(product(seed, margin=margin)) for seed in range(60)]
    sets = near_sets(looks, near_pairs(looks))
    assert max(Counter(connected(60, sets).tolist()).values()) <= 2
    keys = [f"{number}.jpg" for number in range(60)]
    links = [(keys[a], keys[b]) for a, b in sets]
    split = assign_splits(AnnotationTable.from_columns(keys), near_duplicates=links).frame["split"]
    assert set(split) == {"train", "val", "test"}


def test_colour_counts_and_copies_of_things_on_white_are_found() -> None:
    for seed in range(10):
        look = look_of(product(seed, "crimson"))
        assert not alike(look, look_of(product(seed, "royalblue")))
        assert alike(look, look_of(as_jpeg(product(seed, "crimson"), 40)))
        assert alike(look, look_of(product(seed, "crimson", margin=60)))


def test_a_grey_copy_of_a_photograph_looks_like_it() -> None:
    pairs = [
        alike(look_of(image), look_of(image.convert("L").convert("RGB")))
        for image in photographs().values()
    ]
    assert sum(pairs) >= len(pairs) - 1


# -- the search


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), cosines=st.lists(st.floats(0.6, 1), max_size=8))
def test_near_pairs_are_those_of_comparing_all(seed: int, cosines: list[float]) -> None:
    rng = np.random.default_rng(seed)
    narrow = np.where(rng.permutation(SHAPE) < 12, 1, 0.1)  # few strong frequencies
    shapes = [random_shape(rng), random_shape(rng) * narrow]
    shapes += [turned(shapes[rng.integers(2)], cosine, rng) for cosine in cosines]
    colours = [rng.normal(0, rng.choice([1, 30]), 32) for _ in range(2)]
    looks: list[bytes | None] = [None]
    looks += [
        made_up(shape, colours[rng.integers(2)], plain=rng.random() < 0.2) for shape in shapes
    ]
    looks.append(looks[1])
    first = [looks.index(look) for look in looks]  # of equal ones the first stands for all
    expected = [
        (i, j)
        for i, j in combinations(range(1, len(looks)), 2)
        if first[j] == i or ((first[i], first[j]) == (i, j) and said_alike(looks[i], looks[j]))  # type: ignore[arg-type]
    ]
    assert near_pairs(looks) == expected
    order = rng.permutation(len(looks))
    again = near_pairs([looks[index] for index in order])
    assert {frozenset({looks[a], looks[b]}) for a, b in near_pairs(looks)} == {
        frozenset({looks[order[a]], looks[order[b]]}) for a, b in again
    }


@pytest.mark.parametrize("white", [False, True])
def test_buckets_find_what_comparing_all_finds(
    white: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    shared = random_shape(rng)
    shapes = [random_shape(rng) for _ in range(3000)]
    if white:
        shapes = [turned(shared, 0.8, rng) for _ in shapes]
    shapes += [turned(shape, rng.uniform(0.92, 0.99), rng) for shape in shapes[:600]]
    looks = [made_up(shape) for shape in shapes]
    every = set(near_pairs(looks))
    monkeypatch.setattr(lookalikes, "_FEW", 0)
    some = set(near_pairs(looks))
    assert some <= every
    copies = {(row, 3000 + row) for row in range(600)} & every
    assert len(copies) > 200
    assert len(some & copies) >= 0.97 * len(copies)


def test_many_equal_looks_are_each_paired_with_the_first() -> None:
    rng = np.random.default_rng(0)
    different = [made_up(random_shape(rng)) for _ in range(4)]
    looks = [different[index] for index in rng.integers(0, 4, 20_000)]
    pairs = near_pairs(looks)
    assert len(pairs) == 20_000 - 4
    assert all(looks[a] == looks[b] for a, b in pairs)
    assert len(set(connected(len(looks), near_sets(looks, pairs)).tolist())) == 4


# -- sets


def test_a_chain_is_cut_into_sets_around_representatives() -> None:
    rng = np.random.default_rng(2)
    start, end = random_shape(rng), random_shape(rng)
    looks = [made_up((1 - t) * start + t * end) for t in np.linspace(0, 1, 40)]
    pairs = near_pairs(looks)
    assert set(connected(40, pairs).tolist()) == {0}, "no chain: no test"
    sets = near_sets(looks, pairs)
    assert all(alike(looks[a], looks[b]) for a, b in sets)
    assert len(sets) == len({member for _, member in sets})
    units = connected(40, sets)
    assert 1 < len(set(units.tolist())) < 6
    assert near_sets(looks, []) == []


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(2, 30))
def test_what_looks_like_a_held_out_picture_is_not_trained_on(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    base = random_shape(rng)
    looks = [made_up(turned(base, rng.uniform(0.8, 1), rng)) for _ in range(count)]
    names = rng.choice(["train", "val", "test", None], count, p=[0.15, 0.1, 0.15, 0.6])
    keys = [f"{number}.jpg" for number in range(count)]
    table = AnnotationTable.from_columns(keys, split=names.tolist())
    pairs = near_pairs(looks)
    sets = near_sets(looks, pairs, held_out(table))
    links = [(keys[a], keys[b]) for a, b in sets]
    split = assign_splits(table, near_duplicates=links).frame["split"].to_list()
    assert all(name in (None, got) for name, got in zip(names, split, strict=True))
    rank = {"train": 1, "val": 2, "test": 3}
    for index in range(count):
        beside = [names[b] if a == index else names[a] for a, b in pairs if index in (a, b)]
        given_beside = [name for name in beside if name is not None]
        if names[index] is None and given_beside:
            assert split[index] == max(given_beside, key=rank.__getitem__)
