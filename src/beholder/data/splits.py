"""Train, val and test by content and seed, folds, and whether an existing split leaks.

Pictures that belong together (same content, near duplicates, one `group`) form a unit that never
straddles splits. Units are put in the order of SHA-256(seed, name of the unit) and the line is cut
where the number of pictures comes closest to the fractions: test first, then val, then train.
Nothing else matters: not the order of rows or files, not the hash seed, not the clock.

The trade-off: fractions hold and no split is empty even with a dozen photos, where comparing each
hash with a threshold would give 13/0/0 as easily as 10/2/1. In exchange, adding a picture may move
units next to a cut to the neighbouring split. To make a division permanent, keep the `split`
column: existing splits are respected, and only rows without one are divided.
"""

from __future__ import annotations

import hashlib
import logging
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from beholder.data.annotations import SPLITS, AnnotationTable
from beholder.errors import DataError, Problem, Severity

log = logging.getLogger(__name__)

FRACTIONS: Mapping[str, float] = {"train": 0.8, "val": 0.1, "test": 0.1}

LARGE_SET, LARGE_SHARE = 20, 0.1
"""A set of look-alikes with more pictures than this and more than this share of all is reported."""

_ALONG_THE_LINE = ("test", "val", "train")
Pairs = Iterable[tuple[str, str]]


def assign_splits(
    table: AnnotationTable,
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
    content_hashes: Mapping[str, str] | None = None,
    near_duplicates: Pairs | None = None,
) -> AnnotationTable:
    """The table with a split for every row.

    A row with a split keeps it, and the rest of its unit follows. The fractions apply to the rows
    that are left. Where there are fewer units than splits, the larger fractions are served first.

    Args:
        fractions: share of the pictures per split; they sum to 1. A split without one gets none.
        seed: another seed gives another division.
        content_hashes: image key -> hash of the file. A unit is named by its smallest group, else
            its smallest content hash, else its smallest key: with hashes, a renamed picture stays
            where it is; without, the division depends on the names.
        near_duplicates: pairs of image keys that are to stay together, transitively, because they
            look alike, see `lookalikes.near_sets`.

    Raises:
        DataError: invalid fractions, or an existing split that leaks (every leak is listed).
    """
    shares = _checked_fractions(fractions)
    hashes = content_hashes or {}
    leaks = [leak for leak in find_leaks(table, hashes) if leak.severity == "error"]
    if leaks:
        raise DataError(
            "The given split leaks: the same picture or group is on both sides.",
            fix="Correct the split, or remove it to have one made.",
            problems=leaks,
        )
    same = _units(table, hashes, ())
    alike = _units(table, hashes, near_duplicates or ())
    split = _follow_given(table.frame["split"].to_list(), same, alike)
    free = [row for row, name in enumerate(split) if name is None]
    for row, name in _divide(table, free, alike, hashes, shares, seed).items():
        split[row] = name
    return table.with_split(split)


def unit_names(
    table: AnnotationTable,
    content_hashes: Mapping[str, str] | None = None,
    near_duplicates: Pairs | None = None,
) -> list[str]:
    """The name of each row's unit: rows of one name belong together, as for `assign_splits`."""
    hashes = content_hashes or {}
    units = _units(table, hashes, near_duplicates or ()).tolist()
    smallest: dict[int, tuple[int, str]] = {}
    for unit, name in zip(units, _row_names(table, hashes), strict=True):
        smallest[unit] = min(smallest.get(unit, name), name)
    return ["{}:{}".format(*smallest[unit]) for unit in units]


def assign_folds(units: Sequence[str], count: int, seed: int = 0) -> NDArray[np.int64]:
    """The fold [N], 0 to `count` - 1, of each row; rows of one unit share theirs.

    Units are put in the order of SHA-256(seed, name) and the line is cut into folds of as equal
    numbers of rows as the units allow; none is empty.

    Args:
        units: the name of each row's unit, e.g. from `unit_names`.
        count: of folds, at least 2.

    Raises:
        DataError: there are fewer units than folds.
    """
    rows = _rows_by_name(units)
    if count < 2 or len(rows) < count:
        raise DataError(
            f"{len(units)} pictures in {len(rows)} groups can't be divided into {count} folds.",
            fix=f"Set folds to 2 up to {len(rows)}." if len(rows) > 1 else "Give more pictures.",
        )
    order = sorted(rows, key=lambda unit: hashlib.sha256(f"{seed}\n{unit}".encode()).digest())
    upto = [0, *accumulate(len(rows[unit]) for unit in order)]
    folds = np.empty(len(units), np.int64)
    start = 0
    for fold in range(count):
        left = count - 1 - fold
        cut = _closest(upto, len(units) * (fold + 1) / count) if left else len(order)
        cut = min(max(cut, start + 1), len(order) - left)
        for unit in order[start:cut]:
            folds[rows[unit]] = fold
        start = cut
    return folds


