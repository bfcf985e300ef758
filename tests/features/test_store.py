"""The feature store: exact rows by key, kills, damage, other backbones."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beholder.errors import StoreError
from beholder.features.store import INDEX, FeatureStore, FeatureWriter, StoreCard

CARD = StoreCard("f" * 64, "timm/tiny", "float16", (3, 4), 5)


def features(key: str, version: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Values that float16 holds exactly, different for every key and version."""
    generator = np.random.default_rng([version, *key.encode()])
    tokens = generator.integers(-64, 64, (3, 4)).astype(np.float32)
    return tokens, generator.integers(-64, 64, 5).astype(np.float32)


def fill(path: Path, keys: list[str], *, shard_rows: int = 4, version: int = 0) -> None:
    writer = FeatureWriter(path, CARD, shard_rows=shard_rows)
    for key in keys:
        if writer.contents().get(key) != f"{key} {version}":
            writer.add(key, f"{key} {version}", *features(key, version))
    writer.close(keys)


def assert_rows(store: FeatureStore, keys: list[str], version: int = 0) -> None:
    tokens, pooled = store.read(keys)
    assert tokens.dtype == pooled.dtype == np.float32
    assert tokens.shape == (len(keys), 3, 4)
    assert pooled.shape == (len(keys), 5)
    for row, key in enumerate(keys):
        expected = features(key, version)
        np.testing.assert_array_equal(tokens[row], expected[0])
        np.testing.assert_array_equal(pooled[row], expected[1])


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 20),
    shard_rows=st.integers(1, 7),
    order=st.lists(st.integers(0, 19), max_size=30),
)
def test_rows_come_back_in_the_order_asked_for(
    tmp_path_factory: pytest.TempPathFactory, count: int, shard_rows: int, order: list[int]
) -> None:
    path = tmp_path_factory.mktemp("store")
    keys = [f"folder/{index}.jpg" for index in range(count)]
    fill(path, keys, shard_rows=shard_rows)
    store = FeatureStore.open(path, expect_fingerprint=CARD.fingerprint)
    assert store.keys == keys
    assert len(store) == count
    assert store.token_shape == (3, 4)
    assert store.pooled_dim == 5
    assert_rows(store, [keys[index % count] for index in order])


def test_store_is_at_most_half_of_float32(tmp_path: Path) -> None:
    card = CARD._replace(token_shape=(16, 64), pooled_dim=None)
    tokens = np.ones((16, 64), np.float32)
    writer = FeatureWriter(tmp_path, card)
    for index in range(64):
        writer.add(str(index), "", tokens, None)
    writer.close(str(index) for index in range(64))
    size = sum(path.stat().st_size for path in tmp_path.glob("shard-*"))
    assert size <= 0.51 * 64 * tokens.nbytes
    read, pooled = FeatureStore.open(tmp_path).read(["3", "5"])
    assert read.shape == (2, 16, 64)
    assert pooled.shape == (2, 0)


def test_rows_in_any_memory_order_are_stored_right(tmp_path: Path) -> None:
    tokens, pooled = features("a")
    writer = FeatureWriter(tmp_path, CARD)
    writer.add("a", "", np.asfortranarray(tokens), pooled[::-1])
    writer.close(["a"])
    read = FeatureStore.open(tmp_path).read(["a"])
    np.testing.assert_array_equal(read[0][0], tokens)
    np.testing.assert_array_equal(read[1][0], pooled[::-1])


