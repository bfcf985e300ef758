"""Stage `regress`: regressors of scores on frozen features, and what they predict.

What is done of it is kept per store: a regressor's folder (`models/<store>`, not for AutoGluon,
whose models are pickles) and its predictions (`parts/<store>.parquet`), written in this order.
"""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
from pydantic import Field

from beholder.data.annotations import AnnotationTable
from beholder.data.files import atomic_path, sha256_file
from beholder.data.splits import assign_folds
from beholder.errors import DataError
from beholder.evaluation.regressors import (
    predict_stores,
    same_backbone,
    stored_features,
    usable_keys,
)
from beholder.metrics.correlation import defined_metrics
from beholder.models.regressors.autogluon import (
    AutoGluonRegressor,
    autogluon_tabular,
    check_count,
)
from beholder.models.regressors.config import AutoGluonConfig, EnsembleConfig, RegressorConfig
from beholder.models.regressors.ensemble import ScoreEnsemble
from beholder.pipeline.checks import Problems
from beholder.pipeline.cost import Cost, folder_bytes, measured
from beholder.pipeline.manifest import path_digest
from beholder.pipeline.schema import Needs, StageConfig
from beholder.pipeline.stages.base import SmokeRun, Stage, StageResult
from beholder.pipeline.stages.shared import QUARANTINE, quarantined_keys

if TYPE_CHECKING:
    from beholder.features.store import FeatureStore

log = logging.getLogger("beholder")

PREDICTIONS, MODELS, PARTS = "predictions.parquet", "models", "parts"
SMOKE_FOLDS = 2  # of the handful of pictures of a smoke run
FLOAT64_COPIES = 4  # of the features, that a fit holds at a time
PROBED_ROWS = 512  # and twice as many: fits that tell how the time grows with the rows


class RegressStage(StageConfig):
    """Fit a regressor of scores on the features of each store, and predict every store with every
    regressor of the same backbone, e.g. the plain and the mirrored pictures both ways."""

    kind: Literal["regress"]
    features: list[str] = Field(
        min_length=1, description="extract stages; a regressor is fitted on each"
    )
    regressor: RegressorConfig = EnsembleConfig()

    def needs(self) -> Needs:
        return dict.fromkeys(self.features, ("extract",))


