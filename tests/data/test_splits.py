"""Splits by content, group and seed; leaks."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter

import pytest
from annotation_tables import small_table
from hypothesis import given, settings
from hypothesis import strategies as st

from beholder.data.annotations import AnnotationTable
from beholder.data.splits import assign_folds, assign_splits, find_leaks, unit_names
from beholder.errors import DataError

_PROGRAM = """
from beholder.data.annotations import AnnotationTable
from beholder.data.splits import assign_splits
names = {f"photo {number}.jpg" for number in range(60)}  # a set: its order follows the hash seed
table = AnnotationTable.from_columns(list(names), group=[name[:7] for name in names])
split = assign_splits(table, seed=7).frame.sort("image")["split"].to_list()
print(list(names)[:3], "|", " ".join(split))
"""


def by_key(table: AnnotationTable) -> dict[str, str]:
    return dict(zip(table.keys, table.frame["split"].to_list(), strict=True))


def plain(count: int, **columns) -> AnnotationTable:
    return AnnotationTable.from_columns([f"{row}.jpg" for row in range(count)], **columns)


@pytest.mark.slow
def test_the_same_over_20_hash_seeds() -> None:
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": str(seed), "POLARS_MAX_THREADS": "1"},
        )
        for seed in range(20)
    ]
    outputs = [program.communicate()[0].strip().split(" | ") for program in programs]
    assert len({order for order, _ in outputs}) > 1, "the sets had the same order: no test"
    assert len({split for _, split in outputs}) == 1
    assert set(outputs[0][1].split()) == {"train", "val", "test"}


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 60), groups=st.integers(1, 20), seed=st.integers(), order=st.randoms())
def test_order_of_rows_does_not_matter(count, groups, seed, order: random.Random) -> None:
    table = small_table(count, groups)
    shuffled = list(range(count))
    order.shuffle(shuffled)
    other = AnnotationTable(table.frame[shuffled], table.classes)
    assert by_key(assign_splits(table, seed=seed)) == by_key(assign_splits(other, seed=seed))


@settings(max_examples=50, deadline=None)
@given(data=st.data(), count=st.integers(1, 40), seed=st.integers(0, 5))
def test_what_belongs_together_stays_together(data, count, seed) -> None:
    few = st.integers(0, 15)
    rows = {"min_size": count, "max_size": count}
    groups = data.draw(st.lists(st.none() | few.map(str), **rows))
    contents = data.draw(st.lists(few.map(str), **rows))
    pairs = data.draw(st.lists(st.tuples(few, few), max_size=6))
    table = plain(count, group=groups)
    hashes = dict(zip(table.keys, contents, strict=True))
    near = [(f"{a}.jpg", f"{b}.jpg") for a, b in pairs]
    result = assign_splits(table, seed=seed, content_hashes=hashes, near_duplicates=near)
    split = by_key(result)
    for a, key_a in enumerate(table.keys):
        for b, key_b in enumerate(table.keys):
            same_group = groups[a] is not None and groups[a] == groups[b]
            if same_group or contents[a] == contents[b] or (key_a, key_b) in near:
                assert split[key_a] == split[key_b]
    assert find_leaks(result, hashes, near) == []


def test_the_name_of_a_file_does_not_matter_with_content_hashes() -> None:
    old, new = plain(50), AnnotationTable.from_columns([f"renamed {n}.png" for n in range(50)])
    hashes = [f"{n * 7919 % 50:064x}" for n in range(50)]
    first = assign_splits(old, content_hashes=dict(zip(old.keys, hashes, strict=True)))
    second = assign_splits(new, content_hashes=dict(zip(new.keys, hashes, strict=True)))
    assert first.frame["split"].to_list() == second.frame["split"].to_list()
    assert by_key(first) != by_key(assign_splits(old))


@pytest.mark.parametrize("count", [10, 100, 1000, 12345])
def test_fractions_hold(count: int) -> None:
    counts = Counter(assign_splits(plain(count)).frame["split"].to_list())
    assert counts["train"] == pytest.approx(0.8 * count, abs=1)
    assert counts["val"] == pytest.approx(0.1 * count, abs=1)


@pytest.mark.parametrize("seed", range(20))
def test_thirteen_photos_fill_every_split(seed: int) -> None:
    split = assign_splits(small_table(13 * 8, groups=13), seed=seed).frame["split"]
    counts = {name: count // 8 for name, count in Counter(split.to_list()).items()}
    assert counts == {"train": 10, "val": 2, "test": 1}


def test_one_giant_group_leaves_the_others_their_split() -> None:
    table = plain(100, group=["giant"] * 97 + ["a", "b", "c"])
    for seed in range(10):
        assert set(assign_splits(table, seed=seed).frame["split"]) == {"train", "val", "test"}


def test_seeds_differ_and_every_picture_gets_to_every_split() -> None:
    table = plain(40)
    seen = [by_key(assign_splits(table, seed=seed)) for seed in range(100)]
    assert len({tuple(split.items()) for split in seen}) == 100
    for key in table.keys:
        assert {split[key] for split in seen} == {"train", "val", "test"}


def test_adding_a_picture_moves_at_most_the_neighbours_of_the_cuts() -> None:
    before, after = by_key(assign_splits(plain(500))), by_key(assign_splits(plain(501)))
    assert sum(before[key] != after[key] for key in before) <= 2


def test_fewer_units_than_splits() -> None:
    assert by_key(assign_splits(plain(1))) == {"0.jpg": "train"}
    assert set(by_key(assign_splits(plain(2))).values()) == {"train", "val"}
    assert len(assign_splits(plain(0))) == 0


def test_a_split_that_is_left_out_stays_empty() -> None:
    split = assign_splits(plain(20), {"train": 0.75, "test": 0.25}).frame["split"]
    assert Counter(split.to_list()) == {"train": 15, "test": 5}


@pytest.mark.parametrize(
    "fractions", [{"train": 0.5}, {"train": 1.5, "val": -0.5}, {"train": 0.5, "dev": 0.5}, {}]
)
def test_fractions_that_are_none(fractions: dict[str, float]) -> None:
    with pytest.raises(DataError, match="fractions"):
        assign_splits(plain(4), fractions)


def test_given_splits_are_kept_and_their_unit_follows() -> None:
    given_split = ["test", None, None, "train", *[None] * 20]
    group = ["a", "a", None, None, *[None] * 20]
    table = plain(24, split=given_split, group=group)
    hashes = {key: key for key in table.keys} | {"2.jpg": "3.jpg"}
    split = by_key(assign_splits(table, content_hashes=hashes))
    assert [split[f"{row}.jpg"] for row in range(4)] == ["test", "test", "train", "train"]
    assert Counter(split.values()) == {"train": 2 + 16, "val": 2, "test": 2 + 2}
    whole = plain(3, split=["test", "test", "val"])
    assert assign_splits(whole) == whole


def test_leaks_of_given_splits() -> None:
    table = plain(
        8,
        split=["train", "test", "train", "val", "train", "test", None, "train"],
        group=["a", "a", None, None, None, None, "a", None],
    )
    hashes = {"2.jpg": "x", "3.jpg": "x", "7.jpg": "x"}
    near = [("4.jpg", "5.jpg"), ("4.jpg", "not there.jpg")]
    leaks = find_leaks(table, hashes, near)
    assert [(leak.code, leak.severity, leak.row) for leak in leaks] == [
        ("group_leak", "error", 1),
        ("content_leak", "error", 3),
        ("near_leak", "warning", 5),
    ]
    with pytest.raises(DataError, match="leaks") as caught:
        assign_splits(table, content_hashes=hashes)
    assert len(caught.value.problems) == 2


def test_units_are_named_by_group_content_and_key_and_joined_by_looks() -> None:
    table = plain(6, group=["b", "a", None, None, None, None])
    hashes = {"1.jpg": "x", "2.jpg": "x", "3.jpg": "y"}
    names = unit_names(table, hashes, [("4.jpg", "5.jpg")])
    assert names == ["0:b", "0:a", "0:a", "1:y", "2:4.jpg", "2:4.jpg"]


@settings(max_examples=60, deadline=None)
@given(
    units=st.lists(st.integers(0, 12).map(str), min_size=5, max_size=80),
    count=st.integers(2, 5),
    seed=st.integers(0, 3),
)
def test_folds_never_divide_a_unit_and_are_as_equal_as_units_allow(
    units: list[str], count: int, seed: int
) -> None:
    distinct = set(units)
    if len(distinct) < count:
        with pytest.raises(DataError, match=f"{count} folds"):
            assign_folds(units, count, seed)
        return
    folds = assign_folds(units, count, seed)
    assert set(folds.tolist()) == set(range(count))
    of_unit = dict(zip(units, folds.tolist(), strict=True))
    assert [of_unit[unit] for unit in units] == folds.tolist()
    shuffled = sorted(units)
    again = assign_folds(shuffled, count, seed).tolist()
    assert dict(zip(shuffled, again, strict=True)) == of_unit
    if len(distinct) == len(units):
        sizes = Counter(folds.tolist()).values()
        assert max(sizes) - min(sizes) <= 1


def test_fewer_units_than_folds_says_how_many_there_are() -> None:
    with pytest.raises(DataError, match="6 pictures in 3 groups can't be divided into 5 folds"):
        assign_folds(list("aabbcc"), 5)
