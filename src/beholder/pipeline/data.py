"""What a recipe's stages work on: the table with a split for every row, and its pictures.

Pictures are known by content. What is known of them is kept in the run's `pictures.parquet` with
size and modification time, so that a file is read again only when it has been touched.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from beholder.data.annotations import AnnotationTable
from beholder.data.check import box_problems, similar_classes
from beholder.data.files import atomic_path, write_json
from beholder.data.fingerprints import LOOK_VERSION, Fingerprint, fingerprint_all
from beholder.data.formats import scan_with, usable_table
from beholder.data.images import content_hash, read_header, resolve_key
from beholder.data.keys import make_key
from beholder.data.lookalikes import near_pairs, near_sets
from beholder.data.picture_files import pictures_below
from beholder.data.progress import progress
from beholder.data.sample.builder import build_sample
from beholder.data.splits import assign_splits, find_leaks, held_out, large_sets, unit_names
from beholder.data.unpacked_pictures import unpack_pictures
from beholder.errors import DataError, PictureError, Problem
from beholder.metrics.opinion_check import with_corrected_scores
from beholder.pipeline.manifest import READ, digest
from beholder.pipeline.schema import DataConfig

log = logging.getLogger("beholder")

_PICTURES = "pictures.parquet"
_UNPACKED = "pictures"
_LOOK = f"look.{LOOK_VERSION}"
_SCHEMA = {
    "image": pl.String(), "size": pl.Int64(), "mtime_ns": pl.Int64(), "ctime_ns": pl.Int64(),
    "sha256": pl.String(),
    _LOOK: pl.Binary(), "opened": pl.Boolean(),
}  # fmt: skip


@dataclass(frozen=True)
class RunData:
    """The table with every row's split, the root of its image keys, and a hash of both.

    Unlabelled pictures are rows without opinions and without a split. `units` names, for every
    other image key, what belongs together: the same content or group, look-alikes where the split
    was made here.
    """

    table: AnnotationTable
    root: Path
    digest: str
    units: dict[str, str]

    @property
    def is_divided(self) -> bool:
        """Whether the pictures have been looked at, and rows have their splits."""
        return bool(self.units)


@dataclass(frozen=True)
class OpenedTable:
    """A table of opinions as it was read, before its pictures are looked at, and where they are."""

    table: AnnotationTable
    root: Path

    def undivided(self) -> RunData:
        """For checks of the table alone: rows have the split that the table gives, or none; no
        picture is known."""
        return RunData(self.table, self.root, "", {})


def load_data(config: DataConfig, folder: Path) -> RunData:
    """Read, hash and split the data of a recipe.

    Args:
        folder: the run's folder; keeps the hashes of the pictures, and the embedded sample.

    Raises:
        DataError: the table or the folder of pictures can't be used, or a split that the table
            gives leaks.
    """
    return divide(open_table(config, folder), config, folder)


def open_table(config: DataConfig, folder: Path) -> OpenedTable:
    """Read a recipe's table; no picture is opened.

    Args:
        folder: the run's folder, where the embedded sample is made.

    Raises:
        DataError: the table can't be used, or there is no folder of pictures.
    """
    if config.annotations == "sample" and config.codebook:
        raise DataError(
            "The embedded sample names its classes itself.",
            where="data.codebook",
            fix="Leave it out.",
        )
    if config.annotations == "sample":
        table, root = build_sample(folder / "sample", photos=config.sample_photos)
    else:
        table, root = _read_table(config, folder)
    if len(table) == 0:
        raise DataError("The table has no row.", where=config.annotations)
    if config.ratings == "corrected":
        table = with_corrected_scores(table)
    if not root.is_dir():
        raise DataError(
            "The folder of pictures does not exist.",
            where=str(root),
            fix="Set data.images to the folder that the image keys start from.",
        )
    return OpenedTable(table, root)


def divide(opened: OpenedTable, config: DataConfig, folder: Path) -> RunData:
    """Get to know a table's pictures by content, and split it.

    Args:
        folder: the run's folder, which keeps the hashes of the pictures.

    Raises:
        DataError: not one of the pictures is there, boxes lie outside of theirs, or a split that
            the table gives leaks.
    """
    table, root = opened.table, opened.root
    for problem in similar_classes(table):
        log.warning("%s: %s", problem.field, problem.message)
    _check_boxes(table, root, config.annotations)
    # Only a split that has to be made needs to know which pictures look alike.
    compare = config.near_duplicates != "ignore" and table.frame["split"].is_null().any()
    further = _unlabelled(table, root, config.unlabelled) if config.unlabelled else None
    every = table.keys + (further.keys if further else [])
    pictures = _known_pictures(every, root, folder / _PICTURES, looks=compare)
    hashes = {picture.key: picture.content for picture in pictures if picture.content}
    labelled = set(table.keys)
    looks = {picture.key: picture.look for picture in pictures if picture.key in labelled}
    alike = _look_alikes(table, looks if compare else {})
    links = alike.links if config.near_duplicates == "group" else []
    for problem in large_sets(table, links):
        log.warning("%s: %s", problem.key, problem.message)
    table = _split(table, config, hashes, links)
    _tell_near_leaks(table, alike.pairs, config.near_duplicates)
    units = dict(zip(table.keys, unit_names(table, hashes, links), strict=True))
    if further:
        # votes and ratings, if there are any, are null for these
        table = table.with_frame(pl.concat([table.frame, further.frame], how="diagonal"))
    whole = digest([_table_digest(table), sorted(hashes.items())])
    return RunData(table, root, whole, units)


def _read_table(config: DataConfig, folder: Path) -> tuple[AnnotationTable, Path]:
    """The table and the root of its image keys. What was understood of it opens the log, and is
    kept in the run's `read.json`.

    Raises:
        DataError: it can't be used; names every problem.
    """
    path = Path(config.annotations)
    root = Path(config.images) if config.images else _default_root(config, path, folder)
    scan = scan_with(path, config.read_options(root))
    if scan.table is not None:
        for line in scan.read.lines():
            log.info("%s", line)
    table = usable_table(scan, str(path))
    write_json(folder / READ, scan.read.to_dict())
    return table, root


def _default_root(config: DataConfig, path: Path, folder: Path) -> Path:
    """Where the pictures are when the recipe does not say: beside the table, or inside it; then
    they are unpacked into the run.

    Raises:
        OutputError: there is no room for them.
    """
    beside = path if path.is_dir() else path.parent
    target = folder / _UNPACKED
    unpacked = unpack_pictures(path, target, replace(config.read_options(target), images=None))
    if unpacked is None:
        return beside
    log.info(
        "%d pictures inside the table are unpacked into %s, %d of them were there already",
        unpacked.written + unpacked.kept,
        target,
        unpacked.kept,
    )
    return target


@dataclass(frozen=True)
class _LookAlikes:
    """Pairs of image keys that look alike, and the links of the sets that are kept together."""

    pairs: list[tuple[str, str]]
    links: list[tuple[str, str]]


def _look_alikes(table: AnnotationTable, look_of: dict[str, bytes | None]) -> _LookAlikes:
    keys, looks = list(look_of), list(look_of.values())
    pairs = near_pairs(looks)
    ranks = dict(zip(table.keys, held_out(table), strict=True))
    links = near_sets(looks, pairs, [ranks[key] for key in keys])
    key_pairs = [[(keys[a], keys[b]) for a, b in rows] for rows in (pairs, links)]
    return _LookAlikes(*key_pairs)


def _tell_near_leaks(table: AnnotationTable, pairs: list[tuple[str, str]], kept: str) -> None:
    """Log how many sets of look-alikes are in several splits, and why."""
    leaks = [leak for leak in find_leaks(table, None, pairs) if leak.code == "near_leak"]
    if leaks:
        log.warning(
            "pictures that look alike are in several splits, %d sets of them (%s), e.g.: %s",
            len(leaks),
            "chains of look-alikes are cut, and given splits are kept"
            if kept == "group"
            else "data.near_duplicates: group keeps them together",
            leaks[0].message,
        )


def _unlabelled(table: AnnotationTable, root: Path, folder: str) -> AnnotationTable:
    """Rows without opinions for the pictures below a folder that the table does not have.

    Raises:
        DataError: no such folder below the root, or no further picture in it.
    """
    pictures_folder = root / folder
    inner = pictures_folder.relative_to(root).as_posix()
    keys = [make_key(f"{inner}/{name}") for name in pictures_below(pictures_folder)]
    known = set(table.keys)
    keys = [key for key in keys if key not in known]
    if not keys:
        raise DataError(
            "There is no further picture in the folder of unlabelled ones.",
            where=f"data.unlabelled: {folder} in {root}",
            fix="Name a folder in that of the pictures, or leave it out.",
        )
    empty: dict[str, list[str | None]] = {n: [None] * len(keys) for n in table.attribute_names}
    return AnnotationTable.from_columns(
        keys, attributes=empty, classes=table.classes, multi_label=table.multi_label
    )


def _check_boxes(table: AnnotationTable, root: Path, where: str) -> None:
    """Count the boxes that are clipped to their pictures.

    Raises:
        DataError: boxes lie outside of their pictures; names all of them.
    """
    problems: list[Problem] = []
    boxed = table.frame.filter(pl.col("box").is_not_null()).select("image", "box")
    for key, box in boxed.iter_rows():
        try:
            size = read_header(resolve_key(root, key)).size
        except PictureError:
            continue  # extraction and training report it, with its key and reason
        problems += box_problems(key, box, size)
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        raise DataError(
            f"{len(errors)} boxes lie outside of their pictures.",
            where=where,
            fix="Correct the places below; boxes are xmin, ymin, xmax, ymax of upright pictures.",
            problems=errors,
        )
    if problems:
        log.warning(
            "%d of %d boxes reach out of their pictures and are clipped; `beholder check` lists "
            "them",
            len(problems),
            boxed.height,
        )


def _known_pictures(keys: list[str], root: Path, cache: Path, *, looks: bool) -> list[Fingerprint]:
    """Content and, if `looks`, perceptual hash of every picture that is there."""
    known = {
        (row["image"], row["size"], row["mtime_ns"], row["ctime_ns"]): row for row in _cached(cache)
    }
    files: dict[str, tuple[int, int, int]] = {}
    for key in keys:
        try:
            status = resolve_key(root, key).stat()
        except PictureError:
            continue  # extraction and training report it, with its key and reason
        files[key] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if not files:
        raise DataError(
            f"None of the {len(keys)} pictures is there, e.g. {keys[0]}.",
            where=str(root),
            fix="Set data.images to the folder that the image keys start from.",
        )
    rows = [known[key, *files[key]] for key in files if (key, *files[key]) in known]
    rows = [row for row in rows if row["opened"] or not looks]
    fresh = sorted(files.keys() - {row["image"] for row in rows})
    if fresh:
        seen = fingerprint_all(root, fresh) if looks else _hash_all(root, fresh)
        rows += [
            {"image": picture.key, "size": size, "mtime_ns": mtime_ns, "ctime_ns": ctime_ns,
             "sha256": picture.content, _LOOK: picture.look, "opened": looks}
            for picture in seen
            for size, mtime_ns, ctime_ns in [files[picture.key]]
        ]  # fmt: skip
        rows.sort(key=lambda row: row["image"])
        with atomic_path(cache) as temporary:
            pl.DataFrame(rows, schema=_SCHEMA).write_parquet(temporary)
    return [Fingerprint(row["image"], content=row["sha256"], look=row[_LOOK]) for row in rows]


def _cached(cache: Path) -> list[dict[str, Any]]:
    """What is known already; nothing from a cache of an older version, which says less, or from a
    damaged one: it is made anew."""
    try:
        if not cache.exists() or pl.read_parquet_schema(cache) != _SCHEMA:
            return []
        return pl.read_parquet(cache).to_dicts()
    except pl.exceptions.PolarsError as error:
        log.warning("%s can't be read and is made anew: %s", cache, error)
        return []


def _hash_all(root: Path, keys: list[str]) -> list[Fingerprint]:
    """Contents only: nothing is decoded."""
    return [
        Fingerprint(key, content=content_hash(resolve_key(root, key)))
        for key in progress(keys, "hashing pictures")
    ]


def _split(
    table: AnnotationTable,
    config: DataConfig,
    hashes: dict[str, str],
    pairs: list[tuple[str, str]],
) -> AnnotationTable:
    """The split of the table where it gives one (it must not leak), else by content."""
    shares = {name: getattr(config.split, name) for name in ("train", "val", "test")}
    table = assign_splits(table, shares, config.split.seed, hashes, pairs)
    if not (table.frame["split"] == "train").any():
        raise DataError("No picture is in the training split.", where=config.annotations)
    return table


def _table_digest(table: AnnotationTable) -> str:
    frame = table.frame.sort("image")
    return digest([frame.columns, dict(table.classes), *table.rating_bins, frame.rows()])
