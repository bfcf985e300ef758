"""Shuffled batches of [144, 1536] features: Beholder's store against the published HDF5 layout.

    python benchmarks/bench_feature_store.py [--pictures 1500] [--batch 48] [--rounds 5]

Both hold the same features and are read in the same order, in turn, with a warm page cache, each
as training reads it: the published loader stacks float32, Beholder's gives float16 and the model
widens it where it computes. Bars: at least 5 times the throughput, at most half the bytes. The
store's reading of float32 is shown beside it.
"""

from __future__ import annotations

import argparse
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store_path, hdf5_path = build(Path(folder), arguments.pictures)
        store = FeatureStore.open(store_path)
        ratio = size_of(store_path) / size_of(hdf5_path)
        times: dict[str, list[float]] = {"store": [], "float32": [], "hdf5": []}
        generator = np.random.default_rng(1)
        with h5py.File(hdf5_path, "r") as file:
            for _ in range(arguments.rounds + 1):
                order = generator.permutation(arguments.pictures)
                batches = [
                    order[start : start + arguments.batch]
                    for start in range(0, len(order), arguments.batch)
                ]
                clock = time.perf_counter()
                for batch in batches:
                    np.stack([file[f"{index}_features"][()] for index in batch])
                times["hdf5"].append(time.perf_counter() - clock)
                for name in ("store", "float32"):
                    clock = time.perf_counter()
                    for batch in batches:
                        store.read([str(index) for index in batch], as_stored=name == "store")
                    times[name].append(time.perf_counter() - clock)
    ours, wide, theirs = (statistics.median(times[name][1:]) for name in times)
    print(f"{arguments.pictures} pictures, batches of {arguments.batch}, warm, medians")
    print(f"published HDF5: {arguments.pictures / theirs:8.0f} pictures/s")
    print(f"feature store:  {arguments.pictures / ours:8.0f} pictures/s")
    print(f"  as float32:   {arguments.pictures / wide:8.0f} pictures/s ({theirs / wide:.1f} x)")
    print(f"throughput: {theirs / ours:.1f} x; bytes: {ratio:.4f} x")


if __name__ == "__main__":
    main()
