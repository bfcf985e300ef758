"""Turns what `collect` found into the page: texts, plots, thumbnails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from beholder.evaluation.evaluate import level_of
from beholder.evaluation.overlays import by_chance
from beholder.judge.verdict import UNFAMILIAR
from beholder.metrics.classification import show
from beholder.metrics.info import METRICS
from beholder.report import plots
from beholder.report.attributes import attribute_parts, explained, multi_label_parts
from beholder.report.cards import picture_cards
from beholder.report.collect import Curves, ReportData
from beholder.report.raters import raters_part

if TYPE_CHECKING:
    from jinja2 import Template

GALLERY = 24
METRICS_DRAWN = 8  # of a stage
EXAMPLES = 4
_HERE = Path(__file__).parent


def render_page(data: ReportData) -> str:
    """The whole page as HTML, with styles, plots and pictures inside."""
    score_name = (data.metrics or {}).get("score_name", "MOS")
    template, style = template_and_style("page.html.j2")
    return template.render(
        data=data,
        style=style,
        score_name=score_name,
        total_seconds=sum(stage.seconds for stage in data.manifest.stages),
        longest=max((stage.seconds for stage in data.manifest.stages), default=1.0) or 1.0,
        tiles=_tiles(data, score_name),
        curves=_curve_plots(data.curves),
        scatter=_scatter(data, score_name),
        score_histogram=_histogram(data.summary.scores if data.summary else [], score_name),
        length_histogram=_histogram(
            data.summary.comment_lengths if data.summary else [], "words in a comment"
        ),
        attributes=attribute_parts(data),
        multi_label=multi_label_parts(data),
        explained=explained(data),
        raters=raters_part(data, score_name),
        comments=_comment_examples(data),
        gallery=_gallery(data),
        metric_info=METRICS,
    )


def template_and_style(name: str) -> tuple[Template, str]:
    """A page's template, which escapes what it shows, and the style of all pages."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(show=show, seconds=_duration, percent=_percent)
    return environment.get_template(name), (_HERE / "page.css").read_text("utf-8")


def _tiles(data: ReportData, score_name: str) -> list[dict[str, str]]:
    """The numbers at the top of the page."""
    metrics = data.metrics or {}
    tiles = []
    if "score" in metrics:
        srcc = metrics["score"]["srcc"]
        span = f"{level_of(metrics['counts'])}: {show(srcc['low'], 2)} to {show(srcc['high'], 2)}"
        tiles.append({"value": show(srcc["value"], 3), "name": f"SRCC, {score_name}", "note": span})
    if metrics.get("mean_top1") is not None:
        majority = [entry["majority"] for entry in metrics["attributes"].values()]
        known = [value for value in majority if value is not None]
        note = f"majority class: {_percent(sum(known) / len(known))}" if known else ""
        tiles.append(
            {"value": _percent(metrics["mean_top1"]), "name": "attributes right", "note": note}
        )
    for name, entry in metrics.get("multi_label", {}).items():
        value = show(entry["mean_average_precision"], 3)
        note = f"the same of every picture: {show(entry['constant_precision'], 3)}"
        tiles.append({"value": value, "name": f"mean average precision, {name}", "note": note})
    if "comments" in metrics:
        bleu = show(metrics["comments"].get("BLEU-4"), 2)
        cider = show(metrics["comments"].get("CIDEr-D"), 2)
        tiles.append({"value": cider, "name": "CIDEr-D, comments", "note": f"BLEU-4 {bleu}"})
    if "counts" in metrics:
        failed = metrics["counts"]["failed"]
        note = f"{failed} could not be judged" if failed else "all could be judged"
        tiles.append(
            {"value": str(metrics["counts"]["pictures"]), "name": "held-out pictures", "note": note}
        )
    familiarity = (
        [] if data.predictions is None or "familiarity" not in data.predictions.columns
        else data.predictions["familiarity"].drop_nulls().to_list()
    )  # fmt: skip
    if familiarity:
        share = sum(value < UNFAMILIAR for value in familiarity) / len(familiarity)
        note = f"by chance alone {_percent(UNFAMILIAR)}"
        tiles.append({"value": _percent(share), "name": "unfamiliar to the judge", "note": note})
    return tiles


def _curve_plots(curves: Curves) -> dict[str, list[str]]:
    """Per stage: the losses (training beside validation), then metrics of the validation; of
    several tasks the first of each before the second of any."""
    drawn: dict[str, list[str]] = {}
    for stage, lines in curves.items():
        metrics = [name.partition(" ")[2] for name in lines if name.startswith("val ")]
        losses = [n for n in metrics if n == "loss" or n.endswith(".loss")] or ["loss"]
        pairs = [[f"{split} {n}" for split in ("train", "val")] for n in losses]
        found = [[(n, lines[n]) for n in pair if n in lines] for pair in pairs]
        plots_of_stage = [
            plots.curve(f"{stage} {n}", pair) for n, pair in zip(losses, found, strict=True) if pair
        ]
        others = _in_turns([name for name in metrics if not name.endswith("loss")])[:METRICS_DRAWN]
        plots_of_stage += [plots.curve(f"{stage} val {n}", [(f"val {n}", lines[f"val {n}"])])
                           for n in others]  # fmt: skip
        drawn[stage] = plots_of_stage
    return drawn


def _in_turns(names: list[str]) -> list[str]:
    """The first name of every task, as `score.srcc` is one of `score`, then the second, ..."""
    before = [sum(n.partition(".")[0] == name.partition(".")[0] for n in names[:row])
              for row, name in enumerate(names)]  # fmt: skip
    return [names[row] for row in sorted(range(len(names)), key=before.__getitem__)]


def _scatter(data: ReportData, score_name: str) -> str:
    if data.predictions is None or "score" not in (data.metrics or {}):
        return ""
    known = data.predictions.filter(
        pl.col("target.score").is_not_null() & pl.col("score").is_not_null()
    )
    targets, predicted = known["target.score"].to_list(), known["score"].to_list()
    return plots.scatter(targets, predicted, score_name)


def _histogram(values: list[Any], name: str) -> str:
    return plots.histogram(values, name) if values else ""


def _comment_examples(data: ReportData) -> dict[str, list[dict[str, Any]]]:
    """Best and worst comments by CIDEr-D."""
    if data.predictions is None or "comments" not in (data.metrics or {}):
        return {}
    known = data.predictions.filter(pl.col("cider_d").is_not_null()).sort("cider_d", "image")
    count = min(EXAMPLES, known.height // 2)
    return {
        "Best": picture_cards(data, known.tail(count).reverse()),
        "Worst": picture_cards(data, known.head(count)),
    }


def _gallery(data: ReportData) -> list[dict[str, Any]]:
    """Held-out pictures, drawn by the hash of their keys: no rhythm of the table shows."""
    if data.predictions is None:
        return []
    keys = sorted(data.predictions["image"], key=by_chance)
    chosen = data.predictions.filter(pl.col("image").is_in(keys[:GALLERY]))
    return picture_cards(data, chosen.sort("image"))


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.0%}"
