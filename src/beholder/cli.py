"""The commands, each a few lines over the library. Heavy imports happen inside the commands."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from beholder.errors import BeholderError, MissingExtra
from beholder.pipeline.table_options import data_settings, with_table_options

if TYPE_CHECKING:
    from beholder.data.formats import ReadOptions
    from beholder.judge.runner import Request
    from beholder.judge.runtime.backends import Backend

INTERRUPTED = 130  # exit code: 128 and the number of SIGINT


class _Commands(TyperGroup):
    """The commands; typer itself would end one that is interrupted as if it had failed."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.stderr.write("Interrupted.\n")
            sys.exit(INTERRUPTED)


app = typer.Typer(
    cls=_Commands,
    name="beholder",
    help="Train, evaluate and use small models that look at a picture and say what people "
    "would say about it: a score, a comment, attributes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


class TextOrJson(StrEnum):
    text = "text"
    json = "json"


class SubmissionForm(StrEnum):
    samsung_iqa = "samsung-iqa"
    fascode = "fascode"


class SubmissionDtype(StrEnum):
    float32 = "float32"
    float16 = "float16"


class Precision(StrEnum):
    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


class BackendName(StrEnum):
    onnxruntime = "onnxruntime"
    openvino = "openvino"


class BatchEngine(StrEnum):
    local = "local"
    ray = "ray"


class VerdictFormat(StrEnum):
    table = "table"
    jsonl = "jsonl"
    csv = "csv"


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
    BackendName | None,
    typer.Option("--backend", help="What runs an exported file; default: onnxruntime."),
]
Images = Annotated[
    Path | None, typer.Option("--images", help="Folder that the image keys start from.")
]
Codebook = Annotated[
    Path | None, typer.Option(help="File with the names of the attributes' values.")
]


@app.command()
def demo(
    run: Annotated[Path, typer.Option("--into", help="Folder of the run.")] = Path("runs/demo"),
    device: OnDevice = None,
) -> None:
    """Train and evaluate a judge on the embedded sample: real photographs, synthetic opinions."""
    _fit("demo", (), run, dry_run=False)
    from beholder.pipeline.demo import summarise_demo

    typer.echo(summarise_demo(run))


@app.command()
@with_table_options
def check(
    data: Annotated[Path, typer.Argument(help="Table of opinions, or a folder per class.")],
    images: Images = None,
    data_format: Annotated[
        str, typer.Option("--data-format", help="Format of the table; auto: by its header.")
    ] = "auto",
    codebook: Codebook = None,
    output: Annotated[TextOrJson, typer.Option("--format", help="How to print.")] = TextOrJson.text,
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
    if output is TextOrJson.json:
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


@app.command()
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
    device: OnDevice = None,
    *,
    reading: ReadOptions,
) -> None:
    """Run a recipe: only what has changed since the last time, and what depends on it."""
    _fit(recipe, overrides or (), run, dry_run=dry_run, data=data_settings(reading))


