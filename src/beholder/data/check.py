"""Everything wrong with a table of opinions and its pictures, in one go.

Problems of single rows and files are found while reading (`formats`); here are those of the whole
table, and of the pictures.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from beholder.data.annotations import ATTRIBUTE_PREFIX, AnnotationTable, each_label
from beholder.data.fingerprints import Fingerprint, fingerprint_all
from beholder.data.formats import Reading, ReadOptions, Scan, scan_with
from beholder.data.images import MAX_PIXELS
from beholder.data.lookalikes import near_pairs, near_sets
from beholder.data.splits import connected, find_leaks, large_sets
from beholder.data.transforms import clip_box
from beholder.data.unpacked_pictures import pictures_at_hand
from beholder.errors import LISTED, SHOWN, PictureError, Problem, bounded, count_problems

TINY_SIDE = 32
"""Pictures with a side shorter than this many pixels are reported."""

RARE = 5
"""Pictures of a label, below which it is reported as rare."""

_EXAMPLES = 5


@dataclass(frozen=True)
class Checked:
    """The problems, `bounded`, those of the file first, then of the table, then of the pictures;
    the table with its usable rows (None: there are none); and how it was understood."""

    problems: list[Problem]
    table: AnnotationTable | None
    read: Reading


def check_annotations(
    source: AnnotationTable | str | Path, images: str | Path | None = None, **options: Any
) -> list[Problem]:
    """All problems; arguments as for `read_and_check`."""
    return read_and_check(source, images, **options).problems


def read_and_check(
    source: Any,
    images: str | Path | None = None,
    *,
    options: ReadOptions | None = None,
    max_pixels: int = MAX_PIXELS,
    workers: int | None = None,
    **changes: Any,
) -> Checked:
    """Look for everything wrong with a table and its pictures.

    Args:
        source: an `AnnotationTable`, or whatever `read_annotations` reads.
        images: the image root; None: pictures are opened only where they are inside the table.
        options: how to read it.
        max_pixels: pictures with more are errors.
        workers: pictures opened at a time; by default the number of cores.
        changes: fields of the options, e.g. `columns={"image": "file"}`.

    Raises:
        DataError: an argument is wrong, e.g. there is no such format or encoding.
    """
    reading = replace(options or ReadOptions(), images=images, **changes)
    if isinstance(source, AnnotationTable):
        return _check(source, images, reading, max_pixels, workers)
    with pictures_at_hand(source, images, reading) as root:
        return _check(source, root, replace(reading, images=root), max_pixels, workers)


def _check(
    source: Any,
    images: str | Path | None,
    reading: ReadOptions,
    max_pixels: int,
    workers: int | None,
) -> Checked:
    score_range = reading.score_range
    file: str | None = None
    if isinstance(source, AnnotationTable):
        scan = Scan(source, [], rows={k: row for row, k in enumerate(source.keys)})
    else:
        file = str(source) if isinstance(source, (str, Path)) else None
        scan = scan_with(source, reading)
    problems = list(scan.problems)
    root_found = images is None or Path(images).is_dir()
    if not root_found:
        message = "The folder of pictures does not exist."
        problems.append(Problem("error", "image_root", message, file=str(images)))
    table = scan.table
    if table is None:
        return Checked(problems, None, scan.read)
    checks: list[Iterable[Problem]] = []
    if scan.format in (None, "parquet") and score_range:
        checks.append(_score_range_problems(table, score_range))
    checks += [_table_problems(table), similar_classes(table)]
    if images is not None and root_found:
        prints = fingerprint_all(Path(images), table.keys, max_pixels=max_pixels, workers=workers)
        checks += [_picture_problems(table, prints, Path(images)), _duplicate_problems(prints)]
        looks = [known.look for known in prints]
        pairs = near_pairs(looks)
        sets = near_sets(looks, pairs)
        checks.append(_look_alike_problems(table, prints, sets))
        keys = table.keys
        if table.frame["split"].is_null().any():
            checks.append(large_sets(table, [(keys[a], keys[b]) for a, b in sets]))
        contents = {known.key: known.content for known in prints if known.content}
        checks.append(find_leaks(table, contents, [(keys[a], keys[b]) for a, b in pairs]))
    else:
        checks.append(find_leaks(table))
    table_problems = bounded(chain.from_iterable(checks))
    placed = [_placed(problem, file, scan.rows) for problem in table_problems]
    return Checked(bounded(problems + placed), table, scan.read)


def render_text(problems: Sequence[Problem]) -> str:
    """Problems as text: errors first, grouped by kind with counts, the first `SHOWN` of each kind,
    and a line of totals."""
    if not problems:
        return "No problems found."
    kinds: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in sorted(problems, key=lambda problem: problem.severity):
        kinds[problem.severity, problem.code].append(problem)
    counts = count_problems(problems)
    lines = []
    for (severity, code), of_kind in kinds.items():
        count = counts[of_kind[0].severity, code]
        lines.append(f"{severity} {code} ({count})")
        lines += [f"  {_located(problem)}" for problem in of_kind[:SHOWN]]
        if count > SHOWN:
            which = "" if len(of_kind) == count else f" the first {len(of_kind)} of"
            lines.append(f"  and {count - SHOWN} more; --format json lists{which} all")
    total = _by_severity(problems)
    lines.append(f"{_count(total['error'], 'error')}, {_count(total['warning'], 'warning')}")
    return "\n".join(lines)


def render_json(problems: Sequence[Problem], **further: object) -> str:
    """Problems for a program: `{"errors", "warnings", "counts": [{"severity", "code", "count"}],
    "problems": [{"severity", "code", "message", "file", "row", "field", "key"}]}`, and `further`
    fields. Counts are of all problems; at most `LISTED` of a kind (severity
    and code) are listed."""
    total = _by_severity(problems)
    kinds = count_problems(problems)
    content = {
        "errors": total["error"],
        "warnings": total["warning"],
        "counts": [
            {"severity": severity, "code": code, "count": count}
            for (severity, code), count in kinds.items()
        ],
        "problems": [problem.to_dict() for problem in bounded(problems)],
        **further,
    }
    return json.dumps(content, ensure_ascii=False, indent=2)


def _by_severity(problems: Sequence[Problem]) -> Counter[str]:
    total: Counter[str] = Counter()
    for (severity, _), count in count_problems(problems).items():
        total[severity] += count
    return total


def _located(problem: Problem) -> str:
    position = ":".join(str(part) for part in (problem.file, problem.row) if part is not None)
    where = " ".join(part for part in (position, problem.field, problem.key) if part)
    return f"{where}: {problem.message}" if where else problem.message


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _placed(problem: Problem, file: str | None, rows: Mapping[str, int]) -> Problem:
    """The problem with the file and its picture's line in it."""
    row = rows.get(problem.key) if problem.key is not None else None
    return replace(problem, file=problem.file or file, row=row)


