"""Commands that judge pictures: `judge` prints, `batch` writes files, `explain` draws."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from beholder.cli.options import (
    AnyJudge,
    AsDrift,
    BatchSize,
    DecodingThreads,
    GpusPerWorker,
    Images,
    ListOfPictures,
    OnDevice,
    Pictures,
    PrintFormat,
    RayAddress,
    WithBackend,
    Workers,
    check_pictures,
    refuse,
    requests_of,
)
from beholder.cli.table_options import with_table_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from beholder.data.formats import ReadOptions
    from beholder.judge import Judge
    from beholder.judge.runner import Request
    from beholder.judge.runtime.backends import Backend
    from beholder.judge.verdict import Judged

Engine = Literal["local", "ray"]

VERDICTS = (".jsonl", ".parquet", ".csv")


@with_table_options
def judge(
    context: typer.Context,
    model: AnyJudge,
    pictures: Pictures = None,
    listed: ListOfPictures = None,
    images: Images = None,
    output: PrintFormat = None,
    batch_size: BatchSize = 16,
    workers: DecodingThreads = None,
    backend: WithBackend = None,
    device: OnDevice = None,
    drift: AsDrift = False,
    file: Annotated[Path | None, typer.Option("--output", hidden=True)] = None,
    engine: Annotated[Engine, typer.Option(hidden=True)] = "local",
    ray_address: Annotated[str | None, typer.Option(hidden=True)] = None,
    gpus_per_worker: Annotated[float, typer.Option(min=0.0, hidden=True)] = 0.0,
    explain: Annotated[list[str] | None, typer.Option(hidden=True)] = None,
    into: Annotated[Path | None, typer.Option("--into", hidden=True)] = None,
    *,
    reading: ReadOptions,
) -> None:
    """Print score, comment and attributes of pictures, in input order, errors in place.

    `batch` writes them to a file that can be resumed; `explain` shows where they come from. Exit
    code 1 if some pictures could not be judged.
    """
    check_pictures(context, pictures, listed)
    if bool(explain) != bool(into):
        raise typer.BadParameter("--explain and --into go together: what to show, and where.")
    if drift:
        refuse(context, ("file", "explain", "into"), "does not go with --drift.")
        _print_drift(context, model, pictures, listed, images, output, batch_size, workers, backend,
                     reading)  # fmt: skip
        return
    if file:
        refuse(context, ("explain", "into", "output"), "is of what is printed: leave --output out.")
        _tell_moved("judge --output FILE", "batch --output FILE")
        _check_engine(context, file, engine)
        _write(context, model, pictures, listed, images, file, batch_size, workers, engine,
               ray_address, gpus_per_worker, backend, reading)  # fmt: skip
        return
    refuse(
        context,
        ("engine", "ray_address", "gpus_per_worker"),
        "goes with --engine ray of beholder batch.",
    )
    if explain and into:
        _tell_moved("judge --explain OPINION --into FOLDER", "explain --opinion OPINION --into ...")
    from beholder.judge import Judge

    requests, _ = requests_of(context, pictures, listed, images, reading)
    loaded = Judge.load(model, backend=backend)
    _print(loaded, requests, output, batch_size, workers, explain, into)


@with_table_options
def batch(
    context: typer.Context,
    model: AnyJudge,
    pictures: Pictures = None,
    listed: ListOfPictures = None,
    images: Images = None,
    *,
    file: Annotated[
        Path, typer.Option("--output", help="Write here, .jsonl or .parquet; resume if stopped.")
    ],
    batch_size: BatchSize = 16,
    workers: Workers = None,
    engine: Annotated[Engine, typer.Option(help="What runs the work.")] = "local",
    ray_address: RayAddress = None,
    gpus_per_worker: GpusPerWorker = 0.0,
    backend: WithBackend = None,
    device: OnDevice = None,
    reading: ReadOptions,
) -> None:
    """Write the verdicts on any number of pictures to a file, each picture once and in order.

    The same command resumes where an earlier one was stopped, even by kill -9. What could not be
    judged has an error in its place, and is listed beside the file. Exit code 1 if there is some.
    """
    check_pictures(context, pictures, listed)
    _check_engine(context, file, engine)
    _write(context, model, pictures, listed, images, file, batch_size, workers, engine, ray_address,
           gpus_per_worker, backend, reading)  # fmt: skip


@with_table_options
def explain(
    context: typer.Context,
    model: AnyJudge,
    pictures: Pictures = None,
    listed: ListOfPictures = None,
    images: Images = None,
    *,
    into: Annotated[Path, typer.Option("--into", help="Folder of the overlays.")],
    opinion: Annotated[
        list[str] | None,
        typer.Option(
            help="What to show: an attribute, or `score`; repeatable. Default: all that there are."
        ),
    ] = None,
    output: PrintFormat = None,
    batch_size: BatchSize = 16,
    workers: DecodingThreads = None,
    device: OnDevice = None,
    reading: ReadOptions,
) -> None:
    """Draw where in pictures opinions come from, and print the verdicts with the files' names.

    Needs a judge's folder: an exported file can't tell. Exit code 1 if some pictures could not be
    judged.
    """
    check_pictures(context, pictures, listed)
    from beholder.judge import Judge

    requests, _ = requests_of(context, pictures, listed, images, reading)
    loaded = Judge.load(model)
    opinions = opinion or loaded.explainable() or ["score"]
    _print(loaded, requests, output, batch_size, workers, opinions, into)


def _print_drift(
    context: typer.Context,
    model: Path,
    pictures: list[str] | None,
    listed: Path | None,
    images: Path | None,
    output: Literal["table", "jsonl", "csv"] | None,
    batch_size: int,
    workers: int | None,
    backend: Literal["onnxruntime", "openvino"] | None,
    reading: ReadOptions,
) -> None:
    """Print whether a batch, as pictures or as one file of verdicts, is unlike the training
    pictures."""
    import json

    from beholder.evaluation.drift import drift_of, drift_of_file
    from beholder.judge import Judge
    from beholder.judge.runner import judge_pictures

    if output == "csv":
        raise typer.BadParameter("--drift prints a sentence, or JSON with --format jsonl.")
    if pictures and len(pictures) == 1 and Path(pictures[0]).suffix in VERDICTS:
        drift = drift_of_file(Path(pictures[0]), Judge.load(model, backend=backend))
    else:
        requests, _ = requests_of(context, pictures, listed, images, reading)
        loaded = Judge.load(model, backend=backend)
        loaded.beam_size = None  # comments tell nothing of it
        judged = judge_pictures(loaded, requests, batch_size=batch_size, workers=workers)
        drift = drift_of(judged, loaded.calibration.familiarity)
    typer.echo(json.dumps(drift.to_dict()) if output == "jsonl" else str(drift))


def _print(
    loaded: Judge,
    requests: Sequence[Request],
    output: Literal["table", "jsonl", "csv"] | None,
    batch_size: int,
    workers: int | None,
    opinions: list[str] | None,
    into: Path | None,
) -> None:
    """Judge and print; leaves with 1 if some pictures could not be judged."""
    from beholder.batch.printing import print_verdicts
    from beholder.evaluation.overlays import with_overlays
    from beholder.judge.runner import judge_pictures
    from beholder.judge.verdict import Failure

    verdicts: Iterable[Judged] = judge_pictures(
        loaded, requests, batch_size=batch_size, workers=workers
    )
    if opinions and into:
        verdicts = with_overlays(loaded, requests, verdicts, opinions, into)
    printed = print_verdicts(verdicts, output or "table", loaded.classes)
    if sum(isinstance(judged, Failure) for judged in printed):
        raise typer.Exit(1)


def _check_engine(context: typer.Context, file: Path, engine: Engine) -> None:
    from beholder.batch.output import check_output

    if engine != "ray":
        refuse(context, ("ray_address", "gpus_per_worker"), "goes with --engine ray.")
    check_output(file, engine)


def _write(
    context: typer.Context,
    model: Path,
    pictures: list[str] | None,
    listed: Path | None,
    images: Path | None,
    file: Path,
    batch_size: int,
    workers: int | None,
    engine: Engine,
    ray_address: str | None,
    gpus_per_worker: float,
    backend: Backend | None,
    reading: ReadOptions,
) -> None:
    """Judge into a file; leaves with 1 if some pictures could not be judged."""
    requests, root = requests_of(context, pictures, listed, images, reading)
    if engine == "ray":
        from beholder.batch.ray import judge_on_ray

        done = judge_on_ray(
            model, requests, file, batch_size=batch_size, workers=workers, address=ray_address,
            backend=backend, gpus_per_worker=gpus_per_worker, images=root,
        )  # fmt: skip
    else:
        from beholder.batch.local import judge_to_file
        from beholder.batch.output import identity_of
        from beholder.judge import Judge

        loaded = Judge.load(model, backend=backend)
        done = judge_to_file(
            loaded, requests, file, identity=identity_of(model, backend), batch_size=batch_size,
            workers=workers, images=root,
        )  # fmt: skip
    typer.echo(f"Verdicts: {file}, {done}")
    if done.failed:
        raise typer.Exit(1)


def _tell_moved(before: str, now: str) -> None:
    typer.echo(f"beholder {before} is beholder {now} now; the old form goes away.", err=True)
