"""Numbered columns: a column per rater, or one per grade with the votes for it.

`Subject1, Subject2, ...` hold what each of them said; `c1, ..., c5` how many said 1, ..., 5. Names
alone don't tell: votes of a picture sum to 1 (shares), or to the column that counts them, or to
more than any grade.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

import polars as pl

from beholder.data.formats import words
from beholder.data.formats.column_profile import Profile
from beholder.data.formats.column_roles import Roles
from beholder.data.formats.ratings import RATING_PREFIX
from beholder.data.formats.votes import VOTE_PREFIX

_NUMBERED = re.compile(r"^(.*?)[\s_\-.\[(]*(\d+)[\])]?$")
_RATERS = words.RATER | words.word_set("s p o u r rating vote score 평가자 評価者 评分者")
_VOTES = words.word_set(
    "c r score scores grade vote votes count counts n num rating ratings star stars bin prob label "
    "labels hist distribution"
)


def wide_columns(roles: Roles, left: Mapping[str, Profile], frame: pl.DataFrame) -> None:
    """Give the roles `votes.<grade>` and `rating.<rater>` to numbered columns of numbers."""
    if any(role.startswith((VOTE_PREFIX, RATING_PREFIX)) for role in roles.columns):
        return
    for base, members in _numbered(roles, left).items():
        columns = list(members.values())
        if len(columns) < 2:
            continue
        if base in _VOTES or base == "":
            shape = _votes(frame, columns, members, roles.columns.get("raters"))
            if shape:
                for grade, name in members.items():
                    roles.take(f"{VOTE_PREFIX}{grade}", name, f"votes for a grade, as {shape}")
                return
        rater = base in _RATERS or words.beyond_latin(base) == "rater"
        if rater and (base not in _VOTES or len(columns) > 2) and _one_scale(left, columns):
            for name in columns:
                roles.take(f"{RATING_PREFIX}{name}", name, "scores of one rater")
            return


def _numbered(roles: Roles, left: Mapping[str, Profile]) -> dict[str, dict[int, str]]:
    """Base of the name -> number -> column, for columns of numbers."""
    by_base: dict[str, dict[int, str]] = defaultdict(dict)
    for name, profile in left.items():
        match = _NUMBERED.match(name.strip())
        if match and name not in roles.taken and profile.kind == "text" and profile.numeric > 0.9:
            base = words.joined(match[1]).rstrip(":.")
            by_base[base].setdefault(int(match[2]), name)
    return {base: dict(sorted(members.items())) for base, members in by_base.items()}


def _votes(
    frame: pl.DataFrame, columns: list[str], members: Mapping[int, str], total: str | None
) -> str | None:
    """In which way numbers of a row are votes for rating bins: shares, counts; None: they are
    none."""
    numbers = frame.select(pl.col(columns).str.strip_chars().cast(pl.Float64, strict=False))
    whole = numbers.drop_nulls()
    if whole.is_empty() or whole.select(pl.min_horizontal(columns).min()).item() < 0:
        return None
    sums = whole.select(pl.sum_horizontal(columns)).to_series()
    if ((sums - 1).abs() < 0.02).mean() > 0.95:  # type: ignore[operator]
        return "shares"
    counts = whole.select(pl.all_horizontal(c == c.floor() for c in map(pl.col, columns)).all())
    if not counts.item():
        return None
    if total:
        stated_total = frame[total].str.strip_chars().cast(pl.Float64, strict=False)
        row = numbers.select(pl.sum_horizontal(columns)).to_series()
        if (row == stated_total).mean() > 0.9:  # type: ignore[operator]
            return "counts"
    highest = max(members)
    zero = whole.select(pl.min_horizontal(columns).min()).item() == 0
    more = float(sums.median() or 0) > highest * 1.5  # type: ignore[arg-type]
    beyond = whole.select(pl.max_horizontal(columns).max()).item() > highest
    return "counts" if more and (zero or beyond) and list(members) == _run(members) else None


def _run(members: Mapping[int, str]) -> list[int]:
    start = min(members)
    return list(range(start, start + len(members))) if start in (0, 1) else []


def _one_scale(left: Mapping[str, Profile], columns: list[str]) -> bool:
    """Whether raters have used one scale: no column reaches ten times as far as another."""
    highs = [abs(left[name].high or 0.0) for name in columns]
    return max(highs) <= 10 * max(min(highs), 1.0)
