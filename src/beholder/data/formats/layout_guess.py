"""Which sign separates the fields of a text table, and whether its first line is a header."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from beholder.data.formats.column_names import role_of_name
from beholder.data.formats.column_profile import PICTURE_NAME

_PREFERRED = ("\t", ";", ",", "|")
_PICTURE = re.compile(PICTURE_NAME)
_Rows = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Guess:
    """How a text table is written: the sign between its fields, and whether quotes are text."""

    separator: str = ","
    literal_quotes: bool = False


def find_separator(sample: Callable[[str], list[list[str]]]) -> Guess:
    """The sign by which most rows have as many fields as the first one; on a tie, the one that
    gives more fields. Blanks only where no sign separates and every row is a number and a picture.

    Args:
        sample: sign -> the first rows as separated by it.
    """
    best, most = ",", (0.0, 0)
    for sign in _PREFERRED:
        rows = sample(sign)
        fields = len(rows[0]) if rows else 0
        if fields < 2:
            continue
        agreeing = sum(len(row) == fields for row in rows) / len(rows)
        quality = (round(agreeing, 1), fields if agreeing > 0.9 else 0)
        if quality > most:
            best, most = sign, quality
    if most[0] == 0 and _by_blanks(sample(" ")):
        return Guess(" ")
    return Guess(best)


def _by_blanks(rows: list[list[str]]) -> bool:
    """Whether every row has as many fields, one of which is a picture or all of which are numbers;
    the first may be a header, also one without a name for the pictures."""
    body = rows[1:]
    width = len(body[0]) if body else 0
    if width < 2 or any(len(row) != width for row in body) or width - len(rows[0]) not in (0, 1):
        return False
    columns = list(zip(*body, strict=True))
    numbers = [all(map(_is_number, column)) for column in columns]
    pictures = [all(map(_PICTURE.search, column)) for column in columns]
    if all(number or picture for number, picture in zip(numbers, pictures, strict=True)):
        return True
    # words between blanks are fields only below a header: `photo 1.jpg` may be one name
    return any(pictures) and not any(map(_PICTURE.search, rows[0]))


def find_header(rows: _Rows) -> bool:
    """Whether the first row names the columns: it is of another kind than those below it.

    A first row that names a picture is none where the rows below do at the same place; a number
    above numbers is none either, unless the first row counts rating bins (`1,2,3,4,5`).
    """
    if not rows:
        return True
    if len(rows[0]) == 1 and not _PICTURE.search(rows[0][0].strip()):
        # a list of names without endings starts with one of them
        return role_of_name(rows[0][0].strip()) is not None
    first, body = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
    pictures = [bool(_PICTURE.search(cell.strip())) for cell in first]
    if not body:
        return not any(pictures)
    columns = list(zip(*body, strict=True))
    picture_columns = [
        sum(bool(_PICTURE.search(c.strip())) for c in cells) > len(cells) / 2 for cells in columns
    ]
    if any(picture_columns):
        return not any(
            here and below for here, below in zip(pictures, picture_columns, strict=True)
        )
    if any(pictures):
        return False
    numbers = [_mostly_numbers(cells) for cells in columns]
    above = [cell for cell, below in zip(first, numbers, strict=True) if below]
    if not above or not any(map(_is_number, above)):
        return True
    counted = [cell.strip() for cell in first if _is_number(cell)]
    rising = [float(cell.replace(",", ".")) for cell in counted]
    steps = {right - left for left, right in pairwise(rising)}
    return (
        len(counted) > 1
        and steps == {1.0}
        and len(set(first)) == len(first)
        and (len(counted) < len(first))
    )


def unique_names(names: Sequence[str], width: int) -> tuple[tuple[str, ...], frozenset[str]]:
    """Names for all columns, and those that come more than once."""
    seen: Counter[str] = Counter()
    taken = set(names)
    unique: list[str] = []
    for index in range(width):
        name = names[index] if index < len(names) else ""
        if not name:
            name = f"column{index + 1}"
            while name in taken:
                name += "_"
        seen[name] += 1
        shown = name
        while shown in unique or (seen[name] > 1 and shown in taken):
            shown = f"{name}#{seen[name]}"
            seen[name] += shown in unique or shown in taken
        unique.append(shown)
        taken.add(shown)
    return tuple(unique), frozenset(name for name in names if name and names.count(name) > 1)


def _mostly_numbers(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell.strip()]
    return len(filled) > 0 and sum(map(_is_number, filled)) > len(filled) / 2


def _is_number(cell: str) -> bool:
    try:
        float(cell.strip().replace(",", ".", 1))
    except ValueError:
        return False
    return cell.strip().casefold() not in ("nan", "inf", "-inf", "infinity")
