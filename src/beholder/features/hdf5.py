"""Exchange with the published captioner's feature file: one HDF5 file, a data set per picture.

Its layout is `{image id}_features`, float32 [N, C], for every picture. Needs the `hdf5` extra.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from beholder.data.files import atomic_path
from beholder.data.progress import progress
from beholder.errors import MissingExtra, StoreError
from beholder.features.store import FeatureStore, FeatureWriter, StoreCard

SUFFIX = "_features"


def export_hdf5(store: FeatureStore, path: str | Path, ids: Mapping[str, str]) -> None:
    """Write a store's tokens in the published layout, atomically.

    Args:
        ids: image key -> image id of every picture to write, see
            `beholder.data.formats.captioner_ids`.

    Raises:
        StoreError: the store has no tokens, or lacks a picture.
        MissingExtra: h5py is not installed.
    """
    h5py = _h5py()
    if store.token_shape is None:
        raise StoreError(
            "The store holds no tokens, and the published layout has nothing else.",
            where=str(store.path),
            fix="Extract with tokens.",
        )
    _check_ids(ids)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for key, image_id in progress(ids.items(), "writing HDF5", len(ids)):
            tokens, _ = store.read([key])
            file.create_dataset(f"{image_id}{SUFFIX}", data=tokens[0])


def import_hdf5(
    path: str | Path,
    store_path: str | Path,
    ids: Mapping[str, str],
    *,
    fingerprint: str,
    backbone: str,
    dtype: str = "float16",
) -> FeatureStore:
    """Make a store of a file in the published layout.

    The file does not say which backbone it is from: the caller does. Rows are identified by their
    key alone, so a later extraction into the same folder computes them again.

    Args:
        ids: image key -> image id of every picture to read.
        fingerprint, backbone: of the backbone whose features these are, for later checks.
        dtype: `float16` or `float32`.

    Raises:
        StoreError: the file is missing or damaged, lacks a picture, or mixes shapes.
        MissingExtra: h5py is not installed.
    """
    h5py = _h5py()
    _check_ids(ids)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise StoreError(
            f"The HDF5 file can't be opened: {error}.",
            where=str(path),
            fix="A file whose writer was killed can't be opened: write it again.",
        ) from error
    with file:
        missing = [key for key, image_id in ids.items() if f"{image_id}{SUFFIX}" not in file]
        if missing or not ids:
            raise StoreError(
                f"The file lacks {len(missing)} of {len(ids)} pictures, e.g. {missing[:3]}.",
                where=str(path),
                fix="Only give pictures that the file holds.",
            )
        first = file[f"{next(iter(ids.values()))}{SUFFIX}"]
        shape = (int(first.shape[0]), int(first.shape[-1]))
        card = StoreCard(fingerprint, backbone, dtype, shape, None)
        writer = FeatureWriter(store_path, card)
        for key, image_id in progress(ids.items(), "reading HDF5", len(ids)):
            tokens = np.asarray(file[f"{image_id}{SUFFIX}"])
            if tokens.shape != shape:
                raise StoreError(
                    f"{image_id}{SUFFIX} is of shape {tokens.shape}, the first one of {shape}.",
                    where=str(path),
                )
            writer.add(key, f"hdf5 {image_id}", tokens, None)
        writer.close(ids)
    return FeatureStore.open(store_path, expect_fingerprint=fingerprint)


def _check_ids(ids: Mapping[str, str]) -> None:
    if len(set(ids.values())) != len(ids):
        raise StoreError("Two pictures have the same image id.", fix="Give each its own id.")


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise MissingExtra("The published feature file", "hdf5") from error
    return h5py
