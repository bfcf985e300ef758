"""`beholder train`: a table of opinions and a folder of pictures become a judge in some minutes.

The table is read, candidates for the features are compared by cross-validation, what is best
becomes a recipe, the recipe is run, and plain sentences say how good the judge is.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from beholder.auto.compose import compose
from beholder.auto.plan import Plan, compared, leaderboard_rows, matching_plan, read_plan
from beholder.auto.run_insights import (
    copied_comments_cider,
    cross_validated,
    learning_curves,
    weakest_slice,
)
from beholder.auto.search import Search, Standing, candidates_of
from beholder.auto.summary import nothing_held_out, render_leaderboard, sentences
from beholder.auto.teachable import Opinion, find_opinions
from beholder.data.files import atomic_path, write_text
from beholder.data.progress import warnings_only
from beholder.errors import BeholderError, DataError
from beholder.pipeline.data import RunData, load_data
from beholder.pipeline.manifest import digest
from beholder.pipeline.recipe import DataConfig, Recipe, parse_recipe
from beholder.report.collect import PLAN, SENTENCES

if TYPE_CHECKING:
    from beholder.judge import Judge

log = logging.getLogger("beholder")

SEARCH_SHARE = 0.25  # of the minutes, at most, for comparing candidates
MOST_EPOCHS = 40  # passes over the comments
ENDING = 15.0  # seconds for report and sentences
FEW_GROUPS = 40
SPLIT_OF_FEW = {"train": 0.6, "val": 0.2, "test": 0.2}


@dataclass(frozen=True)
class Trained:
    """A finished training: its folder, and what is in it."""

    folder: Path
    sentences: tuple[str, ...]

    @cached_property
    def judge(self) -> Judge:
        """The judge, loaded when it is first asked for."""
        from beholder.judge import Judge

        return Judge.load(self.folder / "judge")

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Of the pictures that were held out; empty where none were."""
        path = self.folder / "evaluation" / "metrics.json"
        return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}

    @cached_property
    def leaderboard(self) -> pl.DataFrame:
        """The candidates that were compared, best first: skill and its parts, seconds, pictures."""
        return pl.DataFrame(leaderboard_rows(read_plan(self.folder / PLAN)))

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"


