"""What a recipe's stages work on: the table with a split for every row, and its pictures.

Pictures are known by content. Their hashes are kept in the run's `pictures.parquet` with size and
modification time, so that a file is read again only when it has been touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from beholder.data.annotations import AnnotationTable
from beholder.data.files import atomic_path
from beholder.data.formats import read_annotations
from beholder.data.images import content_hash, resolve_key
from beholder.data.progress import progress
from beholder.data.sample.builder import build_sample
from beholder.data.splits import assign_splits, find_leaks
from beholder.errors import DataError, PictureError
from beholder.pipeline.manifest import digest
from beholder.pipeline.recipe import DataConfig

_PICTURES = "pictures.parquet"
_SCHEMA = {"image": pl.String, "size": pl.Int64, "mtime_ns": pl.Int64, "sha256": pl.String}


@dataclass(frozen=True)
class RunData:
    """The table with every row's split, the root of its image keys, and a hash of both."""

    table: AnnotationTable
    root: Path
    digest: str


def load_data(config: DataConfig, folder: Path) -> RunData:
    """Read, hash and split the data of a recipe.

    Args:
        folder: the run's folder; keeps the hashes of the pictures, and the embedded sample.

    Raises:
        DataError: the table or the folder of pictures can't be used, or a split that the table
            gives leaks.
    """
    if config.annotations == "sample":
        table, root = build_sample(folder / "sample", photos=config.sample_photos)
    else:
        path = Path(config.annotations)
        table = read_annotations(path, config.format, columns=config.columns or None)
        root = Path(config.images) if config.images else path.parent
    if len(table) == 0:
        raise DataError("The table has no row.", where=config.annotations)
    if not root.is_dir():
        raise DataError(
            "The folder of pictures does not exist.",
            where=str(root),
            fix="Set data.images to the folder that the image keys start from.",
        )
    hashes = _content_hashes(table, root, folder / _PICTURES)
    table = _split(table, config, hashes)
    return RunData(table, root, digest([_table_digest(table), sorted(hashes.items())]))


def _content_hashes(table: AnnotationTable, root: Path, cache: Path) -> dict[str, str]:
    """Image key -> SHA-256 of the file; pictures that are not there are left out."""
    known: dict[str, tuple[int, int, str]] = {}
    if cache.exists():
        for key, size, mtime, sha in pl.read_parquet(cache).iter_rows():
            known[key] = (size, mtime, sha)
    rows: list[tuple[str, int, int, str]] = []
    stale: list[tuple[str, Path, int, int]] = []
    for key in table.keys:
        try:
            path = resolve_key(root, key)
        except PictureError:
            continue  # extraction and training report it, with its key and reason
        status = path.stat()
        size, mtime = status.st_size, status.st_mtime_ns
        if key in known and known[key][:2] == (size, mtime):
            rows.append((key, size, mtime, known[key][2]))
        else:
            stale.append((key, path, size, mtime))
    if not rows and not stale:
        raise DataError(
            f"None of the {len(table)} pictures is there, e.g. {table.keys[0]}.",
            where=str(root),
            fix="Set data.images to the folder that the image keys start from.",
        )
    if stale:
        for key, path, size, mtime in progress(stale, "hashing pictures"):
            rows.append((key, size, mtime, content_hash(path)))
        with atomic_path(cache) as temporary:
            pl.DataFrame(sorted(rows), schema=_SCHEMA, orient="row").write_parquet(temporary)
    return {row[0]: row[3] for row in rows}


def _split(table: AnnotationTable, config: DataConfig, hashes: dict[str, str]) -> AnnotationTable:
    """The split of the table where it gives one (it must not leak), else by content."""
    shares = {name: getattr(config.split, name) for name in ("train", "val", "test")}
    table = assign_splits(table, shares, seed=config.split.seed, content_hashes=hashes)
    leaks = find_leaks(table, content_hashes=hashes)
    errors = [leak for leak in leaks if leak.severity == "error"]
    if errors:
        raise DataError(
            "The split given in the table leaks: the same picture or group is on both sides.",
            where=config.annotations,
            fix="Correct the split, or remove it from the table to have one made.",
            problems=errors,
        )
    if not (table.frame["split"] == "train").any():
        raise DataError("No picture is in the training split.", where=config.annotations)
    return table


def _table_digest(table: AnnotationTable) -> str:
    frame = table.frame.sort("image")
    return digest([frame.columns, dict(table.classes), frame.rows()])