def find_leaks(
    table: AnnotationTable,
    content_hashes: Mapping[str, str] | None = None,
    near_duplicates: Pairs | None = None,
) -> list[Problem]:
    """Pictures that belong together but lie in different splits; rows count from 0.

    Same content and same `group` are errors, near duplicates warnings; one problem per set, at its
    first row that is not in the split of the set's first.

    Args:
        near_duplicates: pairs of image keys that look alike, directly: a chain of pictures, each
            like the next, is not a leak where no two neighbours are in different splits.
    """
    hashes = content_hashes or {}
    by_group = _rows_by_name(table.frame["group"].to_list())
    by_content = _rows_by_name([hashes.get(key) for key in table.keys])
    problems = _straddling(table, by_group, "group_leak", "The group {} is", "error")
    problems += _straddling(table, by_content, "content_leak", "The same content is", "error")
    split = table.frame["split"].to_list()
    edges = [
        (a, b)
        for a, b in _pair_edges(table.keys, near_duplicates or ())
        if split[a] is not None and split[b] is not None and split[a] != split[b]
    ]
    if edges:
        reported = {problem.key for problem in problems}
        units = connected(len(table), edges)
        alike = _rows_by_name([str(unit) for unit in units])
        straddling = _straddling(
            table, alike, "near_leak", "Pictures that look alike are", "warning"
        )
        problems += [problem for problem in straddling if problem.key not in reported]
    return problems


def held_out(table: AnnotationTable) -> list[int]:
    """Each row's existing split by its distance from training: 0: none, 1: train, 2: val, 3:
    test."""
    return [0 if name is None else 1 + SPLITS.index(name) for name in table.frame["split"]]


def large_sets(table: AnnotationTable, near_duplicates: Pairs) -> list[Problem]:
    """A warning for each set of look-alikes that is a large part of the table, at its first row;
    arguments as for `assign_splits`. Rows count from 0."""
    keys, count = table.keys, len(table)
    units = connected(count, _pair_edges(keys, near_duplicates))
    problems = []
    for rows in _rows_by_name([str(unit) for unit in units]).values():
        if len(rows) <= max(LARGE_SET, LARGE_SHARE * count):
            continue
        message = (
            f"{len(rows)} of {count} pictures look alike, e.g. {keys[rows[1]]!r} and "
            f"{keys[rows[-1]]!r}, and go to one split together. If they show different things, set "
            "data.near_duplicates to warn or ignore; if some belong together, give these a group."
        )
        key, row = keys[rows[0]], rows[0]
        problems.append(Problem("warning", "large_set", message, row=row, field="image", key=key))
    return problems


