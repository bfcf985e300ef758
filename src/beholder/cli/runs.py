"""Commands that make runs and look at them: `demo`, `check`, `fit`, `report`, `doubtful`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from beholder.cli.options import Codebook, Images, OnDevice, TextOrJson, check_device
from beholder.cli.table_options import data_settings, with_table_options

if TYPE_CHECKING:
    from beholder.data.formats import ReadOptions


def demo(
    run: Annotated[Path, typer.Option("--into", help="Folder of the run.")] = Path("runs/demo"),
    device: OnDevice = None,
) -> None:
    """Train and evaluate a judge on the embedded sample: real photographs, synthetic opinions."""
    _fit("demo", (), run, dry_run=False)
    from beholder.data.files import write_text
    from beholder.pipeline.demo import summarise_demo, told_of_starter
    from beholder.report import write_report
    from beholder.report.collect import SENTENCES

    write_text(run / SENTENCES, told_of_starter(run) + "\n")
    write_report(run)
    typer.echo(summarise_demo(run))


@with_table_options
def check(
    data: Annotated[Path, typer.Argument(help="Table of opinions, or a folder per class.")],
    images: Images = None,
    data_format: Annotated[
        str, typer.Option("--data-format", help="Format of the table; auto: by its header.")
    ] = "auto",
    codebook: Codebook = None,
    output: TextOrJson = "text",
    *,
    reading: ReadOptions,
) -> None:
    """Say how a table of opinions is read, and list everything wrong with it and its pictures.

    Without `--images` pictures are opened only where they are inside the table. Where the table
    says who gave which score, also tell how far its raters can be trusted, and what a perfect model
    could reach. Exit code 2 if there are errors, 0 if there are only warnings.
    """
    from beholder.data.check import read_and_check, render_json, render_text
    from beholder.metrics.opinion_check import check_opinions, render_opinions

    options = replace(reading, format=data_format, codebook=codebook)
    checked = read_and_check(data, images, options=options)
    opinions = check_opinions(checked.table) if checked.table is not None else None
    if output == "json":
        further = {"opinions": opinions.to_dict()} if opinions else {}
        typer.echo(render_json(checked.problems, read=checked.read.to_dict(), **further))
    else:
        if checked.table is not None:
            typer.echo("\n".join(checked.read.lines()) + "\n")
        typer.echo(render_text(checked.problems))
        if opinions:
            typer.echo(f"\n{render_opinions(opinions)}")
    if any(problem.severity == "error" for problem in checked.problems):
        raise typer.Exit(2)


@with_table_options
def fit(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of one that is shipped.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, e.g. stages.score.training.epochs=3")
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--into", help="Folder of the run; default runs/<recipe name>.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check, run every stage on a few rows, and show what the whole would take.",
        ),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Read every file that earlier stages left, and make again what was damaged; "
            "without it a file of the same size and time is taken for the same.",
        ),
    ] = False,
    device: OnDevice = None,
    *,
    reading: ReadOptions,
) -> None:
    """Run a recipe: only what has changed since the last time, and what depends on it."""
    data = data_settings(reading)
    _fit(recipe, overrides or (), run, dry_run=dry_run, verify=verify, data=data)


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
) -> None:
    """Write RUN/report.html again from what the run has produced."""
    from beholder.report import write_report

    typer.echo(f"Report: {write_report(run)}")


def doubtful(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the pictures; default: where they were in the run."),
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Pictures of each kind on the page.")] = 60,
) -> None:
    """List opinions of a run's table that are probably mistakes, for a person to go through.

    Scores and labels that what has not seen the picture finds implausible, the most doubtful first:
    all in RUN/doubtful.csv, the first ones with thumbnails in RUN/doubtful.html.
    """
    from beholder.auto.doubtful import CSV, PAGE, render_first, write_doubtful

    ranked = write_doubtful(run, images, most)
    typer.echo("\n".join(f"{kind}: {words}" for kind, words in ranked.covered.items()))
    typer.echo(f"\nMost doubtful:\n{render_first(ranked.rows)}\n")
    typer.echo(f"All of them: {run / CSV}")
    typer.echo(f"To look at:  {run / PAGE}")


def _fit(
    recipe: str,
    overrides: Sequence[str],
    run: Path | None,
    *,
    dry_run: bool,
    verify: bool = False,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Run a recipe, its `data` changed by what the command says of the table, and, when anything
    has run, write its report."""
    from beholder.pipeline.recipe import find_recipe, load_recipe
    from beholder.pipeline.runner import fit_recipe

    check_device()
    loaded = load_recipe(find_recipe(recipe), overrides, data=data)
    folder = run or Path("runs") / loaded.name
    ran = fit_recipe(loaded, folder, dry_run=dry_run, verify=verify)
    if not dry_run and (ran or not (folder / "report.html").exists()) and _is_main_process():
        from beholder.report import write_report

        typer.echo(f"Report: {write_report(folder)}")


def _is_main_process() -> bool:
    """Under torchrun only the main process writes and tells."""
    return os.environ.get("RANK", "0") == "0"