@app.command()
@with_table_options
def judge(
    context: typer.Context,
    model: Annotated[
        Path, typer.Argument(help="A judge: the folder that `fit` wrote, or an exported file.")
    ],
    pictures: Annotated[
        list[str] | None, typer.Argument(help="Pictures, folders or globs.")
    ] = None,
    listed: Annotated[
        Path | None,
        typer.Option("--list", help="Table or list that names them, of any kind."),
    ] = None,
    images: Images = None,
    file: Annotated[
        Path | None,
        typer.Option("--output", help="Write here, .jsonl or .parquet, and go on if stopped."),
    ] = None,
    output: Annotated[
        VerdictFormat | None, typer.Option("--format", help="How to print; default: table.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures judged at a time.")] = 16,
    engine: Annotated[
        BatchEngine, typer.Option(help="What runs the work that goes to --output.")
    ] = BatchEngine.local,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Threads that decode; on Ray processes. Default: one per core."),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(help="A running Ray cluster, HOST:PORT or auto; default: one of this call."),
    ] = None,
    gpus_per_worker: Annotated[
        float, typer.Option(min=0.0, help="On Ray: GPUs of each process, or a share of one.")
    ] = 0.0,
    explain: Annotated[
        list[str] | None,
        typer.Option(help="Also show where this comes from: an attribute, or `score`. Repeatable."),
    ] = None,
    into: Annotated[
        Path | None, typer.Option("--into", help="Folder of the overlays that --explain writes.")
    ] = None,
    backend: WithBackend = None,
    device: OnDevice = None,
    *,
    reading: ReadOptions,
) -> None:
    """Score, comment and attributes of pictures, in input order, errors in place.

    With `--output` the verdicts go to a file, each picture once and in order: the same command
    goes on where an earlier one was stopped, even by kill -9. Exit code 1 if some pictures could
    not be judged.
    """
    if bool(explain) != bool(into):
        raise typer.BadParameter("--explain and --into go together: what to show, and where.")
    if bool(pictures) == bool(listed):
        raise typer.BadParameter("Name pictures, or a file that lists them with --list.")
    if images and not listed:
        raise typer.BadParameter("--images goes with --list: the folder that its names start from.")
    if file and explain:
        raise typer.BadParameter("--explain shows pictures one by one: leave --output out.")
    if file and output:
        raise typer.BadParameter("--format is of what is printed; --output goes by its ending.")
    if engine is BatchEngine.ray and not file:
        raise typer.BadParameter("--engine ray writes to a file: name one with --output.")
    if ray_address and engine is not BatchEngine.ray:
        raise typer.BadParameter("--ray-address goes with --engine ray.")
    if gpus_per_worker and engine is not BatchEngine.ray:
        raise typer.BadParameter("--gpus-per-worker goes with --engine ray.")
    from beholder.batch.output import check_output, identity_of
    from beholder.batch.requests import find_pictures, listed_pictures
    from beholder.data.inside import pictures_at_hand
    from beholder.judge import Judge
    from beholder.judge.runner import judge_pictures
    from beholder.judge.verdict import Failure

    runtime: Backend | None = backend.value if backend else None
    if file:
        check_output(file, engine.value)
    if listed:
        # pictures inside the table are unpacked for as long as the command runs
        place = context.with_resource(pictures_at_hand(listed, images, reading))
        requests: Sequence[Request] = listed_pictures(listed, place, reading)
    else:
        requests = find_pictures(pictures or [])
    if file:
        if engine is BatchEngine.ray:
            from beholder.batch.ray import judge_on_ray

            done = judge_on_ray(
                model, requests, file, batch_size=batch_size, workers=workers,
                address=ray_address, backend=runtime, gpus_per_worker=gpus_per_worker,
            )  # fmt: skip
        else:
            from beholder.batch.local import judge_to_file

            identity = identity_of(model, runtime)
            done = judge_to_file(
                Judge.load(model, backend=runtime), requests, file, identity=identity,
                batch_size=batch_size, workers=workers,
            )  # fmt: skip
        typer.echo(f"Verdicts: {file}, {done}")
        if done.failed:
            raise typer.Exit(1)
        return
    from beholder.batch.printing import print_verdicts
    from beholder.evaluation.overlays import with_overlays

    loaded = Judge.load(model, backend=runtime)
    verdicts = judge_pictures(loaded, requests, batch_size=batch_size, workers=workers)
    if explain and into:
        verdicts = with_overlays(loaded, requests, verdicts, explain, into)
    failures = 0
    for judged in print_verdicts(verdicts, output.value if output else "table", loaded.classes):
        failures += isinstance(judged, Failure)
    if failures:
        raise typer.Exit(1)


