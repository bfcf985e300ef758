"""What `beholder demo` tells at its end: what the starter has brought, three verdicts, and where
everything is."""

from __future__ import annotations

from pathlib import Path

from beholder.batch.printing import render_verdict
from beholder.data.sample.builder import IMAGES
from beholder.evaluation.predictions import read_predictions
from beholder.judge import Judge
from beholder.pipeline.manifest import load_manifest

SHOWN = 3


def told_of_starter(folder: Path) -> str:
    """One sentence: how good scores are on photographs left out in turn, from the starter's
    backbone and from ImageNet's."""
    manifest = load_manifest(folder)
    assert manifest is not None, "the demo has run"
    records = {record.name: record.metrics for record in manifest.stages}
    tuned, plain = records["errors"], records["imagenet-errors"]
    return (
        "What the starter has brought: on photographs left out in turn SRCC "
        f"{tuned['srcc']:.2f} and RMSE {tuned['rmse']:.2f} on its backbone, {plain['srcc']:.2f} "
        f"and {plain['rmse']:.2f} on ImageNet's (pseudo-MOS, 1 to 5)."
    )


def summarise_demo(folder: Path) -> str:
    """Three verdicts on held-out pictures of the demo's run, and where its results are."""
    held_out = read_predictions(folder / "evaluation" / "predictions.parquet")
    rows = held_out.sort("target.score", "image")  # a bad one, a middling one, a good one
    places = [round(rows.height * (part + 0.5) / SHOWN) for part in range(SHOWN)]
    chosen = rows[places]
    judge = Judge.load(folder / "judge")
    root = folder / "sample" / IMAGES
    lines = [
        "",
        told_of_starter(folder),
        "",
        "Three held-out pictures (the given pseudo-MOS in brackets):",
    ]
    for key, target in chosen.select("image", "target.score").iter_rows():
        lines.append(f"{render_verdict(judge(root / key))}\n  [given    {target:.2f}]")
    example = root / chosen["image"][0]
    lines += [
        "",
        f"Judge:  {folder / 'judge'}",
        f"Report: {folder / 'report.html'}",
        f"Serve:  beholder serve {folder / 'judge'}   (a page and an API)",
        f"Try it: beholder judge {folder / 'judge'} {example}",
        f"        python -c \"from beholder import Judge; print(Judge.load('{folder / 'judge'}')"
        f"('{example}'))\"",
    ]
    return "\n".join(lines)
