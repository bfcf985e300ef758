"""What `beholder demo` tells at its end: where everything is, and three verdicts."""

from __future__ import annotations

from pathlib import Path

from beholder.batch.printing import render_verdict
from beholder.data.sample.builder import IMAGES
from beholder.evaluation.predictions import read_predictions
from beholder.judge import Judge

SHOWN = 3


def summarise_demo(folder: Path) -> str:
    """Three verdicts on held-out pictures of the demo's run, and where its results are."""
    held_out = read_predictions(folder / "evaluation" / "predictions.parquet")
    rows = held_out.sort("target.score", "image")  # a bad one, a middling one, a good one
    places = [round(rows.height * (part + 0.5) / SHOWN) for part in range(SHOWN)]
    chosen = rows[places]
    judge = Judge.load(folder / "judge")
    root = folder / "sample" / IMAGES
    lines = ["", "Three held-out pictures (the given pseudo-MOS in brackets):"]
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