@app.command()
@with_table_options
def evaluate(
    model: Annotated[Path | None, typer.Argument(help="A judge.")] = None,
    data: Annotated[Path | None, typer.Argument(help="Table of given opinions.")] = None,
    images: Images = None,
    split: Annotated[str | None, typer.Option(help="Only this split: train, val or test.")] = None,
    codebook: Codebook = None,
    references: Annotated[
        Path | None, typer.Option(help="Reference captions, to compare without a judge.")
    ] = None,
    hypotheses: Annotated[Path | None, typer.Option(help="Captions to compare.")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Of captions, once for each: BLEU, ROUGE_L, METEOR, CIDEr-D, SPICE, "
            "comment_challenge; default: the first four."
        ),
    ] = None,
    output: Annotated[TextOrJson, typer.Option("--format", help="How to print.")] = TextOrJson.text,
    backend: WithBackend = None,
    device: OnDevice = None,
    *,
    reading: ReadOptions,
) -> None:
    """Compare a judge with given opinions, or caption files with each other.

    Either `beholder evaluate MODEL DATA --images ROOT` or
    `beholder evaluate --references FILE --hypotheses FILE`.
    """
    if references and hypotheses and not (model or backend):
        from beholder.metrics.captions.files import evaluate_files

        scores = evaluate_files(references, hypotheses, metric)
        typer.echo(scores.to_json() if output is TextOrJson.json else scores.render())
        return
    if not (model and data) or references or hypotheses or metric:
        raise typer.BadParameter("Name MODEL and DATA, or --references and --hypotheses.")
    from beholder.data.formats import read_with
    from beholder.data.inside import pictures_at_hand
    from beholder.evaluation.evaluate import evaluate_judge, render_metrics
    from beholder.judge import Judge

    with pictures_at_hand(data, images, reading) as root:
        place = root or (data if data.is_dir() else data.parent)
        table = read_with(data, replace(reading, images=place, codebook=codebook))
        if split:
            table = table.subset(split)
        loaded = Judge.load(model, backend=backend.value if backend else None)
        result = evaluate_judge(loaded, table, place)
    as_json = json.dumps(result.metrics, ensure_ascii=False, indent=2)
    typer.echo(as_json if output is TextOrJson.json else render_metrics(result.metrics))


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A judge: the folder that `fit` wrote.")],
    to: Annotated[Path, typer.Option("--to", help="The file, e.g. judge.beholder.")],
    megabytes: Annotated[
        float,
        typer.Option(
            "--max-mb", min=0.001, help="Most that the file may have; 1 MB is 10^6 bytes."
        ),
    ] = 25.0,
    precision: Annotated[
        Precision,
        typer.Option(help="fp16: half the bytes; int8: fewer still, what is too sensitive stays."),
    ] = Precision.fp32,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder with pictures to compare on, at least 64.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="Or a table of opinions, which are the truth then.")
    ] = None,
    images: Images = None,
    codebook: Codebook = None,
    device: OnDevice = None,
) -> None:
    """Write a judge as one file that needs no PyTorch, and print its model card.

    The file is compared with MODEL on pictures (default: the embedded sample's). Exit code 1, and
    no file, if it does not say the same, or is too large.
    """
    if (pictures and table) or ((images or codebook) and not table):
        raise typer.BadParameter("Name --pictures, or --table with its --images, or neither.")
    try:
        from beholder.export.judge_file import export_judge
        from beholder.export.parity import material
    except ModuleNotFoundError as error:
        raise MissingExtra("Exporting a judge", "train") from error

    _check_device()
    with material(pictures, table, images, codebook) as chosen:
        done = export_judge(model, to, chosen, precision=precision.value, megabytes=megabytes)
    typer.echo(f"{done.card}\n{to}: {done.size:,} bytes of {megabytes * 1e6:,.0f} allowed")


@app.command()
def card(
    model: Annotated[Path, typer.Argument(help="An exported judge.")],
) -> None:
    """Print the model card of an exported judge."""
    from beholder.judge.store.packed import read_packed

    typer.echo(read_packed(model).card)


