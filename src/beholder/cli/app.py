"""The commands together, and what an error of each looks like. Heavy imports happen inside the
commands.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from beholder.cli.evaluating import evaluate
from beholder.cli.judges import card, export, import_, serve, submit
from beholder.cli.runs import check, demo, doubtful, fit, report
from beholder.cli.training import recipes, train
from beholder.cli.verdicts import batch, explain, judge
from beholder.errors import BeholderError
from beholder.version import __version__

INTERRUPTED = 130  # exit code: 128 and the number of SIGINT
_RESUMED = ("batch", "demo", "fit", "train")  # commands that go on with what is there
_UTF_8 = ("utf-8", "utf8")


class _Commands(TyperGroup):
    """The commands; typer itself would end one that is interrupted as if it had failed."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            kept = " What was finished is kept; the same command goes on with it."
            resumed = ctx.invoked_subcommand in _RESUMED
            sys.stderr.write(f"Interrupted.{kept if resumed else ''}\n")
            sys.exit(INTERRUPTED)


app = typer.Typer(
    cls=_Commands,
    name="beholder",
    help="Train, evaluate and use small models that look at a picture and say what people "
    "would say about it: a score, a comment, attributes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (
    demo, check, train, fit, judge, batch, explain, evaluate, export, card, submit, serve, report,
    doubtful,
):  # fmt: skip
    app.command()(command)
app.command("import")(import_)
app.add_typer(recipes, name="recipes")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"beholder {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print it, and end."
        ),
    ] = False,
) -> None:
    """Options before any command."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: prints a user's error without a traceback and leaves with its exit code; any
    other error in a sentence too, with a file that holds its traceback, and exit code 1."""
    _write_any_character()
    try:
        app(args=arguments)
    except BeholderError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001  # the last guard
        _tell_unexpected(error, sys.argv[1:] if arguments is None else arguments)
        sys.exit(1)


def _write_any_character() -> None:
    """What is piped or kept in a file is UTF-8 in any locale; a terminal shows what it can."""
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper) or stream.encoding.lower() in _UTF_8:
            continue
        if stream.isatty():
            stream.reconfigure(errors="backslashreplace")
        else:
            # names come back as the bytes that they are
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")


def _tell_unexpected(error: Exception, arguments: Sequence[str]) -> None:
    from beholder.data.error_reports import describe, write_error_report

    report = write_error_report(error, arguments)
    if os.environ.get("BEHOLDER_DEBUG", "") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
    kept = f"The file {report} says where" if report else "BEHOLDER_DEBUG=1 shows where"
    sys.stderr.write(
        f"error: Beholder failed, which is its own fault: {describe(error)}\n"
        f"  fix:   {kept}; report it with the command that you gave.\n"
    )