def _score_range_problems(
    table: AnnotationTable, score_range: tuple[float, float]
) -> Iterator[Problem]:
    low, high = score_range
    outside = table.frame.filter((pl.col("score") < low) | (pl.col("score") > high))
    for key, score in outside.select("image", "score").iter_rows():
        message = f"The score {score} is not between {low:g} and {high:g}."
        yield Problem("error", "score_range", message, field="score", key=key)


def _table_problems(table: AnnotationTable) -> Iterator[Problem]:
    """Classes without examples to learn from, and tables without any opinion."""
    frame = table.frame
    has_splits = frame["split"].is_not_null().any()
    train = frame.filter(pl.col("split") == "train") if has_splits else frame
    for name, labels in table.classes.items():
        column = ATTRIBUTE_PREFIX + name
        seen = set(each_label(train[column]))
        missing = [label for label in labels if label not in seen]
        if name in table.multi_label:
            yield from _multi_label_problems(train[column], labels)
        elif len(labels) < 2:
            only = f"one class alone, {labels[0]}" if labels else "no label at all"
            message = f"The attribute has {only}: there is nothing to learn."
            yield Problem("error", "one_class", message, field=column)
        elif missing:
            where = "the training split" if has_splits else "the table"
            message = f"No picture of {where} has the class {', '.join(missing)}."
            yield Problem("warning", "no_example", message, field=column)
    opinions = [frame["score"].is_not_null(), frame["comments"].list.len() > 0]
    opinions += [frame[ATTRIBUTE_PREFIX + name].is_not_null() for name in table.classes]
    if not any(column.any() for column in opinions):
        message = "The table holds no opinion: no score, no comment, no attribute."
        yield Problem("warning", "no_opinions", message)


def _multi_label_problems(column: pl.Series, labels: Sequence[str]) -> Iterator[Problem]:
    """Labels that hold of no picture, of each, or of hardly any: there is little to learn."""
    known = len(column.drop_nulls())
    counts = Counter(each_label(column).to_list())
    constant = [label for label in labels if counts[label] in (0, known)]
    if len(constant) == len(labels):
        message = (
            "No label holds of some pictures and not of others: there is nothing to learn."
            if known
            else "The attribute is known of no picture: there is nothing to learn."
        )
        yield Problem("error", "one_class", message, field=column.name)
        return
    for who, chosen in (
        ("No picture", [label for label in constant if counts[label] == 0]),
        ("Every picture", [label for label in constant if counts[label]]),
        (f"Hardly a picture (fewer than {RARE})", [n for n in labels if 0 < counts[n] < RARE]),
    ):
        if chosen:
            message = f"{who} to learn from has {', '.join(chosen)}."
            yield Problem("warning", "no_example", message, field=column.name)


