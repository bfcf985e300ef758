"""The table of opinions: one row per picture, validated, stored as Parquet.

Every row is a picture, identified by its image key. Missing opinions are null (comments: an empty
list), so that a table may hold scored, commented and labelled pictures together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from beholder.data.files import atomic_path
from beholder.data.keys import key_problem
from beholder.data.labels import NONE, SEPARATOR, joinable
from beholder.errors import DataError, Problem

SPLITS = ("train", "val", "test")
ATTRIBUTE_PREFIX = "attribute."
VOTES = "votes"
RATINGS = "ratings"
RATINGS_TYPE = pl.List(pl.Struct({"rater": pl.String(), "score": pl.Float64()}))
COLUMNS: dict[str, pl.DataType] = {
    "image": pl.String(),
    "score": pl.Float64(),
    "raters": pl.Int64(),
    "score_std": pl.Float64(),
    "comments": pl.List(pl.String()),
    "box": pl.List(pl.Float64()),
    "split": pl.String(),
    "group": pl.String(),
}
_LISTS = {**COLUMNS, RATINGS: RATINGS_TYPE}
_FORMAT_VERSION = "1"
_VERSION_KEY = "beholder.annotations"
_CLASSES_KEY = "beholder.classes"
_MULTI_LABEL_KEY = "beholder.multi_label"
_BINS_KEY = "beholder.grades"  # as it was called when the format was made


@dataclass(frozen=True)
class AnnotationTable:
    """Opinions about pictures, one row per picture.

    Args:
        frame: the columns below, in this order, then one column `attribute.<name>` per attribute:
            String (null: unlabelled), of a multi-label one List(String) of the labels that hold, in
            the order of its classes (empty: none holds; null: unknown). Then, if the table has
            rating bins, `votes` List(Int64): how many people chose each of them (null: unknown),
            then, if it says who gave which score, `ratings`, a list of structs of `rater` (String)
            and `score` (Float64; null: unknown).

            - `image` String: the image key, unique
            - `score` Float64: mean opinion score, finite, null: not scored
            - `raters` Int64: how many people it is the mean of, null: unknown
            - `score_std` Float64: spread of their scores, at least 0, null: unknown
            - `comments` List(String): never null, may be empty; no comment is blank
            - `box` List(Float64): null or [xmin, ymin, xmax, ymax] in pixels, not empty
            - `split` String: null, "train", "val" or "test"
            - `group` String: pictures of one group never straddle splits, null: alone
        classes: attribute name -> class labels, in index order; every attribute column has them.
        rating_bins: rising, the scores that raters choose from; empty: the table has no
            votes.
        multi_label: the attributes of which several labels may hold at once.

    Raises:
        DataError: with every problem of the frame, not only the first. Rows count from 0.
    """

    frame: pl.DataFrame
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rating_bins: tuple[float, ...] = ()
    multi_label: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "rating_bins", tuple(map(float, self.rating_bins)))
        object.__setattr__(self, "multi_label", frozenset(self.multi_label))
        object.__setattr__(self, "classes", {k: tuple(v) for k, v in self.classes.items()})
        # polars forgets the type of a list column that holds only nulls, e.g. in `reverse`
        untyped = [n for n, t in self.frame.schema.items() if t == pl.List(pl.Null)]
        lists = _LISTS | {
            ATTRIBUTE_PREFIX + name: pl.List(pl.String()) for name in self.multi_label
        }
        typed = [pl.col(n).cast(lists[n]) for n in untyped if n in lists]
        object.__setattr__(self, "frame", self.frame.with_columns(typed))
        problems = list(
            _find_problems(self.frame, self.classes, self.rating_bins, self.multi_label)
        )
        if problems:
            raise DataError("The annotations are not usable.", problems=problems)

    def __len__(self) -> int:
        return self.frame.height

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AnnotationTable):
            return NotImplemented
        return (
            self.classes == other.classes
            and self.rating_bins == other.rating_bins
            and self.multi_label == other.multi_label
            and self.frame.equals(other.frame)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """The attributes, in column order."""
        return tuple(self.classes)

    @property
    def keys(self) -> list[str]:
        """The image keys, in row order."""
        return self.frame["image"].to_list()

    @property
    def groups(self) -> dict[str, str]:
        """Image key -> what the picture belongs to: its group, or, without one, itself."""
        # named apart, as a group may be called like a picture
        return {
            key: f"picture {key}" if group is None else f"group {group}"
            for key, group in self.frame.select("image", "group").iter_rows()
        }

    @classmethod
    def from_columns(
        cls,
        image: Sequence[str],
        *,
        attributes: Mapping[str, Sequence[Any]] | None = None,
        classes: Mapping[str, Sequence[str]] | None = None,
        rating_bins: Sequence[float] = (),
        multi_label: Collection[str] = (),
        **columns: Sequence[Any],
    ) -> AnnotationTable:
        """A table from plain sequences, one value per picture.

        Args:
            image: image keys.
            attributes: attribute name -> labels; of a multi-label one a list of labels per picture.
            classes: labels in index order; by default the sorted labels that occur.
            rating_bins: the scores that the lists of a column `votes` count.
            multi_label: attributes of which several labels may hold at once.
            columns: any of the other columns of the table; left out means null. `ratings` are
                lists of `{"rater": ..., "score": ...}`.

        Raises:
            DataError: an unknown column, columns of different lengths, or unusable values.
        """
        known = [*COLUMNS, VOTES, RATINGS] if rating_bins else [*COLUMNS, RATINGS]
        unknown = sorted(set(columns) - set(known))
        if unknown:
            raise DataError(f"Unknown column {', '.join(unknown)}.", fix=f"Use {', '.join(known)}.")
        attributes = attributes or {}
        data: dict[str, Any] = {"image": image, **columns}
        schema: dict[str, pl.DataType] = dict(COLUMNS)
        for name, labels in attributes.items():
            data[ATTRIBUTE_PREFIX + name] = labels
            schema[ATTRIBUTE_PREFIX + name] = attribute_type(name in multi_label)
        if rating_bins:
            schema[VOTES] = pl.List(pl.Int64())
        if RATINGS in columns:
            schema[RATINGS] = RATINGS_TYPE
        for name in schema:
            data.setdefault(name, [[] if name == "comments" else None] * len(image))
        lengths = {name: len(values) for name, values in data.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"The columns have different lengths: {lengths}.")
        frame = pl.DataFrame({name: data[name] for name in schema}, schema=schema)
        occurring = {
            name: tuple(sorted(set(each_label(frame[ATTRIBUTE_PREFIX + name]))))
            for name in attributes
        }
        declared = {name: tuple(labels) for name, labels in (classes or {}).items()}
        known_classes = {**occurring, **declared}
        frame = frame.with_columns(
            in_class_order(frame[ATTRIBUTE_PREFIX + name], known_classes[name])
            for name in multi_label
        )
        return cls(frame, known_classes, tuple(rating_bins), frozenset(multi_label))

    def subset(self, split: str) -> AnnotationTable:
        """The rows of one split, in row order; the classes stay."""
        return self.with_frame(self.frame.filter(pl.col("split") == split))

    def with_opinion(self, opinion: str) -> AnnotationTable:
        """The rows that have a `score`, a label of `attributes`, or a `comment`, in row order."""
        known = {
            "score": pl.col("score").is_not_null(),
            "attributes": pl.any_horizontal(
                pl.lit(False), *(pl.col(ATTRIBUTE_PREFIX + n).is_not_null() for n in self.classes)
            ),
            "comment": pl.col("comments").list.len() > 0,
        }
        return self.with_frame(self.frame.filter(known[opinion]))

    def with_split(self, split: pl.Series | Sequence[str | None]) -> AnnotationTable:
        """The same table with another `split` column, one value per row."""
        column = pl.Series("split", split, dtype=pl.String)
        return self.with_frame(self.frame.with_columns(column))

    def with_frame(self, frame: pl.DataFrame) -> AnnotationTable:
        """Another frame of the same columns, with these classes and rating bins."""
        return AnnotationTable(frame, self.classes, self.rating_bins, self.multi_label)

    def labels(self, name: str) -> pl.Series:
        """Every label of an attribute that its pictures have; of a multi-label one a picture may
        have several of them, or none."""
        return each_label(self.frame[ATTRIBUTE_PREFIX + name])

    def to_parquet(self, path: str | Path) -> None:
        """Write the table, classes in the Parquet metadata. Never leaves half a file."""
        metadata = {
            _VERSION_KEY: _FORMAT_VERSION,
            _CLASSES_KEY: json.dumps(self.classes, ensure_ascii=False),
            _BINS_KEY: json.dumps(self.rating_bins),
            _MULTI_LABEL_KEY: json.dumps(sorted(self.multi_label), ensure_ascii=False),
        }
        with atomic_path(path) as temporary:
            self.frame.write_parquet(temporary, metadata=metadata)

    @classmethod
    def from_parquet(cls, path: str | Path) -> AnnotationTable:
        """Read what `to_parquet` wrote.

        Raises:
            DataError: no such file, not Parquet, not written by Beholder, of a newer format, or
                unusable values.
        """
        where = str(path)
        if not Path(path).is_file():
            raise DataError("There is no such file.", where=where)
        try:
            metadata = pl.read_parquet_metadata(path)
            frame = pl.read_parquet(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(
                f"The Parquet file can't be read: {error}", where=where, fix="Write it again."
            ) from error
        if metadata.get(_VERSION_KEY) != _FORMAT_VERSION:
            raise DataError(
                "The Parquet file is not an annotation table of this version of Beholder.",
                where=where,
                fix="Give the original table (CSV, JSON, folder) instead, or update Beholder.",
            )
        classes = json.loads(metadata[_CLASSES_KEY])
        rating_bins = json.loads(metadata.get(_BINS_KEY, "[]"))
        multi_label = json.loads(metadata.get(_MULTI_LABEL_KEY, "[]"))
        try:
            return cls(frame, classes, tuple(rating_bins), frozenset(multi_label))
        except DataError as error:
            raise DataError(error.what, where=where, problems=error.problems) from None


def attribute_type(multi_label: bool) -> pl.DataType:
    """The type of an attribute's column."""
    return pl.List(pl.String()) if multi_label else pl.String()