def _rows_by_name(names: Sequence[str | None]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        if name is not None:
            rows[name].append(row)
    return rows


def _checked_fractions(fractions: Mapping[str, float]) -> dict[str, float]:
    """The fractions above 0, in the order of `SPLITS`."""
    wrong = sorted(set(fractions) - set(SPLITS))
    values = list(fractions.values())
    if wrong or not all(value >= 0 for value in values) or abs(sum(values) - 1) > 1e-6:
        raise DataError(
            f"The fractions {dict(fractions)} do not divide the pictures.",
            fix=f"Give numbers of at least 0 for {', '.join(SPLITS)} that sum to 1.",
        )
    return {name: fractions[name] for name in SPLITS if fractions.get(name, 0) > 0}


def _units(table: AnnotationTable, hashes: Mapping[str, str], pairs: Pairs) -> np.ndarray:
    """The unit of each row [N]: connected by group, by content and by `pairs`, transitively."""
    keys = table.keys
    edges = _pair_edges(keys, pairs)
    for names in (table.frame["group"].to_list(), [hashes.get(key) for key in keys]):
        last: dict[str, int] = {}
        for row, name in enumerate(names):
            if name is not None:
                edges.append((last.get(name, row), row))
                last[name] = row
    return connected(len(keys), edges)


def _pair_edges(keys: Sequence[str], pairs: Pairs) -> list[tuple[int, int]]:
    """The pairs as rows; pairs with a picture that is not in the table are left out."""
    rows = {key: row for row, key in enumerate(keys)}
    return [(rows[a], rows[b]) for a, b in pairs if a in rows and b in rows]


def connected(count: int, edges: Sequence[tuple[int, int]]) -> np.ndarray:
    """The connected component [N] of each of `count` nodes, numbered from 0."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if count == 0:
        return np.zeros(0, dtype=np.int32)
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(ends.shape[1], dtype=bool), (ends[0], ends[1])), (count, count))
    return connected_components(graph, directed=False)[1]


def _follow_given(
    fixed: Sequence[str | None], same: np.ndarray, alike: np.ndarray
) -> list[str | None]:
    """The existing splits, spread over their units.

    Rows that look like rows of several splits go to the most held-out of these: nothing that looks
    like a picture of the test split is trained on.
    """
    spread = list(fixed)
    for units in (same, alike):
        first: dict[int, str] = {}
        for unit, name in zip(units.tolist(), spread, strict=True):
            if name is not None:
                first[unit] = max(first.get(unit, name), name, key=SPLITS.index)
        spread = [
            first.get(unit) if name is None else name
            for unit, name in zip(units.tolist(), spread, strict=True)
        ]
    return spread


def _divide(
    table: AnnotationTable,
    rows: Sequence[int],
    units: np.ndarray,
    hashes: Mapping[str, str],
    shares: Mapping[str, float],
    seed: int,
) -> dict[int, str]:
    """Row -> split of the rows that have none."""
    names = _row_names(table, hashes)
    members: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        members[int(units[row])].append(row)

    def position(unit: int) -> tuple[bytes, tuple[int, str]]:
        smallest = min(names[row] for row in members[unit])
        return hashlib.sha256(f"{seed}\n{smallest[0]}\n{smallest[1]}".encode()).digest(), smallest

    order = sorted(members, key=position)
    splits = _cut([len(members[unit]) for unit in order], shares)
    return {row: split for unit, split in zip(order, splits, strict=True) for row in members[unit]}


def _row_names(table: AnnotationTable, hashes: Mapping[str, str]) -> list[tuple[int, str]]:
    """The name that each row alone would give its unit: its group, else its content, else its
    key."""
    names: list[tuple[int, str]] = []
    for key, group in table.frame.select("image", "group").iter_rows():
        if group is not None:
            names.append((0, group))
        else:
            names.append((1, hashes[key]) if key in hashes else (2, key))
    return names


def _cut(sizes: Sequence[int], shares: Mapping[str, float]) -> list[str]:
    """The split of each unit along the line, from the units' sizes.

    Every cut falls between the two units where the pictures up to it come closest to its share;
    each split keeps at least one unit.
    """
    if len(sizes) < len(shares):
        served = sorted(shares, key=lambda name: (-shares[name], SPLITS.index(name)))
        served = served[: len(sizes)]
        left_out = [name for name in shares if name not in served]
        if sizes:
            log.warning("too few pictures or groups for the splits: %s empty", ", ".join(left_out))
        shares = {name: shares[name] for name in served}
    names = [name for name in _ALONG_THE_LINE if name in shares]
    upto = [0, *accumulate(sizes)]
    scale = upto[-1] / (sum(shares.values()) or 1)
    splits: list[str] = []
    wanted = 0.0
    for index, name in enumerate(names):
        wanted += shares[name] * scale
        cut = _closest(upto, wanted) if index < len(names) - 1 else len(sizes)
        cut = min(max(cut, len(splits) + 1), len(sizes) - (len(names) - 1 - index))
        splits += [name] * (cut - len(splits))
    return splits


def _closest(values: Sequence[int], wanted: float) -> int:
    """Index of the value closest to `wanted` in ascending values, the first of two."""
    after = min(bisect_left(values, wanted), len(values) - 1)
    before = max(after - 1, 0)
    return before if wanted - values[before] <= values[after] - wanted else after


def _straddling(
    table: AnnotationTable,
    units: Mapping[str, Sequence[int]],
    code: str,
    what: str,
    severity: Severity,
) -> list[Problem]:
    """A problem per unit whose rows have different splits; rows without one do not count."""
    split, keys = table.frame["split"].to_list(), table.keys
    problems = []
    for name, rows in units.items():
        assigned = [row for row in rows if split[row] is not None]
        other = [row for row in assigned if split[row] != split[assigned[0]]]
        if not other:
            continue
        first, row = assigned[0], other[0]
        counts = {side: sum(split[r] == side for r in assigned) for side in SPLITS}
        sides = ", ".join(f"{side} ({count})" for side, count in counts.items() if count)
        message = (
            f"{what.replace('{}', repr(name))} in several splits: {sides}; "
            f"e.g. {keys[first]!r} in {split[first]}, {keys[row]!r} in {split[row]}."
        )
        problems.append(Problem(severity, code, message, row=row, field="split", key=keys[row]))
    return problems
