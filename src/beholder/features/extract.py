"""Extraction: all pictures of a table through a backbone, into a feature store.

Legend: B pictures, H and W sides of the input.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from beholder.data.annotations import AnnotationTable
from beholder.data.files import write_text
from beholder.data.images import content_hash, resolve_key
from beholder.data.progress import ProgressBar
from beholder.data.transforms import EvalTransform
from beholder.errors import DataError, PictureError
from beholder.features import device as devices
from beholder.features.backbones import Backbone
from beholder.features.memory import memory_guard
from beholder.features.store import FeatureWriter, StoreCard

QUARANTINE = "quarantine.csv"
# pictures that a CPU sees at once: the maps of more leave its caches, and the system hands out
# fresh memory for each of them; efficientnet-lite0 is 1.4 times as fast as with 32
CPU_SLICE = 4


@dataclass(frozen=True)
class ExtractionSummary:
    """Counts of pictures; `quarantined` ones are in the store's `quarantine.csv`."""

    written: int
    reused: int
    quarantined: int
    seconds: float


class _Read(NamedTuple):
    """What a worker says of one picture: pixels, or nothing new, or why it can't be used."""

    key: str
    content: str
    pixels_3HW: Tensor | None
    failure: tuple[str, str] | None = None


def extract(
    backbone: Backbone,
    table: AnnotationTable,
    root: str | Path,
    store_path: str | Path,
    *,
    batch_size: int = 32,
    workers: int = 2,
    dtype: str = "float16",
    device: str | torch.device | None = None,
    flip: bool = False,
    tokens: bool = True,
) -> ExtractionSummary:
    """Fill a feature store with the features of every picture of a table.

    Pictures whose content is in the store already are not done again, so that an extraction which
    was stopped goes on. What can't be read is quarantined: written to `quarantine.csv` with its
    key and reason, and never replaced. Features do not depend on the batch size and the workers,
    up to the rounding of the device's matrix products.

    Args:
        root: folder that the image keys start from.
        batch_size: pictures that are decoded together, and per forward pass of an accelerator.
        workers: decoding processes; 0 decodes in this one.
        dtype: `float16` or `float32`.
        device: None: where the best one is.
        flip: mirror every picture left to right.
        tokens: keep the tokens, not only the pooled features.

    Raises:
        DataError: the image root does not exist.
        StoreError: the store there is of another backbone, or a value does not fit `dtype`.
        OutputError: the folder can't be written.
        OutOfMemory: the device has no room for a batch.
    """
    began = time.perf_counter()
    if not Path(root).is_dir():
        raise DataError("The image root does not exist.", where=str(root))
    where = devices.choose_device(device)
    backbone = backbone.to(where).eval()
    writer = FeatureWriter(store_path, _card(backbone, dtype, tokens=tokens, flip=flip))
    pictures = _Pictures(table, Path(root), backbone.transform, writer)
    loader = DataLoader(
        pictures,
        batch_size=batch_size,
        num_workers=min(workers, max(1, len(pictures) // batch_size)) if workers else 0,
        collate_fn=_together,
        pin_memory=where.type == "cuda",
    )
    counts = {"written": 0, "reused": 0}
    failures: list[tuple[str, str, str]] = []
    with ProgressBar("extracting features", len(pictures), "pictures") as bar:
        for reads in loader:
            fresh = [read for read in reads if read.pixels_3HW is not None]
            with memory_guard(
                "Extraction", where, where="batch_size", fix="Lower the stage's batch_size."
            ):
                _write(backbone, fresh, writer, where, flip=flip, tokens=tokens)
            failures += [(r.key, *r.failure) for r in reads if r.failure is not None]
            failed = sum(read.failure is not None for read in reads)
            counts["written"] += len(fresh)
            counts["reused"] += len(reads) - len(fresh) - failed
            bar.advance(len(reads))
    bad = {key for key, _, _ in failures}
    writer.close(key for key in table.keys if key not in bad)
    _write_quarantine(Path(store_path) / QUARANTINE, failures)
    return ExtractionSummary(
        **counts, quarantined=len(failures), seconds=time.perf_counter() - began
    )


def _card(backbone: Backbone, dtype: str, *, tokens: bool, flip: bool) -> StoreCard:
    count = backbone.grid[0] * backbone.grid[1]
    return StoreCard(
        fingerprint=backbone.fingerprint(),
        backbone=backbone.config.name,
        dtype=dtype,
        token_shape=(count, backbone.token_dim) if tokens else None,
        pooled_dim=backbone.pooled_dim,
        flip=flip,
    )


@torch.inference_mode()
def _write(
    backbone: Backbone,
    reads: Sequence[_Read],
    writer: FeatureWriter,
    device: torch.device,
    *,
    flip: bool,
    tokens: bool,
) -> None:
    step = CPU_SLICE if device.type == "cpu" else max(1, len(reads))
    for start in range(0, len(reads), step):
        part = reads[start : start + step]
        pixels_B3HW = torch.stack([r.pixels_3HW for r in part if r.pixels_3HW is not None])
        pixels_B3HW = pixels_B3HW.to(device, non_blocking=True)
        features = backbone(pixels_B3HW.flip(-1) if flip else pixels_B3HW, tokens=tokens)
        pooled = features.pooled_BP.float().cpu().numpy()
        grids = features.tokens_BNC.float().cpu().numpy() if tokens else [None] * len(part)
        for read, tokens_NC, pooled_P in zip(part, grids, pooled, strict=True):
            writer.add(read.key, read.content, tokens_NC, pooled_P)


class _Pictures(Dataset[_Read]):
    """The table's pictures, decoded where they are not in the store yet."""

    def __init__(
        self, table: AnnotationTable, root: Path, transform: EvalTransform, writer: FeatureWriter
    ) -> None:
        self.rows = table.frame.select("image", "box").rows()
        self.root = root
        self.transform = transform
        self.contents = writer.contents()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> _Read:
        key, box = self.rows[index]
        try:
            path = resolve_key(self.root, key)
            content = content_hash(path)
            if box is not None:
                content += f" box {box}"
            if self.contents.get(key) == content:
                return _Read(key, content, None)
            return _Read(key, content, torch.from_numpy(self.transform.read(path, box)))
        except PictureError as error:
            return _Read(key, "", None, (error.code, error.what))


def _together(reads: list[_Read]) -> list[_Read]:
    return reads


def _write_quarantine(path: Path, failures: Sequence[tuple[str, str, str]]) -> None:
    """One line per picture that could not be used; no file when there is none."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    rows: list[tuple[Any, ...]] = [("image", "code", "message"), *failures]
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())
