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
from torch.utils.data import Dataset

from beholder.data.annotations import AnnotationTable
from beholder.data.files import write_text
from beholder.data.images import content_hash, resolve_key
from beholder.data.progress import ProgressBar
from beholder.data.sharing import ALONE, Group, part_of
from beholder.data.transforms import EvalTransform
from beholder.errors import DataError, PictureError, StoreError
from beholder.features import device as devices
from beholder.features.backbones import Backbone
from beholder.features.memory import memory_guard
from beholder.features.precision import Amp, amp_dtype, autocast
from beholder.features.store import FeatureWriter, StoreCard
from beholder.features.workers import Workers, load_batches, worker_count

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
    """What a worker says of a batch of pictures.

    keys, contents, pixels_B3HW: of those that are not in the store yet; no pixels if all are.
    reused: how many are.
    failures: key, code and reason of each that can't be used.
    """

    keys: list[str]
    contents: list[str]
    pixels_B3HW: Tensor | None
    reused: int
    failures: list[tuple[str, str, str]]


def extract(
    backbone: Backbone,
    table: AnnotationTable,
    root: str | Path,
    store_path: str | Path,
    *,
    batch_size: int = 32,
    workers: Workers = "auto",
    dtype: str = "float16",
    device: str | torch.device | None = None,
    flip: bool = False,
    tokens: bool = True,
    amp: Amp = "auto",
    group: Group = ALONE,
) -> ExtractionSummary:
    """Fill a feature store with the features of every picture of a table.

    Pictures whose content is in the store already are not done again, so that an extraction which
    was stopped goes on. What can't be read is quarantined: written to `quarantine.csv` with its
    key and reason, and never replaced. Features do not depend on the batch size and the workers,
    up to the rounding of the device's matrix products.

    Args:
        root: folder that the image keys start from.
        batch_size: pictures that are decoded together, and per forward pass of an accelerator.
        workers: decoding processes; 0 decodes in this one; `auto`: by cores and device.
        dtype: `float16` or `float32`.
        device: None: where the best one is.
        flip: mirror every picture left to right.
        tokens: keep the tokens, not only the pooled features.
        amp: arithmetic of the forward pass: `auto` (bf16 or fp16 on accelerators), `off`, `bf16`
            or `fp16`. A store holds features of one kind.
        group: processes that all call this and do a part each, into one store in a folder that they
            share; every one gets the summary of the whole.

    Raises:
        DataError: the image root does not exist.
        DeviceError: the device is not there, or has no such arithmetic.
        StoreError: the store there is of another backbone, or a value does not fit `dtype`.
        OutputError: the folder can't be written.
        OutOfMemory: the device has no room for a batch.
    """
    began = time.perf_counter()
    if not Path(root).is_dir():
        raise DataError("The image root does not exist.", where=str(root))
    where = devices.choose_device(device)
    backbone = backbone.to(where).eval()
    arithmetic = amp_dtype(amp, where, where="amp")
    card = _card(backbone, dtype, arithmetic, tokens=tokens, flip=flip)
    writer = _open_writer(Path(store_path), card, group)
    pictures = _Pictures(table, Path(root), backbone.transform, writer, group)
    starts = range(0, len(pictures), batch_size)
    requests = [range(at, min(at + batch_size, len(pictures))) for at in starts]
    count = min(worker_count(workers, where, decodes=True), len(requests))
    counts = {"written": 0, "reused": 0}
    failures: list[tuple[str, str, str]] = []
    with ProgressBar("extracting features", len(pictures), "pictures") as bar:
        for read in load_batches(pictures, requests, count, where):
            with (
                memory_guard(
                    "Extraction", where, where="batch_size", fix="Lower the stage's batch_size."
                ),
                autocast(where, arithmetic),
            ):
                _write(backbone, read, writer, where, flip=flip, tokens=tokens)
            failures += read.failures
            counts["written"] += len(read.keys)
            counts["reused"] += read.reused
            bar.advance(len(read.keys) + read.reused + len(read.failures))
    writer.flush()
    told = group.from_all((counts, failures))  # from here on all shards are there
    counts = {name: sum(part[name] for part, _ in told) for name in counts}
    failures = [failure for _, part in told for failure in part]
    if group.rank == 0:
        bad = {key for key, _, _ in failures}
        keys = [key for key in table.keys if key not in bad]
        _close(writer if group.size == 1 else FeatureWriter(store_path, card), keys)
        _write_quarantine(Path(store_path) / QUARANTINE, failures)
    group.from_all(None)  # nobody goes on before the index is there
    return ExtractionSummary(
        **counts, quarantined=len(failures), seconds=time.perf_counter() - began
    )