def test_tokens_can_stay_on_the_disk(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b"])
    tokens, pooled = FeatureStore.open(tmp_path).read(["b"], tokens=False)
    assert tokens.shape == (1, 0, 0)
    np.testing.assert_array_equal(pooled[0], features("b")[1])


def test_going_on_keeps_what_is_there_and_replaces_what_has_changed(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b", "c"])
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("shard-*")}
    fill(tmp_path, ["b", "d"])  # a and c are no longer in the table
    store = FeatureStore.open(tmp_path)
    assert store.keys == ["b", "d"]
    assert_rows(store, ["d", "b"])
    assert (
        before.items() <= {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("shard-*")}.items()
    )
    fill(tmp_path, ["b", "d"], version=1)
    assert_rows(FeatureStore.open(tmp_path), ["b", "d"], version=1)


def test_store_travels_to_worker_processes(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b", "c"])
    store = FeatureStore.open(tmp_path)
    assert_rows(store, ["a"])
    copy = pickle.loads(pickle.dumps(store))
    assert_rows(copy, ["c", "a"])


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_store import CARD, features
from beholder.features.store import FeatureWriter
writer = FeatureWriter(Path(sys.argv[2]), CARD, shard_rows=4)
for index in range(10):
    writer.add(f"{index}", f"{index} 0", *features(f"{index}"))
print("ten added", flush=True)
import time
time.sleep(60)
"""


def test_kill_loses_at_most_the_shard_being_filled(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, here, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ten added\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(StoreError, match="not finished"):
        FeatureStore.open(tmp_path)
    writer = FeatureWriter(tmp_path, CARD, shard_rows=4)
    assert set(writer.contents()) == {str(index) for index in range(8)}
    fill(tmp_path, [str(index) for index in range(10)])
    assert_rows(FeatureStore.open(tmp_path), [str(index) for index in (9, 0, 5, 8)])


def test_store_of_another_backbone_is_refused_by_name(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    with pytest.raises(StoreError, match="timm/tiny"):
        FeatureStore.open(tmp_path, expect_fingerprint="0" * 64)
    with pytest.raises(StoreError, match="another folder"):
        FeatureWriter(tmp_path, CARD._replace(fingerprint="0" * 64))
    with pytest.raises(StoreError, match="another folder"):
        FeatureWriter(tmp_path, CARD._replace(flip=True))


def test_missing_pictures_are_listed(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    with pytest.raises(StoreError, match=r"lacks 2 of 3 pictures: x\.jpg, y\.jpg"):
        FeatureStore.open(tmp_path).read(["x.jpg", "a", "y.jpg"])


@pytest.mark.parametrize("damage", ["cut", "longer", "gone", "nonsense"])
def test_damaged_shard_is_named(tmp_path: Path, damage: str) -> None:
    fill(tmp_path, [str(index) for index in range(6)])
    shard = tmp_path / "shard-00001.safetensors"
    content = shard.read_bytes()
    if damage == "gone":
        shard.unlink()
    else:
        changed = {"cut": content[:-3], "longer": content + b"x", "nonsense": b"\xff" * 40}
        shard.write_bytes(changed[damage])
    with pytest.raises(StoreError, match="shard-00001"):
        FeatureStore.open(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 99}'])
def test_damaged_or_newer_card_is_refused(tmp_path: Path, content: str) -> None:
    fill(tmp_path, ["a"])
    (tmp_path / "store.json").write_text(content)
    with pytest.raises(StoreError):
        FeatureStore.open(tmp_path)


def test_changed_bytes_are_found_by_their_hash(tmp_path: Path) -> None:
    keys = [str(index) for index in range(6)]
    fill(tmp_path, keys)
    shard = tmp_path / "shard-00001.safetensors"
    status = shard.stat()
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
    with pytest.raises(StoreError, match=r"shard-00001.*SHA-256"):
        FeatureStore.open(tmp_path)
    # what looks untouched is read only when asked
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    store = FeatureStore.open(tmp_path)
    with pytest.raises(StoreError, match=r"shard-00001.*SHA-256"):
        store.verify()


def test_copied_store_is_as_good(tmp_path: Path) -> None:
    fill(tmp_path / "store", ["a", "b", "c", "d", "e"])
    (tmp_path / "copy").mkdir()
    for file in (tmp_path / "store").iterdir():
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    store = FeatureStore.open(tmp_path / "copy")
    store.verify()
    assert_rows(store, ["e", "a"])


def test_pictures_of_a_deleted_shard_are_done_anew(tmp_path: Path) -> None:
    keys = [str(index) for index in range(6)]
    fill(tmp_path, keys)
    (tmp_path / "shard-00001.safetensors").unlink()
    writer = FeatureWriter(tmp_path, CARD)
    assert set(writer.contents()) == {"0", "1", "2", "3"}
    fill(tmp_path, keys)
    store = FeatureStore.open(tmp_path)
    store.verify()
    assert_rows(store, keys)


def test_store_that_is_being_changed_does_not_open(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b"])
    writer = FeatureWriter(tmp_path, CARD, shard_rows=1)
    writer.add("a", "a 1", *features("a", 1))
    with pytest.raises(StoreError, match="not finished"):
        FeatureStore.open(tmp_path)
    writer.close(["a", "b"])
    store = FeatureStore.open(tmp_path)
    assert_rows(store, ["a"], version=1)
    assert_rows(store, ["b"])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_stored_numbers_and_float32_are_the_same(tmp_path: Path, dtype: str) -> None:
    # more numbers than are widened at once, and none of them round
    card = CARD._replace(dtype=dtype, token_shape=(130, 257), pooled_dim=7)
    generator = np.random.default_rng(0)
    tokens = generator.standard_normal((3, 130, 257)).astype(np.float32)
    pooled = generator.standard_normal((3, 7)).astype(np.float32)
    writer = FeatureWriter(tmp_path, card)
    for index in range(3):
        writer.add(str(index), "", tokens[index], pooled[index])
    writer.close(["0", "1", "2"])
    store = FeatureStore.open(tmp_path)
    narrow = store.read(["2", "0"], as_stored=True)
    wide = store.read(["2", "0"])
    for original, short, long in zip((tokens, pooled), narrow, wide, strict=True):
        assert short.dtype == np.dtype(dtype)
        assert long.dtype == np.float32
        np.testing.assert_array_equal(short, original[[2, 0]].astype(dtype))
        np.testing.assert_array_equal(long, original[[2, 0]].astype(dtype).astype(np.float32))


def test_loader_workers_read_in_their_own_processes(tmp_path: Path) -> None:
    keys = [str(index) for index in range(20)]
    fill(tmp_path, keys)
    store = FeatureStore.open(tmp_path)
    assert_rows(store, ["3"])  # maps that are open here must not disturb the workers
    for start in ("fork", "spawn"):
        with get_context(start).Pool(2) as pool:
            parts = pool.map(store.read, [keys[7:12], keys[::-1]])
        for wanted, (tokens, pooled) in zip([keys[7:12], keys[::-1]], parts, strict=True):
            for row, key in enumerate(wanted):
                np.testing.assert_array_equal(tokens[row], features(key)[0])
                np.testing.assert_array_equal(pooled[row], features(key)[1])


def test_folder_without_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no feature store"):
        FeatureStore.open(tmp_path / "none")


@pytest.mark.parametrize("value", [7e4, np.nan, np.inf])
def test_value_that_float16_cannot_hold_is_an_error_and_not_infinity(
    tmp_path: Path, value: float
) -> None:
    tokens, pooled = features("a")
    pooled[2] = value
    writer = FeatureWriter(tmp_path, CARD)
    with pytest.raises(StoreError, match="pooled of a are not finite as float16"):
        writer.add("a", "", tokens, pooled)
    if np.isfinite(value):
        wide = FeatureWriter(tmp_path / "wide", CARD._replace(dtype="float32"))
        wide.add("a", "", tokens, pooled)
        wide.close(["a"])
        assert FeatureStore.open(tmp_path / "wide").read(["a"])[1][0, 2] == np.float32(value)
    assert not (tmp_path / INDEX).exists()
