"""How the columns of the known CSV tables map to annotations.

| layout | table |
| --- | --- |
| challenge | 2023 Samsung AI Challenge: one row per comment, the picture's score repeated |
| fascode | 2024 Fashion-How (FASCODE): a box and three attributes, as class indices |
| koniq, koniq-sets | KonIQ-10k, Hosu et al. 2020: scores; the former with votes per grade |
| kadid | KADID-10k, Lin et al. 2019: distorted photos, grouped by their reference |
| generic | any other; which column is what is found by `roles`, or said by the user |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from beholder.data.annotations import ATTRIBUTE_PREFIX
from beholder.data.formats.ratings import RATING_PREFIX, rater_of
from beholder.data.formats.votes import VOTE_PREFIX, grade_of
from beholder.errors import Problem

BOX_FIELDS = ("xmin", "ymin", "xmax", "ymax")
_PLAIN_FIELDS = ("image", "score", "rater", "raters", "score_std", "score_var", "comments")
FIELDS = (*_PLAIN_FIELDS, *BOX_FIELDS, "split", "group")


@dataclass(frozen=True)
class Layout:
    """A kind of table.

    Args:
        required: columns that the header must have; compared without case.
        columns: field of the annotations -> column. A column that is not in the header is left
            out: its field is null.
        repeats: a picture may have several rows, one per comment.
        score_range: lowest and highest score that the kind of table knows.
        classes: attribute -> labels in index order, where the table is published with a codebook.
        name_column: a second name of the picture, which must agree with the first.
    """

    name: str
    wants: str
    required: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    repeats: bool = False
    score_range: tuple[float, float] | None = None
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    name_column: str | None = None

    def fits(self, header: Sequence[str]) -> bool:
        names = {name.casefold() for name in header}
        return all(column.casefold() in names for column in self.required)

    def resolve(self, header: Sequence[str]) -> dict[str, str]:
        """Field -> column as spelt in the header, for the columns that are there."""
        spelt = {name.casefold(): name for name in header}
        matched = {name: spelt.get(column.casefold()) for name, column in self.columns.items()}
        return {name: column for name, column in matched.items() if column is not None}

    def second_name(self, header: Sequence[str]) -> str | None:
        """`name_column` as spelt in the header."""
        wanted = (self.name_column or "").casefold()
        return next((name for name in header if name.casefold() == wanted), None)


def _indices(count: int) -> tuple[str, ...]:
    return tuple(str(index) for index in range(count))


_FASCODE_BOX = {name: f"BBox_{name}" for name in BOX_FIELDS}
_FASCODE_ATTRIBUTES = ("Daily", "Gender", "Embellishment")

LAYOUTS = (
    Layout(
        "challenge",
        "img_name, img_path, and mos, comments where they are known",
        required=("img_name", "img_path"),
        columns={"image": "img_path", "score": "mos", "comments": "comments"},
        repeats=True,
        name_column="img_name",
    ),
    Layout(
        "fascode",
        "image_name, BBox_xmin, BBox_ymin, BBox_xmax, BBox_ymax, Daily, Gender, Embellishment",
        required=("image_name", *_FASCODE_BOX.values(), *_FASCODE_ATTRIBUTES),
        columns={
            "image": "image_name",
            **_FASCODE_BOX,
            **{ATTRIBUTE_PREFIX + name.lower(): name for name in _FASCODE_ATTRIBUTES},
        },
        # Indices as published; the codebook that names them comes with the data, not with us.
        classes={"daily": _indices(7), "gender": _indices(6), "embellishment": _indices(3)},
    ),
    Layout(
        "koniq-sets",
        "image_name, MOS, SD, set",
        required=("image_name", "MOS", "SD", "set"),
        columns={
            "image": "image_name",
            "score": "MOS",
            "score_std": "SD",
            "split": "set",
            "raters": "c_total",
            **{f"{VOTE_PREFIX}{grade}": f"c{grade}" for grade in range(1, 6)},
        },
        score_range=(0.0, 100.0),
    ),
    Layout(
        "koniq",
        "image_name, c1, c2, c3, c4, c5, c_total, MOS, SD, MOS_zscore",
        required=("image_name", "c_total", "MOS", "SD"),
        columns={
            "image": "image_name",
            "score": "MOS",
            "score_std": "SD",
            "raters": "c_total",
            **{f"{VOTE_PREFIX}{grade}": f"c{grade}" for grade in range(1, 6)},
        },
        score_range=(1.0, 5.0),
    ),
    Layout(
        "kadid",
        "dist_img, ref_img, dmos, var",
        required=("dist_img", "ref_img", "dmos"),
        columns={"image": "dist_img", "group": "ref_img", "score": "dmos", "score_var": "var"},
        score_range=(1.0, 5.0),
    ),
)

GENERIC = Layout(
    "generic",
    f"a column that names the pictures, and any of score, rater, raters, score_std, comments, "
    f"{', '.join(BOX_FIELDS)}, split, group, {ATTRIBUTE_PREFIX}<name>, {VOTE_PREFIX}<grade>, "
    f"{RATING_PREFIX}<rater>; which column is what is found, or said: --columns image=FILE",
    repeats=True,
)


def known_layout(header: Sequence[str], format: str) -> Layout | None:
    """The layout of a published table that a header fits.

    Args:
        format: one layout's name, or "auto": the first that fits.
    """
    known = [layout for layout in LAYOUTS if format in ("auto", layout.name)]
    return next((layout for layout in known if layout.fits(header)), None)


def spelt_mapping(header: Sequence[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """A mapping of role to column with the columns as the header spells them, where only case and
    blanks around it differ, and `attribute` as short for `attribute.<column>`."""
    near: dict[str, str] = {}
    for name in header:
        near.setdefault(name.strip().casefold(), name)
    matched = {}
    for role, column in mapping.items():
        spelt = column if column in header else near.get(column.strip().casefold(), column)
        matched[ATTRIBUTE_PREFIX + spelt if role + "." == ATTRIBUTE_PREFIX else role] = spelt
    return matched


def mapping_problems(header: Sequence[str], mapping: Mapping[str, str], file: str) -> list[Problem]:
    """What is wrong with a given column mapping: unknown fields, columns that are not there."""
    problems = []
    for name, column in mapping.items():
        counted = grade_of(name) is not None or rater_of(name) is not None
        prefixed = name.startswith(ATTRIBUTE_PREFIX) or counted
        more = name.startswith("comments.")
        if name not in FIELDS and not prefixed and not more:
            message = (
                f"There is no field {name!r}; use {', '.join(FIELDS)}, {ATTRIBUTE_PREFIX}<name>, "
                f"{VOTE_PREFIX}<grade> or {RATING_PREFIX}<rater>."
            )
            problems.append(Problem("error", "columns", message, file=file, field=name))
        if column not in header:
            message = f"There is no column {column!r}; the file has {', '.join(header)}."
            problems.append(Problem("error", "columns", message, file=file, row=1, field=name))
    return problems


def unused_columns(
    header: Sequence[str], unused: Sequence[str], opinions: bool, file: str
) -> list[Problem]:
    """A warning that names the columns of a table that nothing is read from.

    Args:
        opinions: some are read from the others.
    """
    if not unused:
        return []
    opening = "" if opinions else f"The columns {', '.join(header)} hold no opinion for certain. "
    message = (
        f"{opening}Nothing is read from {', '.join(unused)}. To read one, say what it is, e.g. "
        f"as an attribute: --columns '{ATTRIBUTE_PREFIX}{unused[0]}={unused[0]}'."
    )
    return [Problem("warning", "unused_columns", message, file=file, row=1)]