def each_label(column: pl.Series) -> pl.Series:
    """The labels of an attribute's column one by one; those of a multi-label one's lists."""
    flat = column.explode() if isinstance(column.dtype, pl.List) else column
    return flat.drop_nulls()


def in_class_order(column: pl.Series, labels: Sequence[str]) -> pl.Series:
    """Lists of labels [rows] with each label once, known ones first in the order of `labels`."""
    place = {label: index for index, label in enumerate(labels)}
    known = len(place)
    lists = [
        None if cell is None else sorted(set(cell), key=lambda label: place.get(label, known))
        for cell in column.to_list()
    ]
    return pl.Series(column.name, lists, dtype=pl.List(pl.String))


_PLAIN_KEY = r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*$"


def is_plain_key(keys: pl.Series) -> pl.Series:
    """Whether a name is certainly an image key, as nearly all are; others are examined one by one,
    see `keys`."""
    return keys.str.contains(_PLAIN_KEY).fill_null(False)


def _find_problems(
    frame: pl.DataFrame,
    classes: Mapping[str, tuple[str, ...]],
    rating_bins: tuple[float, ...],
    multi_label: frozenset[str],
) -> Iterator[Problem]:
    """Everything wrong with a frame; values are only checked if the columns are right."""
    expected = dict(COLUMNS) | {
        ATTRIBUTE_PREFIX + name: attribute_type(name in multi_label) for name in classes
    }
    if rating_bins:
        expected[VOTES] = pl.List(pl.Int64())
    if RATINGS in frame.columns:
        expected[RATINGS] = RATINGS_TYPE
    if list(frame.columns) != list(expected):
        yield Problem(
            "error",
            "columns",
            f"The columns are {', '.join(frame.columns)}; expected {', '.join(expected)}.",
        )
        return
    wrong = [name for name, dtype in expected.items() if frame.schema[name] != dtype]
    for name in wrong:
        message = f"The column holds {frame.schema[name]}; expected {expected[name]}."
        yield Problem("error", "column_type", message, field=name)
    if wrong:
        return
    yield from _class_problems(classes, multi_label)
    yield from _key_problems(frame)
    yield from _value_problems(frame)
    if rating_bins:
        yield from _vote_problems(frame, rating_bins)
    if RATINGS in frame.columns:
        yield from _rating_problems(frame)
    for name, labels in classes.items():
        column = ATTRIBUTE_PREFIX + name
        message = f"The class is not one of {', '.join(labels)}."
        unknown = pl.col(column).is_not_null() & ~pl.col(column).is_in(list(labels))
        if name in multi_label:
            message = f"The labels are not each one of {', '.join(labels)}, and there once."
            known = pl.col(column).list.eval(pl.element().is_in(list(labels))).list.all()
            once = pl.col(column).list.n_unique() == pl.col(column).list.len()
            unknown = pl.col(column).is_not_null() & ~(known & once).fill_null(False)
        yield from _rows_where(frame, unknown, "unknown_class", column, message)


