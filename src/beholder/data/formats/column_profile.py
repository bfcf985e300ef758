"""What is in a column: its numbers, its missing values, and whether it could name pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from beholder.data.formats.several_labels import SeveralLabels, several_labels
from beholder.data.images import EXTENSIONS

MISSING = ("nan", "NaN", "NAN", "None", "NA", "N/A", "n/a", "null", "NULL", "Null", "<NA>", "#N/A")
"""What programs write where there is nothing, besides nothing at all."""

_ENDINGS = "|".join(ending.lstrip(".") for ending in EXTENSIONS)
PICTURE_NAME = rf"(?i)\.(?:{_ENDINGS}|heic|avif|jp2|ppm|jfif)(?:#\d+|\?.*)?$"
_URL = r"(?i)^https?://"
_DECIMAL_COMMA = r"^\s*[+-]?\d+,\d+\s*$"
_WIDE_SIGNS = r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
_WORDS_PER_WIDE_SIGN = 2.5  # Chinese, Japanese and Thai are written without blanks


@dataclass(frozen=True)
class Profile:
    """A column by its content.

    Args:
        name: as in the header.
        kind: "text", or what its cells are lists of: "texts", "numbers".
        filled: how many values are not missing.
        distinct: of those.
        numeric: share of them that are finite numbers.
        whole: all numbers are whole.
        low, high: of the numbers, None: there are none.
        counts: the numbers are 0, 1, 2... or 1, 2, 3... in the order of the rows.
        pictures: share of the values that end like the name of a picture.
        urls: share of the values that are addresses.
        words: mean number of words.
        several: how its cells hold several labels at once; None: they don't.
    """

    name: str
    kind: str
    filled: int
    distinct: int
    numeric: float
    whole: bool
    low: float | None
    high: float | None
    counts: bool
    pictures: float
    urls: float
    words: float
    several: SeveralLabels | None = None

    @property
    def is_number(self) -> bool:
        """Most of the values are numbers; a few may be damaged."""
        return self.kind == "text" and self.filled > 0 and self.numeric >= 0.8

    @property
    def varies(self) -> bool:
        return self.distinct > 1


def could_be_pictures(values: Sequence[object]) -> bool:
    """Whether most of some values end like the name of a picture."""
    texts = [value for value in values[:200] if isinstance(value, str)]
    picture_names = (
        pl.Series(texts, dtype=pl.String).str.contains(PICTURE_NAME).sum() if texts else 0
    )
    return len(texts) > 0 and picture_names > len(texts) / 2


def without_missing(frame: pl.DataFrame, except_for: tuple[str, ...] = ()) -> pl.DataFrame:
    """Text columns with null for what is missing: blank cells and `MISSING`."""
    columns = [
        pl.when(~pl.col(name).str.strip_chars().is_in(["", *MISSING]))
        .then(pl.col(name))
        .alias(name)
        for name, dtype in frame.schema.items()
        if dtype == pl.String and name not in except_for
    ]
    return frame.with_columns(columns)


def with_plain_numbers(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Text columns of numbers with a decimal comma, with a point instead; and their names."""
    changed = []
    for name, dtype in frame.schema.items():
        if dtype != pl.String:
            continue
        cells = frame[name].drop_nulls().str.strip_chars()
        head = cells.filter(~cells.is_in(["", *MISSING])).head(1000)
        comma = head.str.contains(_DECIMAL_COMMA)
        number = comma | head.cast(pl.Float64, strict=False).is_not_null()
        if comma.any() and number.all() and not head.str.contains(".", literal=True).any():
            changed.append(name)
    points = [pl.col(name).str.replace(",", ".", literal=True) for name in changed]
    return frame.with_columns(points), changed


def profile(column: pl.Series) -> Profile:
    """Look at a whole column."""
    if isinstance(column.dtype, pl.List):
        kind = "texts" if column.dtype.inner == pl.String else "numbers"
        return _list_profile(column, kind)
    text = column.drop_nulls().str.strip_chars()
    filled = len(text)
    number = text.cast(pl.Float64, strict=False)
    number = number.set(~number.is_finite().fill_null(False), None).drop_nulls()
    whole = bool((number == number.floor()).all())
    counts = len(number) == len(column) > 1 and bool((number.diff().drop_nulls() == 1).all())
    wide = text.str.count_matches(_WIDE_SIGNS).mean() if filled else 0
    words = text.str.count_matches(r"\S+").mean() if filled else 0
    wide_words = float(wide or 0) / _WORDS_PER_WIDE_SIGN  # type: ignore[arg-type]
    return Profile(
        column.name,
        "text",
        filled,
        text.n_unique() if filled else 0,
        len(number) / filled if filled else 0.0,
        whole,
        _number(number.min()),
        _number(number.max()),
        counts and number[0] in (0, 1),
        _share(text.str.contains(PICTURE_NAME)),
        _share(text.str.contains(_URL)),
        max(float(words or 0), wide_words),  # type: ignore[arg-type]
        several_labels(text),
    )


def _list_profile(column: pl.Series, kind: str) -> Profile:
    lists = column.drop_nulls()
    items = lists.explode().drop_nulls()
    numbers = (
        items.cast(pl.Float64, strict=False)
        if kind == "numbers"
        else pl.Series([], dtype=pl.Float64)
    )
    words = items.str.count_matches(r"\S+").mean() if kind == "texts" and len(items) else 0
    return Profile(
        column.name,
        kind,
        len(lists),
        len(lists),
        1.0 if kind == "numbers" else 0.0,
        bool((numbers == numbers.floor()).all()),
        _number(numbers.min()),
        _number(numbers.max()),
        False,
        _share(items.str.contains(PICTURE_NAME)) if kind == "texts" else 0.0,
        0.0,
        float(words or 0),  # type: ignore[arg-type]
        several_labels(column) if kind == "texts" else None,
    )


def _share(matches: pl.Series) -> float:
    return float(matches.sum()) / len(matches) if len(matches) else 0.0


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
