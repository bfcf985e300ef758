"""Which column is what: found from what is in the columns; their names help, they don't decide.

A role is a field of the annotations: image, score, comments, split, ..., `attribute.<name>`,
`votes.<grade>`, `rating.<rater>`. Every choice has a reason that a person can read. Where two
readings are equally good none is taken; the other one is in `Roles.doubts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import polars as pl

from beholder.data.annotations import ATTRIBUTE_PREFIX
from beholder.data.formats import words
from beholder.data.formats.column_names import SPLIT_NAMES, role_of_name
from beholder.data.formats.column_profile import Profile
from beholder.data.formats.column_roles import Doubt, Roles
from beholder.data.formats.numbered_columns import wide_columns
from beholder.data.formats.opinion_columns import (
    find_comments,
    find_labels,
    find_scores,
    find_spread,
)
from beholder.data.formats.ratings import RATING_PREFIX, rater_of
from beholder.data.formats.votes import grade_of

_LEAST = 2.8  # evidence that a column names pictures, see `_evidence`
_OF_VERDICTS = "attributes."  # as tables of verdicts call the columns of labels
_AS_GOOD = 0.5  # evidence; columns nearer than that are equally good
_NOBODY = words.word_set("user username email prompt author title caption question answer")


def find_roles(
    frame: pl.DataFrame,
    profiles: Mapping[str, Profile],
    user_roles: Mapping[str, str],
    *,
    exists: Callable[[str], float] | None = None,
    has_header: bool = True,
    attribute: str = "class",
) -> Roles:
    """Find the role of every column that has one.

    Args:
        frame: the columns that the profiles are of.
        given: role -> column that the user has named, or that the container says.
        exists: column -> share of its values that are pictures in the folder of pictures.
        has_header: the names are not made up.
        attribute: the name of an attribute whose column has none.
    """
    roles = Roles(dict(user_roles), dict.fromkeys(user_roles, "you said so"))
    left = {name: column for name, column in profiles.items() if name not in roles.taken}
    _explicit(roles, left)
    if "image" not in roles.columns:
        _find_image(roles, left, exists)
    _find_plain(roles, left)
    image = profiles.get(roles.columns.get("image", ""))
    repeats = image is not None and image.distinct < image.filled
    _find_split(roles, left, frame)
    _find_group(roles, left)
    _find_rater(roles, left, repeats)
    wide_columns(roles, left, frame)
    find_comments(roles, left)
    find_scores(roles, left, has_header)
    find_spread(roles, left)
    find_labels(roles, left, has_header, attribute)
    return roles


def _explicit(roles: Roles, left: Mapping[str, Profile]) -> None:
    """Names that say their role in full: `attribute.style`, `votes.3`, `rating.Ann`."""
    for name in left:
        folded = name.casefold()
        prefix = next((p for p in (ATTRIBUTE_PREFIX, _OF_VERDICTS) if folded.startswith(p)), None)
        if prefix and len(name) > len(prefix):
            roles.take(ATTRIBUTE_PREFIX + name[len(prefix) :], name, "its name")
        elif grade_of(folded) is not None:
            roles.take(folded, name, "its name")
        elif rater_of(name) is not None:
            roles.take(RATING_PREFIX + name[len(RATING_PREFIX) :], name, "its name")


def _find_image(
    roles: Roles, left: Mapping[str, Profile], exists: Callable[[str], float] | None
) -> None:
    evidence = {
        name: score
        for name, column in left.items()
        if name not in roles.taken and (score := _evidence(column, exists)) is not None
    }
    ranked = sorted(evidence, key=lambda name: -evidence[name])
    if not ranked or evidence[ranked[0]] < _LEAST:
        return
    best = left[ranked[0]]
    rivals = [n for n in ranked[1:] if evidence[n] > evidence[best.name] - _AS_GOOD]
    rivals = [n for n in rivals if evidence[n] >= _LEAST]
    if rivals:
        names = ", ".join(map(repr, [best.name, *rivals]))
        roles.doubts.append(
            Doubt(
                f"The columns {names} could each name the pictures.",
                tuple({"image": name} for name in (best.name, *rivals)),
            )
        )
        return
    roles.take("image", best.name, _reason(best, exists))


def _evidence(column: Profile, exists: Callable[[str], float] | None) -> float | None:
    """How much says that a column names pictures; None: it can't."""
    if column.kind != "text" or column.filled == 0:
        named_as_image = column.kind == "text" and role_of_name(column.name) == "image"
        return _LEAST if named_as_image else None
    share_existing = exists(column.name) if exists else 0.0
    name_score = _name_evidence(column.name)
    named_number = column.whole and name_score > 0 and not (column.counts and name_score < 2)
    if column.numeric > 0.5 and not share_existing and not named_number:
        return None
    value = (
        4 * column.pictures
        + 5 * share_existing
        + 1.5 * column.distinct / column.filled
        + name_score
    )
    if column.words > 2 and column.pictures < 0.5:
        value -= 3
    if column.distinct == 1 and column.filled > 1:
        value -= 3
    return max(value, _LEAST) if role_of_name(column.name) == "image" else value


