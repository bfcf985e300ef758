"""The names that columns of annotations usually have."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from beholder.data.formats.words import beyond_latin, joined

USUAL_NAMES = {
    "image": "image key image_key file filename file_name path image_path img_path image_name "
    "img_name img picture photo image_id img_id image_file dist_img dist_name dis_img_path "
    "bild bildname dateiname datei",
    "score": "score mos rating quality",
    "rater": "rater rater_id annotator annotator_id observer observer_id worker worker_id",
    "raters": "raters rater_count num_raters votes c_total num_votes n_votes vote_count nvotes "
    "number_of_votes num_ratings n_ratings number_of_ratings n_raters total_votes",
    "score_std": "score_std std sd stddev",
    "score_var": "score_var var variance",
    "comments": "comments comment captions caption text",
    "xmin": "xmin bbox_xmin box_xmin x_min",
    "ymin": "ymin bbox_ymin box_ymin y_min",
    "xmax": "xmax bbox_xmax box_xmax x_max",
    "ymax": "ymax bbox_ymax box_ymax y_max",
    "split": "split set subset",
    "group": "group reference ref_img",
}
"""Role -> names, in the order in which they are preferred."""

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "restval": "train",  # the Karpathy split's rest of the validation pictures, used for training
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "tst": "test",
}
"""What splits are called in tables -> what they are called here."""

IMAGE_COLUMNS = ("image", "image_name", "img_name", "img_path")
"""What files of predictions and captions call the column of their pictures."""

_ROLES = {joined(name): role for role, names in USUAL_NAMES.items() for name in names.split()}
_ORDER = {
    joined(name): position
    for names in USUAL_NAMES.values()
    for position, name in enumerate(names.split())
}


@lru_cache(maxsize=4096)
def role_of_name(name: str) -> str | None:
    """The role that a name says by itself, without case, blanks, `_` and `-`."""
    return _ROLES.get(joined(name)) or beyond_latin(name)


def first_of(names: Iterable[str], header: Iterable[str]) -> str | None:
    """The first of these columns that a table has, as its header spells it."""
    spelt = {name.casefold(): name for name in header}
    return next((spelt[name] for name in names if name in spelt), None)


def preference(name: str) -> int:
    """How far down the list of its role a name is; names that are in none come last."""
    return _ORDER.get(joined(name), 99)
