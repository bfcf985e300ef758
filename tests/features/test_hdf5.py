"""The published HDF5 layout, read and written."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from beholder.errors import MissingExtra, StoreError
from beholder.features.hdf5 import export_hdf5, import_hdf5
from beholder.features.store import FeatureStore, FeatureWriter, StoreCard

IDS = {"train/a.jpg": "17", "train/b.jpg": "4", "c.jpg": "x9"}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file as the published extraction writes it."""
    generator = np.random.default_rng(0)
    with h5py.File(tmp_path / "features.hdf5", "w") as file:
        for image_id in IDS.values():
            values = generator.normal(size=(6, 5)).astype(np.float32)
            file.create_dataset(f"{image_id}_features", data=values)
    return tmp_path / "features.hdf5"


def test_published_file_comes_back_the_same(published: Path, tmp_path: Path) -> None:
    store = import_hdf5(
        published, tmp_path / "store", IDS, fingerprint="f", backbone="swin", dtype="float32"
    )
    assert store.keys == list(IDS)
    assert store.token_shape == (6, 5)
    export_hdf5(store, tmp_path / "again.hdf5", IDS)
    with h5py.File(published) as original, h5py.File(tmp_path / "again.hdf5") as rewritten:
        assert set(original) == set(rewritten) == {"17_features", "4_features", "x9_features"}
        for name in original:
            assert rewritten[name].dtype == np.float32
            np.testing.assert_array_equal(rewritten[name][:], original[name][:])
        tokens, pooled = store.read(["c.jpg"])
        np.testing.assert_array_equal(tokens[0], original["x9_features"][:])
        assert pooled.shape == (1, 0)


def test_what_does_not_fit_is_said(published: Path, tmp_path: Path) -> None:
    known = {"fingerprint": "f", "backbone": "swin"}
    with pytest.raises(StoreError, match=r"lacks 1 of 2 pictures, e.g. \['z.jpg'\]"):
        import_hdf5(published, tmp_path / "s", {"c.jpg": "x9", "z.jpg": "1"}, **known)
    with pytest.raises(StoreError, match="same image id"):
        import_hdf5(published, tmp_path / "s", {"a": "17", "b": "17"}, **known)
    with h5py.File(published, "a") as file:
        del file["4_features"]
        file.create_dataset("4_features", data=np.zeros((7, 5), np.float32))
    with pytest.raises(StoreError, match="shape"):
        import_hdf5(published, tmp_path / "s", IDS, **known)
    published.write_bytes(b"killed while writing")
    with pytest.raises(StoreError, match="can't be opened"):
        import_hdf5(published, tmp_path / "t", IDS, **known)


def test_store_without_tokens_is_not_exported(tmp_path: Path) -> None:
    writer = FeatureWriter(tmp_path / "store", StoreCard("f", "b", "float16", None, 2))
    writer.add("a", "", None, np.zeros(2))
    writer.close(["a"])
    with pytest.raises(StoreError, match="no tokens"):
        export_hdf5(FeatureStore.open(tmp_path / "store"), tmp_path / "out.hdf5", {"a": "1"})
    assert not (tmp_path / "out.hdf5").exists()


def test_missing_extra_is_named(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtra, match="hdf5"):
        import_hdf5(published, tmp_path / "s", IDS, fingerprint="f", backbone="swin")
