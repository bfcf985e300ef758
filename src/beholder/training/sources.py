"""Where batches come from: a feature store, or pictures decoded as they are needed.

A source is a function of (indices, epoch): it has neither a position nor random state, so that any
worker of any process gives the same batch. Both kinds can be pickled to worker processes.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from beholder.data.annotations import ATTRIBUTE_PREFIX, VOTES, AnnotationTable
from beholder.data.augment import Augmentation
from beholder.data.images import content_hash, read_image, resolve_key
from beholder.data.mixing import mix
from beholder.data.transforms import EvalTransform
from beholder.data.vocabulary import Vocabulary, comment_words
from beholder.errors import DataError, PictureError, StoreError
from beholder.features.store import FeatureStore

Batch = dict[str, Any]
log = logging.getLogger("beholder")


class Targets:
    """The opinions of a table as arrays, one row per picture.

    Args:
        table: its rows, without those in `quarantined`.
        vocabulary: None leaves comments out.
        max_length: tokens of the longest comment with both ends; longer ones are cut and their
            number is logged.
        quarantined: image keys known to be unusable, left out.

    Raises:
        DataError: no picture is left.
    """

    def __init__(
        self,
        table: AnnotationTable,
        *,
        vocabulary: Vocabulary | None = None,
        max_length: int | None = None,
        quarantined: Collection[str] = (),
    ) -> None:
        frame = table.frame.filter(~pl.col("image").is_in(sorted(quarantined)))
        if frame.height == 0:
            raise DataError(
                f"No picture to train on: {len(table)} in the table, "
                f"{len(table) - frame.height} of them unusable.",
                fix="See quarantine.csv for the reasons, or choose another split.",
            )
        self.keys: list[str] = frame["image"].to_list()
        self.boxes: list[tuple[float, ...] | None] = [
            None if box is None else tuple(box) for box in frame["box"].to_list()
        ]
        self.score = frame["score"].cast(pl.Float32).fill_null(float("nan")).to_numpy().copy()
        self.attributes = {
            name: (_label_vectors if name in table.multi_label else _class_indices)(
                frame[ATTRIBUTE_PREFIX + name], labels
            )
            for name, labels in table.classes.items()
        }
        self.votes = (
            _vote_shares(frame[VOTES], len(table.rating_bins)) if table.rating_bins else None
        )
        self.comments: list[list[list[int]]] | None = None
        if vocabulary is not None:
            self.comments = _encode(frame["comments"].to_list(), vocabulary, max_length)

    def load(self, indices: Sequence[int]) -> Batch:
        """Keys and opinions of the rows, as `tasks.base.Task` describes a batch."""
        rows = np.asarray(indices, dtype=np.int64)
        batch: Batch = {
            "keys": [self.keys[index] for index in rows],
            "score": torch.from_numpy(self.score[rows]),
            "attributes": {
                name: torch.from_numpy(values[rows]) for name, values in self.attributes.items()
            },
        }
        if self.votes is not None:
            batch["votes"] = torch.from_numpy(self.votes[rows])
        if self.comments is not None:
            batch["comments"] = [self.comments[index] for index in rows]
        return batch

    def balanced_shares(self) -> np.ndarray:
        """Parts of an epoch [rows], float64, that sum to 1: for an attribute, each class has the
        same part of what is labelled, and each of its pictures the same part of that. Pictures
        without a label keep their part. With several attributes it is their mean; of one of which
        several labels may hold at once, that of the two classes of each label.

        Source: class-balanced sampling as in Kang et al., "Decoupling Representation and
        Classifier for Long-Tailed Recognition", ICLR 2020, here for several attributes.

        Raises:
            DataError: no picture has a label.
        """
        rows = len(self.keys)
        parts = []
        for target in self.attributes.values():
            shares = [_balanced(column) for column in target.T.reshape(-1, rows)]
            known_shares = [share for share in shares if share is not None]
            if known_shares:
                parts.append(np.mean(known_shares, axis=0))
        if not parts:
            raise DataError(
                "No training picture has a label, which balanced sampling needs.",
                where="training.sampling",
                fix="Give the table attribute columns, or set it to shuffled.",
            )
        return np.mean(parts, axis=0)


class _SourceOfTargets:
    """What is the same whatever a task looks at: the rows, by their `targets`."""

    targets: Targets

    @property
    def keys(self) -> list[str]:
        """The image keys, in index order."""
        return self.targets.keys

    def __len__(self) -> int:
        return len(self.targets.keys)

    def balanced_shares(self) -> np.ndarray:
        """See `Targets`."""
        return self.targets.balanced_shares()


class FeatureSource(_SourceOfTargets):
    """Batches of frozen features.

    Args:
        store: where the features are; every row of the table must be in it.
        table: the rows to give, e.g. `table.subset("train")`.
        vocabulary, max_length, quarantined: see `Targets`.
        tokens: load the tokens too; scores and attributes only read the pooled features.

    Raises:
        StoreError: a picture that is not quarantined is not in the store.
        DataError: no picture is left.
    """

    decodes_pictures = False

    def __init__(
        self,
        store: FeatureStore,
        table: AnnotationTable,
        *,
        vocabulary: Vocabulary | None = None,
        max_length: int | None = None,
        quarantined: Collection[str] = (),
        tokens: bool = True,
    ) -> None:
        self.targets = Targets(
            table, vocabulary=vocabulary, max_length=max_length, quarantined=quarantined
        )
        self.store = store
        self.tokens = tokens
        known = set(store.keys)
        missing = [key for key in self.keys if key not in known]
        if missing:
            raise StoreError(
                f"The feature store lacks {len(missing)} of {len(self)} pictures, "
                f"e.g. {missing[0]}.",
                fix="Extract the features again with this table.",
            )

    def load(self, indices: Sequence[int], epoch: int) -> Batch:
        """The rows' features, in the store's dtype, and opinions; the same in every epoch."""
        batch = self.targets.load(indices)
        tokens_BNC, pooled_BP = self.store.read(batch["keys"], tokens=self.tokens, as_stored=True)
        if self.tokens:
            batch["tokens"] = torch.from_numpy(tokens_BNC)
        batch["pooled"] = torch.from_numpy(pooled_BP)
        return batch


class PictureSource(_SourceOfTargets):
    """Batches of pixels, augmented differently in every epoch.

    Args:
        root: the folder that image keys start from.
        table: the rows to give.
        transform: the backbone's.
        augmentation: None for none; else a function of (seed, epoch, key).
        seed: seed of the augmentation.
        vocabulary, max_length, quarantined: see `Targets`.
    """

    decodes_pictures = True

    def __init__(
        self,
        root: str | Path,
        table: AnnotationTable,
        transform: EvalTransform,
        augmentation: Augmentation | None = None,
        *,
        seed: int = 0,
        vocabulary: Vocabulary | None = None,
        max_length: int | None = None,
        quarantined: Collection[str] = (),
    ) -> None:
        self.targets = Targets(
            table, vocabulary=vocabulary, max_length=max_length, quarantined=quarantined
        )
        self.root = Path(root)
        self.transform = transform
        self.augmentation = augmentation
        self.seed = seed
        # a crop of a picture decoded at reduced size would show fewer pixels than wanted
        crops = augmentation is not None and augmentation.config.crop != "none"
        self._at_least = None if crops else transform.at_least

    def load(self, indices: Sequence[int], epoch: int) -> Batch:
        """The rows' pixels and opinions.

        Raises:
            PictureError: a picture can't be read; names its key. It is not replaced.
        """
        batch = self.targets.load(indices)
        pixels = np.stack([self._pixels(int(index), epoch) for index in indices])
        if self.augmentation and self.augmentation.config.mixes:
            config, seed = self.augmentation.config, self.seed
            pixels, mixture = mix(pixels, config, seed=seed, epoch=epoch, keys=batch["keys"])
            batch["mixed"] = {
                "partner": torch.from_numpy(mixture.partner_B),
                "share": torch.from_numpy(mixture.share_B),
            }
        batch["pixels"] = torch.from_numpy(pixels)
        return batch

    def content(self, index: int) -> str:
        """An identifier of what a row's pixels are made of: the file's content and the box.

        Raises:
            PictureError: there is no such file; names its key.
        """
        key, box = self.targets.keys[index], self.targets.boxes[index]
        try:
            content = content_hash(resolve_key(self.root, key))
        except PictureError as error:
            raise _unusable(error, key) from error
        return content if box is None else f"{content} box {list(box)}"

    def _pixels(self, index: int, epoch: int) -> np.ndarray:
        key, box = self.targets.keys[index], self.targets.boxes[index]
        try:
            path = resolve_key(self.root, key)
            if self.augmentation is None:
                return self.transform.read(path, box)
            image = read_image(path, at_least=None if box else self._at_least)
            image = self.transform.cleared(image, box)
            # the augmentation crops to the box, whose edges it may move
            augmented = self.augmentation(image, seed=self.seed, epoch=epoch, key=key, box=box)
            return self.transform.fitted(augmented)
        except PictureError as error:
            raise _unusable(error, key) from error


def _unusable(error: PictureError, key: str) -> PictureError:
    return PictureError(
        f"A training picture can't be used: {error.what}",
        code=error.code,
        where=key,
        fix=error.fix or "Repair it or remove its row; `beholder check` lists all such pictures.",
    )


def _balanced(target: np.ndarray) -> np.ndarray | None:
    """Parts of an epoch [rows] as `Targets.balanced_shares` says; None: nothing is known.

    Args:
        target: class indices; below 0 or NaN where nothing is known.
    """
    target = np.nan_to_num(target, nan=-1.0)
    labels, inverse, counts = np.unique(target, return_inverse=True, return_counts=True)
    known = labels >= 0
    if not known.any():
        return None
    share = counts[known].sum() / len(target) / known.sum()
    return np.where(known, share / counts, 1 / len(target))[inverse]


def _label_vectors(column: pl.Series, labels: Sequence[str]) -> np.ndarray:
    """Which labels hold [rows, K], float32 1 or 0; NaN where null."""
    unknown = [float("nan")] * len(labels)
    cells = [None if cell is None else set(cell) for cell in column.to_list()]
    rows = [
        unknown if held is None else [float(label in held) for label in labels] for held in cells
    ]
    return np.array(rows, dtype=np.float32).reshape(-1, len(labels))


def _class_indices(column: pl.Series, labels: Sequence[str]) -> np.ndarray:
    """Class indices, int64; -1 where null."""
    index = {label: position for position, label in enumerate(labels)}
    return np.array([index.get(label, -1) for label in column.to_list()], dtype=np.int64)


def _vote_shares(column: pl.Series, bins: int) -> np.ndarray:
    """Shares of the rating bins [B, K], float32, each row summing to 1; NaN where null."""
    unknown = [float("nan")] * bins
    counts_BK = np.array([unknown if v is None else v for v in column], dtype=np.float64)
    return (counts_BK / counts_BK.sum(axis=1, keepdims=True)).astype(np.float32)


def _encode(
    comments: Sequence[Sequence[str]], vocabulary: Vocabulary, max_length: int | None
) -> list[list[list[int]]]:
    """Token ids of every comment that has a known word; the numbers of comments that are cut or
    left out are logged."""
    cut = wordless = unknown = 0
    encoded = []
    for picture_comments in comments:
        rows = []
        for comment in picture_comments:
            words = comment_words(comment)
            if not words:
                wordless += 1
                continue
            ids = vocabulary.encode(words)
            if all(index == vocabulary.unk for index in ids[1:-1]):
                unknown += 1
                continue
            cut += max_length is not None and len(ids) > max_length
            rows.append(vocabulary.encode(words, max_length) if max_length else ids)
        encoded.append(rows)
    if cut:
        log.warning("%d comments are longer than %s tokens and were cut.", cut, max_length)
    if wordless:
        log.warning("%d comments have no word and were left out.", wordless)
    if unknown:
        log.warning("%d comments have no known word and were left out.", unknown)
    return encoded
