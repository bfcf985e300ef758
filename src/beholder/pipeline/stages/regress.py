"""Stage `regress`: regressors of scores on frozen features, and what they predict.

What is done of it is kept per store: a regressor's folder (`models/<store>`, not for AutoGluon,
whose models are pickles) and its predictions (`parts/<store>.parquet`), written in this order.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import polars as pl

from beholder.data.annotations import AnnotationTable
from beholder.data.files import atomic_path, sha256_file
from beholder.data.splits import assign_folds
from beholder.errors import DataError
from beholder.features.store import FeatureStore
from beholder.metrics.correlation import plcc, srcc
from beholder.models.regressors.autogluon import AutoGluonRegressor, autogluon_tabular
from beholder.models.regressors.config import AutoGluonConfig
from beholder.models.regressors.ensemble import ScoreEnsemble
from beholder.pipeline.context import RunContext
from beholder.pipeline.manifest import path_digest
from beholder.pipeline.recipe import RegressStage
from beholder.pipeline.stages.base import Stage, StageResult
from beholder.pipeline.stages.shared import QUARANTINE, quarantined_keys
from beholder.predict.scores import predict_stores, same_backbone, stored_features, usable_keys

log = logging.getLogger("beholder")

PREDICTIONS, MODELS, PARTS = "predictions.parquet", "models", "parts"


class Regress(Stage):
    """Fits a regressor per store on the scores of the training split."""

    def __init__(self, name: str, config: RegressStage, context: RunContext) -> None:
        super().__init__(name, context)
        self.config = config

    def rehearse(self) -> None:
        """Make sure that there are scores to learn, in enough groups, and what fits them."""
        scored = self._scored("train")
        if scored.height < 2 or scored["score"].n_unique() < 2:
            raise DataError(
                f"The {scored.height} training pictures with a score have "
                f"{scored['score'].n_unique()} different ones: there is nothing to learn.",
                where=f"stages.{self.name}",
                fix="Give pictures of different scores, or a larger data.split.train.",
            )
        regressor = self.config.regressor
        if isinstance(regressor, AutoGluonConfig):
            autogluon_tabular()
        else:
            units = [self.context.data.units[key] for key in scored["image"]]
            assign_folds(units, regressor.folds)

    def run(self, folder: Path) -> StageResult:
        stores = {name: self._open(name) for name in self.config.features}
        keys = {name: self._keys(name, store) for name, store in stores.items()}
        fingerprints = {name: store.card.fingerprint for name, store in stores.items()}
        metrics: dict[str, float] = {}
        parts = []
        for name, related in same_backbone(fingerprints, stores).items():
            part = folder / PARTS / f"{name}.parquet"
            if not part.exists():
                clock = time.perf_counter()
                regressor = self._regressor(folder / MODELS / name, stores[name], keys[name])
                own = {other: stores[other] for other in related}
                predicted = [
                    predict_stores(regressor, name, {o: s}, keys[o]) for o, s in own.items()
                ]
                with atomic_path(part) as temporary:
                    pl.concat(predicted).write_parquet(temporary)
                log.info("[%s] %s: %.1f s", self.name, name, time.perf_counter() - clock)
            parts.append(pl.read_parquet(part))
            metrics |= self._quality(name, parts[-1])
        with atomic_path(folder / PREDICTIONS) as temporary:
            pl.concat(parts).write_parquet(temporary)
        outputs = {"predictions": (folder / PREDICTIONS, sha256_file(folder / PREDICTIONS))}
        if (folder / MODELS).exists():
            outputs["models"] = (folder / MODELS, path_digest(folder / MODELS))
        return StageResult(outputs, metrics)

    def _open(self, name: str) -> FeatureStore:
        return FeatureStore.open(self.context.output(name, "store"))

    def _keys(self, name: str, store: FeatureStore) -> list[str]:
        place = self.context.output(name, "store")
        return usable_keys(
            store, self.context.data.table.keys, quarantined_keys(place / QUARANTINE)
        )

    def _regressor(
        self, place: Path, store: FeatureStore, keys: list[str]
    ) -> ScoreEnsemble | AutoGluonRegressor:
        """The regressor of one store: as it was saved before the stage was stopped, or fitted."""
        if place.exists():
            return ScoreEnsemble.load(place)
        scored = self._scored("train").filter(pl.col("image").is_in(keys))
        names = scored["image"].to_list()
        features, scores = stored_features(store, names), scored["score"].to_numpy()
        units = [self.context.data.units[key] for key in names]
        config, seed = self.config.regressor, self.context.recipe.seed
        log.info("[%s] %s: fitting on %d x %d features", self.name, place.name, *features.shape)
        if isinstance(config, AutoGluonConfig):
            return AutoGluonRegressor.fit(
                features, scores, units, config=config, seed=seed, keys=names
            )
        ensemble = ScoreEnsemble.fit(features, scores, units, config=config, seed=seed, keys=names)
        for member, quality in ensemble.quality.items():
            weight = ensemble.weights.get(member, 1.0)
            log.info(
                "[%s] %s: %-6s out of fold SRCC %.3f, weight %.2f",
                self.name, place.name, member, quality.get("srcc", np.nan), weight,
            )  # fmt: skip
        ensemble.save(place)
        return ensemble

    def _quality(self, name: str, predictions: pl.DataFrame) -> dict[str, float]:
        """Correlations of a regressor's predictions of its own store with the scores of `val`."""
        own = predictions.filter(pl.col("store") == name).rename({"score": "predicted"})
        both = self._scored("val").join(own, on="image")
        given, predicted = both["score"].to_numpy(), both["predicted"].to_numpy()
        values = {f"plcc.{name}": plcc(given, predicted), f"srcc.{name}": srcc(given, predicted)}
        return {key: round(value, 6) for key, value in values.items() if np.isfinite(value)}

    def _scored(self, split: str) -> pl.DataFrame:
        """Image keys and scores of a split's pictures that have one."""
        table: AnnotationTable = self.context.data.table.subset(split)
        return table.frame.select("image", "score").filter(pl.col("score").is_not_null())