@app.command()
def submit(
    into: Annotated[Path, typer.Option("--into", help="The CSV or, for fascode, the folder.")],
    model: Annotated[Path | None, typer.Argument(help="A judge; for fascode.")] = None,
    form: Annotated[
        SubmissionForm, typer.Option(help="Whose form the submission has.")
    ] = SubmissionForm.samsung_iqa,
    sample: Annotated[
        Path | None,
        typer.Option(help="The challenge's own: img_name, mos, comments."),
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(help="Predicted scores: CSV, Parquet or JSON lines.")
    ] = None,
    comments: Annotated[
        Path | None, typer.Option(help="Written comments; may be the file of scores.")
    ] = None,
    dtype: Annotated[
        SubmissionDtype, typer.Option(help="fascode: number type of the stored weights.")
    ] = SubmissionDtype.float32,
    megabytes: Annotated[
        float,
        typer.Option(min=0.001, help="fascode: most that the file may have; 1 MB is 10^6 bytes."),
    ] = 25.0,
) -> None:
    """Write a challenge's submission.

    `samsung-iqa` joins `--scores` and `--comments` into the challenge's table, in the order of
    `--sample`: every row is filled, or nothing is written and all mismatches are listed, exit code
    2. `fascode` writes MODEL as model.onnx and predict.py, which needs numpy, Pillow and ONNX
    Runtime alone.
    """
    if form is SubmissionForm.samsung_iqa:
        if model or not (sample and scores and comments):
            raise typer.BadParameter("samsung-iqa: name --sample, --scores and --comments alone.")
        from beholder.challenges.samsung_iqa import write_challenge_table

        written = write_challenge_table(sample, scores, comments, into)
        unused = f"; predictions of {written.unused} more are not used" if written.unused else ""
        typer.echo(f"Submission: {into}, {written.rows} pictures{unused}")
        return
    if not model or sample or scores or comments:
        raise typer.BadParameter("fascode: name a judge alone.")
    try:
        from beholder.challenges.fascode import write_submission
    except ModuleNotFoundError as error:
        raise MissingExtra("Writing a submission", "train") from error

    size = write_submission(model, into, megabytes=megabytes, dtype=dtype.value)
    typer.echo(f"{into / 'model.onnx'}: {size:,} bytes of {megabytes * 1e6:,.0f} allowed")


@app.command()
def serve(
    model: Annotated[
        Path, typer.Argument(help="A judge: the folder that `fit` wrote, or an exported file.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0: every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures judged together.")] = 16,
    capacity: Annotated[
        int, typer.Option(min=1, help="Pictures under way at most; more are told to come back.")
    ] = 256,
    max_pictures: Annotated[int, typer.Option(min=1, help="Pictures of a request.")] = 32,
    max_mb: Annotated[
        float, typer.Option(min=0.001, help="Megabytes (10^6 bytes) of a request.")
    ] = 10.0,
    backend: WithBackend = None,
    device: OnDevice = None,
) -> None:
    """Serve a judge: a page for pictures at `/`, and an API (POST /v1/verdicts, GET /openapi.json,
    /health, /ready, /metrics). Stops on SIGINT and SIGTERM after what is under way."""
    from beholder.judge import Judge
    from beholder.serve.config import MEGABYTE, ServeConfig
    from beholder.serve.server import serve as serve_judge

    config = ServeConfig(
        host=host,
        port=port,
        batch_size=batch_size,
        capacity=capacity,
        max_pictures=max_pictures,
        max_body=int(max_mb * MEGABYTE),
    )
    loaded = Judge.load(model, backend=backend.value if backend else None)
    serve_judge(loaded, config, tell=typer.echo)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
) -> None:
    """Write RUN/report.html again from what the run has produced."""
    from beholder.report import write_report

    typer.echo(f"Report: {write_report(run)}")


