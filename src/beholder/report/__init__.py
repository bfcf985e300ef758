"""The HTML report of a run: one self-contained file."""

from __future__ import annotations

from pathlib import Path

from beholder.data.files import write_text
from beholder.report.collect import collect
from beholder.report.page import render_page


def write_report(run: Path) -> Path:
    """Write `report.html` into a run folder, from its manifest, metrics and predictions.

    What the run does not have (no comments, not evaluated yet) is left out of the page.

    Raises:
        RunError: the folder is not a run.
    """
    target = run / "report.html"
    write_text(target, render_page(collect(run)))
    return target
