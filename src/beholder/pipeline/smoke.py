"""The smoke run: every stage that must run does, for real, on a few rows, in a folder that goes.

It finds what only doing the work can find, a mistake in the last stage before hours are spent on
the first, and it tells what the whole will take: each stage estimates its cost from what its smoke
run has taken.
"""

from __future__ import annotations

import logging
import shutil
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import polars as pl

from beholder.data.annotations import AnnotationTable
from beholder.data.images import read_image, resolve_key
from beholder.data.progress import ProgressBar, quiet
from beholder.data.sharing import Processes
from beholder.errors import DataError, PictureError
from beholder.pipeline.context import RunContext, SmokeContext
from beholder.pipeline.cost import Cost, folder_bytes, measured
from beholder.pipeline.data import RunData
from beholder.pipeline.manifest import Manifest, Output, StageRecord
from beholder.pipeline.stages import make_stage
from beholder.pipeline.stages.base import SmokeRun, StageResult
from beholder.version import __version__

log = logging.getLogger("beholder")

FOLDER = ".smoke-run"
# rows of each split; those to train on are enough for the folds of regressors
ROWS = {"train": 12, "val": 8, "test": 8}
UNLABELLED = 4
PER_OPINION = 2  # of each split, so that a stage has something to learn from and to compare with


def smoke_run(pending: list[str], context: RunContext, processes: Processes) -> dict[str, Cost]:
    """Run stages on a few rows.

    Args:
        pending: the stages that must run, in order.

    Returns:
        What each of the whole stages will take; in processes other than the main one nothing.

    Raises:
        BeholderError: a stage fails.
    """
    smoke_folder = context.folder / FOLDER
    if processes.is_main:
        shutil.rmtree(smoke_folder, ignore_errors=True)  # what a kill has left
        smoke_folder.mkdir(parents=True)
    keys = processes.broadcast(few_rows(context.data) if processes.is_main else [])
    few = SmokeContext(
        folder=smoke_folder,
        recipe=context.recipe,
        data=context.data,
        manifest=_where_they_are(context.manifest, context.folder),
        live=context.live,
        keys=frozenset(keys),
    )
    few.recipe = few.recipe.model_copy(
        update={
            "stages": {
                name: make_stage(name, config, few).smoke_config() if name in pending else config
                for name, config in context.recipe.stages.items()
            }
        }
    )
    costs: dict[str, Cost] = {}
    try:
        shown = nullcontext() if processes.is_main else quiet()
        with shown, ProgressBar("smoke run", len(pending), "stages") as bar:
            for name in pending:
                bar.advance(0, note=name)
                with quiet():
                    ran = _run(name, few, processes)
                    if processes.is_main:
                        stage = make_stage(name, context.recipe.stages[name], context)
                        costs[name] = stage.cost(ran)
                bar.advance()
    finally:
        if processes.is_main:
            shutil.rmtree(smoke_folder, ignore_errors=True)
    return costs


def few_rows(data: RunData) -> list[str]:
    """Image keys of a few rows: of every split, with something of every opinion that it has, of as
    many units as can be, all of pictures that can be read.

    Raises:
        DataError: not one of the training pictures can be read.
    """
    table = data.table
    chosen: list[str] = []
    for split, count in ROWS.items():
        rows = table.subset(split)
        for opinion in ("score", "attributes", "comment"):
            with_opinion = _by_unit(rows.with_opinion(opinion), data.units)
            chosen += _readable(with_opinion, data.root, PER_OPINION)
        chosen += _readable(_by_unit(rows, data.units), data.root, count)
        if split == "train" and not chosen and len(rows):
            raise DataError(
                f"Not one of the {len(rows)} training pictures can be read.",
                where=str(data.root),
                fix="Run `beholder check` to see them all.",
            )
    without = table.frame.filter(pl.col("split").is_null())["image"].to_list()
    chosen += _readable(without, data.root, UNLABELLED)
    return sorted(set(chosen))


def _by_unit(table: AnnotationTable, units: dict[str, str]) -> list[str]:
    """Image keys, such that the first ones are of different units."""
    seen: dict[str, int] = {}
    ranked = []
    for row, key in enumerate(table.keys):
        turn = seen[units[key]] = seen.get(units[key], -1) + 1
        ranked.append((turn, row, key))
    return [key for _, _, key in sorted(ranked)]


def _readable(keys: list[str], root: Path, count: int) -> list[str]:
    """The first so many whose pictures can be read."""

    def is_readable(key: str) -> bool:
        try:
            read_image(resolve_key(root, key))
        except PictureError:
            return False
        return True

    return list(islice(filter(is_readable, keys), count))


def _run(name: str, context: SmokeContext, processes: Processes) -> SmokeRun:
    """Run one stage and note its result in the smoke run's manifest."""
    stage = make_stage(name, context.recipe.stages[name], context)
    stage_folder = context.folder / "stages" / name
    stage_folder.mkdir(parents=True, exist_ok=True)
    result = StageResult({})
    with measured() as meter:
        if processes.is_main or stage.everywhere:
            result = stage.run(stage_folder)
    if processes.is_main:
        record = StageRecord(
            name=name,
            kind=context.recipe.stages[name].kind,
            inputs_hash="",
            code_version=__version__,
            config={},
            outputs={
                key: Output(path=str(path.relative_to(context.folder)), sha256=sha)
                for key, (path, sha) in result.outputs.items()
            },
            metrics=result.metrics,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=meter.seconds,
        )
        context.manifest.put(record, list(context.recipe.stages))
    context.manifest = processes.broadcast(context.manifest)
    disk = sum(folder_bytes(path) for path, _ in result.outputs.values())
    return SmokeRun(
        context, result, Cost(meter.seconds, meter.host_bytes, meter.device_bytes, disk)
    )


def _where_they_are(manifest: Manifest, folder: Path) -> Manifest:
    """A copy for another folder: outputs stay where they are."""
    copy = manifest.model_copy(deep=True)
    for record in copy.stages:
        for output in record.outputs.values():
            output.path = str((folder / output.path).absolute())
    return copy