@app.command("import")
def import_(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(help="Checkpoints of the published ExpansionNet v2; several: an ensemble."),
    ],
    vocabulary: Annotated[Path, typer.Option(help="The published vocabulary, a pickle.")],
    into: Annotated[Path, typer.Option("--into", help="Folder of the judge.")],
    backbone: Annotated[
        Path | None,
        typer.Option(help="Checkpoint with the Swin, for bodies that were trained on features."),
    ] = None,
    heads: Annotated[int, typer.Option(min=1, help="Of the cross-attention.")] = 8,
    enc_expansions: Annotated[
        str | None, typer.Option(help="Lengths the encoder expands to; default 32,64,128,256,512.")
    ] = None,
    beam_size: Annotated[int, typer.Option(min=1, max=32, help="Beams of the judge.")] = 5,
    device: OnDevice = None,
) -> None:
    """Make a judge of published ExpansionNet v2 checkpoints, same weights, same words, and let it
    write a comment.

    Nothing in the files is executed: checkpoints are read as tensors only, the vocabulary as
    dicts, lists and strings only.
    """
    lengths = None
    if enc_expansions is not None:
        parts = enc_expansions.split(",")
        if not all(part.strip().isdigit() and int(part) for part in parts):
            raise typer.BadParameter(f"{enc_expansions!r} is no list such as 32,64,128.")
        lengths = [int(part) for part in parts]
    from beholder.judge.store.imported import import_reference

    _check_device()
    config = import_reference(
        checkpoints,
        vocabulary,
        into,
        backbone=backbone,
        heads=heads,
        enc_expansions=lengths,
        beam_size=beam_size,
    )
    body = config.comment
    assert body is not None
    typer.echo(
        f"Judge: {into} ({config.backbone.name} at {config.backbone.size} pixels; "
        f"{body.enc_layers} + {body.dec_layers} layers of {body.d_model}, {body.vocab_size} words"
        f"{f', {config.ensemble} checkpoints together' if config.ensemble > 1 else ''})"
    )
    from beholder.data.sample.catalogue import PHOTO_FOLDER
    from beholder.judge import Judge

    said = Judge.load(into)(PHOTO_FOLDER / "coffee.jpg").comment
    typer.echo(f"It says of a photograph of the embedded sample: {said!r}")


def _check_device() -> None:
    """A device that was asked for and is not there is told before minutes are spent."""
    from beholder.features.device import asked_device, choose_device

    if asked_device():
        choose_device()


def _fit(
    recipe: str,
    overrides: Sequence[str],
    run: Path | None,
    *,
    dry_run: bool,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Run a recipe, its `data` changed by what the command says of the table, and, when anything
    has run, write its report."""
    from beholder.pipeline.recipe import find_recipe, load_recipe
    from beholder.pipeline.runner import fit_recipe

    _check_device()
    loaded = load_recipe(find_recipe(recipe), overrides, data=data)
    folder = run or Path("runs") / loaded.name
    ran = fit_recipe(loaded, folder, dry_run=dry_run)
    if not dry_run and (ran or not (folder / "report.html").exists()) and _first_process():
        from beholder.report import write_report

        typer.echo(f"Report: {write_report(folder)}")


def _first_process() -> bool:
    """Under torchrun only the first process writes and tells."""
    return os.environ.get("RANK", "0") == "0"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: prints a user's error without a traceback and leaves with its exit code; any
    other error in a sentence too, with a file that holds its traceback, and exit code 1."""
    try:
        app(args=arguments)
    except BeholderError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001  # the last guard
        _tell_unexpected(error, sys.argv[1:] if arguments is None else arguments)
        sys.exit(1)


def _tell_unexpected(error: Exception, arguments: Sequence[str]) -> None:
    from beholder.data.unexpected import describe, write_error_report

    report = write_error_report(error, arguments)
    if os.environ.get("BEHOLDER_DEBUG", "") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
    kept = f"The file {report} says where" if report else "BEHOLDER_DEBUG=1 shows where"
    sys.stderr.write(
        f"error: Beholder failed, which is its own fault: {describe(error)}\n"
        f"  fix:   {kept}; report it with the command that you gave.\n"
    )
