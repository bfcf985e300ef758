"""Runs a recipe: decides what must run, rehearses it, runs it, and writes the manifest.

A stage is done when the manifest records it with the same hash of inputs and its outputs are
there. What is not done works in `stages/<name>/<hash>/`, where a stage that was stopped finds its
own work again; the folder of an older configuration goes only after the new one is finished.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from beholder import __version__
from beholder.data.files import write_text
from beholder.errors import BeholderError
from beholder.pipeline.context import RunContext
from beholder.pipeline.data import load_data
from beholder.pipeline.lock import run_lock
from beholder.pipeline.manifest import Manifest, Output, StageRecord, load_manifest
from beholder.pipeline.origins import check_origins
from beholder.pipeline.plan import inputs_hash, stage_folder, stage_order, why_not_done
from beholder.pipeline.processes import Processes, current_processes
from beholder.pipeline.recipe import Recipe
from beholder.pipeline.stages import make_stage
from beholder.training.logs import log_file

log = logging.getLogger("beholder")


@dataclass(frozen=True)
class PlannedStage:
    """What a run would do with one stage; `reason` is empty when it is done already."""

    name: str
    kind: str
    reason: str
    estimated_seconds: float | None = None


def fit_recipe(recipe: Recipe, folder: Path, *, dry_run: bool = False) -> list[str]:
    """Run a recipe in a folder, or go on with it; only what has changed runs.

    Every stage that must run does one step for real before the first one starts, so that a mistake
    in the last stage is found before hours are spent on the others.

    Args:
        dry_run: rehearse and show the plan with its estimated cost, run nothing.

    Returns:
        Names of the stages that ran (dry run: that would run).

    Raises:
        BeholderError: the recipe, the data or a stage can't be used; another process works in
            the folder.
    """
    order = stage_order(recipe)
    check_origins(recipe)
    processes = current_processes()
    is_new = not folder.exists()
    # Under torchrun the first process holds the lock for all and does all that is not training.
    with run_lock(folder) if processes.first else nullcontext(), _console(folder, processes.first):
        try:
            context, plan = _prepare(recipe, folder, order, processes)
        except BeholderError:
            _forget(folder, is_new and processes.first)
            raise
        ahead = [stage.name for stage in plan if stage.reason]
        if dry_run:
            log.info("%s", render_plan(plan))
            _forget(folder, is_new and processes.first)
            return ahead
        if not ahead:
            log.info("Nothing to do: all %d stages of %s are done.", len(order), folder)
            return []
        if processes.first:
            _write_inputs(context)
        return [name for name in order if _run_if_needed(name, order, context, processes)]


def _prepare(
    recipe: Recipe, folder: Path, order: list[str], processes: Processes
) -> tuple[RunContext, list[PlannedStage]]:
    """Everything before the first stage: the data, what was done before, the rehearsal."""
    data = processes.first_then_others(lambda: load_data(recipe.data, folder))
    manifest = load_manifest(folder) or Manifest(
        name=recipe.name, seed=recipe.seed, code_version=__version__
    )
    context = RunContext(folder, recipe, data, manifest, rehearsing=True)
    plan = _rehearse(order, context)
    context.rehearsing = False
    return context, plan


def _forget(folder: Path, made_by_us: bool) -> None:
    """Leave no trace of a run that never started, in a folder that was not there before."""
    if made_by_us:
        shutil.rmtree(folder)


def _rehearse(order: list[str], context: RunContext) -> list[PlannedStage]:
    """Decide what must run, and let each of those do one step."""
    plan: list[PlannedStage] = []
    pending: set[str] = set()
    for name in order:
        config = context.recipe.stages[name]
        waits_for = [other for other in config.needs() if other in pending]
        reason = f"after {waits_for[0]}" if waits_for else why_not_done(name, context)
        estimate = None
        if reason:
            pending.add(name)
            estimate = make_stage(name, config, context).rehearse()
        plan.append(PlannedStage(name, config.kind, reason, estimate))
    return plan


def _run_if_needed(name: str, order: list[str], context: RunContext, processes: Processes) -> bool:
    """Run one stage unless its result still holds after those before it have run."""
    if not why_not_done(name, context):
        log.info("[%s] already done", name)
        return False
    stage = make_stage(name, context.recipe.stages[name], context)
    if not (processes.first or stage.everywhere):
        context.manifest = processes.from_first(context.manifest)
        return True
    inputs = inputs_hash(name, context)
    relative = stage_folder(name, context, inputs)
    place = context.folder / relative
    log.info("[%s] %s", name, context.recipe.stages[name].kind)
    started, clock = datetime.now(UTC), time.perf_counter()
    place.mkdir(parents=True, exist_ok=True)
    result = stage.run(place)
    if processes.first:
        record = StageRecord(
            name=name,
            kind=context.recipe.stages[name].kind,
            inputs_hash=inputs,
            code_version=__version__,
            config=context.recipe.stages[name].model_dump(mode="json"),
            outputs={
                key: Output(path=str(path.relative_to(context.folder)), sha256=sha)
                for key, (path, sha) in result.outputs.items()
            },
            metrics=result.metrics,
            signature=result.signature,
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - clock, 3),
        )
        context.manifest.put(record, order)
        context.manifest.save(context.folder)
        for old in place.parent.iterdir():
            if old != place:
                shutil.rmtree(old)
    context.manifest = processes.from_first(context.manifest)
    log.info("[%s] done in %.1f s", name, time.perf_counter() - clock)
    return True


def render_plan(plan: list[PlannedStage]) -> str:
    """The plan as a table for people."""
    width = max(len(stage.name) for stage in plan)
    lines = ["Plan:"]
    for stage in plan:
        cost = ""
        if stage.reason and stage.estimated_seconds is not None:
            cost = f"about {_duration(stage.estimated_seconds)}"
        lines.append(
            f"  {stage.name:<{width}}  {stage.kind:<9} "
            f"{'run: ' + stage.reason if stage.reason else 'done':<40} {cost}".rstrip()
        )
    total = sum(stage.estimated_seconds or 0.0 for stage in plan if stage.reason)
    lines.append(f"  about {_duration(total)} in all" if total else "  nothing to do")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _write_inputs(context: RunContext) -> None:
    """What this run works from, for people and for the report."""
    context.data.table.to_parquet(context.folder / "annotations.parquet")
    raw = context.recipe.model_dump(mode="json", exclude_unset=True)
    text = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)
    write_text(context.folder / "recipe.yaml", text)


@contextmanager
def _console(folder: Path, first: bool) -> Iterator[None]:
    """The log goes to the terminal and to the run's log.txt; of several processes the first's."""
    if not first:
        yield
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    with log_file(folder):
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)
