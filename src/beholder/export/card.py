"""The model card of an exported judge: what it is, what it was measured with, what to beware of.

It tells what the judge's folder holds, and what the run holds that made this very judge: table,
evaluation and recipe. What is not known is said to be so.
"""

from __future__ import annotations

import json
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from beholder.data.annotations import AnnotationTable
from beholder.data.files import sha256_file
from beholder.evaluation.evaluate import render_metrics
from beholder.export.limits import LIMITS
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeConfig
from beholder.judge.store.hub import TAGS
from beholder.judge.store.manifest import Manifest
from beholder.judge.store.opinion_lines import opinion_lines
from beholder.metrics.classification import show

UNKNOWN = "Not known: the judge's folder was exported apart from the run that made it."


def render_card(manifest: Manifest, config: JudgeConfig, judge: Path) -> str:
    """The card in Markdown.

    Args:
        judge: the folder that was exported; its run is the folder around it.
    """
    run = _run_of(judge)
    parts = [
        ("What it says", _opinions(manifest, config)),
        ("How it was measured", UNKNOWN if run is None else _metrics(run)),
        ("What it was trained on", UNKNOWN if run is None else _data(run)),
        ("How it was made", _making(manifest, config, run)),
        ("This file against the original", _parity(manifest)),
        ("Licence of the weights", _licence(config.backbone)),
        ("Limits", _limits(manifest, config)),
    ]
    title = manifest.provenance.get("recipe") or "judge"
    sections = [f"## {name}\n\n{text}" for name, text in parts]
    metrics = None if run is None else run["metrics"]
    header = f"---\n{_metadata(title, metrics)}\n---"
    return "\n\n".join([header, f"# Model card: {title}", *sections]) + "\n"


def _metadata(title: str, metrics: dict[str, Any] | None) -> str:
    """What the Hub reads of a card, as YAML: tags, and the evaluation's figures."""
    from huggingface_hub import EvalResult, ModelCardData

    metrics = metrics or {}
    figures = [
        ("image-quality-assessment", "score", name, interval["value"])
        for name, interval in metrics.get("score", {}).items()
    ]
    for attribute, figure in metrics.get("attributes", {}).items():
        figures.append(("image-classification", attribute, "accuracy", figure["top1"]))
    for attribute, figure in metrics.get("multi_label", {}).items():
        value = figure["mean_average_precision"]
        figures.append(("image-classification", attribute, "mean average precision", value))
    results = [
        EvalResult(
            task_type=task,
            dataset_type="annotations",
            dataset_name=f"{title}: {opinion}",
            metric_type=metric,
            metric_value=value,
        )
        for task, opinion, metric, value in figures
        if value is not None
    ]
    data = ModelCardData(
        library_name="beholder", tags=list(TAGS), model_name=title, eval_results=results or None
    )
    return data.to_yaml()


def _opinions(manifest: Manifest, config: JudgeConfig) -> str:
    scores, writes = "score" in manifest.heads, "comment" in manifest.heads
    return "\n".join(
        opinion_lines(
            score_name=manifest.provenance.get("score_name", "score") if scores else None,
            score_range=config.score_range,
            calibration=manifest.calibration,
            classes=manifest.classes,
            multi_label=manifest.multi_label,
            comment=(manifest.max_length, manifest.beam_size) if writes else None,
        )
    )


def _metrics(run: dict[str, Any]) -> str:
    if run["metrics"] is None:
        return "Its run holds no evaluation of it."
    return f"```\n{render_metrics(run['metrics'])}\n```"


def _data(run: dict[str, Any]) -> str:
    table: AnnotationTable | None = run["table"]
    if table is None:
        return "Its run holds no table."
    frame = table.frame
    counts = dict(frame["split"].value_counts().iter_rows())
    splits = ", ".join(f"{counts.get(name, 0)} {name}" for name in ("train", "val", "test"))
    lines = [f"- {frame.height} pictures: {splits}"]
    scores = frame["score"].drop_nulls().to_numpy()
    if len(scores):
        lines.append(
            f"- {len(scores)} scores, {show(float(scores.min()), 3)} to "
            f"{show(float(scores.max()), 3)}, mean {show(float(scores.mean()), 3)}"
        )
    comments = int(frame["comments"].list.len().sum())
    if comments:
        lines.append(f"- {comments} comments")
    for name, labels in table.classes.items():
        counts = dict(table.labels(name).value_counts().iter_rows())
        per_label = ", ".join(f"{label} {counts.get(label, 0)}" for label in labels)
        lines.append(f"- {name}: {per_label}")
    return "\n".join(lines)


def _making(manifest: Manifest, config: JudgeConfig, run: dict[str, Any] | None) -> str:
    provenance = manifest.provenance
    backbone = config.backbone
    size = " x ".join(map(str, manifest.transform["size"]))
    lines = [
        f"- backbone {backbone.name} at {size} pixels, `{manifest.transform['resize']}`",
        f"- written by Beholder {manifest.beholder} as {manifest.precision}; in floating point: "
        f"{manifest.floating}",
    ]
    if manifest.writers > 1:
        lines.append(f"- {manifest.writers} comment heads write together")
    if "recipe" in provenance:
        lines.append(f"- recipe {provenance['recipe']}, seed {provenance.get('seed')}")
    if run is not None and run["recipe"]:
        lines.append(f"\n```yaml\n{run['recipe'].strip()}\n```")
    return "\n".join(lines)