class Regress(Stage[RegressStage]):
    """Fits a regressor per store on the scores of the training split."""

    schema = RegressStage

    def check(self, problems: Problems) -> None:
        with problems:
            self._check_scores()
        regressor = self.config.regressor
        with problems:
            if isinstance(regressor, AutoGluonConfig):
                autogluon_tabular()
                check_count(self._scored("train").height)
            elif self.context.data.is_divided:
                units = [self.context.data.units[key] for key in self._scored("train")["image"]]
                assign_folds(units, regressor.folds)

    def _check_scores(self) -> None:
        """Raises:
        DataError: there is nothing to learn.
        """
        scored = self._scored("train")
        if scored.height < 2 or scored["score"].n_unique() < 2:
            raise DataError(
                f"The {scored.height} training pictures with a score have "
                f"{scored['score'].n_unique()} different ones: there is nothing to learn.",
                where=f"stages.{self.name}",
                fix="Give pictures of different scores, or a larger data.split.train.",
            )

    def smoke_config(self) -> RegressStage:
        """A cheap stack takes the place of AutoGluon, which is not made for a handful of pictures:
        what it takes is the time that it is given."""
        if isinstance(self.config.regressor, AutoGluonConfig):
            cheap = EnsembleConfig(members=("ridge",), folds=SMOKE_FOLDS)
            return self.config.model_copy(update={"regressor": cheap})
        folds = min(self.config.regressor.folds, SMOKE_FOLDS)
        few = self.config.regressor.model_copy(update={"folds": folds})
        return self.config.model_copy(update={"regressor": few})

    def cost(self, smoke: SmokeRun) -> Cost:
        """A fit of every store, as made-up features of its size tell; of AutoGluon the time that it
        is given."""
        from beholder.features.store import FeatureStore

        rows, regressor = self._scored("train").height, self.config.regressor
        if isinstance(regressor, AutoGluonConfig):
            seconds = len(self.config.features) * (regressor.time_limit or 0.0)
            return replace(smoke.cost, seconds=smoke.cost.seconds + seconds)
        dims = [
            FeatureStore.open(smoke.context.output(name, "store")).card.pooled_dim or 0
            for name in self.config.features
        ]
        fits = {dim: _fit_cost(regressor, rows, dim, smoke.context.folder) for dim in set(dims)}
        copies = FLOAT64_COPIES * rows * max(dims) * 8
        return replace(
            smoke.cost,
            seconds=sum(fits[dim].seconds for dim in dims),
            host_bytes=(smoke.cost.host_bytes or 0) + copies,
            disk_bytes=sum(fits[dim].disk_bytes for dim in dims),
        )

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
                own_stores = {other: stores[other] for other in related}
                predicted = [
                    predict_stores(regressor, name, {o: s}, keys[o]) for o, s in own_stores.items()
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
        from beholder.features.store import FeatureStore

        return FeatureStore.open(self.context.output(name, "store"))

    def _keys(self, name: str, store: FeatureStore) -> list[str]:
        """The pictures that are worked on and that the store has.

        Raises:
            StoreError: the store is of other pictures than the table.
        """
        store_folder, table = self.context.output(name, "store"), self.context.data.table
        chosen = self.context.chosen(table).keys
        # a smoke run may have made a store of its few rows alone, or find one that is done
        expected = chosen if len(store.keys) <= len(chosen) else table.keys
        usable = set(usable_keys(store, expected, quarantined_keys(store_folder / QUARANTINE)))
        return [key for key in chosen if key in usable]

    def _regressor(
        self, folder: Path, store: FeatureStore, keys: list[str]
    ) -> ScoreEnsemble | AutoGluonRegressor:
        """The regressor of one store: as it was saved before the stage was stopped, or fitted."""
        if folder.exists():
            return ScoreEnsemble.load(folder)
        scored = self._scored("train").filter(pl.col("image").is_in(keys))
        names = scored["image"].to_list()
        features, scores = stored_features(store, names), scored["score"].to_numpy()
        units = [self.context.data.units[key] for key in names]
        config, seed = self.config.regressor, self.context.recipe.seed
        log.info("[%s] %s: fitting on %d x %d features", self.name, folder.name, *features.shape)
        if isinstance(config, AutoGluonConfig):
            return AutoGluonRegressor.fit(
                features, scores, units, config=config, seed=seed, keys=names
            )
        ensemble = ScoreEnsemble.fit(features, scores, units, config=config, seed=seed, keys=names)
        for member, quality in ensemble.quality.items():
            weight = ensemble.weights.get(member, 1.0)
            log.info(
                "[%s] %s: %-6s out of fold SRCC %.3f, weight %.2f",
                self.name, folder.name, member, quality.get("srcc", np.nan), weight,
            )  # fmt: skip
        ensemble.save(folder)
        return ensemble

    def _quality(self, name: str, predictions: pl.DataFrame) -> dict[str, float]:
        """Correlations of a regressor's predictions of its own store with the scores of `val`."""
        own_predictions = predictions.filter(pl.col("store") == name).rename({"score": "predicted"})
        both = self._scored("val").join(own_predictions, on="image")
        targets, predicted = both["score"].to_numpy(), both["predicted"].to_numpy()
        values = defined_metrics(targets, predicted, ("plcc", "srcc"))
        return {f"{metric}.{name}": round(value, 6) for metric, value in values.items()}

    def _scored(self, split: str) -> pl.DataFrame:
        """Image keys and scores of a split's pictures that have one."""
        table: AnnotationTable = self.context.rows(split)
        return table.frame.select("image", "score").filter(pl.col("score").is_not_null())


def _fit_cost(config: EnsembleConfig, rows: int, dim: int, scratch: Path) -> Cost:
    """What a fit takes, told from fits of fewer rows of made-up features."""

    def probe(count: int) -> Cost:
        generator = np.random.default_rng(0)
        features = generator.standard_normal((count, dim), np.float32)
        scores = features[:, 0] + generator.standard_normal(count)
        units = [str(row) for row in range(count)]
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            with measured() as meter:
                ensemble = ScoreEnsemble.fit(features, scores, units, config=config)
                ensemble.save(Path(folder) / "ensemble")
            return Cost(meter.seconds, disk_bytes=folder_bytes(Path(folder)))

    few = max(2 * config.folds, min(rows, PROBED_ROWS))
    first = probe(few)
    if rows <= few:
        return first
    more = min(rows, 2 * few)
    second = probe(more)
    exponent = np.log(second.seconds / first.seconds) / np.log(more / few)
    times = (rows / more) ** np.clip(exponent, 1.0, 3.0)
    return Cost(float(second.seconds * times), disk_bytes=second.disk_bytes)
