"""Stage `extract`: the backbone's features of all pictures, kept in a feature store."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from beholder.data.files import sha256_file
from beholder.data.images import resolve_key
from beholder.features import device as devices
from beholder.pipeline.checks import Problems
from beholder.pipeline.cost import Cost, folder_bytes, measured, overlapped
from beholder.pipeline.manifest import digest
from beholder.pipeline.origins import backbone_after, check_named, check_tuned
from beholder.pipeline.processes import current_processes
from beholder.pipeline.schema import Needs, Origin, RecipeOutline, StageConfig
from beholder.pipeline.stages.base import SmokeRun, Stage, StageResult
from beholder.pipeline.stages.shared import QUARANTINE, check_backbone, stage_backbone

PASSES = 3  # of the few pictures, for the estimate


def _is_auto(value: str) -> bool:
    """Such a field is left out where a stage is written: hashes of stages stay as they were."""
    return value == "auto"


class ExtractStage(StageConfig):
    """Run the backbone over all pictures once and keep its features."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"workers"})
    # a store holds pictures by content and can be added to
    content_fields: ClassVar[frozenset[str] | None] = frozenset({"dtype", "flip", "tokens", "amp"})

    kind: Literal["extract"]
    backbone: str | None = Field(
        None, description="one of the recipe's `backbones`; null: its `backbone`"
    )
    backbone_from: str | None = Field(
        None, description="train stage whose tuned backbone to use; null: one of the recipe's"
    )
    batch_size: int = Field(32, ge=1, description="pictures per forward pass")
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        "auto",
        description="decoding processes; 0: none beside the main one; auto: by cores and device",
    )
    dtype: Literal["float16", "float32"] = "float16"
    flip: bool = Field(False, description="mirror every picture left to right")
    tokens: bool = Field(True, description="keep the tokens too, which only comments need")
    amp: Literal["auto", "off", "bf16", "fp16"] = Field(
        "auto",
        exclude_if=_is_auto,
        description="arithmetic of the forward pass; auto: bf16 or fp16 on accelerators, off on "
        "the CPU",
    )

    @model_validator(mode="after")
    def _one_backbone(self) -> ExtractStage:
        if self.backbone and self.backbone_from:
            raise ValueError("backbone and backbone_from: choose one")
        return self

    def needs(self) -> Needs:
        return {self.backbone_from: ("train",)} if self.backbone_from else {}

    def origin(self, recipe: RecipeOutline) -> Origin:
        if self.backbone_from:
            return backbone_after(recipe, self.backbone_from)
        return Origin(self.backbone)

    def check_origin(self, recipe: RecipeOutline, name: str) -> None:
        check_named(recipe, name, self.backbone)
        check_tuned(recipe, name, self.backbone_from)


class Extract(Stage[ExtractStage]):
    """Runs one of the recipe's backbones, or a tuned one, over every row of the table, shared out
    over all processes."""

    schema = ExtractStage
    everywhere = True

    def check(self, problems: Problems) -> None:
        check_backbone(self.context, self.name, problems)

    def run(self, folder: Path) -> StageResult:
        from beholder.features.extract import extract

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
            processes=processes,
        )
        if not processes.is_main:
            return StageResult({})  # the first process writes for all
        quarantine = store / QUARANTINE
        if quarantine.exists():
            shutil.copyfile(quarantine, self.context.folder / QUARANTINE)
        else:
            (self.context.folder / QUARANTINE).unlink(missing_ok=True)
        # the index names the pictures, the card the backbone and all else that decides the features
        store_digest = digest(
            [sha256_file(store / name) for name in ("index.parquet", "store.json")]
        )
        return StageResult(
            outputs={"store": (store, store_digest)},
            metrics={
                "written": summary.written,
                "reused": summary.reused,
                "quarantined": summary.quarantined,
            },
        )

    def cost(self, smoke: SmokeRun) -> Cost:
        """The start as measured, and every picture as a second extraction of the few takes."""
        from beholder.features.extract import extract
        from beholder.features.workers import worker_count

        context, config = smoke.context, self.config
        few = context.chosen(context.data.table)
        backbone = stage_backbone(context, self.name).to(devices.choose_device())
        transform = backbone.transform
        with measured() as reading:
            for key, box in few.frame.select("image", "box").iter_rows():
                transform.read(resolve_key(context.data.root, key), box)
        seconds = []
        for _ in range(PASSES):  # the quickest: the first are slow, and so is a busy moment
            with (
                tempfile.TemporaryDirectory(dir=context.folder) as scratch,
                measured() as extracting,
            ):
                extract(
                    backbone, few, context.data.root, Path(scratch) / "store",
                    batch_size=config.batch_size, workers=0,
                    dtype=config.dtype, flip=config.flip, tokens=config.tokens, amp=config.amp,
                )  # fmt: skip
            seconds.append(extracting.seconds)
        computing = max(0.0, min(seconds) - reading.seconds)
        workers = worker_count(config.workers, devices.choose_device(), decodes=True)
        per_picture = overlapped(reading.seconds, computing, workers) / len(few)
        pictures = len(self.context.data.table)
        store, _ = smoke.result.outputs["store"]
        start = max(0.0, smoke.cost.seconds - min(seconds))
        return replace(
            smoke.cost,
            seconds=start + per_picture * pictures / current_processes().world_size,
            disk_bytes=_store_bytes(store, pictures / len(few)),
        )


def _store_bytes(store: Path, times: float) -> int:
    """The size of a feature store with so many times the pictures: its shards grow."""
    shards = sum(path.stat().st_size for path in store.glob("*.safetensors"))
    return round(folder_bytes(store) + shards * (times - 1))
