"""Scores of stored features by regressors: every store by every regressor of its backbone, and
their average.

A long table has one row per prediction: `image`, `regressor` and `store` (the names of the stores
that it was fitted on and that it predicts), `score`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from beholder.errors import StoreError

if TYPE_CHECKING:
    from beholder.features.store import FeatureStore

LONG = {"image": pl.String, "regressor": pl.String, "store": pl.String, "score": pl.Float64}
_SHOWN = 5  # keys in a message


class Regressor(Protocol):
    """Pooled features [B, P] -> scores [B]."""

    def predict(self, features_BP: ArrayLike) -> NDArray[np.float64]: ...


def stored_features(store: FeatureStore, keys: Sequence[str]) -> NDArray[np.float32]:
    """Pooled features [B, P] of pictures.

    Raises:
        StoreError: the store holds no pooled features, or lacks a picture.
    """
    if store.pooled_dim is None:
        raise StoreError(
            "The feature store holds no pooled features, which regressors read.",
            where=str(store.path),
            fix="Extract them with this version of Beholder.",
        )
    return store.read(keys, tokens=False)[1]


def usable_keys(
    store: FeatureStore, table_keys: Sequence[str], quarantined: Collection[str] = ()
) -> list[str]:
    """The table's keys, in its order, that the store has features of.

    Args:
        quarantined: pictures that were found unusable; they are in no store.

    Raises:
        StoreError: the store is of other pictures than the table; tells both differences.
    """
    wanted, there = set(table_keys) - set(quarantined), set(store.keys)
    differences = [
        f"{name} {len(keys)}: {', '.join(sorted(keys)[:_SHOWN])}{', ...' * (len(keys) > _SHOWN)}"
        for name, keys in (
            ("only in the table", wanted - there),
            ("only in the store", there - set(table_keys)),
        )
        if keys
    ]
    if differences:
        raise StoreError(
            f"The feature store is of other pictures than the table; {'; '.join(differences)}.",
            where=str(store.path),
            fix="Extract the features of this table's pictures.",
        )
    return [key for key in table_keys if key in there]


def same_backbone(
    fitted: Mapping[str, str], stores: Mapping[str, FeatureStore]
) -> dict[str, list[str]]:
    """Regressor -> the stores of its backbone, in their order.

    Args:
        fitted: name of a regressor -> fingerprint of the backbone whose features it reads.

    Raises:
        StoreError: a regressor without a store of its backbone; names all of them.
    """
    related = {
        name: [s for s, store in stores.items() if store.card.fingerprint == fingerprint]
        for name, fingerprint in fitted.items()
    }
    without = [name for name, names in related.items() if not names]
    if without:
        held = ", ".join(f"{name} ({store.card.backbone})" for name, store in stores.items())
        raise StoreError(
            f"There are no features of the backbone of {', '.join(map(repr, without))} to predict.",
            where=f"stores: {held or 'none'}",
            fix="Extract these pictures with every backbone that a regressor was fitted on.",
        )
    return related


def predict_stores(
    regressor: Regressor, name: str, stores: Mapping[str, FeatureStore], keys: Sequence[str]
) -> pl.DataFrame:
    """The long table of one regressor's predictions of the pictures in each store.

    Raises:
        StoreError: a store lacks a picture.
        DataError: a store of another number of features, or with values that are not finite.
    """
    parts = [
        pl.DataFrame(
            {
                "image": keys,
                "regressor": [name] * len(keys),
                "store": [store_name] * len(keys),
                "score": regressor.predict(stored_features(store, keys)),
            },
            schema=LONG,
        )
        for store_name, store in stores.items()
    ]
    return pl.concat(parts) if parts else pl.DataFrame(schema=LONG)


def average_predictions(predictions: pl.DataFrame) -> pl.DataFrame:
    """One row per picture, in order of first appearance: `image`, `predicted_score` (the mean),
    `spread` (standard deviation of the predictions, 0 for a single one), and a column
    `<regressor> on <store>` for each.

    Raises:
        StoreError: some pictures lack some predictions.
    """
    prediction_name = pl.format("{} on {}", "regressor", "store").alias("said")
    long = predictions.with_columns(prediction_name)
    names = long["said"].unique(maintain_order=True).to_list()
    wide = long.pivot("said", index="image", values="score", maintain_order=True)
    gaps = wide.filter(pl.any_horizontal(pl.col(names).is_null()))
    if gaps.height:
        row = gaps.row(0, named=True)
        missing = [name for name in names if row[name] is None]
        raise StoreError(
            f"{gaps.height} of {wide.height} pictures lack some of the {len(names)} predictions, "
            f"e.g. {row['image']}: {', '.join(missing)}.",
            fix="Extract the same pictures with every backbone.",
        )
    values = wide.select(names).to_numpy()
    return wide.select(
        "image",
        pl.Series("predicted_score", values.mean(axis=1)),
        pl.Series("spread", values.std(axis=1)),
        *names,
    )
