"""How a verdict is laid out in a file: as `judge.row` has it, or as earlier formats had it.

A work keeps the layout that it was begun in, so that a file never holds two: what an earlier
version has begun is finished in its format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import polars as pl

from beholder.judge.row import LABEL, PROBABILITIES, PROBABILITY, columns_of, table_row
from beholder.judge.verdict import Failure, Judged

Format = Literal[1, 2, 3]
Classes = Mapping[str, Sequence[str]]


class Layout(Protocol):
    """Lines of JSON, and columns of Parquet."""

    def line(self, judged: Judged) -> dict[str, object]:
        """A line of JSON."""
        ...

    def schema(self, classes: Classes) -> dict[str, Any]:
        """Column -> type, of verdicts of a judge with these attributes and labels."""
        ...

    def row(self, judged: Judged, classes: Classes) -> dict[str, Any]:
        """The values of the columns."""
        ...

    def failures(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Image, code and message of the rows without a verdict."""
        ...

    def failure_columns(self) -> list[str]:
        """The columns that `failures` reads."""
        ...


class CurrentLayout:
    """The row that every output has: `judge.row`."""

    def line(self, judged: Judged) -> dict[str, object]:
        return judged.to_dict()

    def schema(self, classes: Classes) -> dict[str, Any]:
        kinds: dict[str, Any] = {
            "score": pl.Float64(), "low": pl.Float64(), "high": pl.Float64(),
            "distribution": pl.List(pl.Struct({"rating": pl.Float64(), "share": pl.Float64()})),
            "alternatives": pl.List(pl.String()),
            "familiarity": pl.Float64(), "unfamiliar": pl.Boolean(),
            "error": pl.Struct({"code": pl.String(), "message": pl.String()}),
        }  # fmt: skip
        for name, labels in classes.items():
            kinds[LABEL + name] = pl.String()
            kinds[PROBABILITY + name] = pl.Float64()
            kinds[PROBABILITIES + name] = pl.Struct(dict.fromkeys(labels, pl.Float64()))
        return {column: kinds.get(column, pl.String()) for column in columns_of(list(classes))}

    def row(self, judged: Judged, classes: Classes) -> dict[str, Any]:
        return table_row(judged, classes)

    def failures(self, frame: pl.DataFrame) -> pl.DataFrame:
        error = pl.col("error").struct
        failures = frame.select("image", code=error.field("code"), message=error.field("message"))
        return failures.drop_nulls("code")

    def failure_columns(self) -> list[str]:
        return ["image", "error"]


class SecondLayout(CurrentLayout):
    """Format 2: neither a distribution nor how familiar the picture is."""

    LATER = frozenset({"distribution", "familiarity", "unfamiliar"})

    def line(self, judged: Judged) -> dict[str, object]:
        return self._kept(super().line(judged))

    def schema(self, classes: Classes) -> dict[str, Any]:
        return self._kept(super().schema(classes))

    def row(self, judged: Judged, classes: Classes) -> dict[str, Any]:
        return self._kept(super().row(judged, classes))

    def _kept(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name not in self.LATER}


class FirstLayout:
    """Format 1: neither alternatives nor all probabilities, nor which judge it was."""

    def line(self, judged: Judged) -> dict[str, object]:
        kept = ("image", "score", "interval", "comment", "attributes", "error")
        return {name: value for name, value in judged.to_dict().items() if name in kept}

    def schema(self, classes: Classes) -> dict[str, Any]:
        return {
            "image": pl.String(), "score": pl.Float64(), "low": pl.Float64(), "high": pl.Float64(),
            "comment": pl.String(),
            **{f"attribute.{name}": pl.String() for name in classes},
            **{f"probability.{name}": pl.Float64() for name in classes},
            "error_code": pl.String(), "error": pl.String(),
        }  # fmt: skip

    def row(self, judged: Judged, classes: Classes) -> dict[str, Any]:
        row = table_row(judged, classes)
        for name in classes:
            row[f"attribute.{name}"] = row[LABEL + name]
        row["error_code"] = row["error"] = None
        if isinstance(judged, Failure):
            row["error_code"], row["error"] = judged.code, judged.message
        return {column: row[column] for column in self.schema(classes)}

    def failures(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.select("image", "error_code", "error").drop_nulls("error_code")

    def failure_columns(self) -> list[str]:
        return ["image", "error_code", "error"]


def layout_of(format: Format) -> Layout:
    """The layout of a work of this format."""
    layouts: dict[Format, Layout] = {1: FirstLayout(), 2: SecondLayout(), 3: CurrentLayout()}
    return layouts[format]
