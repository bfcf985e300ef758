"""A teacher's logits of K augmented versions of every picture, computed once, in a feature store.

The versions of a picture are what its source gives in epochs 0 to K - 1: functions of (seed, epoch,
key), so that the student sees the very pixels that the teacher saw. From epoch K on they repeat.

The store is one of `features.store`: a row per picture, whose tokens are the logits [K, L] of the
versions, all attributes side by side. What a killed process has written of it is used.

Legend: B pictures, K augmented versions of each, L logits of all attributes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from beholder.data.augment import DRAWING
from beholder.data.progress import ProgressBar
from beholder.data.sharing import Processes
from beholder.features.memory import memory_guard
from beholder.features.precision import amp_dtype, autocast
from beholder.features.store import FeatureStore, FeatureWriter, StoreCard
from beholder.models.teachers import Teacher
from beholder.training.config import TrainConfig
from beholder.training.loader import Loader, to_device
from beholder.training.sources import Batch, PictureSource

Classes = Mapping[str, Sequence[str]]

SHARD_ROWS = 64  # pictures whose logits a kill may lose


class CachedTeacherSource:
    """Batches of a source with the teacher's logits as `teacher`, {attribute: [B, classes]}.

    Args:
        source: the pictures; from epoch K on their first versions repeat.
        store: what `write_teacher_logits` has made of the same source.
        classes: the student's attribute -> labels.

    Raises:
        StoreError: a picture is not in the store.
    """

    decodes_pictures = True

    def __init__(self, source: PictureSource, store: FeatureStore, classes: Classes) -> None:
        assert store.token_shape is not None, "a teacher's store holds logits"
        self.source = source
        self.store = store
        self.versions = store.token_shape[0]
        self.sizes = {name: len(labels) for name, labels in classes.items()}
        store.read(source.keys[:1])

    @property
    def keys(self) -> list[str]:
        """The image keys, in index order."""
        return self.source.keys

    def __len__(self) -> int:
        return len(self.source)

    def balanced_shares(self) -> np.ndarray:
        """The source's own."""
        return self.source.balanced_shares()

    def load(self, indices: Sequence[int], epoch: int) -> Batch:
        """The rows' pixels in version `epoch` modulo K, their opinions and the teacher's logits.

        Raises:
            PictureError: a picture can't be read.
        """
        version = epoch % self.versions
        batch = self.source.load(indices, version)
        logits_BKL, _ = self.store.read(batch["keys"], as_stored=True)
        logits_BL = torch.from_numpy(logits_BKL[:, version])
        parts = logits_BL.split(list(self.sizes.values()), dim=1)
        batch["teacher"] = dict(zip(self.sizes, parts, strict=True))
        return batch


def teacher_store_card(
    teacher: Teacher, source: PictureSource, versions: int, arithmetic: torch.dtype | None = None
) -> StoreCard:
    """What determines the logits: teacher, transform, augmentation, seed, and the dtype to compute
    in (None: the teacher's own). Pictures are identified by their content."""
    augmentation = source.augmentation
    identity = {
        "teacher": teacher.fingerprint(),
        "transform": source.transform.to_dict(),
        "augment": augmentation.config.model_dump(mode="json") if augmentation else None,
        **({"drawing": DRAWING} if augmentation else {}),
        "seed": source.seed,
        "arithmetic": str(arithmetic),
    }
    fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    logits = sum(len(labels) for labels in teacher.classes.values())
    return StoreCard(fingerprint, "a teacher", "float32", (versions, logits), None)


@torch.inference_mode()
def write_teacher_logits(
    teacher: Teacher,
    source: PictureSource,
    path: Path,
    versions: int,
    config: TrainConfig,
    processes: Processes,
) -> FeatureStore:
    """Compute the teacher's logits of every picture that the store does not hold yet.

    Args:
        path: the store's folder.
        versions: K.
        config: its batch size, loading processes and arithmetic are used.
        processes: where to compute.

    Raises:
        PictureError: a picture can't be read.
        StoreError: the store in `path` is of another teacher or of other versions.
        OutputError: the folder can't be written.
        OutOfMemory: the device has no room for a batch.
    """
    arithmetic = amp_dtype(config.amp, processes.device, where="training.amp")
    card = teacher_store_card(teacher, source, versions, arithmetic)
    writer = FeatureWriter(path, card, shard_rows=SHARD_ROWS)
    stored = writer.contents()
    contents = [source.content(row) for row in range(len(source))]
    due = [row for row, key in enumerate(source.keys) if stored.get(key) != contents[row]]
    chunks = [due[at : at + config.batch_size] for at in range(0, len(due), config.batch_size)]
    requests = [(version, rows) for rows in chunks for version in range(versions)]
    batches = Loader(source, config, processes).load(requests, at_most=len(requests))
    with (
        memory_guard(
            "Computing the teacher's logits",
            processes.device,
            where="training.batch_size",
            fix="Lower training.batch_size.",
        ),
        autocast(processes.device, arithmetic),
        ProgressBar("computing the teacher's logits", len(due), "pictures") as bar,
    ):
        for rows in chunks:
            outputs = [
                teacher(to_device(next(batches)["pixels"], processes.device))
                for _ in range(versions)
            ]
            joined = [torch.cat([out[name] for name in teacher.classes], dim=1) for out in outputs]
            logits_BKL = torch.stack(joined, dim=1).float().cpu().numpy()
            for row, logits_KL in zip(rows, logits_BKL, strict=True):
                writer.add(source.keys[row], contents[row], logits_KL, None)
            bar.advance(len(rows))
    writer.close(source.keys)
    return FeatureStore.open(path, expect_fingerprint=card.fingerprint)
