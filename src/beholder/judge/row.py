"""One row of a verdict, the same in every output: JSON lines, CSV, Parquet, HTTP, evaluations.

| column | what it holds |
| --- | --- |
| `image` | the picture's name |
| `score`, `low`, `high` | the score and the ends of its interval |
| `distribution` | share of every rating, of a judge that predicts votes |
| `comment`, `alternatives` | the comment, and the other comments of the beam, best first |
| `attributes`, `probabilities` | of every attribute its label, and the probability of every class |
| `familiarity`, `unfamiliar` | 0 to 1, and whether it is below 0.05: see `metrics.familiarity` |
| `judge` | which judge it was: `Judge.identity` |
| `error` | code and message, where there is no verdict |

In JSON, attributes are `{name: {"label", "probability"}}` (where several labels may hold at once
also `labels`, a list), probabilities `{name: {label: share}}`,
the interval is there a second time as `interval` `[low, high]`, and a picture without a verdict is
`{"image", "error": {"code", "message"}}` alone.

A distribution is `{rating: share}` in JSON and a list of `{"rating", "share"}` in a table.

In a table every attribute has columns of its own: `attributes.<name>` (the label),
`probability.<name>` (of that label) and `probabilities.<name>` (of every class, in the judge's
order). Where several labels may hold at once, the first holds all of them, `blur;noise`, or `none`,
and the second the probability of the most probable one. What is not a single value is a list or a
struct in Parquet, and JSON in a cell of CSV.

Imports nothing but the standard library and what joins labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from beholder.data.labels import labels_cell, split_labels
from beholder.judge.verdict import Attribute, Failure, Judged, Verdict

LABEL, PROBABILITY, PROBABILITIES = "attributes.", "probability.", "probabilities."
ROUNDING = 2e-3  # of the sum of a softmax in half precision


def columns_of(attributes: Sequence[str]) -> list[str]:
    """The columns of a table of verdicts, in order."""
    return [
        *("image", "score", "low", "high", "distribution", "comment", "alternatives"),
        *(prefix + name for prefix in (LABEL, PROBABILITY, PROBABILITIES) for name in attributes),
        *("familiarity", "unfamiliar", "judge", "error"),
    ]


def table_row(judged: Judged, classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The row of a table: column -> value, in the order of `columns_of`.

    Args:
        classes: attribute -> labels in the judge's order; probabilities are told in it,
            None where a verdict does not know one.
    """
    row: dict[str, Any] = dict.fromkeys(columns_of(list(classes)))
    row["image"] = judged.image
    if isinstance(judged, Failure):
        row["error"] = {"code": judged.code, "message": judged.message}
        return row
    low, high = judged.interval or (None, None)
    row |= {
        "score": judged.score,
        "low": low,
        "high": high,
        "distribution": _ratings(judged.distribution),
        "comment": judged.comment,
        "alternatives": list(judged.alternatives),
        "familiarity": judged.familiarity,
        "unfamiliar": judged.unfamiliar,
        "judge": judged.judge,
    }
    for name, labels in classes.items():
        attribute = judged.attributes[name]
        several = attribute.multi_label
        row[LABEL + name] = labels_cell(attribute.labels) if several else attribute.label
        row[PROBABILITY + name] = attribute.probability
        row[PROBABILITIES + name] = {label: attribute.probabilities.get(label) for label in labels}
    return row


def _ratings(distribution: Mapping[float, float] | None) -> list[dict[str, float]] | None:
    """A distribution as a list, whose type is the same for every judge."""
    if distribution is None:
        return None
    return [{"rating": rating, "share": share} for rating, share in distribution.items()]


def csv_row(judged: Judged, classes: Mapping[str, Sequence[str]]) -> list[object]:
    """The cells of a CSV, in the order of `columns_of`."""
    return [_cell(value) for value in table_row(judged, classes).values()]


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return value


def parse_row(row: Mapping[str, Any]) -> Judged:
    """The verdict or failure that a row tells, of JSON or of a table; a CSV's cells are decoded.

    Raises:
        KeyError, TypeError, ValueError: it is no row of a verdict.
    """
    image, error = str(row["image"]), _value(row.get("error"))
    if error:
        return Failure(image, str(error["code"]), str(error["message"]))
    low, high = _number(row.get("low")), _number(row.get("high"))
    if low is None and row.get("interval"):
        low, high = (_number(end) for end in row["interval"])
    attributes = _json_attributes(row) if "attributes" in row else _table_attributes(row)
    return Verdict(
        image,
        _number(row.get("score")),
        None if low is None or high is None else (low, high),
        row.get("comment") or None,
        tuple(_value(row.get("alternatives")) or ()),
        attributes,
        judge=row.get("judge") or None,
        distribution=_distribution(_value(row.get("distribution"))),
        familiarity=_number(row.get("familiarity")),
    )


def _distribution(told: Any) -> dict[float, float] | None:
    """Of JSON's `{rating: share}`, or of a table's list."""
    if not told:
        return None
    if isinstance(told, Mapping):
        return {float(rating): float(share) for rating, share in told.items()}
    return {float(entry["rating"]): float(entry["share"]) for entry in told}


def _json_attributes(row: Mapping[str, Any]) -> dict[str, Attribute]:
    shares = row.get("probabilities") or {}
    return {
        name: _several(attribute["labels"], shares[name])
        if "labels" in attribute
        else _attribute(attribute["label"], attribute["probability"], shares.get(name))
        for name, attribute in row["attributes"].items()
    }


def _table_attributes(row: Mapping[str, Any]) -> dict[str, Attribute]:
    names = [column.removeprefix(LABEL) for column in row if column.startswith(LABEL)]
    return {
        name: _of_cells(
            row[LABEL + name], row[PROBABILITY + name], _value(row.get(PROBABILITIES + name))
        )
        for name in names
        if row[LABEL + name] not in (None, "")
    }


def _of_cells(label: str, probability: Any, shares: Mapping[str, Any] | None) -> Attribute:
    """An attribute of a table; several labels may hold at once where they are no class together, or
    where probabilities are not shares of one."""
    total = sum(float(share) for share in (shares or {}).values() if share is not None)
    if shares and (shares.get(label) is None or abs(total - 1.0) > ROUNDING):
        return _several(split_labels(label), shares)
    return _attribute(label, probability, shares)


def _several(labels: Sequence[str], shares: Mapping[str, Any]) -> Attribute:
    known = {name: float(share) for name, share in shares.items() if share is not None}
    ranked = sorted(known, key=lambda name: -known[name])
    return Attribute.of_several(tuple(labels), {name: known[name] for name in ranked})


def _attribute(label: str, probability: Any, shares: Mapping[str, Any] | None) -> Attribute:
    """`shares` as a verdict has them: the label first, then by probability."""
    known = {
        name: float(share)
        for name, share in (shares or {label: probability}).items()
        if share is not None
    }
    ranked = sorted(known, key=lambda name: (name != label, -known[name]))
    return Attribute(label, float(probability), {name: known[name] for name in ranked})


def _value(value: Any) -> Any:
    """A list or struct, from a cell of CSV too."""
    return json.loads(value) if isinstance(value, str) and value else value


def _number(value: Any) -> float | None:
    return None if value is None or value == "" else float(value)
