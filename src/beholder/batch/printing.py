"""Outcomes on the terminal or in a pipe: a table, JSON lines, or CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator

from beholder.judge.runner import Outcome
from beholder.judge.verdict import Verdict


def print_outcomes(outcomes: Iterable[Outcome], style: str) -> Iterator[Outcome]:
    """Print each outcome as soon as it is there, and pass it on.

    Args:
        style: `table`, `jsonl` or `csv`. The columns of a CSV are those of the first verdict.
    """
    writers = {"table": _print_table, "jsonl": _print_jsonl, "csv": _print_csv}
    return writers[style](outcomes)


def _print_jsonl(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    for outcome in outcomes:
        sys.stdout.write(json.dumps(outcome.to_dict(), ensure_ascii=False) + "\n")
        sys.stdout.flush()
        yield outcome


def _print_csv(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    # Failures before the first verdict wait for it: only a verdict tells the attributes' names.
    waiting: list[Outcome] = []
    names: list[str] | None = None
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for outcome in outcomes:
        waiting.append(outcome)
        if names is None and isinstance(outcome, Verdict):
            names = list(outcome.attributes)
            writer.writerow(_csv_header(names))
        if names is not None:
            writer.writerows(_csv_row(entry, names) for entry in waiting)
            yield from waiting
            waiting.clear()
    if waiting:
        writer.writerow(_csv_header([]))
        writer.writerows(_csv_row(entry, []) for entry in waiting)
        yield from waiting


def _csv_header(names: list[str]) -> list[str]:
    columns = [column for name in names for column in (name, f"{name}_probability")]
    return ["image", "score", "low", "high", "comment", *columns, "error"]


def _csv_row(outcome: Outcome, names: list[str]) -> list[object]:
    if not isinstance(outcome, Verdict):
        return [outcome.image, *[""] * (4 + 2 * len(names)), f"{outcome.code}: {outcome.message}"]
    low, high = outcome.interval or ("", "")
    row: list[object] = [outcome.image, _blank(outcome.score), low, high, _blank(outcome.comment)]
    for name in names:
        attribute = outcome.attributes[name]
        row += [attribute.label, attribute.probability]
    return [*row, ""]


def _blank(value: object) -> object:
    return "" if value is None else value


def _print_table(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    for outcome in outcomes:
        sys.stdout.write(render_outcome(outcome) + "\n")
        sys.stdout.flush()
        yield outcome


def render_outcome(outcome: Outcome) -> str:
    """A few lines for people: the picture, then what is said of it."""
    if not isinstance(outcome, Verdict):
        return f"{outcome.image}\n  error: {outcome.message}"
    lines = [outcome.image]
    if outcome.score is not None:
        interval = outcome.interval
        span = f"  ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
        lines.append(f"  score    {outcome.score:.2f}{span}")
    if outcome.comment is not None:
        lines.append(f"  comment  {outcome.comment}")
    width = max((len(name) for name in outcome.attributes), default=0)
    lines += [
        f"  {name:<{max(width, 7)}}  {attribute.label} ({attribute.probability:.0%})"
        for name, attribute in outcome.attributes.items()
    ]
    lines += [f"  why {name}: {file}" for name, file in outcome.explanations.items()]
    return "\n".join(lines)
