"""The page of doubtful opinions: thumbnails with what the table says and what was predicted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from beholder.metrics.doubt import FAR
from beholder.report.cards import thumbnail
from beholder.report.page import template_and_style


def render_doubtful(
    name: str, rows: pl.DataFrame, covered: Mapping[str, str], root: Path, csv: str, most: int
) -> str:
    """The whole page as HTML, with styles and pictures inside.

    Args:
        name: of the run.
        rows: as in `auto.doubtful.Doubtful`.
        covered: kind -> in words which of its opinions are ranked, and by what.
        root: folder of the pictures.
        csv: name of the file that has all rows.
        most: pictures of each kind that are shown.
    """
    sections: list[dict[str, Any]] = []
    for kind, words in covered.items():
        shown = rows.filter(pl.col("kind") == kind).sort("rank").head(most).to_dicts()
        for row in shown:
            row["thumbnail"] = thumbnail(root, row["image"])
        sections.append({"kind": kind, "covered": words, "rows": shown})
    template, style = template_and_style("doubtful.html.j2")
    return template.render(name=name, style=style, csv=csv, far=FAR, sections=sections)
