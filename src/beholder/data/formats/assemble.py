"""Rows of text, from whatever file, to an `AnnotationTable` and everything wrong with them.

Each family of formats turns its file into `Rows`; what a field may hold, how several rows of one
picture come together and how a problem is worded is decided here, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from beholder.data.annotations import (
    ATTRIBUTE_PREFIX,
    COLUMNS,
    RATINGS,
    VOTES,
    AnnotationTable,
    each_label,
    in_class_order,
    is_plain_key,
)
from beholder.data.formats.column_names import SPLIT_NAMES
from beholder.data.formats.delimited import ROW
from beholder.data.formats.layouts import BOX_FIELDS
from beholder.data.formats.ratings import (
    rating_columns,
    ratings_of_rows,
    repeated_rating,
    with_ratings,
)
from beholder.data.formats.votes import vote_columns, with_votes, wrong_votes
from beholder.data.keys import key_problem, make_key, with_posix_separators
from beholder.errors import LISTED, Problem

_NUMBERS = ("score", "raters", "score_std", "score_var", *BOX_FIELDS)
_KEY, _RAW, _USABLE = "\x00key", "\x00raw", "\x00usable"


@dataclass(frozen=True)
class Rows:
    """Rows as read.

    Args:
        frame: `ROW` (Int64: line or index, null for folders), `image` and any of the fields of
            `layouts.FIELDS` and `attribute.<name>` as String; `comments`, and an attribute of
            which several labels may hold at once, are List(String).
        file: named in the problems.
        repeats: a picture may have several rows.
        score_range: lowest and highest score.
        classes: attribute -> labels, where they are known beforehand.
        codebook: attribute in small letters -> value -> name: its classes are these names.
        names: field -> what the file calls it, for the problems.
        root: what absolute names of pictures start with.
    """

    frame: pl.DataFrame
    file: str
    repeats: bool = False
    score_range: tuple[float, float] | None = None
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    codebook: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    root: str | None = None


@dataclass(frozen=True)
class Assembled:
    """The table (None: no row is left), its rows' places in the file, and the problems.

    Where rows contradict one another the table holds the first one's value.
    """

    table: AnnotationTable | None
    rows: dict[str, int]
    problems: list[Problem]


def assemble(rows: Rows) -> Assembled:
    """Build the table from every row that has a usable image key."""
    problems: list[Problem] = []
    frame = _with_comment_lists(rows.frame, rows, problems)
    frame = _with_keys(frame, rows, problems)
    votes, ratings = vote_columns(frame), rating_columns(frame)
    numbers = [*_NUMBERS, *votes.values(), *ratings.values()]
    frame = _with_numbers(frame, rows, problems, numbers)
    if votes:
        message = "The votes are not one count per grade that sum to the number of raters."
        last = list(votes.values())[-1]
        problems += _problems_where(frame, wrong_votes(votes), rows, VOTES, last, message)
        frame = with_votes(frame, votes)
    if "rater" in frame.columns:
        frame = _with_raters(frame, rows, problems)
    frame = _with_boxes(frame, rows, problems)
    frame = _with_splits(frame, rows, problems)
    attributes = [name for name in frame.columns if name.startswith(ATTRIBUTE_PREFIX)]
    classes = {}
    for name in attributes:
        frame, labels = _with_labels(frame, name, rows, problems)
        classes[name.removeprefix(ATTRIBUTE_PREFIX)] = labels
    problems += _unused_codes(rows, set(classes))
    frame = _with_text(frame, "group").filter(pl.col(_USABLE))
    further = [*attributes, VOTES] if votes else attributes
    problems += _repetition_problems(frame, rows, [*further, *ratings.values()])
    if frame.height == 0:
        return Assembled(None, {}, problems)
    merged = _merge(frame, [*further, *ratings.values()])
    if ratings or RATINGS in merged.columns:
        merged = with_ratings(merged, ratings)
    several = [name.removeprefix(ATTRIBUTE_PREFIX) for name in attributes if _is_list(merged[name])]
    table = AnnotationTable(merged.drop(ROW), classes, tuple(votes), frozenset(several))
    numbered = merged.filter(pl.col(ROW).is_not_null())
    places = dict(zip(numbered["image"].to_list(), numbered[ROW].to_list(), strict=True))
    return Assembled(table, places, problems)


def _problems_where(
    frame: pl.DataFrame,
    condition: pl.Expr,
    rows: Rows,
    code: str,
    name: str,
    message: str,
    *,
    severity: str = "error",
) -> Iterator[Problem]:
    """A problem for each row where `condition` holds; `{}` in the message is the field's value."""
    bad = frame.filter(condition.fill_null(False))
    key = _RAW if _RAW in frame.columns else "image"
    shown = bad.select(ROW, pl.col(key).alias("k"), pl.col(name)).head(LISTED)
    for listed, (row, picture, value) in enumerate(shown.iter_rows(), 1):
        yield Problem(
            "warning" if severity == "warning" else "error",
            code,
            message.format(value),
            file=rows.file,
            row=row,
            field=rows.names.get(name, name),
            key=picture,
            unlisted=bad.height - LISTED if listed == LISTED else 0,
        )