def train(
    table: str | Path | pl.DataFrame | Any,
    images: str | Path | None = None,
    *,
    into: str | Path | None = None,
    minutes: float = 10.0,
    max_mb: float = 25.0,
    backbones: Sequence[str] = (),
    only: Sequence[Opinion] = (),
    name: str | None = None,
    seed: int = 0,
    reading: Mapping[str, Any] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Trained:
    """Make a judge of a table of opinions.

    Args:
        table: a file that `beholder check` reads, or a frame of polars or pandas.
        images: the folder that the table's pictures are in; None: beside the table, or inside it.
        into: folder of the run; None: `runs/` and the table's name. What an earlier call with the
            same table and wishes has done there is not done again.
        minutes: about how long it may take, at least 1: a quarter of it for comparing features (one
            candidate is always compared), what is left for passes over the comments. Reading
            pictures and training the other heads take what they take.
        max_mb: megabytes (10^6 bytes) that the exported file may have.
        backbones: by the names that recipes use; empty: the one that needs no network.
        only: opinions to learn, of `score`, `attributes`, `comments`; empty: all that there are.
        name: what the judge is called in its report and card; None: the name of its folder.
        seed: of splits, initial weights and order.
        reading: further settings of a recipe's `data`, e.g. `columns` or `scale`.
        tell: is given the sentences and the leaderboard; None: they go to the log.

    Raises:
        BeholderError: the table can't be read, or nothing can be learnt from it.
        DataError: fewer minutes than one.
    """
    began = time.monotonic()
    if minutes < 1:
        raise DataError("A training needs at least one minute.", fix="Give it more minutes.")
    folder = Path(into) if into else Path("runs") / _stem(table)
    from beholder.pipeline.runner import console, fit_recipe

    with _kept_if_planned(folder), console(folder):
        settings = _data_settings(table, images, folder, reading or {})
        wishes = {"name": name or folder.name, "data": settings, "seed": seed, "megabytes": max_mb}
        data = _divided(settings, folder)
        teachable = find_opinions(data.table, only)
        for note in teachable.notes:
            log.warning("%s", note)
        log.info("learning %s", ", ".join(teachable.opinions))
        made_from = digest([data.digest, teachable.opinions, backbones, seed, minutes, max_mb])
        plan = matching_plan(folder, made_from)
        if plan is None:
            search = _search(data, teachable.opinions, folder, seed)
            standings = search.compare(candidates_of(backbones), SEARCH_SHARE * 60 * minutes)
            left = 60 * minutes - (time.monotonic() - began)
            plan = _planned(standings, made_from, teachable.opinions, data, wishes, folder, left)
            plan.save(folder)
    fit_recipe(_recipe(plan, data, wishes, folder), folder)
    return _finished(plan, data, folder, tell or log.info)


def _planned(
    standings: Sequence[Standing],
    made_from: str,
    opinions: tuple[Opinion, ...],
    data: RunData,
    wishes: Mapping[str, Any],
    folder: Path,
    seconds: float,
) -> Plan:
    """The plan that the standings lead to, with as many passes over comments as there is time."""
    plan = Plan(
        made_from=made_from,
        opinions=opinions,
        leaderboard=tuple(compared(standing) for standing in standings),
        comment_epochs=MOST_EPOCHS,
    )
    if "comments" not in opinions:
        return plan
    return _within(plan, data, wishes, folder, seconds)


@contextmanager
def _kept_if_planned(folder: Path) -> Iterator[None]:
    """A training that never began leaves no trace in a folder that was not there before."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BeholderError:
        if is_new:
            shutil.rmtree(folder)
        raise


def _stem(table: object) -> str:
    return Path(table).stem or "run" if isinstance(table, (str, Path)) else "run"


def _data_settings(
    table: object, images: str | Path | None, folder: Path, reading: Mapping[str, Any]
) -> dict[str, Any]:
    """The recipe's `data`; a frame is written into the run first."""
    if not isinstance(table, (str, Path)):
        if images is None:
            raise DataError("A frame does not say where its pictures are.", fix="Give images=...")
        frame = table if isinstance(table, pl.DataFrame) else pl.from_pandas(table)
        path = folder / "table.parquet"
        with atomic_path(path) as temporary:
            frame.write_parquet(temporary)
        table = path
    settings: dict[str, Any] = {"annotations": str(table), "score_name": "score", **reading}
    if images is not None:
        settings["images"] = str(images)
    return settings


def _divided(settings: dict[str, Any], folder: Path) -> RunData:
    """The table and its pictures, divided; where there are few groups more of them are held out,
    as figures of one or two groups say little. `settings` then say so."""
    data = load_data(DataConfig.model_validate(settings), folder)
    if "split" in settings or len(set(data.units.values())) >= FEW_GROUPS:
        return data
    with warnings_only(log.name):  # all else has been told
        settings["split"] = SPLIT_OF_FEW
        return load_data(DataConfig.model_validate(settings), folder)


def _search(data: RunData, opinions: tuple[Opinion, ...], folder: Path, seed: int) -> Search:
    """Compares features on all pictures but those that are held out."""
    frame = data.table.frame.filter(pl.col("split").is_in(["train", "val"]))
    return Search(
        data.table.with_frame(frame), data.units, data.root, folder / "search", opinions, seed
    )


def _recipe(plan: Plan, data: RunData, wishes: Mapping[str, Any], folder: Path) -> Recipe:
    """The recipe that the plan stands for."""
    keys = data.table.frame.filter(pl.col("split").is_in(["train", "val"]))["image"]
    raw = compose(
        _plain_name(wishes["name"]),
        wishes["data"],
        data.table,
        plan.opinions,
        plan.chosen,
        seed=wishes["seed"],
        megabytes=wishes["megabytes"],
        groups=len({data.units[key] for key in keys}),
        comment_epochs=plan.comment_epochs,
    )
    return parse_recipe(raw, where=str(folder / "recipe.yaml"))


def _plain_name(name: str) -> str:
    """A recipe's name has no blanks and signs."""
    plain = "".join(sign if sign.isalnum() or sign in "_.-" else "-" for sign in name)
    return plain.lstrip(".-") or "run"


def _within(
    plan: Plan, data: RunData, wishes: Mapping[str, Any], folder: Path, seconds: float
) -> Plan:
    """The plan with so many passes over the comments as there is time for. All else is extraction,
    which has been measured, and heads, which take seconds."""
    from beholder.pipeline.runner import estimate_recipe

    began = time.monotonic()
    recipe = _recipe(plan, data, wishes, folder)
    of_comments = {name: recipe.stages[name] for name in ("features", "comments")}
    with warnings_only(log.name):
        stages = estimate_recipe(recipe.model_copy(update={"stages": of_comments}), folder)
    tried = time.monotonic() - began
    costs = {stage.name: stage.cost.seconds for stage in stages if stage.cost}
    left = seconds - 2 * tried - ENDING - costs.get("features", 0.0)
    epochs = int(plan.comment_epochs * left / costs["comments"]) if "comments" in costs else 1
    chosen = max(1, min(MOST_EPOCHS, epochs))
    log.info("%d passes over the comments", chosen)
    return plan.model_copy(update={"comment_epochs": chosen})


def _finished(plan: Plan, data: RunData, folder: Path, tell: Callable[[str], None]) -> Trained:
    """Write sentences and report, and tell them."""
    from beholder.report import write_report

    trained = Trained(folder, tuple(_sentences(plan, data, folder)))
    write_text(folder / SENTENCES, "\n".join(trained.sentences) + "\n")
    write_report(folder)
    tell("Compared features:")
    tell(render_leaderboard(trained.leaderboard))
    tell("\n".join(["", *trained.sentences, ""]))
    return trained


def _sentences(plan: Plan, data: RunData, folder: Path) -> list[str]:
    test = data.table.subset("test")
    metrics = Trained(folder, ()).metrics
    if len(test) == 0 or not metrics:
        return nothing_held_out(plan.chosen)
    return sentences(
        metrics,
        data.table,
        test_groups=len({data.units[key] for key in test.keys}),
        neighbour_cider=copied_comments_cider(data, folder) if "comments" in metrics else None,
        curves=learning_curves(data, folder, plan.opinions),
        weakest=weakest_slice(data, folder) if "score" in plan.opinions else None,
        crossed=cross_validated(data, folder),
    )
