"""`train`: a judge of one's own table in some minutes; `recipes`: for those who want to say how."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from beholder.cli.options import Codebook, OnDevice, check_device
from beholder.cli.table_options import data_settings, with_table_options

if TYPE_CHECKING:
    from beholder.auto.teachable import Opinion
    from beholder.data.formats import ReadOptions


@with_table_options
def train(
    table: Annotated[Path, typer.Argument(help="Table of opinions, or a folder per class.")],
    pictures: Annotated[
        Path | None,
        typer.Argument(help="Folder of its pictures; default: beside the table, or inside it."),
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="Folder of the run; default: runs/ and the table's name.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=1.0, help="About how long it may take.")] = 10.0,
    max_mb: Annotated[
        float, typer.Option(min=0.001, help="Most that the one file may have; 1 MB is 10^6 bytes.")
    ] = 25.0,
    backbone: Annotated[
        list[str] | None,
        typer.Option(help="Learn from this backbone's features; repeatable, they are compared."),
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Learn these alone: score, attributes, comments.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What report and card call the judge; default: the folder.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of splits, initial weights and order.")] = 0,
    codebook: Codebook = None,
    device: OnDevice = None,
    *,
    reading: ReadOptions,
) -> None:
    """Make a judge of a table of opinions, and say how good it is.

    Example: `beholder train opinions.csv photos/ --minutes 10`. What the table has opinions for is
    learnt: scores, labels, comments. The same command goes on where it was stopped.
    """
    from beholder.auto import train as train_table

    check_device()
    settings = data_settings(reading) | ({"codebook": str(codebook)} if codebook else {})
    trained = train_table(
        table, pictures, into=into, minutes=minutes, max_mb=max_mb, backbones=backbone or (),
        only=_opinions(only), name=name, seed=seed, reading=settings, tell=typer.echo,
    )  # fmt: skip
    folder = trained.folder
    typer.echo(f"Judge:  {folder / 'judge'}")
    typer.echo(f"Report: {trained.report}")
    typer.echo(
        f"Recipe: {folder / 'recipe.yaml'}   (what was run; change it and `beholder fit` it)"
    )
    typer.echo(f"Doubts: beholder doubtful {folder}   (opinions that are probably mistakes)")
    typer.echo(f"Try it: beholder judge {folder / 'judge'} PICTURES")
    typer.echo(f"Serve:  beholder serve {folder / 'judge'}")


def _opinions(only: str | None) -> list[Opinion]:
    from beholder.auto.teachable import Opinion

    names = [name.strip() for name in (only or "").split(",") if name.strip()]
    known: tuple[Opinion, ...] = get_args(Opinion)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise typer.BadParameter(
            f"{unknown[0]!r} is not an opinion: name some of {', '.join(known)}.",
            param_hint="--only",
        )
    return [opinion for opinion in known if opinion in names]


recipes = typer.Typer(help="The recipes that come with Beholder.", invoke_without_command=True)


@recipes.callback()
def list_recipes(context: typer.Context) -> None:
    """List the recipes that come with Beholder, each with a line on what it makes."""
    if context.invoked_subcommand is not None:
        return
    from beholder.pipeline.recipe import shipped_recipes

    paths = shipped_recipes()
    width = max(map(len, paths))
    for name, path in paths.items():
        typer.echo(f"{name:<{width}}  {_first_sentence(path)}")
    typer.echo("\nRead one with `beholder recipes show NAME`, run it with `beholder fit NAME`.")


@recipes.command()
def show(
    name: Annotated[str, typer.Argument(help="Of a recipe that is shipped, or a file.")],
) -> None:
    """Print a recipe, with its comments: save it, change it, `beholder fit` it."""
    from beholder.pipeline.recipe import find_recipe

    typer.echo(find_recipe(name).read_text("utf-8"), nl=False)


@recipes.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    import json

    from beholder.pipeline.recipe import Recipe

    typer.echo(json.dumps(Recipe.model_json_schema(), ensure_ascii=False, indent=2))


def _first_sentence(path: Path) -> str:
    """Of the comment that a recipe begins with."""
    lines = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").strip())
    return " ".join(lines).split(". ")[0].rstrip(".:")