def _literal(text: str) -> str:
    """`text` for a message that `str.format` goes over."""
    return text.replace("{", "{{").replace("}", "}}")


def _with_text(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """The column stripped, empty text as null; a null column where there is none."""
    if name not in frame.columns:
        return frame.with_columns(pl.lit(None, dtype=pl.String).alias(name))
    text = pl.col(name).cast(pl.String).str.strip_chars()
    return frame.with_columns(pl.when(text != "").then(text).alias(name))


def _with_comment_lists(frame: pl.DataFrame, rows: Rows, problems: list[Problem]) -> pl.DataFrame:
    """`comments` as lists without blank ones; every blank one is a warning."""
    if "comments" not in frame.columns:
        return frame.with_columns(pl.lit([], dtype=pl.List(pl.String)).alias("comments"))
    if frame.schema["comments"] == pl.String:
        frame = frame.with_columns(pl.concat_list(pl.col("comments").fill_null("")))
    stripped = pl.col("comments").list.eval(pl.element().fill_null("").str.strip_chars())
    frame = frame.with_columns(stripped)
    blank = pl.col("comments").list.contains("")
    message = "A comment is empty; it is left out."
    problems += _problems_where(
        frame, blank, rows, "empty_comment", "comments", message, severity="warning"
    )
    return frame.with_columns(pl.col("comments").list.eval(pl.element().filter(pl.element() != "")))


def _with_keys(frame: pl.DataFrame, rows: Rows, problems: list[Problem]) -> pl.DataFrame:
    """The image keys, and whether they are usable; the others are problems."""
    raw = frame["image"].fill_null("")
    others = raw.filter(~is_plain_key(raw)).unique()
    keys = {name: make_key(name, rows.root) for name in others}
    key = raw.replace_strict(keys, default=raw, return_dtype=pl.String) if keys else raw
    frame = frame.with_columns(raw.alias(_RAW), key.alias(_KEY))
    key_problems = {key: key_problem(key) for key in keys.values()}
    bad = {key: problem for key, problem in key_problems.items() if problem}
    is_bad = pl.col(_KEY).is_in(list(bad))
    for row, name, key in frame.filter(is_bad).select(ROW, _RAW, _KEY).iter_rows():
        where = rows.names.get("image", "image")
        problems.append(Problem("error", *bad[key], rows.file, row, where, name or None))
    return frame.with_columns((~is_bad).alias(_USABLE))


def _with_numbers(
    frame: pl.DataFrame, rows: Rows, problems: list[Problem], names: Sequence[str]
) -> pl.DataFrame:
    """Numeric fields as Float64, what is not a finite number as null and a problem."""
    for name in names:
        if name not in frame.columns:
            frame = frame.with_columns(pl.lit(None, dtype=pl.Float64).alias(name))
            continue
        text = _with_text(frame, name)
        number = text[name].cast(pl.Float64, strict=False)
        usable = number.is_finite().fill_null(False)
        nan = number.is_not_null() & ~usable
        nan |= text[name].str.to_lowercase().is_in(["nan", "na", "n/a", "null", "none"])
        is_filled = text[name].is_not_null()
        message = "The value is {!r}; leave it empty where there is none."
        problems += _problems_where(
            text, pl.lit(nan & is_filled), rows, "not_finite", name, message
        )
        message = "{!r} is not a number."
        wrong = is_filled & ~usable & ~nan.fill_null(False)
        problems += _problems_where(text, pl.lit(wrong), rows, "not_a_number", name, message)
        frame = text.with_columns(pl.when(usable).then(number).alias(name))
    return _in_range(frame, rows, problems)


def _in_range(frame: pl.DataFrame, rows: Rows, problems: list[Problem]) -> pl.DataFrame:
    """Scores within the range, raters a count, spread not negative."""
    raters = pl.col("raters")
    if rows.score_range:
        low, high = rows.score_range
        message = f"The score {{}} is not between {low:g} and {high:g}."
        for name in ("score", *rating_columns(frame).values()):
            outside = (pl.col(name) < low) | (pl.col(name) > high)
            problems += _problems_where(frame, outside, rows, "score_range", name, message)
    no_count = (raters < 0) | (raters != raters.floor()) | (raters >= 2**53)
    message = "The number of raters is {}, which is not a count."
    problems += _problems_where(frame, no_count, rows, "raters", "raters", message)
    for name in ("score_std", "score_var"):
        message = "The spread {} is negative."
        problems += _problems_where(frame, pl.col(name) < 0, rows, "spread", name, message)
    spread = pl.coalesce("score_std", pl.col("score_var").sqrt())
    return frame.with_columns(
        pl.when(~no_count).then(raters).cast(pl.Int64).alias("raters"),
        pl.when(spread >= 0).then(spread).alias("score_std"),
    )


def _with_raters(frame: pl.DataFrame, rows: Rows, problems: list[Problem]) -> pl.DataFrame:
    """Every row's score as a rating of its rater; scores of nobody are problems."""
    frame = _with_text(frame, "rater")
    nobody = pl.col("rater").is_null() & pl.col("score").is_not_null()
    message = "The score {} is nobody's: the row names no rater."
    problems += _problems_where(frame, nobody, rows, "rater", "score", message)
    message = "The rater {!r} has rated the picture before; both ratings count."
    again = repeated_rating(_KEY)
    problems += _problems_where(
        frame, again, rows, "repeated_rating", "rater", message, severity="warning"
    )
    return ratings_of_rows(frame)


def _with_boxes(frame: pl.DataFrame, rows: Rows, problems: list[Problem]) -> pl.DataFrame:
    corners = [pl.col(name) for name in BOX_FIELDS]
    missing = pl.sum_horizontal(corner.is_null() for corner in corners)
    frame = frame.with_columns(pl.concat_list(BOX_FIELDS).alias("box"))
    message = "The box {} is not whole."
    partly = (missing > 0) & (missing < len(BOX_FIELDS))
    problems += _problems_where(frame, partly, rows, "box", "box", message)
    empty = (corners[0] >= corners[2]) | (corners[1] >= corners[3])
    message = "The box {} is empty: it needs xmin < xmax and ymin < ymax."
    problems += _problems_where(frame, (missing == 0) & empty, rows, "box", "box", message)
    usable = (missing == 0) & ~empty
    return frame.with_columns(pl.when(usable).then(pl.col("box")).alias("box"))


def _with_splits(frame: pl.DataFrame, rows: Rows, problems: list[Problem]) -> pl.DataFrame:
    frame = _with_text(frame, "split")
    name = pl.col("split").str.to_lowercase()
    unknown = pl.col("split").is_not_null() & ~name.is_in(list(SPLIT_NAMES))
    message = "The split is {!r}; use train, val or test."
    problems += _problems_where(frame, unknown, rows, "split", "split", message)
    known = name.replace_strict(SPLIT_NAMES, default=None, return_dtype=pl.String)
    return frame.with_columns(known.alias("split"))


def _with_labels(
    frame: pl.DataFrame, name: str, rows: Rows, problems: list[Problem]
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """An attribute's labels and its classes: the known ones, or else those that occur, sorted."""
    several = _is_list(frame[name])
    if not several:
        frame = _with_text(frame, name)
    attribute = name.removeprefix(ATTRIBUTE_PREFIX)
    code_names = rows.codebook.get(attribute.casefold())
    labels = tuple(code_names.values()) if code_names else rows.classes.get(attribute)
    if labels is None:
        labels = tuple(sorted(set(each_label(frame[name]))))
        return _ordered(frame, name, labels) if several else frame, labels
    spelt = pl.element() if several else pl.col(name)
    # a column with gaps comes out of many programs as 3.0 instead of 3
    whole = spelt.str.replace(r"^(-?\d+)\.0+$", "$1")
    known = [*labels, *(code_names or ())]
    label = pl.when(spelt.is_in(known)).then(spelt).otherwise(whole)
    if code_names:
        label = label.replace(dict(code_names))
    label = pl.col(name).list.eval(label) if several else label
    frame = frame.with_columns(label.alias(name))
    shown = [f"{value} ({label})" for value, label in code_names.items()] if code_names else labels
    message = "The class {!r} is not one of " + _literal(", ".join(shown)) + "."
    usable = pl.col(name).is_in(list(labels))
    if several:
        usable = pl.col(name).list.eval(pl.element().is_in(list(labels))).list.all()
        message = "The labels {} are not each one of " + _literal(", ".join(shown)) + "."
    unknown = pl.col(name).is_not_null() & ~usable
    problems += _problems_where(frame, unknown, rows, "unknown_class", name, message)
    frame = frame.with_columns(pl.when(~unknown).then(pl.col(name)).alias(name))
    return _ordered(frame, name, labels) if several else frame, labels


def _is_list(column: pl.Series) -> bool:
    """Whether several labels may hold at once in an attribute's column."""
    return isinstance(column.dtype, pl.List)


def _ordered(frame: pl.DataFrame, name: str, labels: Sequence[str]) -> pl.DataFrame:
    return frame.with_columns(in_class_order(frame[name], labels))


def _unused_codes(rows: Rows, attributes: set[str]) -> Iterator[Problem]:
    """A warning for each attribute that the codebook names and the table does not have."""
    taken_names = {name.casefold() for name in attributes}
    for name in rows.codebook:
        if name not in taken_names:
            message = f"The codebook names classes of {name!r}, which the table does not have."
            yield Problem("warning", "codebook", message, file=rows.file)


def _repetition_problems(frame: pl.DataFrame, rows: Rows, further: list[str]) -> Iterator[Problem]:
    """What rows of the same picture contradict, and names that only Unicode tells apart."""
    repeated = frame.filter(pl.len().over(_KEY) > 1)
    if repeated.height == 0:
        return
    yield from _unicode_problems(repeated, rows)
    if not rows.repeats:
        first = pl.col(ROW).first().over(_KEY)
        later = repeated.with_columns(first.alias("first")).filter(
            pl.int_range(pl.len()).over(_KEY) > 0
        )
        for row, key, earlier in later.select(ROW, _KEY, "first").iter_rows():
            of_row = "" if earlier is None else f" in row {earlier}"
            message = f"The picture is there already{of_row}."
            where = rows.names.get("image", "image")
            yield Problem("error", "duplicate_key", message, rows.file, row, where, key)
        return
    for name in ("score", "raters", "score_std", "box", "split", "group", *further):
        yield from _conflicts(repeated, rows, name)


def _conflicts(repeated: pl.DataFrame, rows: Rows, name: str) -> Iterator[Problem]:
    """Rows of a picture whose `name` differs from the first row that has it."""
    filled_rows = repeated.filter(pl.col(name).is_not_null())
    other = filled_rows.with_columns(
        pl.col(name).first().over(_KEY).alias("first"),
        pl.col(ROW).first().over(_KEY).alias("first_row"),
    ).filter(pl.col(name) != pl.col("first"))
    shown = rows.names.get(name, name)
    code = "conflicting_score" if name == "score" else "conflict"
    for row, key, value, first, first_row in other.select(
        ROW, _KEY, name, "first", "first_row"
    ).iter_rows():
        message = f"The picture's {shown} is {value} here and {first} in row {first_row}."
        yield Problem("error", code, message, rows.file, row, shown, key)


def _unicode_problems(repeated: pl.DataFrame, rows: Rows) -> Iterator[Problem]:
    """A warning where one picture is written in several Unicode forms."""
    beyond_ascii = repeated.filter(~pl.col(_KEY).str.contains(r"^[\x00-\x7f]*$"))
    for (key,), group in beyond_ascii.group_by([_KEY], maintain_order=True):
        written = {with_posix_separators(name, rows.root) for name in group[_RAW]}
        if len(written) > 1:
            numbers = group[ROW].drop_nulls().to_list()
            message = (
                f"The name is written in {len(written)} Unicode forms (rows "
                f"{', '.join(map(str, numbers))}); they are taken as one picture."
            )
            row = numbers[0] if numbers else None
            where = rows.names.get("image", "image")
            yield Problem("warning", "unicode_form", message, rows.file, row, where, str(key))


def _merge(frame: pl.DataFrame, further: list[str]) -> pl.DataFrame:
    """One row per picture, in order of first appearance: first given values, all comments, all
    ratings."""
    plain = ["score", "raters", "score_std", "box", "split", "group", *further]
    lists = [name for name in ("comments", RATINGS) if name in frame.columns]
    merged = frame.group_by(_KEY, maintain_order=True).agg(
        pl.col(ROW).first(),
        *(pl.col(name).drop_nulls().first() for name in plain),
        *(pl.col(name).explode() for name in lists),
    )
    merged = merged.with_columns(pl.col(lists).list.drop_nulls())
    columns = [*list(COLUMNS)[1:], *further, *lists[1:], ROW]
    return merged.select(pl.col(_KEY).alias("image"), *columns)