def similar_classes(table: AnnotationTable) -> Iterator[Problem]:
    """A warning for classes of an attribute that differ only by case, blanks or decimals (`1` and
    `1.0`), which a judge would learn as different ones."""
    for name, labels in table.classes.items():
        column = ATTRIBUTE_PREFIX + name
        counts = Counter(table.labels(name).to_list())
        spellings: dict[str, list[str]] = defaultdict(list)
        for label in labels:
            spellings[plain_label(label)].append(label)
        for alike in spellings.values():
            if len(alike) < 2:
                continue
            alike.sort(key=lambda label: (-counts[label], label))
            shown = ", ".join(f"{label!r} ({counts[label]})" for label in alike)
            message = (
                f"The classes {shown} differ only by case, blanks or decimals. If they are one, "
                f"write {alike[0]!r} for all of them in the table."
            )
            yield Problem("warning", "similar_classes", message, field=column)


def plain_label(label: str) -> str:
    """A class label in a canonical spelling: Unicode's compatible forms, case, blanks, and `.0` of
    a whole number removed."""
    text = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text)


def _picture_problems(
    table: AnnotationTable, prints: Sequence[Fingerprint], root: Path
) -> Iterator[Problem]:
    """Pictures that can't be used, tiny ones, and boxes that extend beyond their picture."""
    siblings: dict[str, dict[str, list[str]]] = {}
    absent = 0
    boxes = table.frame["box"].to_list()
    for known, box in zip(prints, boxes, strict=True):
        if known.problem:
            code, message = known.problem
            absent += code == "missing"
            if code == "missing" and absent <= LISTED:  # further ones are only counted
                message += _suggestion(root, known.key, siblings)
            yield Problem("error", code, message, field="image", key=known.key)
        elif known.size:
            width, height = known.size
            if min(known.size) < TINY_SIDE:
                message = f"The picture is tiny: {width} x {height} pixels."
                yield Problem("warning", "tiny", message, field="image", key=known.key)
            if box:
                yield from box_problems(known.key, box, known.size)


def box_problems(key: str, box: Sequence[float], size: tuple[int, int]) -> Iterator[Problem]:
    """A box that extends beyond its picture (it is clipped), or lies outside (it is refused).

    Args:
        size: (width, height) of the picture.
    """
    width, height = size
    shown = f"of {width} x {height} pixels"
    try:
        clip_box(box, size)
    except PictureError:
        message = f"The box {list(box)} lies outside of the picture {shown}."
        yield Problem("error", "box_empty", message, field="box", key=key)
        return
    if box[0] < 0 or box[1] < 0 or box[2] > width or box[3] > height:
        message = f"The box {list(box)} reaches out of the picture {shown}; it is clipped."
        yield Problem("warning", "box_outside", message, field="box", key=key)


def _suggestion(root: Path, key: str, siblings: dict[str, dict[str, list[str]]]) -> str:
    """Files in the folder with the same name but another extension or case."""
    path = PurePosixPath(key)
    folder = str(path.parent)
    if folder not in siblings:
        siblings[folder] = defaultdict(list)
        directory = root / folder
        for entry in sorted(directory.iterdir()) if directory.is_dir() else ():
            siblings[folder][entry.stem.casefold()].append(entry.name)
            siblings[folder][entry.name.casefold()].append(entry.name)
    near = siblings[folder]
    names = near.get(path.stem.casefold()) or near.get(path.name.casefold()) or []
    return f" There is {', '.join(sorted(set(names)))}." if names else ""


def _duplicate_problems(prints: Sequence[Fingerprint]) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for known in prints:
        if known.content and first.setdefault(known.content, known.key) != known.key:
            message = f"The picture has the same content as {first[known.content]!r}."
            yield Problem("error", "duplicate_content", message, field="image", key=known.key)


def _look_alike_problems(
    table: AnnotationTable, prints: Sequence[Fingerprint], sets: Sequence[tuple[int, int]]
) -> Iterator[Problem]:
    """A warning per set of pictures that look alike, unless they are the same or of one group."""
    groups = table.frame["group"].to_list()
    alike: dict[int, list[int]] = defaultdict(list)
    for row, unit in enumerate(connected(len(prints), sets).tolist()):
        alike[unit].append(row)
    for rows in alike.values():
        one_group = groups[rows[0]] is not None and len({groups[row] for row in rows}) == 1
        if len({prints[row].content for row in rows}) < 2 or one_group:
            continue
        names = ", ".join(repr(prints[row].key) for row in rows[1 : 1 + _EXAMPLES])
        more = f" and {len(rows) - 1 - _EXAMPLES} more" if len(rows) > 1 + _EXAMPLES else ""
        message = (
            f"The picture looks like {names}{more}. If they belong together, give them a group."
        )
        yield Problem("warning", "near_duplicate", message, field="image", key=prints[rows[0]].key)
