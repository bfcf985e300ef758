"""Batches from a store and from pictures: opinions, order, purity, workers, refusals."""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from beholder.data.annotations import AnnotationTable
from beholder.data.augment import Augmentation, AugmentConfig
from beholder.data.transforms import EvalTransform
from beholder.data.vocabulary import Vocabulary
from beholder.errors import DataError, PictureError, StoreError
from beholder.training.sources import FeatureSource, PictureSource

KEYS = ["a.png", "sub/b.png", "c.png", "d.png"]
WORDS = Vocabulary.build(["a dark stone", "bright"])


class FakeStore:
    """Token and pooled features that tell their key."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = list(keys)

    def read(
        self, keys: Sequence[str], *, tokens: bool = True, as_stored: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        numbers = np.array([KEYS.index(key) for key in keys], dtype=np.float32)
        return np.tile(numbers[:, None, None], (1, 3, 5)), np.tile(numbers[:, None], (1, 6))


@pytest.fixture
def table() -> AnnotationTable:
    return AnnotationTable.from_columns(
        KEYS,
        score=[1.5, None, 3.0, 4.5],
        comments=[["A dark stone.", "bright!"], [], ["?!", "odd stone"], ["a"]],
        attributes={"light": ["dark", "bright", None, "dark"], "mood": [None, None, None, "calm"]},
        classes={"light": ["bright", "dim", "dark"], "mood": ["calm"]},
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for index, key in enumerate(KEYS):
        path = tmp_path / key
        path.parent.mkdir(exist_ok=True)
        noise = generator.integers(0, 256, (24, 32 + index, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return tmp_path


def test_opinions_of_a_batch(table: AnnotationTable) -> None:
    source = FeatureSource(FakeStore(KEYS), table, vocabulary=WORDS)  # type: ignore[arg-type]
    assert len(source) == 4
    assert source.keys == KEYS
    batch = source.load([2, 0, 1], epoch=3)
    assert batch["keys"] == ["c.png", "a.png", "sub/b.png"]
    assert batch["score"].dtype == torch.float32
    assert batch["score"][:2].tolist() == [3.0, 1.5]
    assert math.isnan(batch["score"][2])
    assert batch["attributes"]["light"].tolist() == [-1, 2, 0]
    assert batch["attributes"]["light"].dtype == torch.int64
    assert batch["attributes"]["mood"].tolist() == [-1, -1, -1]
    words = [[WORDS.decode(ids) for ids in captions] for captions in batch["comments"]]
    assert words == [["UNK stone"], ["a dark stone", "bright"], []]
    first = batch["comments"][1][0]
    assert (first[0], first[-1]) == (WORDS.bos, WORDS.eos)
    assert batch["tokens"][:, 0, 0].tolist() == [2, 0, 1]
    assert batch["pooled"][:, 5].tolist() == [2, 0, 1]


def test_votes_are_shares() -> None:
    voted = AnnotationTable.from_columns(
        KEYS, votes=[[1, 3, 0], None, [5, 0, 0], [1, 1, 2]], rating_bins=[1, 2, 3]
    )
    batch = FeatureSource(FakeStore(KEYS), voted).load([3, 1, 0], 0)  # type: ignore[arg-type]
    assert batch["votes"].dtype == torch.float32
    assert batch["votes"][[0, 2]].tolist() == [[0.25, 0.25, 0.5], [0.25, 0.75, 0.0]]
    assert batch["votes"][1].isnan().all()


def test_what_nobody_reads_is_left_out(table: AnnotationTable) -> None:
    source = FeatureSource(FakeStore(KEYS), table, tokens=False)  # type: ignore[arg-type]
    batch = source.load([0], epoch=0)
    assert set(batch) == {"keys", "score", "attributes", "pooled"}


def test_long_and_wordless_comments_are_told(
    table: AnnotationTable, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "beholder"):
        source = FeatureSource(
            FakeStore(KEYS),  # type: ignore[arg-type]
            table,
            vocabulary=WORDS,
            max_length=4,
        )
    assert "1 comments are longer than 4 tokens" in caplog.text
    assert "1 comments have no word" in caplog.text
    assert [len(ids) for ids in source.load([0], 0)["comments"][0]] == [4, 3]


def test_quarantined_pictures_are_left_out_and_others_must_be_there(
    table: AnnotationTable, root: Path
) -> None:
    store: Any = FakeStore(["a.png", "d.png"])
    with pytest.raises(StoreError, match=r"lacks 2 of 4 pictures, e.g. sub/b.png"):
        FeatureSource(store, table)
    with pytest.raises(StoreError, match=r"lacks 1 of 3 pictures, e.g. c.png"):
        FeatureSource(store, table, quarantined={"sub/b.png"})
    source = FeatureSource(store, table, quarantined={"sub/b.png", "c.png"})
    assert source.keys == ["a.png", "d.png"]
    assert source.load([1], 0)["score"].tolist() == [4.5]
    with pytest.raises(DataError, match="4 in the table, 4 of them unusable"):
        FeatureSource(store, table, quarantined=set(KEYS))
    pictures = PictureSource(root, table, EvalTransform(size=(8, 8)), quarantined={"a.png"})
    assert pictures.keys == KEYS[1:]


def test_pixels_are_those_of_the_transform(table: AnnotationTable, root: Path) -> None:
    transform = EvalTransform(size=(16, 20))
    batch = PictureSource(root, table, transform).load([3, 1], epoch=0)
    assert batch["pixels"].dtype == torch.float32
    assert batch["pixels"].shape == (2, 3, 16, 20)
    for row, key in enumerate(["d.png", "sub/b.png"]):
        assert np.array_equal(batch["pixels"][row].numpy(), transform.read(root / key))


@pytest.mark.parametrize("augmented", [False, True])
def test_boxes_are_cropped_once(root: Path, augmented: bool) -> None:
    boxes = [[4.0, 3.0, 20.0, 21.0], None]
    table = AnnotationTable.from_columns(KEYS[:2], box=boxes)
    transform = EvalTransform(size=(18, 16), resize="squash")
    augmentation = Augmentation(AugmentConfig(flip=0.0)) if augmented else None
    batch = PictureSource(root, table, transform, augmentation).load([0, 1], epoch=0)
    for row in (0, 1):
        expected = transform.read(root / KEYS[row], boxes[row])
        assert np.array_equal(batch["pixels"][row].numpy(), expected)


def test_augmentation_is_of_seed_epoch_and_key(table: AnnotationTable, root: Path) -> None:
    def source(seed: int) -> PictureSource:
        config = AugmentConfig(flip=0.5, crop="native", crop_size=(16, 16))
        transform = EvalTransform(size=(16, 16), resize="native")
        return PictureSource(root, table, transform, Augmentation(config), seed=seed)

    first = source(0).load([0, 1, 2, 3], epoch=0)["pixels"]
    copy = pickle.loads(pickle.dumps(source(0)))
    assert torch.equal(copy.load([3, 0], epoch=0)["pixels"], first[[3, 0]])
    assert not torch.equal(source(0).load([0, 1, 2, 3], epoch=1)["pixels"], first)
    assert not torch.equal(source(1).load([0, 1, 2, 3], epoch=0)["pixels"], first)


def test_balanced_shares_give_every_class_the_same(table: AnnotationTable) -> None:
    keys = [f"{row}.png" for row in range(10)]
    light = ["dark"] * 6 + ["bright"] * 2 + [None] * 2
    mood = ["calm", "wild"] * 2 + ["calm"] * 6
    store: Any = FakeStore(keys)
    balanced = AnnotationTable.from_columns(keys, attributes={"light": light, "mood": mood})
    shares = FeatureSource(store, balanced).balanced_shares()
    # half of what is drawn goes by each attribute; of light 8 of 10 rows are labelled
    by_light = [0.8 / 2 / 6] * 6 + [0.8 / 2 / 2] * 2 + [0.1] * 2
    by_mood = [1 / 2 / (2 if word == "wild" else 8) for word in mood]
    expected = [(a + b) / 2 for a, b in zip(by_light, by_mood, strict=True)]
    assert shares == pytest.approx(expected)
    assert shares.sum() == pytest.approx(1)
    bare = AnnotationTable.from_columns(keys, score=[1.0] * 10)
    with pytest.raises(DataError, match="balanced sampling needs"):
        FeatureSource(store, bare).balanced_shares()
    # an attribute that nobody has labelled says nothing
    both = AnnotationTable.from_columns(
        keys, attributes={"mood": mood, "light": [None] * 10}, classes={"light": ["a", "b"]}
    )
    assert FeatureSource(store, both).balanced_shares() == pytest.approx(by_mood)


def test_mixed_batches_are_of_the_augmented_pixels(table: AnnotationTable, root: Path) -> None:
    def load(**config: float) -> dict[str, Any]:
        augmentation = Augmentation(AugmentConfig(flip=0.5, **config))  # type: ignore[arg-type]
        source = PictureSource(root, table, EvalTransform(size=(16, 16)), augmentation, seed=2)
        return source.load([0, 1, 2, 3], epoch=5)

    plain, batch = load(), load(mixup=1.0)
    assert "mixed" not in plain
    share = batch["mixed"]["share"][:, None, None, None]
    other = plain["pixels"][batch["mixed"]["partner"]]
    torch.testing.assert_close(batch["pixels"], share * plain["pixels"] + (1 - share) * other)
    assert torch.equal(batch["attributes"]["light"], plain["attributes"]["light"])


@pytest.mark.parametrize("damage", ["missing", "text"])
def test_a_picture_that_cannot_be_read_is_named(
    table: AnnotationTable, root: Path, damage: str
) -> None:
    path = root / "sub/b.png"
    path.unlink()
    if damage == "text":
        path.write_text("not a picture")
    source = PictureSource(root, table, EvalTransform(size=(8, 8)))
    with pytest.raises(PictureError) as caught:
        source.load([0, 1], epoch=0)
    assert caught.value.where == "sub/b.png"
    assert caught.value.code == ("missing" if damage == "missing" else "not_a_picture")
    assert source.load([0, 2], epoch=0)["keys"] == ["a.png", "c.png"]


def test_comments_without_a_known_word_are_told_and_left_out(
    table: AnnotationTable, caplog: pytest.LogCaptureFixture
) -> None:
    words = Vocabulary.build(["zebra"])
    with caplog.at_level(logging.WARNING, "beholder"):
        source = FeatureSource(FakeStore(KEYS), table, vocabulary=words)  # type: ignore[arg-type]
    comments = sum(map(len, table.frame["comments"].to_list()))
    assert f"{comments - 1} comments have no known word and were left out" in caplog.text
    assert not any(source.load(range(len(source)), 0)["comments"])
