"""Extraction and evaluation that two processes share give what one process gives, exactly."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchrun import torchrun

from beholder.data.annotations import AnnotationTable
from beholder.data.sharing import ALONE, Processes, joined_parts, part_of
from beholder.features.store import FeatureStore

PICTURES = 9


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_parts_are_the_whole_in_order(size: int, count: int) -> None:
    parts = [part_of(list(range(count)), Processes(rank, size)) for rank in range(size)]
    assert [item for part in parts for item in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert joined_parts([1, 2], ALONE) == [1, 2]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for index in range(PICTURES):
        pixels = generator.integers(0, 256, (80, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    (folder / "4.png").write_bytes(b"no picture")
    table = AnnotationTable.from_columns(
        [f"{index}.png" for index in range(PICTURES)],
        score=[float(index) for index in range(PICTURES)],
        comments=[[f"word{index} word{index + 1}"] for index in range(PICTURES)],
    )
    table.to_parquet(folder / "table.parquet")
    return folder


def run(processes: int, pictures: Path, folder: Path) -> list[str]:
    """What each process tells, as text."""
    torchrun(Path(__file__).parent / "two_sharers.py", pictures, folder, processes=processes)
    return [(folder / f"{rank}.json").read_text() for rank in range(processes)]


@pytest.mark.slow
def test_two_processes_are_one(pictures: Path, tmp_path: Path) -> None:
    [alone] = run(1, pictures, tmp_path / "one")
    both = run(2, pictures, tmp_path / "two")
    assert both == [alone, alone], "exactly, NaN included"
    assert '"summary": [8, 0, 1]' in alone

    stores = [FeatureStore.open(tmp_path / name / "store") for name in ("one", "two")]
    assert stores[0].keys == stores[1].keys
    for ours, theirs in zip(*(store.read(store.keys) for store in stores), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    texts = [(tmp_path / name / "store" / "quarantine.csv").read_text() for name in ("one", "two")]
    assert texts[0] == texts[1]

    # killed before the end: one shard is lost, and no index was written
    store = tmp_path / "two" / "store"
    shards = sorted(store.glob("*.safetensors"))
    assert len(shards) == 2, "one of each process"
    shards[1].unlink()
    for name in ("index.parquet", "shards.json"):
        (store / name).unlink(missing_ok=True)
    again = run(2, pictures, tmp_path / "two")
    assert '"summary": [4, 4, 1]' in again[0]
    opened = FeatureStore.open(store)
    for ours, theirs in zip(opened.read(opened.keys), stores[0].read(opened.keys), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    shutil.rmtree(tmp_path / "two")