def _class_problems(
    classes: Mapping[str, tuple[str, ...]], multi_label: frozenset[str]
) -> Iterator[Problem]:
    for name in sorted(multi_label - classes.keys()):
        yield Problem("error", "classes", f"There is no attribute {name!r}.")
    for name, labels in classes.items():
        refused = [label for label in labels if not joinable(label)]
        if name in multi_label and refused:
            message = (
                f"{', '.join(map(repr, refused))} can't be a label where several hold at once: "
                f"{SEPARATOR!r} stands between them, and {NONE!r} for no label."
            )
            yield Problem("error", "classes", message, field=ATTRIBUTE_PREFIX + name)
        if len(set(labels)) != len(labels) or not all(labels):
            message = f"The class labels {labels!r} are empty or repeated."
            yield Problem("error", "classes", message, field=ATTRIBUTE_PREFIX + name)


def _key_problems(frame: pl.DataFrame) -> Iterator[Problem]:
    first: dict[str, int] = {}
    keys = frame["image"]
    suspect = (~is_plain_key(keys) | keys.is_duplicated()).arg_true()
    for row, key in zip(suspect.to_list(), keys.gather(suspect).to_list(), strict=True):
        if key is None:
            yield Problem("error", "empty_key", "The image key is null.", row=row, field="image")
            continue
        problem = key_problem(key)
        if problem:
            yield Problem("error", *problem, row=row, field="image", key=key)
        if first.setdefault(key, row) != row:
            message = f"The picture is already in row {first[key]}."
            yield Problem("error", "duplicate_key", message, row=row, field="image", key=key)