def _name_evidence(name: str) -> float:
    value = 0.0
    if role_of_name(name) == "image":
        value = 3.0 if words.has(name, words.IMAGE) or not name.isascii() else 2.6
    elif words.has(name, words.IMAGE):
        value = 2.0
    elif words.has(name, words.FILE):
        value = 1.6
    elif words.has(name, words.PLACE):
        value = 1.5
    if words.has(name, words.REFERENCE):
        value -= 2.5
    if words.has(name, _NOBODY):
        value -= 3
    return value


def _reason(column: Profile, exists: Callable[[str], float] | None) -> str:
    if exists and exists(column.name) > 0.5:
        return "pictures of these names are in the folder"
    if column.urls > 0.5:
        return "addresses; their file names are looked for"
    if column.pictures > 0.5:
        return "its values end like pictures"
    return "its name; its values have no ending"


def _find_plain(roles: Roles, left: Mapping[str, Profile]) -> None:
    """Corners of boxes and counts of raters, which only names tell."""
    for name, column in left.items():
        role = role_of_name(name)
        if role in ("xmin", "ymin", "xmax", "ymax") and (column.is_number or column.filled == 0):
            roles.take(role, name, "its name")
        if (
            role == "raters"
            and column.kind == "text"
            and (column.numeric > 0.5 or column.filled == 0)
        ):
            roles.take(role, name, "its name; it counts")


def _find_split(roles: Roles, left: Mapping[str, Profile], frame: pl.DataFrame) -> None:
    known = list(SPLIT_NAMES)
    for name, column in left.items():
        if name in roles.taken or column.kind != "text" or column.numeric > 0.5:
            continue
        named_split = words.joined(name) == "split"
        if column.distinct > 8 and not named_split:
            continue
        values = frame[name].drop_nulls().str.strip_chars().str.to_lowercase()
        share = values.is_in(known).sum() / max(len(values), 1)
        split_name = role_of_name(name) == "split" or words.has(name, words.SPLIT)
        if (split_name and share > 0) or named_split or (share == 1 and column.distinct > 1):
            roles.take("split", name, "its values are train, val, test")


_GROUP = words.REFERENCE - words.word_set("src source gt mask thumb thumbnail left right")


def _find_group(roles: Roles, left: Mapping[str, Profile]) -> None:
    for name, column in left.items():
        named_group = role_of_name(name) == "group"
        like = words.has(name, _GROUP) or words.beyond_latin(name) == "group"
        repeated = column.distinct < column.filled and (column.numeric < 0.5 or column.whole)
        if column.kind == "text" and (named_group or (like and repeated and column.varies)):
            roles.take("group", name, "pictures of one reference stay together")


def _find_rater(roles: Roles, left: Mapping[str, Profile], repeats: bool) -> None:
    for name, column in left.items():
        if column.kind != "text":
            continue
        like = words.has(name, words.RATER) or words.beyond_latin(name) == "rater"
        again = (
            repeats and column.distinct < column.filled and (column.numeric < 0.5 or column.whole)
        )
        if role_of_name(name) == "rater" or (like and again and role_of_name(name) is None):
            roles.take("rater", name, "its name; pictures come again")
