"""The command-line options of every command that reads a table, once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from beholder.data.formats import ReadOptions

TABLE_OPTIONS: dict[str, tuple[Any, Any]] = {
    "columns": (
        Annotated[
            list[str] | None,
            typer.Option(
                "--columns",
                metavar="ROLE=COLUMN",
                help="Which column is what, e.g. score=mos_quality or attribute.style=style; "
                "repeatable. The others are found.",
            ),
        ],
        None,
    ),
    "no_header": (
        Annotated[bool, typer.Option("--no-header", help="The first line is a row already.")],
        False,
    ),
    "separator": (
        Annotated[
            str | None,
            typer.Option(help="Between fields: a sign, or tab, comma, semicolon, pipe, blank."),
        ],
        None,
    ),
    "encoding": (
        Annotated[str | None, typer.Option(help="Of a text file, e.g. gb18030 or shift_jis.")],
        None,
    ),
    "root": (
        Annotated[
            str | None,
            typer.Option(help="What absolute names of pictures start with; it is taken off."),
        ],
        None,
    ),
    "lower_is_better": (
        Annotated[
            bool,
            typer.Option(
                "--lower-is-better",
                help="Scores say how bad pictures are (a DMOS); they are turned over.",
            ),
        ],
        False,
    ),
    "scale": (
        Annotated[
            tuple[float, float] | None,
            typer.Option(
                "--scale",
                "--score-range",
                metavar="LOW HIGH",
                help="Lowest and highest score that raters could give.",
            ),
        ],
        None,
    ),
}


_AS_THEY_ARE = ("separator", "encoding", "root", "lower_is_better")


def with_table_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options above; they reach it as `reading`, a `ReadOptions`."""
    # its type is for readers and checkers; it is not imported before a command runs
    command.__annotations__.pop("reading")
    hints = inspect.get_annotations(command, eval_str=True)
    signature = inspect.signature(command, eval_str=True)
    kept = [parameter for parameter in signature.parameters.values() if parameter.name != "reading"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter(name, keyword, default=default, annotation=annotation)
        for name, (annotation, default) in TABLE_OPTIONS.items()
    ]
    kept = [parameter.replace(kind=keyword) for parameter in kept]

    @functools.wraps(command)
    def called(**arguments: Any) -> None:
        table_options = {name: arguments.pop(name) for name in TABLE_OPTIONS}
        command(**arguments, reading=options_of(table_options))

    called.__signature__ = signature.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    annotations = {parameter.name: hints[parameter.name] for parameter in kept}
    called.__annotations__ = annotations | {n: a for n, (a, _) in TABLE_OPTIONS.items()}
    del called.__wrapped__
    return called


def options_of(table_options: dict[str, Any]) -> ReadOptions:
    """The options as a command line has them."""
    from beholder.data.formats.options import ReadOptions, columns_from

    return ReadOptions(
        columns=columns_from(table_options["columns"] or []),
        header=False if table_options["no_header"] else None,
        score_range=table_options["scale"],
        **{name: table_options[name] for name in _AS_THEY_ARE},
    )


def data_settings(reading: ReadOptions) -> dict[str, Any]:
    """What the options set in a recipe's `data`: only what was said."""
    settings: dict[str, Any] = {
        "columns": dict(reading.columns) or None,
        "header": reading.header,
        "separator": reading.separator,
        "encoding": reading.encoding,
        "root": None if reading.root is None else str(reading.root),
        "scale": None if reading.score_range is None else list(reading.score_range),
        "lower_is_better": reading.lower_is_better or None,
    }
    return {name: value for name, value in settings.items() if value is not None}
