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
from beholder.data.sharing import ALONE, Processes, part_of
from beholder.data.transforms import EvalTransform
from beholder.errors import DataError, PictureError, StoreError
from beholder.features import device as devices
from beholder.features.backbones import Backbone
from beholder.features.memory import memory_guard
from beholder.features.precision import Amp, amp_dtype, autocast
from beholder.features.store import FeatureWriter, StoreCard
from beholder.features.workers import Workers, load_batches, worker_count

QUARANTINE = "quarantine.csv"
# pictures that a CPU computes at once: the maps of more do not fit its caches, and the system
# allocates fresh memory for each of them; efficientnet-lite0 is 1.4 times as fast as with 32
CPU_SLICE = 4


@dataclass(frozen=True)
class ExtractionSummary:
    """Counts of pictures; `quarantined` ones are in the store's `quarantine.csv`."""

    written: int
    reused: int
    quarantined: int
    seconds: float


Failure = tuple[str, str, str]  # key, code and reason of a picture that can't be used


class _Batch(NamedTuple):
    """A batch of pictures from a worker.

    keys, contents, pixels_B3HW: of those that are not in the store yet; no pixels if all are.
    reused: how many are in the store.
    """

    keys: list[str]
    contents: list[str]
    pixels_B3HW: Tensor | None
    reused: int
    failures: list[Failure]


class _Part(NamedTuple):
    """What one process has extracted, in pictures."""

    written: int
    reused: int
    failures: list[Failure]


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
    processes: Processes = ALONE,
) -> ExtractionSummary:
    """Fill a feature store with the features of every picture of a table.

    Pictures whose content is in the store already are not computed again, so that an interrupted
    extraction resumes. What can't be read is quarantined: written to `quarantine.csv` with its key
    and the reason, and never replaced. Features do not depend on batch size and workers, up to the
    rounding of the device's matrix products.

    Args:
        root: folder that image keys are relative to.
        batch_size: pictures that are decoded together, and per forward pass of an accelerator.
        workers: number of decoding processes; 0 decodes in this one; `auto`: by cores and device.
        dtype: `float16` or `float32`.
        device: None: the best one available.
        flip, tokens: mirror every picture left to right; keep tokens beside pooled features.
        amp: arithmetic of the forward pass: `auto` (bf16 or fp16 on accelerators), `off`, `bf16`
            or `fp16`. A store holds features of one arithmetic.
        processes: those that all call this and do a part each, into one store in a shared folder;
            each gets the summary of all parts.

    Raises:
        DataError: the image root does not exist.
        DeviceError: the device is not available, or has no such arithmetic.
        StoreError: the existing store is of another backbone, or a value does not fit `dtype`.
        OutputError: the folder can't be written.
        OutOfMemory: the device has no room for a batch.
    """
    start_time = time.perf_counter()
    if not Path(root).is_dir():
        raise DataError("The image root does not exist.", where=str(root))
    where = devices.choose_device(device)
    backbone = backbone.to(where).eval()
    arithmetic = amp_dtype(amp, where, where="amp")
    card = _card(backbone, dtype, arithmetic, tokens=tokens, flip=flip)
    writer = _open_writer(Path(store_path), card, processes)
    pictures = _Pictures(table, Path(root), backbone.transform, writer, processes)
    part = _extract_part(
        backbone, pictures, writer, where, arithmetic, batch_size=batch_size, workers=workers
    )
    parts = processes.all_gather(part)  # afterwards all shards are there
    failures = [failure for other in parts for failure in other.failures]
    if processes.rank == 0:
        whole = writer if processes.world_size == 1 else FeatureWriter(store_path, card)
        _finish(whole, table, failures)
    processes.all_gather(None)  # no process goes on before the index is there
    return _summary(parts, time.perf_counter() - start_time)


def _summary(parts: Sequence[_Part], seconds: float) -> ExtractionSummary:
    return ExtractionSummary(
        written=sum(part.written for part in parts),
        reused=sum(part.reused for part in parts),
        quarantined=sum(len(part.failures) for part in parts),
        seconds=seconds,
    )