def _parity(manifest: Manifest) -> str:
    parity = manifest.parity
    limits = LIMITS[manifest.precision]
    lines = [f"Compared on {parity['pictures']} pictures of {parity['source']}:", ""]
    if parity["srcc"] is not None:
        lines.append(f"- scores: largest difference {parity['score_difference']:.2g}; "
                     f"SRCC {_change(parity['srcc'])}")  # fmt: skip
    if parity.get("moved") is not None:
        lines.append(f"- {parity['moved']:.1%} of the scores move by more than a quarter of their "
                     "interval's width")  # fmt: skip
    if parity.get("coverage") is not None:
        widened = parity["recalibration"]["interval"]
        lines.append(f"- intervals, {widened:.3g} times as wide: coverage "
                     f"{_change(parity['coverage'])}")  # fmt: skip
    for name, share in parity["same_labels"].items():
        lines.append(f"- {name}: {share:.1%} of the labels are the same; "
                     f"accuracy {_change(parity['accuracy'][name])}")  # fmt: skip
    if parity["cider"] is not None:
        lines.append(f"- comments: {parity['same_comments']:.1%} are the same; "
                     f"CIDEr-D {_change(parity['cider'])}")  # fmt: skip
    if limits.same:
        allowed = f"scores within {limits.score:g}, every label and comment the same"
    else:
        allowed = (
            f"at most {limits.srcc:g} of SRCC, {limits.accuracy:g} of an accuracy and "
            f"{limits.cider:.0%} of CIDEr-D less"
        )
    return "\n".join([*lines, "", f"Allowed: {allowed}."])


def _change(change: dict[str, Any]) -> str:
    return f"{change['before']:.4f} -> {change['after']:.4f} against {change['against']}"


def _licence(backbone: BackboneConfig) -> str:
    if backbone.weights == "random":
        return (
            "Trained from random weights: no published weights are in it. What its pictures and "
            "opinions allow is for their owner to say."
        )
    if backbone.weights == "pretrained":
        licence = _published_licence(backbone.name)
        known = (
            f"`{licence}`, as their publisher says" if licence else "not recorded here: look it up"
        )
        return (
            f"It started from the published weights of {backbone.name} (licence: {known}). What "
            "its pictures and opinions allow is for their owner to say."
        )
    return (
        f"The backbone's weights came from {Path(backbone.weights).name}; their licence is not "
        "known to Beholder."
    )


def _published_licence(name: str) -> str | None:
    from beholder.features.efficientnet_lite import VARIANTS

    if name in VARIANTS:
        return "Apache-2.0"  # see NOTICE
    import timm

    known = timm.get_pretrained_cfg(name.removeprefix("timm/"))
    return None if known is None else known.license


def _limits(manifest: Manifest, config: JudgeConfig) -> str:
    lines = [
        "- It repeats the opinions of the people whose table it was trained on, on pictures like "
        "theirs; on others it may be wrong without a sign of it.",
        "- It is not made to judge people, nor to decide about them.",
    ]
    if "score" in manifest.heads and manifest.calibration.score is None:
        lines.append("- Its scores have no interval: it was not calibrated.")
    uncalibrated = [n for n in manifest.classes if n not in manifest.calibration.temperatures]
    if uncalibrated:
        lines.append(f"- Probabilities of {', '.join(uncalibrated)} are not calibrated.")
    if "comment" in manifest.heads:
        lines.append("- Comments are likely sentences, not checked statements.")
    return "\n".join(lines)


def _run_of(judge: Path) -> dict[str, Any] | None:
    """Table, evaluation and recipe of the run that made this very judge; None: there is none."""
    folder = judge.resolve().parent
    path = folder / "manifest.json"
    if not path.is_file():
        return None
    stages = json.loads(path.read_text("utf-8")).get("stages", [])
    card = sha256_file(judge / "judge.json")
    made_judge = [s["name"] for s in stages if _hash(s, "judge") == card]
    if not made_judge:
        return None
    metrics = None
    file = folder / "evaluation" / "metrics.json"
    for stage in stages:
        of_it = stage.get("config", {}).get("judge") in made_judge
        if of_it and file.is_file() and _hash(stage, "metrics") == sha256_file(file):
            metrics = json.loads(file.read_text("utf-8"))
    table, recipe = folder / "annotations.parquet", folder / "recipe.yaml"
    return {
        "metrics": metrics,
        "table": AnnotationTable.from_parquet(table) if table.is_file() else None,
        "recipe": _without_folders(recipe.read_text("utf-8")) if recipe.is_file() else "",
    }


def _without_folders(recipe: str) -> str:
    """A recipe whose absolute paths are names alone: where somebody's files lie is not shipped."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: bare(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [bare(inner) for inner in value]
        if isinstance(value, str) and PureWindowsPath(value).root:  # also of a POSIX path
            return PureWindowsPath(value).name
        return value

    return yaml.safe_dump(bare(yaml.safe_load(recipe)), sort_keys=False, allow_unicode=True)


def _hash(stage: dict[str, Any], output: str) -> str | None:
    file = stage.get("outputs", {}).get(output)
    return None if file is None else file["sha256"]
