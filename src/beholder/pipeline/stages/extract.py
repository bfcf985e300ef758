"""Stage `extract`: the backbone's features of all pictures, kept in a feature store."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import torch

from beholder.data.files import sha256_file
from beholder.data.images import resolve_key
from beholder.features import device as devices
from beholder.features.extract import extract
from beholder.pipeline.context import RunContext
from beholder.pipeline.manifest import digest
from beholder.pipeline.recipe import ExtractStage
from beholder.pipeline.stages.base import Stage, StageResult
from beholder.pipeline.stages.shared import QUARANTINE, first_readable, stage_backbone


class Extract(Stage):
    """Runs one of the recipe's backbones, or a tuned one, over every row of the table."""

    def __init__(self, name: str, config: ExtractStage, context: RunContext) -> None:
        super().__init__(name, context)
        self.config = config

    def rehearse(self) -> float:
        """One forward pass of a batch of the first readable picture; the time for all of them."""
        backbone = stage_backbone(self.context, self.name).to(devices.choose_device())
        data = self.context.data
        few = first_readable(data.table, data.root, 1)
        pixels = backbone.transform.read(resolve_key(data.root, few.keys[0]))
        batch = torch.from_numpy(np.stack([pixels] * self.config.batch_size))
        batch = batch.to(next(backbone.parameters()).device)
        with torch.inference_mode():
            backbone(batch[:1], tokens=self.config.tokens)
            clock = time.perf_counter()
            backbone(batch, tokens=self.config.tokens)
            seconds = time.perf_counter() - clock
        return seconds * len(data.table) / self.config.batch_size

    def run(self, folder: Path) -> StageResult:
        data = self.context.data
        store = folder / "store"
        summary = extract(
            stage_backbone(self.context, self.name).to(devices.choose_device()),
            data.table,
            data.root,
            store,
            batch_size=self.config.batch_size,
            workers=self.config.workers,
            dtype=self.config.dtype,
            flip=self.config.flip,
            tokens=self.config.tokens,
            amp=self.config.amp,
        )
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
