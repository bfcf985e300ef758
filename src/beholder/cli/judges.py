"""Commands that make, show and serve judges: `export`, `card`, `submit`, `serve`, `import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from beholder.cli.options import (
    AnyJudge,
    Codebook,
    Images,
    OnDevice,
    WithBackend,
    check_device,
    refuse,
)
from beholder.errors import MissingExtra


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
        Literal["fp32", "fp16", "int8"],
        typer.Option(help="fp16: half the bytes; int8: fewer still, what is too sensitive stays."),
    ] = "fp32",
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
    from beholder.judge.store.find import find_judge

    check_device()
    model = find_judge(model)
    with material(pictures, table, images, codebook) as chosen:
        done = export_judge(model, to, chosen, precision=precision, megabytes=megabytes)
    typer.echo(f"{done.card}\n{to}: {done.size:,} bytes of {megabytes * 1e6:,.0f} allowed")


def card(
    model: Annotated[Path, typer.Argument(help="An exported judge.")],
) -> None:
    """Print the model card of an exported judge."""
    from beholder.judge.store.find import find_judge
    from beholder.judge.store.packed import read_packed

    typer.echo(read_packed(find_judge(model)).card)


def submit(
    context: typer.Context,
    into: Annotated[Path, typer.Option("--into", help="The CSV or, for fascode, the folder.")],
    model: Annotated[Path | None, typer.Argument(help="A judge; for fascode.")] = None,
    form: Annotated[
        Literal["samsung-iqa", "fascode"], typer.Option(help="Whose form the submission has.")
    ] = "samsung-iqa",
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
        Literal["float32", "float16"],
        typer.Option(help="fascode: number type of the stored weights."),
    ] = "float32",
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
    if form == "samsung-iqa":
        refuse(context, ("dtype", "megabytes"), "goes with --form fascode.")
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
    from beholder.judge.store.find import find_judge

    size = write_submission(find_judge(model), into, megabytes=megabytes, dtype=dtype)
    typer.echo(f"{into / 'model.onnx'}: {size:,} bytes of {megabytes * 1e6:,.0f} allowed")


def serve(
    model: AnyJudge,
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
    loaded = Judge.load(model, backend=backend)
    serve_judge(loaded, config, tell=typer.echo)


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
            raise typer.BadParameter(f"{enc_expansions!r} is not a list such as 32,64,128.")
        lengths = [int(part) for part in parts]
    from beholder.judge.store.imported import import_reference

    check_device()
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

    comment = Judge.load(into)(PHOTO_FOLDER / "coffee.jpg").comment
    typer.echo(f"It says of a photograph of the embedded sample: {comment!r}")
