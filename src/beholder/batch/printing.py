"""Verdicts on the terminal or in a pipe: a table, JSON lines, or CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from beholder.data.labels import NONE
from beholder.judge.row import columns_of, csv_row
from beholder.judge.verdict import Attribute, Judged, Verdict, distribution_cells

Style = Literal["table", "jsonl", "csv"]
Classes = Mapping[str, Sequence[str]]

MOST_RATINGS = 12  # whose shares fit into a line


def print_verdicts(verdicts: Iterable[Judged], style: Style, classes: Classes) -> Iterator[Judged]:
    """Print each verdict or failure as soon as it is there, and pass it on.

    Args:
        classes: attribute -> labels, of the judge: its columns in a CSV.
    """
    writers = {"table": _print_table, "jsonl": _print_jsonl, "csv": _print_csv}
    return writers[style](verdicts, classes)


def _print_jsonl(verdicts: Iterable[Judged], classes: Classes) -> Iterator[Judged]:
    for judged in verdicts:
        sys.stdout.write(json.dumps(judged.to_dict(), ensure_ascii=False) + "\n")
        sys.stdout.flush()
        yield judged


def _print_csv(verdicts: Iterable[Judged], classes: Classes) -> Iterator[Judged]:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns_of(list(classes)))
    for judged in verdicts:
        writer.writerow(csv_row(judged, classes))
        yield judged


def _print_table(verdicts: Iterable[Judged], classes: Classes) -> Iterator[Judged]:
    for judged in verdicts:
        sys.stdout.write(render_verdict(judged) + "\n")
        sys.stdout.flush()
        yield judged


def render_verdict(judged: Judged) -> str:
    """A few lines for people: the picture, then what is said of it."""
    if not isinstance(judged, Verdict):
        return f"{judged.image}\n  error: {judged.message}"
    lines = [judged.image]
    if judged.score is not None:
        interval = judged.interval
        span = f"  ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
        lines.append(f"  score    {judged.score:.2f}{span}")
    if judged.unfamiliar:
        lines.append("  unfamiliar: unlike the pictures that the judge was trained on")
    if judged.distribution and len(judged.distribution) <= MOST_RATINGS:
        shares = distribution_cells(judged.distribution) or {}
        lines.append("  votes    " + "  ".join(f"{r}: {share:.0%}" for r, share in shares.items()))
    if judged.comment is not None:
        lines.append(f"  comment  {judged.comment}")
    width = max((len(name) for name in judged.attributes), default=0)
    lines += [
        f"  {name:<{max(width, 7)}}  {_labels(attribute)}"
        for name, attribute in judged.attributes.items()
    ]
    lines += [f"  why {name}: {file}" for name, file in judged.explanations.items()]
    return "\n".join(lines)


def _labels(attribute: Attribute) -> str:
    """The label and its probability; of several that may hold at once each that does."""
    if not attribute.multi_label:
        return f"{attribute.label} ({attribute.probability:.0%})"
    shares = attribute.probabilities
    held = ", ".join(f"{label} ({shares[label]:.0%})" for label in attribute.labels)
    most = next(iter(shares))
    return held or f"{NONE} (most probable: {most}, {shares[most]:.0%})"
