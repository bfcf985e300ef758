"""Predictions of stores: which are missing, and what their average says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from beholder.errors import StoreError
from beholder.evaluation.regressors import (
    average_predictions,
    predict_stores,
    same_backbone,
    stored_features,
    usable_keys,
)
from beholder.features.store import FeatureStore, FeatureWriter, StoreCard


class Sum:
    """A regressor: the sum of the features."""

    def predict(self, features_BP: np.ndarray) -> np.ndarray:
        return np.asarray(features_BP, np.float64).sum(axis=1)


def store(folder: Path, fingerprint: str, keys: str, *, flip: bool = False) -> FeatureStore:
    card = StoreCard(fingerprint, f"timm/{fingerprint}", "float32", None, 3, flip)
    writer = FeatureWriter(folder, card)
    for row, key in enumerate(keys):
        writer.add(key, "", None, np.array([row, row, 1.0 + flip]))
    writer.close(keys)
    return FeatureStore.open(folder)


def test_a_backbone_without_features_is_named(tmp_path: Path) -> None:
    stores = {"vit": store(tmp_path / "vit", "v", "ab")}
    stores["vit-flipped"] = store(tmp_path / "flipped", "v", "ab", flip=True)
    assert same_backbone({"vit": "v", "vit-flipped": "v"}, stores) == {
        "vit": ["vit", "vit-flipped"], "vit-flipped": ["vit", "vit-flipped"],
    }  # fmt: skip
    with pytest.raises(StoreError, match="backbone of 'swin', 'nfnet' to predict") as caught:
        same_backbone({"vit": "v", "swin": "s", "nfnet": "n"}, stores)
    assert "vit (timm/v)" in str(caught.value)


def test_a_store_of_other_pictures_is_told_both_ways(tmp_path: Path) -> None:
    held = store(tmp_path / "store", "v", "abcxyz")
    assert usable_keys(held, list("zyxcba")) == list("zyxcba")
    assert usable_keys(held, list("abqcxyz"), quarantined=["q"]) == list("abcxyz")
    with pytest.raises(StoreError, match="only in the table 2: d, e; only in the store 3: x, y, z"):
        usable_keys(held, list("abcde"))
    with pytest.raises(StoreError, match=r"only in the table 7: 0, 1, 2, 3, 4, \.\.\."):
        usable_keys(held, list("abcxyz0123456"))


def test_the_average_of_a_long_table(tmp_path: Path) -> None:
    stores = {
        "p": store(tmp_path / "p", "v", "ab"),
        "f": store(tmp_path / "f", "v", "ab", flip=True),
    }
    long = predict_stores(Sum(), "m", stores, ["b", "a"])
    assert long.rows() == [("b", "m", "p", 3.0), ("a", "m", "p", 1.0),
                           ("b", "m", "f", 4.0), ("a", "m", "f", 2.0)]  # fmt: skip
    averaged = average_predictions(long)
    assert averaged.columns == ["image", "predicted_score", "spread", "m on p", "m on f"]
    assert averaged.rows() == [("b", 3.5, 0.5, 3.0, 4.0), ("a", 1.5, 0.5, 1.0, 2.0)]
    with pytest.raises(StoreError, match=r"1 of 2 pictures lack .* e\.g\. a: m on f"):
        average_predictions(long.head(3))
    single = average_predictions(long.head(2))
    assert single["spread"].to_list() == [0.0, 0.0]


def test_a_store_without_pooled_features_can_not_be_regressed(tmp_path: Path) -> None:
    writer = FeatureWriter(tmp_path, StoreCard("v", "timm/v", "float32", (2, 3), None))
    writer.add("a", "", np.ones((2, 3)), None)
    writer.close("a")
    with pytest.raises(StoreError, match="no pooled features"):
        stored_features(FeatureStore.open(tmp_path), ["a"])
    empty = predict_stores(Sum(), "m", {}, [])
    assert empty.height == 0
    assert empty.schema["score"] == pl.Float64