def _open_writer(path: Path, card: StoreCard, group: Group) -> FeatureWriter:
    """This process's writer; none writes before all have seen what is there."""
    if group.rank == 0:
        writer = FeatureWriter(path, card, group=group)
        group.from_all(None)
    else:
        group.from_all(None)
        writer = FeatureWriter(path, card, group=group)
    group.from_all(None)
    return writer


def _close(writer: FeatureWriter, keys: Sequence[str]) -> None:
    """Write the index of all processes' shards.

    Raises:
        StoreError: what another process has written is not there.
    """
    there = writer.contents()
    missing = [key for key in keys if key not in there]
    if missing:
        raise StoreError(
            f"{len(missing)} pictures that other processes have extracted are not in the store, "
            f"e.g. {missing[0]}.",
            where=str(writer.path),
            fix="Let all processes share the run's folder.",
        )
    writer.close(keys)


def _card(
    backbone: Backbone, dtype: str, arithmetic: torch.dtype | None, *, tokens: bool, flip: bool
) -> StoreCard:
    count = backbone.grid[0] * backbone.grid[1]
    return StoreCard(
        fingerprint=backbone.fingerprint(),
        backbone=backbone.config.name,
        dtype=dtype,
        token_shape=(count, backbone.token_dim) if tokens else None,
        pooled_dim=backbone.pooled_dim,
        flip=flip,
        arithmetic=str(arithmetic or torch.float32).removeprefix("torch."),
    )


@torch.inference_mode()
def _write(
    backbone: Backbone,
    read: _Read,
    writer: FeatureWriter,
    device: torch.device,
    *,
    flip: bool,
    tokens: bool,
) -> None:
    if read.pixels_B3HW is None:
        return
    step = CPU_SLICE if device.type == "cpu" else len(read.keys)
    for start in range(0, len(read.keys), step):
        part = slice(start, start + step)
        pixels_B3HW = read.pixels_B3HW[part].to(device, non_blocking=True)
        features = backbone(pixels_B3HW.flip(-1) if flip else pixels_B3HW, tokens=tokens)
        pooled = features.pooled_BP.float().cpu().numpy()
        grids = features.tokens_BNC.float().cpu().numpy() if tokens else [None] * len(pooled)
        rows = zip(read.keys[part], read.contents[part], grids, pooled, strict=True)
        for key, content, tokens_NC, pooled_P in rows:
            writer.add(key, content, tokens_NC, pooled_P)


class _Pictures(Dataset[_Read]):
    """The table's pictures by batches of rows, decoded where they are not in the store yet."""

    def __init__(
        self,
        table: AnnotationTable,
        root: Path,
        transform: EvalTransform,
        writer: FeatureWriter,
        group: Group,
    ) -> None:
        self.rows = part_of(table.frame.select("image", "box").rows(), group)
        self.root = root
        self.transform = transform
        self.contents = writer.contents()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: Any) -> _Read:
        keys, contents, pixels, failures = [], [], [], []
        for index in indices:
            key, box = self.rows[index]
            try:
                path = resolve_key(self.root, key)
                content = content_hash(path)
                if box is not None:
                    content += f" box {box}"
                if self.contents.get(key) == content:
                    continue
                pixels.append(torch.from_numpy(self.transform.read(path, box)))
            except PictureError as error:
                failures.append((key, error.code, error.what))
                continue
            keys.append(key)
            contents.append(content)
        reused = len(indices) - len(keys) - len(failures)
        return _Read(keys, contents, torch.stack(pixels) if pixels else None, reused, failures)


def _write_quarantine(path: Path, failures: Sequence[tuple[str, str, str]]) -> None:
    """One line per picture that could not be used; no file when there is none."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    rows: list[tuple[Any, ...]] = [("image", "code", "message"), *failures]
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())
