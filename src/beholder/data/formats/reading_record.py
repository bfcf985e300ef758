"""What was understood of a table, for people and for programs: `Reading`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from beholder.data.annotations import ATTRIBUTE_PREFIX, RATINGS, AnnotationTable

_SHOWN_CLASSES = 8


@dataclass(frozen=True)
class Reading:
    """How a table was read.

    Args:
        format: one of `FORMATS`; None: none fits.
        container: what it was found in: "CSV with commas".
        encoding: of a text file.
        rows: of the table, damaged ones left out.
        columns: role -> column.
        why: role -> what says so.
        ignored: columns that nothing is read from.
        notes: what a person should know, a sentence or two each.
        table: what came of it; None: nothing.
    """

    format: str | None = None
    container: str = ""
    encoding: str | None = None
    rows: int = 0
    columns: Mapping[str, str] = field(default_factory=dict)
    why: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    table: AnnotationTable | None = None

    def to_dict(self) -> dict[str, object]:
        """`read` of `beholder check --format json`: plain JSON."""
        frame = self.table.frame if self.table is not None else None
        splits: dict[str, int] = {}
        attributes: dict[str, list[str]] = {}
        if frame is not None and self.table is not None:
            counts = frame["split"].drop_nulls().value_counts().sort("split")
            splits = dict(counts.iter_rows())
            attributes = {name: list(labels) for name, labels in self.table.classes.items()}
        return {
            "format": self.format,
            "container": self.container,
            "encoding": self.encoding,
            "pictures": 0 if frame is None else frame.height,
            "rows": self.rows,
            "columns": dict(self.columns),
            "why": dict(self.why),
            "score": _score(frame),
            "comments": 0 if frame is None else int(frame["comments"].list.len().sum() or 0),
            "attributes": attributes,
            "multi_label": [] if self.table is None else sorted(self.table.multi_label),
            "raters": _raters(frame),
            "groups": 0 if frame is None else frame["group"].drop_nulls().n_unique(),
            "splits": splits,
            "ignored": list(self.ignored),
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """The same in words: what opens `beholder check` and `beholder fit`."""
        facts = self.to_dict()
        held = self.container + (f" in {self.encoding}" if self.encoding else "")
        opening = f"Read as {self.format or 'no known format'} ({held})"
        lines = [f"{opening}: {facts['rows']} rows, {facts['pictures']} pictures."]
        for role, column in self.columns.items():
            if role.startswith(("rating.", "votes.")):
                continue
            why = self.why.get(role)
            lines.append(f"  {role}: {column!r}{f' ({why})' if why else ''}")
        lines += [f"  {entry}" for entry in self._opinions(facts)]
        if self.ignored:
            lines.append(f"  ignored: {', '.join(self.ignored)}")
        lines += [f"  note: {note}" for note in self.notes]
        return lines

    def _opinions(self, facts: Mapping[str, object]) -> list[str]:
        lines = []
        score = facts["score"]
        if isinstance(score, dict):
            span = f"{score['low']:.6g} to {score['high']:.6g}"
            lines.append(f"scores: {span}, of {score['rows']} pictures")
        if facts["comments"]:
            lines.append(f"comments: {facts['comments']}")
        for name, counts in _class_counts(self.table).items():
            shown = [f"{label} {count}" for label, count in counts[:_SHOWN_CLASSES]]
            more = len(counts) - len(shown)
            rest = f" and {more} more" if more > 0 else ""
            what = f"{len(counts)} classes"
            if self.table is not None and name in self.table.multi_label:
                what = f"{len(counts)} labels, several at once, {_without(self.table, name)}"
            lines.append(f"{name}: {what}: {', '.join(shown)}{rest}")
        lines += [f"{name}: {facts[name]}" for name in ("raters", "groups") if facts[name]]
        splits = facts["splits"]
        if isinstance(splits, dict) and splits:
            lines.append("splits: " + ", ".join(f"{name} {n}" for name, n in splits.items()))
        return lines


def _score(frame: pl.DataFrame | None) -> dict[str, float | int] | None:
    scores = None if frame is None else frame["score"].drop_nulls()
    if scores is None or scores.is_empty():
        return None
    low, high = scores.min(), scores.max()
    assert isinstance(low, float) and isinstance(high, float)
    return {"low": low, "high": high, "rows": len(scores)}


def _raters(frame: pl.DataFrame | None) -> int:
    if frame is None or RATINGS not in frame.columns:
        return 0
    return frame[RATINGS].drop_nulls().explode().drop_nulls().struct.field("rater").n_unique()


def _class_counts(table: AnnotationTable | None) -> dict[str, list[tuple[str, int]]]:
    """Attribute -> (class, pictures), the most frequent first."""
    if table is None:
        return {}
    counts = {}
    for name, labels in table.classes.items():
        seen = dict(table.labels(name).value_counts().iter_rows())
        counts[name] = sorted(((n, seen.get(n, 0)) for n in labels), key=lambda pair: -pair[1])
    return counts


def _without(table: AnnotationTable, name: str) -> str:
    """Of how many pictures a multi-label attribute is known, and of how many no label holds."""
    known = table.frame[ATTRIBUTE_PREFIX + name].drop_nulls()
    none = int((known.list.len() == 0).sum())
    return f"known of {len(known)} pictures, none holds of {none}"
