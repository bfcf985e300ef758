"""Shuffled batches of [144, 1536] features: Beholder's store against the published HDF5 layout.

    python benchmarks/bench_feature_store.py [--pictures 1500] [--batch 48] [--rounds 5]

Both hold the same features and are read in the same order, in turn, each as training reads it: the
published loader stacks float32, Beholder's gives float16 and the model widens it where it computes.
Bars, with a warm page cache: at least 5 times the throughput, at most half the bytes. The store's
reading of float32 is shown beside it, and both once more with a cold cache, where the disk decides
(the system is told to forget the files before every round, Linux only).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from beholder.features.store import FeatureStore, FeatureWriter, StoreCard

SHAPE = (144, 1536)


def build(folder: Path, pictures: int) -> tuple[Path, Path]:
    """The same random features in both layouts."""
    generator = np.random.default_rng(0)
    writer = FeatureWriter(folder / "store", StoreCard("f", "swin", "float16", SHAPE, None))
    with h5py.File(folder / "features.hdf5", "w") as file:
        for index in range(pictures):
            tokens = generator.standard_normal(SHAPE, dtype=np.float32)
            file.create_dataset(f"{index}_features", data=tokens)
            writer.add(str(index), "", tokens, None)
    writer.close(str(index) for index in range(pictures))
    return folder / "store", folder / "features.hdf5"


def size_of(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)


def forget(path: Path) -> None:
    """Have the system drop a file's, or a folder's files', pages from memory."""
    for file in [path] if path.is_file() else path.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read_hdf5(path: Path, batches: list[np.ndarray]) -> float:
    """Seconds for all batches, as the published loader makes them."""
    with h5py.File(path, "r") as file:
        clock = time.perf_counter()
        for batch in batches:
            np.stack([file[f"{index}_features"][()] for index in batch])
        return time.perf_counter() - clock


def read_store(path: Path, batches: list[np.ndarray], *, as_stored: bool) -> float:
    """Seconds for all batches, as the feature source makes them."""
    store = FeatureStore.open(path)
    clock = time.perf_counter()
    for batch in batches:
        store.read([str(index) for index in batch], as_stored=as_stored)
    return time.perf_counter() - clock


def compare(store: Path, hdf5: Path, pictures: int, batch: int, rounds: int, *, cold: bool) -> None:
    times: dict[str, list[float]] = {"hdf5": [], "store": [], "float32": []}
    generator = np.random.default_rng(1)
    for _ in range(rounds + 1):
        order = generator.permutation(pictures)
        batches = [order[start : start + batch] for start in range(0, pictures, batch)]
        for name, taken in times.items():
            if cold:
                forget(hdf5 if name == "hdf5" else store)
            if name == "hdf5":
                taken.append(read_hdf5(hdf5, batches))
            else:
                taken.append(read_store(store, batches, as_stored=name == "store"))
    theirs, ours, wide = (statistics.median(taken[1:]) for taken in times.values())
    print(f"{pictures} pictures, batches of {batch}, {'cold' if cold else 'warm'}, medians")
    print(f"  published HDF5: {pictures / theirs:8.0f} pictures/s")
    print(f"  feature store:  {pictures / ours:8.0f} pictures/s, {theirs / ours:.1f} x")
    print(f"    as float32:   {pictures / wide:8.0f} pictures/s, {theirs / wide:.1f} x")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store, hdf5 = build(Path(folder), arguments.pictures)
        for cold in (False, True) if hasattr(os, "posix_fadvise") else (False,):
            compare(store, hdf5, arguments.pictures, arguments.batch, arguments.rounds, cold=cold)
        print(f"bytes: {size_of(store) / size_of(hdf5):.4f} x")


if __name__ == "__main__":
    main()