def _value_problems(frame: pl.DataFrame) -> Iterator[Problem]:
    score, spread, box = pl.col("score"), pl.col("score_std"), pl.col("box")
    blank = pl.element().is_null() | (pl.element().str.strip_chars() == "")
    corner = [box.list.get(index, null_on_oob=True) for index in range(4)]
    usable_box = (box.list.len() == 4) & (corner[0] < corner[2]) & (corner[1] < corner[3])
    finite_box = box.list.eval(pl.element().is_finite()).list.all()
    rules = [
        ("score", "not_finite", ~score.is_finite(), "The score is not a finite number."),
        (
            "score_std",
            "spread",
            ~spread.is_finite() | (spread < 0),
            "The spread is not a finite number of at least 0.",
        ),
        ("raters", "raters", pl.col("raters") < 0, "The number of raters is negative."),
        ("comments", "comments", pl.col("comments").is_null(), "The list of comments is null."),
        (
            "comments",
            "empty_comment",
            pl.col("comments").list.eval(blank).list.any(),
            "A comment is empty.",
        ),
        (
            "box",
            "box",
            box.is_not_null() & ~(usable_box & finite_box).fill_null(False),
            "The box is not [xmin, ymin, xmax, ymax] with xmin < xmax and ymin < ymax.",
        ),
        (
            "split",
            "split",
            pl.col("split").is_not_null() & ~pl.col("split").is_in(SPLITS),
            f"The split is not one of {', '.join(SPLITS)}.",
        ),
    ]
    for column, code, condition, message in rules:
        yield from _rows_where(frame, condition, code, column, message)


def _vote_problems(frame: pl.DataFrame, rating_bins: tuple[float, ...]) -> Iterator[Problem]:
    if list(rating_bins) != sorted(set(rating_bins)) or not all(map(math.isfinite, rating_bins)):
        yield Problem("error", VOTES, f"The rating bins {rating_bins} are not finite and rising.")
    votes = pl.col(VOTES)
    counts = votes.list.eval(pl.element().is_not_null() & (pl.element() >= 0)).list.all()
    usable = (votes.list.len() == len(rating_bins)) & counts & (votes.list.sum() > 0)
    message = f"The votes are not {len(rating_bins)} counts, one of them above 0."
    wrong = votes.is_not_null() & ~usable.fill_null(False)
    yield from _rows_where(frame, wrong, VOTES, VOTES, message)


def _rating_problems(frame: pl.DataFrame) -> Iterator[Problem]:
    rater, score = pl.element().struct.field("rater"), pl.element().struct.field("score")
    usable = (rater.str.len_chars() > 0) & score.is_finite()
    ratings = pl.col(RATINGS)
    wrong = ~ratings.list.eval(usable.fill_null(False)).list.all() | (ratings.list.len() == 0)
    message = "The ratings are not a finite score of a named rater each."
    yield from _rows_where(frame, wrong, RATINGS, RATINGS, message)


def _rows_where(
    frame: pl.DataFrame, condition: pl.Expr, code: str, column: str, message: str
) -> Iterator[Problem]:
    """A problem per row where `condition` holds (null counts as no)."""
    bad = frame.with_row_index("row").filter(condition.fill_null(False))
    for row, key, value in bad.select("row", "image", column).iter_rows():
        yield Problem("error", code, f"{message} Found {value!r}.", row=row, field=column, key=key)
