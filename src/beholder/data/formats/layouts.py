"""How the columns of the known CSV tables map to annotations.

| layout | table |
| --- | --- |
| challenge | 2023 Samsung AI Challenge: one row per comment, the picture's score repeated |
| fascode | 2024 Fashion-How (FASCODE): a box and three attributes, as class indices |
| koniq, koniq-sets | KonIQ-10k, Hosu et al. 2020: scores; the former with votes per grade |
| kadid | KADID-10k, Lin et al. 2019: distorted photos, grouped by their reference |
| generic | an image column and any of the others, by usual names or by a given mapping |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

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
        found = {name: spelt.get(column.casefold()) for name, column in self.columns.items()}
        return {name: column for name, column in found.items() if column is not None}

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

_USUAL_NAMES = {
    "image": "image key image_key file filename file_name path image_path img_path image_name "
    "img_name img picture photo",
    "score": "score mos rating quality",
    "rater": "rater rater_id annotator annotator_id observer observer_id worker worker_id",
    "raters": "raters rater_count num_raters votes",
    "score_std": "score_std std sd",
    "comments": "comments comment captions caption text",
    "xmin": "xmin bbox_xmin box_xmin x_min",
    "ymin": "ymin bbox_ymin box_ymin y_min",
    "xmax": "xmax bbox_xmax box_xmax x_max",
    "ymax": "ymax bbox_ymax box_ymax y_max",
    "split": "split set subset",
    "group": "group reference ref_img",
}

GENERIC = Layout(
    "generic",
    f"image, and any of score, rater, raters, score_std, comments, {', '.join(BOX_FIELDS)}, split, "
    f"group, {ATTRIBUTE_PREFIX}<name>, {VOTE_PREFIX}<grade>, {RATING_PREFIX}<rater>; other names "
    "with columns={'image': 'your column', ...}",
    required=("image",),
    repeats=True,
)


def generic_layout(header: Sequence[str], mapping: Mapping[str, str] | None) -> Layout | None:
    """The generic layout for a header: usual names, then what `mapping` says.

    Args:
        mapping: field -> column, e.g. {"image": "file", "attribute.style": "style"}.

    Returns:
        None when no column names the pictures.
    """
    spelt = {name.casefold(): name for name in header}
    columns: dict[str, str] = {}
    for name, usual in _USUAL_NAMES.items():
        column = next((spelt[alias] for alias in usual.split() if alias in spelt), None)
        if column is not None:
            columns[name] = column
    for name in header:
        if name.casefold().startswith(ATTRIBUTE_PREFIX) and len(name) > len(ATTRIBUTE_PREFIX):
            columns[ATTRIBUTE_PREFIX + name[len(ATTRIBUTE_PREFIX) :]] = name
        if grade_of(name.casefold()) is not None:
            columns[name.casefold()] = name
        if rater_of(name) is not None:
            columns[RATING_PREFIX + name[len(RATING_PREFIX) :]] = name
    columns |= dict(mapping or {})
    if "image" not in columns:
        return None
    return replace(GENERIC, required=(columns["image"],), columns=columns)


def mapping_problems(header: Sequence[str], mapping: Mapping[str, str], file: str) -> list[Problem]:
    """What is wrong with a given column mapping: unknown fields, columns that are not there."""
    problems = []
    for name, column in mapping.items():
        counted = grade_of(name) is not None or rater_of(name) is not None
        named = name.startswith(ATTRIBUTE_PREFIX) or counted
        if name not in FIELDS and not named:
            message = (
                f"There is no field {name!r}; use {', '.join(FIELDS)}, {ATTRIBUTE_PREFIX}<name>, "
                f"{VOTE_PREFIX}<grade> or {RATING_PREFIX}<rater>."
            )
            problems.append(Problem("error", "columns", message, file=file, field=name))
        if column not in header:
            message = f"There is no column {column!r}; the file has {', '.join(header)}."
            problems.append(Problem("error", "columns", message, file=file, row=1, field=name))
    return problems


def unused_columns(header: Sequence[str], layout: Layout, file: str) -> list[Problem]:
    """A warning that names the columns of a generic table that nothing is read from."""
    used = set(layout.columns.values())
    unused = [name for name in header if name not in used]
    if not unused:
        return []
    message = (
        f"Nothing is read from {', '.join(unused)}. For an attribute, name the column "
        f"{ATTRIBUTE_PREFIX}<name> or map it: columns={{'{ATTRIBUTE_PREFIX}{unused[0]}': "
        f"'{unused[0]}'}}."
    )
    return [Problem("warning", "unused_columns", message, file=file, row=1)]