def _extract_part(
    backbone: Backbone,
    pictures: _Pictures,
    writer: FeatureWriter,
    device: torch.device,
    arithmetic: torch.dtype | None,
    *,
    batch_size: int,
    workers: Workers,
) -> _Part:
    """Write the features of this process's pictures."""
    starts = range(0, len(pictures), batch_size)
    requests = [range(at, min(at + batch_size, len(pictures))) for at in starts]
    count = min(worker_count(workers, device, decodes=True), len(requests))
    written = reused = 0
    failures: list[Failure] = []
    with ProgressBar("extracting features", len(pictures), "pictures") as bar:
        for batch in load_batches(pictures, requests, count, device):
            with (
                memory_guard(
                    "Extraction", device, where="batch_size", fix="Lower the stage's batch_size."
                ),
                autocast(device, arithmetic),
            ):
                _write(backbone, batch, writer, device)
            failures += batch.failures
            written += len(batch.keys)
            reused += batch.reused
            bar.advance(len(batch.keys) + batch.reused + len(batch.failures))
    writer.flush()
    return _Part(written, reused, failures)


def _open_writer(path: Path, card: StoreCard, processes: Processes) -> FeatureWriter:
    """This process's writer; none writes before all have seen the existing shards."""
    if processes.rank == 0:
        writer = FeatureWriter(path, card, processes=processes)
        processes.all_gather(None)
    else:
        processes.all_gather(None)
        writer = FeatureWriter(path, card, processes=processes)
    processes.all_gather(None)
    return writer


def _finish(writer: FeatureWriter, table: AnnotationTable, failures: Sequence[Failure]) -> None:
    """Write the index of all processes' shards, and the quarantine.

    Raises:
        StoreError: the shards of another process are missing.
    """
    failed = {key for key, _, _ in failures}
    keys = [key for key in table.keys if key not in failed]
    stored = writer.contents()
    missing = [key for key in keys if key not in stored]
    if missing:
        raise StoreError(
            f"{len(missing)} pictures that other processes have extracted are not in the store, "
            f"e.g. {missing[0]}.",
            where=str(writer.path),
            fix="Let all processes share the run's folder.",
        )
    writer.close(keys)
    _write_quarantine(writer.path / QUARANTINE, failures)


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
def _write(backbone: Backbone, batch: _Batch, writer: FeatureWriter, device: torch.device) -> None:
    """Compute and write a batch's features."""
    if batch.pixels_B3HW is None:
        return
    flip, tokens = writer.card.flip, writer.card.token_shape is not None
    step = CPU_SLICE if device.type == "cpu" else len(batch.keys)
    for start in range(0, len(batch.keys), step):
        part = slice(start, start + step)
        pixels_B3HW = batch.pixels_B3HW[part].to(device, non_blocking=True)
        features = backbone(pixels_B3HW.flip(-1) if flip else pixels_B3HW, tokens=tokens)
        pooled = features.pooled_BP.float().cpu().numpy()
        grids = features.tokens_BNC.float().cpu().numpy() if tokens else [None] * len(pooled)
        rows = zip(batch.keys[part], batch.contents[part], grids, pooled, strict=True)
        for key, content, tokens_NC, pooled_P in rows:
            writer.add(key, content, tokens_NC, pooled_P)


class _Pictures(Dataset[_Batch]):
    """The table's pictures by batches of rows, decoded where they are not in the store yet."""

    def __init__(
        self,
        table: AnnotationTable,
        root: Path,
        transform: EvalTransform,
        writer: FeatureWriter,
        processes: Processes,
    ) -> None:
        self.rows = part_of(table.frame.select("image", "box").rows(), processes)
        self.root = root
        self.transform = transform
        self.contents = writer.contents()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: Any) -> _Batch:
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
        return _Batch(keys, contents, torch.stack(pixels) if pixels else None, reused, failures)


def _write_quarantine(path: Path, failures: Sequence[Failure]) -> None:
    """One line per picture that could not be used; no file when there is none."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    rows: list[tuple[Any, ...]] = [("image", "code", "message"), *failures]
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())
