"""The command `evaluate`: a judge, stored verdicts or captions against what people gave."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from beholder.cli.options import Codebook, Images, OnDevice, TextOrJson, WithBackend, refuse
from beholder.cli.table_options import TABLE_OPTIONS, with_table_options

if TYPE_CHECKING:
    from beholder.data.annotations import AnnotationTable
    from beholder.data.formats import ReadOptions
    from beholder.evaluation.evaluate import Evaluation
    from beholder.judge.runtime.backends import Backend

MOST_CHANGED = 100  # pictures, each of which is judged six times
Robust = Annotated[
    bool,
    typer.Option(
        "--robust",
        help="Also measure how far opinions move when a picture is saved again, cropped by 2 %, "
        "shifted by a pixel, mirrored or halved, on up to 100 of the pictures.",
    ),
]


@with_table_options
def evaluate(
    context: typer.Context,
    model: Annotated[Path | None, typer.Argument(help="A judge.")] = None,
    data: Annotated[Path | None, typer.Argument(help="Table of given opinions.")] = None,
    images: Images = None,
    split: Annotated[str | None, typer.Option(help="Only this split: train, val or test.")] = None,
    codebook: Codebook = None,
    verdicts: Annotated[
        Path | None,
        typer.Option(help="What `batch` or `judge` wrote, to compare without running the judge."),
    ] = None,
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
    robust: Robust = False,
    output: TextOrJson = "text",
    backend: WithBackend = None,
    device: OnDevice = None,
    *,
    reading: ReadOptions,
) -> None:
    """Compare a judge with given opinions, or stored verdicts with them, or captions with captions.

    `beholder evaluate MODEL DATA --images ROOT`, `beholder evaluate --verdicts FILE DATA`, or
    `beholder evaluate --references FILE --hypotheses FILE`.
    """
    if references or hypotheses:
        if not (references and hypotheses):
            raise typer.BadParameter("Name --references and --hypotheses.")
        refuse(context, (*_OF_TABLES, "verdicts"), "is not read where captions are compared.")
        typer.echo(_of_captions(references, hypotheses, metric, as_json=output == "json"))
        return
    refuse(context, ("metric",), "goes with --references and --hypotheses.")
    if verdicts:
        refuse(
            context,
            ("backend", "device", "robust"),
            "is not read with --verdicts: no judge is run.",
        )
        if not model or data:  # the first argument is the table then
            raise typer.BadParameter("Name the table alone beside --verdicts: no judge is run.")
        result = _of_verdicts(verdicts, model, images, split, codebook, reading)
    else:
        if not (model and data):
            raise typer.BadParameter(
                "Name MODEL and DATA, or --verdicts and DATA, or --references and --hypotheses."
            )
        result = _of_judge(model, data, images, split, codebook, backend, reading, robust=robust)
    from beholder.evaluation.evaluate import render_metrics

    as_json = json.dumps(result.metrics, ensure_ascii=False, indent=2)
    typer.echo(as_json if output == "json" else render_metrics(result.metrics))


_OF_TABLES = (
    "model",
    "data",
    "images",
    "split",
    "codebook",
    "backend",
    "device",
    "robust",
    *TABLE_OPTIONS,
)


def _of_captions(
    references: Path, hypotheses: Path, metrics: list[str] | None, *, as_json: bool
) -> str:
    """Captions are compared with captions."""
    from beholder.metrics.captions.files import evaluate_files

    scores = evaluate_files(references, hypotheses, metrics)
    return scores.to_json() if as_json else scores.render()


def _of_judge(
    model: Path,
    data: Path,
    images: Path | None,
    split: str | None,
    codebook: Path | None,
    backend: Backend | None,
    reading: ReadOptions,
    *,
    robust: bool,
) -> Evaluation:
    """The judge is run on the table's pictures, and if `robust` on some of them changed."""
    from beholder.data.formats import read_with
    from beholder.data.unpacked_pictures import pictures_at_hand
    from beholder.evaluation.evaluate import evaluate_judge, find_requests
    from beholder.evaluation.robustness import measure_robustness
    from beholder.judge import Judge

    with pictures_at_hand(data, images, reading) as unpacked:
        root = unpacked or (data if data.is_dir() else data.parent)
        table = read_with(data, replace(reading, images=root, codebook=codebook))
        loaded = Judge.load(model, backend=backend)
        chosen = table.subset(split) if split else table
        result = evaluate_judge(loaded, chosen, root)
        if robust:
            requests, _ = find_requests(chosen, root)
            result.metrics["robustness"] = measure_robustness(loaded, requests, MOST_CHANGED)
        return result


def _of_verdicts(
    verdicts: Path,
    data: Path,
    images: Path | None,
    split: str | None,
    codebook: Path | None,
    reading: ReadOptions,
) -> Evaluation:
    """What was written before is compared; no picture is opened."""
    from beholder.data.formats import read_with
    from beholder.evaluation.stored import compare_stored, has_verdicts

    def read(root: Path | None) -> AnnotationTable:
        table = read_with(data, replace(reading, images=root, codebook=codebook))
        return table.subset(split) if split else table

    root = images or (data if data.is_dir() else data.parent)
    table = read(images)
    if images is None and not has_verdicts(verdicts, table, root):
        table = read(root)  # its names may be those of files without their folder or ending
    return compare_stored(verdicts, table, root)
