"""Stage `extract`: the backbone's features of all pictures, kept in a feature store."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from beholder.data.files import sha256_file
from beholder.data.images import resolve_key
from beholder.features import device as devices
from beholder.features.extract import extract
from beholder.features.workers import worker_count
from beholder.pipeline.checks import Problems
from beholder.pipeline.context import RunContext
from beholder.pipeline.cost import Cost, folder_bytes, measured, overlapped
from beholder.pipeline.manifest import digest
from beholder.pipeline.processes import current_processes
from beholder.pipeline.recipe import ExtractStage
from beholder.pipeline.stages.base import SmokeRun, Stage, StageResult
from beholder.pipeline.stages.shared import QUARANTINE, check_backbone, stage_backbone

PASSES = 3  # of the few pictures, for the estimate


class Extract(Stage):
    """Runs one of the recipe's backbones, or a tuned one, over every row of the table, shared out
    over all processes."""

    everywhere = True

    def __init__(self, name: str, config: ExtractStage, context: RunContext) -> None:
        super().__init__(name, context)
        self.config = config

    def check(self, problems: Problems) -> None:
        check_backbone(self.context, self.name, problems)

    def run(self, folder: Path) -> StageResult:
        data = self.context.data
        store = folder / "store"
        processes = current_processes()
        summary = extract(
            stage_backbone(self.context, self.name).to(devices.choose_device()),
            self.context.chosen(data.table),
            data.root,
            store,
            batch_size=self.config.batch_size,
            workers=self.config.workers,
            dtype=self.config.dtype,
            flip=self.config.flip,
            tokens=self.config.tokens,
            amp=self.config.amp,
            group=processes,
        )
        if not processes.first:
            return StageResult({})  # the first process writes for all
        quarantine = store / QUARANTINE
        if quarantine.exists():
            shutil.copyfile(quarantine, self.context.folder / QUARANTINE)
        else:
            (self.context.folder / QUARANTINE).unlink(missing_ok=True)
        # the index names the pictures, the card the backbone and all else that decides the features
        made = digest([sha256_file(store / name) for name in ("index.parquet", "store.json")])
        return StageResult(
            outputs={"store": (store, made)},
            metrics={
                "written": summary.written,
                "reused": summary.reused,
                "quarantined": summary.quarantined,
            },
        )

    def cost(self, smoke: SmokeRun) -> Cost:
        """The start as measured, and every picture as a second extraction of the few takes."""
        context, config = smoke.context, self.config
        few = context.chosen(context.data.table)
        backbone = stage_backbone(context, self.name).to(devices.choose_device())
        transform = backbone.transform
        with measured() as reading:
            for key, box in few.frame.select("image", "box").iter_rows():
                transform.read(resolve_key(context.data.root, key), box)
        seconds = []
        for _ in range(PASSES):  # the quickest: the first are slow, and so is a busy moment
            with tempfile.TemporaryDirectory(dir=context.folder) as place, measured() as extracting:
                extract(
                    backbone, few, context.data.root, Path(place) / "store",
                    batch_size=config.batch_size, workers=0,
                    dtype=config.dtype, flip=config.flip, tokens=config.tokens, amp=config.amp,
                )  # fmt: skip
            seconds.append(extracting.seconds)
        computing = max(0.0, min(seconds) - reading.seconds)
        workers = worker_count(config.workers, devices.choose_device(), decodes=True)
        each = overlapped(reading.seconds, computing, workers) / len(few)
        pictures = len(self.context.data.table)
        store, _ = smoke.result.outputs["store"]
        start = max(0.0, smoke.cost.seconds - min(seconds))
        return replace(
            smoke.cost,
            seconds=start + each * pictures / current_processes().size,
            disk_bytes=_store_bytes(store, pictures / len(few)),
        )


def _store_bytes(store: Path, times: float) -> int:
    """The size of a feature store with so many times the pictures: its shards grow."""
    shards = sum(path.stat().st_size for path in store.glob("*.safetensors"))
    return round(folder_bytes(store) + shards * (times - 1))
