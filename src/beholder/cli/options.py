"""Arguments and options that several commands have, and what is said of those that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from beholder.cli.table_options import TABLE_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from beholder.data.formats import ReadOptions
    from beholder.judge.runner import Request


def _use_device(context: typer.Context, device: str | None) -> str | None:
    """For the command that is called, everything in this process works on the device."""
    from beholder.features.device import using_device

    context.with_resource(using_device(device))
    return device


OnDevice = Annotated[
    str | None,
    typer.Option(
        "--device",
        callback=_use_device,
        help="cpu, cuda, cuda:1, mps, ...; default: BEHOLDER_DEVICE, else the best there is.",
    ),
]
WithBackend = Annotated[
    Literal["onnxruntime", "openvino"] | None,
    typer.Option("--backend", help="What runs an exported file; default: onnxruntime."),
]


def _found_judge(model: Path) -> Path:
    from beholder.judge.store.find import find_judge

    return find_judge(model)


AnyJudge = Annotated[
    Path,
    typer.Argument(
        help="A judge: the folder that `fit` wrote, an exported file, `starter`, or owner/name on "
        "the Hub.",
        callback=_found_judge,
    ),
]
Pictures = Annotated[list[str] | None, typer.Argument(help="Pictures, folders or globs.")]
ListOfPictures = Annotated[
    Path | None,
    typer.Option("--list", help="Table or list that names them, of any kind, with boxes or not."),
]
Images = Annotated[
    Path | None, typer.Option("--images", help="Folder that the image keys start from.")
]
Codebook = Annotated[
    Path | None, typer.Option(help="File with the names of the attributes' values.")
]
TextOrJson = Annotated[Literal["text", "json"], typer.Option("--format", help="How to print.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Pictures judged at a time.")]
DecodingThreads = Annotated[
    int | None, typer.Option(min=1, help="Threads that decode. Default: one per core.")
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Threads that decode; on Ray processes. Default: one per core."),
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="A running Ray cluster, HOST:PORT or auto; default: one of this call."),
]
GpusPerWorker = Annotated[
    float, typer.Option(min=0.0, help="On Ray: GPUs of each process, or a share of one.")
]
PrintFormat = Annotated[
    Literal["table", "jsonl", "csv"] | None,
    typer.Option("--format", help="How to print; default: table."),
]
AsDrift = Annotated[
    bool,
    typer.Option(
        "--drift",
        help="Print one sentence instead: whether the pictures as a whole are unlike those that "
        "the judge was trained on. PICTURES may be a file of verdicts, too.",
    ),
]


def refuse(context: typer.Context, names: tuple[str, ...], why: str) -> None:
    """Refuse options that this form of a command does not read.

    Args:
        names: of the parameters.
        why: the rest of a sentence that begins with the option.

    Raises:
        typer.BadParameter: one of them was given on the command line.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is not None and source.name == "COMMANDLINE":
            flag = parameter.opts[0]
            raise typer.BadParameter(f"{flag if flag[0] == '-' else parameter.name.upper()} {why}")


def requests_of(
    context: typer.Context,
    pictures: list[str] | None,
    listed: Path | None,
    images: Path | None,
    reading: ReadOptions,
) -> tuple[Sequence[Request], Path | None]:
    """The pictures that a command names, and the folder that the names of a list start from;
    pictures inside a table are unpacked for as long as the command runs, and have no such folder.

    Raises:
        typer.BadParameter: neither pictures nor a list are named, or both.
        DataError: there is no picture.
    """
    from beholder.batch.requests import find_pictures, listed_pictures
    from beholder.data.unpacked_pictures import pictures_at_hand

    if listed is None:
        return find_pictures(pictures or []), None
    unpacked = context.with_resource(pictures_at_hand(listed, images, reading))
    inside = images is None and unpacked is not None
    root = None if inside else images or listed.parent
    return listed_pictures(listed, unpacked, reading), root


def check_pictures(context: typer.Context, pictures: list[str] | None, listed: Path | None) -> None:
    """Raises:
    typer.BadParameter: neither pictures nor a list are named, or both, or an option that goes
        with a list is given without one.
    """
    if bool(pictures) == bool(listed):
        raise typer.BadParameter("Name pictures, or a file that lists them with --list.")
    if not listed:
        refuse(context, ("images", *TABLE_OPTIONS), "goes with --list.")


def check_device() -> None:
    """A device that was asked for and is not there is told before minutes are spent."""
    from beholder.features.device import asked_device, choose_device

    if asked_device():
        choose_device()
