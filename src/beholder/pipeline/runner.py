"""Runs a recipe: decides what must run, checks and tries it, runs it, and writes the manifest.

A stage is done when the manifest records it with the same hash of inputs and its outputs are
there. What is not done works in `stages/<name>/<hash>/`, where a stage that was stopped finds its
own work again; the folder of an older configuration goes only after the new one is finished.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import yaml

from beholder.data.files import write_text
from beholder.data.sharing import Processes
from beholder.errors import BeholderError, MissingExtra
from beholder.pipeline.checks import Problems
from beholder.pipeline.context import RunContext
from beholder.pipeline.cost import Cost, left_bytes, measured
from beholder.pipeline.data import divide, open_table
from beholder.pipeline.estimates import (
    PlannedStage,
    check_disk,
    free_bytes,
    render_plan,
    render_total,
)
from beholder.pipeline.lock import run_lock
from beholder.pipeline.manifest import (
    Manifest,
    Output,
    StageRecord,
    file_states,
    load_manifest,
)
from beholder.pipeline.origins import check_origins
from beholder.pipeline.plan import (
    damaged_outputs,
    inputs_hash,
    may_be_done,
    stage_folder,
    stage_order,
    why_not_done,
)
from beholder.pipeline.processes import current_processes
from beholder.pipeline.recipe import Recipe
from beholder.pipeline.shared_run import check_shared_data, check_shared_folder
from beholder.pipeline.smoke import smoke_run
from beholder.pipeline.stages import make_stage
from beholder.training.logs import log_file
from beholder.version import __version__

log = logging.getLogger("beholder")


def fit_recipe(
    recipe: Recipe, folder: Path, *, dry_run: bool = False, verify: bool = False
) -> list[str]:
    """Run a recipe in a folder, or go on with it; only what has changed runs.

    Before the first stage starts, all that recipe, table and file headers tell is checked, in one
    message; then every stage that must run does so on a few rows, so that a mistake in the last one
    is found before hours are spent on the others.

    Args:
        dry_run: check, and show the plan with its estimated cost; run nothing.
        verify: read every file of the stages that are done, and run those again of which one was
            changed or damaged. Without it a file of the same size and time is taken for the same.

    Returns:
        Names of the stages that ran (dry run: that would run).

    Raises:
        BeholderError: the recipe, the data or a stage can't be used; another process works in
            the folder.
        MissingExtra: PyTorch or what belongs to it is not installed.
    """
    if any(find_spec(name) is None for name in ("torch", "torchvision", "timm")):
        raise MissingExtra("Running a recipe", "train")
    order = stage_order(recipe)
    check_origins(recipe)
    processes = current_processes()
    is_new = not folder.exists()
    # Under torchrun the first process holds the lock for all.
    main = processes.is_main
    with run_lock(folder) if main else nullcontext(), console(folder) if main else nullcontext():
        try:
            check_shared_folder(processes, recipe, folder)
            context, plan = _prepare(recipe, folder, order, processes, verify=verify)
        except BeholderError:
            _forget(folder, is_new and processes.is_main)
            raise
        ahead = [stage.name for stage in plan if stage.reason]
        if dry_run:
            log.info("%s", render_plan(plan, free_bytes(folder)))
            _forget(folder, is_new and processes.is_main)
            return ahead
        if processes.is_main:
            _write_inputs(context)
        if not ahead:
            log.info("Nothing to do: all %d stages of %s are done.", len(order), folder)
            return []
        log.info("%s", render_total(plan))
        return [name for name in order if _run_if_needed(name, order, context, processes)]


def estimate_recipe(recipe: Recipe, folder: Path) -> list[PlannedStage]:
    """What `fit_recipe` would do, each stage with its cost: everything is checked, what must run
    does so on a few rows, and nothing else runs. The folder stays.

    Raises:
        BeholderError: as `fit_recipe`.
    """
    order = stage_order(recipe)
    check_origins(recipe)
    with run_lock(folder), console(folder):
        return _prepare(recipe, folder, order, current_processes())[1]


def _prepare(
    recipe: Recipe,
    folder: Path,
    order: list[str],
    processes: Processes,
    *,
    verify: bool = False,
) -> tuple[RunContext, list[PlannedStage]]:
    """Everything before the first stage: the data, what was done before, checks, the smoke run."""
    manifest = load_manifest(folder)
    known = may_be_done(recipe, manifest)
    manifest = manifest or Manifest(name=recipe.name, seed=recipe.seed, code_version=__version__)
    opened = processes.main_first(lambda: open_table(recipe.data, folder))
    if not known:
        check(order, RunContext(folder, recipe, opened.undivided(), manifest))
    data = processes.main_first(lambda: divide(opened, recipe.data, folder))
    check_shared_data(processes, data)
    context = RunContext(folder, recipe, data, manifest, verify=verify)
    reasons = _reasons(order, context)
    pending = [name for name in order if reasons[name]]
    costs: dict[str, Cost] = {}
    if pending:
        check(pending, context)
        costs = smoke_run(pending, context, processes)
    plan = [
        PlannedStage(name, recipe.stages[name].kind, reasons[name], costs.get(name))
        for name in order
    ]
    if processes.is_main:
        check_disk(plan, folder)
    return context, plan


def check(names: list[str], context: RunContext) -> None:
    """Check stages by what recipe, table and file headers tell.

    Raises:
        BeholderError: everything that is wrong with them.
    """
    problems = Problems()
    for name in names:
        make_stage(name, context.recipe.stages[name], context).check(problems)
    problems.raise_all()


def _forget(folder: Path, made_by_us: bool) -> None:
    """Leave no trace of a run that never started, in a folder that was not there before."""
    if made_by_us:
        shutil.rmtree(folder)


def _reasons(order: list[str], context: RunContext) -> dict[str, str]:
    """Why each stage must run; empty if its result still holds."""
    reasons: dict[str, str] = {}
    for name in order:
        needs = context.recipe.stages[name].needs()
        waits_for = [other for other in needs if reasons[other]]
        reasons[name] = f"after {waits_for[0]}" if waits_for else why_not_done(name, context)
    return reasons


def _run_if_needed(name: str, order: list[str], context: RunContext, processes: Processes) -> bool:
    """Run one stage unless its result still holds after those before it have run."""
    if not why_not_done(name, context):
        log.info("[%s] already done", name)
        return False
    stage = make_stage(name, context.recipe.stages[name], context)
    if not (processes.is_main or stage.everywhere):
        context.manifest = processes.broadcast(context.manifest)
        return True
    inputs = inputs_hash(name, context)
    relative = stage_folder(name, context)
    work_folder = context.folder / relative
    log.info("[%s] %s", name, context.recipe.stages[name].kind)
    started = datetime.now(UTC)
    work_folder.mkdir(parents=True, exist_ok=True)
    if processes.is_main:
        for path, change in damaged_outputs(name, context):
            if not change.rest_is_whole:  # else it may save work
                _remove(path)
    with measured() as meter:
        result = stage.run(work_folder)
    if processes.is_main:
        record = StageRecord(
            name=name,
            kind=context.recipe.stages[name].kind,
            inputs_hash=inputs,
            code_version=__version__,
            config=context.recipe.stages[name].model_dump(mode="json"),
            outputs={
                key: Output(
                    path=str(path.relative_to(context.folder)),
                    sha256=sha,
                    files=file_states(path),
                )
                for key, (path, sha) in result.outputs.items()
            },
            metrics=result.metrics,
            signature=result.signature,
            started=started.isoformat(timespec="seconds"),
            seconds=round(meter.seconds, 3),
            host_bytes=meter.host_bytes,
            device_bytes=meter.device_bytes,
            disk_bytes=left_bytes(work_folder, [path for path, _ in result.outputs.values()]),
        )
        context.manifest.put(record, order)
        context.manifest.save(context.folder)
        for old in work_folder.parent.iterdir():
            if old != work_folder and old.is_dir():  # a file was put there by others
                shutil.rmtree(old)
    context.manifest = processes.broadcast(context.manifest)
    log.info("[%s] done in %.1f s", name, meter.seconds)
    return True


def _remove(path: Path) -> None:
    """A damaged output, so that its stage makes it again rather than goes on with it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_inputs(context: RunContext) -> None:
    """What this run works from, for people and for the report."""
    context.data.table.to_parquet(context.folder / "annotations.parquet")
    raw = context.recipe.model_dump(mode="json", exclude_unset=True)
    text = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)
    path = context.folder / "recipe.yaml"
    if not path.exists() or path.read_text("utf-8") != text:
        write_text(path, text)


@contextmanager
def console(folder: Path) -> Iterator[None]:
    """The log goes to the terminal and to the run's log.txt."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    with log_file(folder):
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)
