"""Stage `cross_validate`: train a stage anew without some of its pictures, and predict those.

What comes out are the scores that its pictures get from a head that has seen none of their group:
they tell how well it does on others of a small table, and how wide intervals must be. A fold that
is done is kept (`parts/<fold>.parquet`), and one that was stopped goes on.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from beholder.data.annotations import AnnotationTable
from beholder.data.files import atomic_path, sha256_file
from beholder.data.progress import warnings_only
from beholder.data.splits import assign_folds
from beholder.errors import DataError, RecipeError
from beholder.metrics.correlation import defined_metrics, srcc
from beholder.pipeline.checks import Problems
from beholder.pipeline.cost import Cost
from beholder.pipeline.schema import Needs, StageConfig
from beholder.pipeline.stages.base import SmokeRun, Stage, StageResult
from beholder.pipeline.stages.train import Train, TrainStage
from beholder.pipeline.stages.training_cost import training_cost, training_timings

if TYPE_CHECKING:
    from beholder.tasks.base import Task
    from beholder.training.sources import FeatureSource

log = logging.getLogger("beholder")

FEWEST_FOLDS = 3  # to learn from, to choose by, to predict
PREDICTIONS, PARTS = "predictions.parquet", "parts"


class CrossValidateStage(StageConfig):
    """Train a stage anew without each of several parts of its pictures, and predict the part: what
    its scores are worth on pictures of other groups. Of heads on frozen features."""

    former_kind: ClassVar[str | None] = "cross"

    kind: Literal["cross_validate"]
    of: str = Field(description="train stage with `features` that learns scores")
    folds: int = Field(
        5,
        ge=FEWEST_FOLDS,
        description="parts of the train and val splits, of whole groups, and as many trainings; "
        "fewer where there are fewer groups",
    )

    def needs(self) -> Needs:
        return {self.of: ("train",)}


class CrossValidate(Stage[CrossValidateStage]):
    """Writes `predictions.parquet`: image, fold, given and predicted score."""

    schema = CrossValidateStage
    everywhere = True

    def check(self, problems: Problems) -> None:
        with problems:
            self._check_stage()
        with problems:
            if self.context.data.is_divided:
                self._folds(self._learnt())

    def _check_stage(self) -> None:
        """Raises:
        RecipeError: the stage does not learn scores from frozen features.
        """
        stage = self._stage
        if "score" not in stage.task.opinions or not stage.features or stage.warm_start:
            raise RecipeError(
                f"{self.config.of} can't be cross-validated: its head has to learn scores from "
                "frozen features, and from nothing on.",
                where=f"stages.{self.name}.of",
                fix="Name a train stage with `features`, a score task and no `warm_start`.",
            )

    def smoke_config(self) -> CrossValidateStage:
        """As few folds as there can be."""
        return self.config.model_copy(update={"folds": FEWEST_FOLDS})

    def cost(self, smoke: SmokeRun) -> Cost:
        """For each fold what the training takes that is done anew."""
        pictures = len(self._learnt())
        folds = len(set(self._folds(self._learnt()).tolist()))
        training = Train(self.config.of, self._stage, self.context).training
        # what a smoke run takes beside its training, it has taken for each of its folds
        smoke_folds = smoke.result.metrics["folds"]
        of_fold = training_cost(
            replace(smoke, cost=replace(smoke.cost, seconds=smoke.cost.seconds / smoke_folds)),
            training,
            trained=pictures - 2 * pictures // folds,
            validated=pictures // folds,
            loading=0.0,
            workers=0,
        )
        return replace(
            of_fold, seconds=folds * of_fold.seconds, disk_bytes=folds * of_fold.disk_bytes
        )

    def run(self, folder: Path) -> StageResult:
        from beholder.training.distributed import start

        table = self._learnt()
        folds = self._folds(table)
        processes = start()
        parts = [folder / PARTS / f"{fold}.parquet" for fold in range(folds.max() + 1)]
        timings: dict[str, float] = {}
        # one answer for all processes: the first may be ahead
        done = processes.broadcast([part.exists() for part in parts])
        for fold, part in enumerate(parts):
            if done[fold]:
                continue
            predicted, timings = self._fold(table, folds, fold, folder / f"fold-{fold}")
            if processes.is_main:
                fold_srcc = srcc(predicted["score"].to_numpy(), predicted["predicted"].to_numpy())
                log.info(
                    "[%s] fold %d of %d: srcc %.3f of %d pictures",
                    self.name, fold + 1, len(parts), fold_srcc, len(predicted),
                )  # fmt: skip
                part.parent.mkdir(exist_ok=True)
                with atomic_path(part) as temporary:
                    predicted.write_parquet(temporary)
        if not processes.is_main:
            return StageResult({})
        frame = pl.concat([pl.read_parquet(part) for part in parts])
        with atomic_path(folder / PREDICTIONS) as temporary:
            frame.write_parquet(temporary)
        outputs = {"predictions": (folder / PREDICTIONS, sha256_file(folder / PREDICTIONS))}
        metrics = {"folds": float(len(parts)), **_quality(frame)}
        return StageResult(outputs, metrics, timings=timings)

    @property
    def _stage(self) -> TrainStage:
        return self.context.recipe.stage(self.config.of, TrainStage)

    def _learnt(self) -> AnnotationTable:
        """The rows that the stage learns from or is chosen by, as far as they have a score."""
        table = self.context.chosen(self.context.data.table)
        seen = pl.col("split").is_in(["train", "val"]) & pl.col("score").is_not_null()
        return table.with_frame(table.frame.filter(seen))

    def _folds(self, table: AnnotationTable) -> np.ndarray:
        units = [self.context.data.units[key] for key in table.keys]
        groups = len(set(units))
        if groups < FEWEST_FOLDS:
            raise DataError(
                f"The {len(units)} train and val pictures with a score are of {groups} groups: too "
                f"few to leave some out, it takes {FEWEST_FOLDS}.",
                where=f"stages.{self.name}",
                fix="Give pictures of more groups, or leave the stage out.",
            )
        return assign_folds(units, min(self.config.folds, groups), self.context.recipe.seed)

    def _fold(
        self, table: AnnotationTable, folds: np.ndarray, fold: int, folder: Path
    ) -> tuple[pl.DataFrame, dict[str, float]]:
        """Train without a fold, choose the best weights by the next one, and predict the fold; and
        what the training took."""
        from beholder.training import train
        from beholder.training.checkpoints import CHECKPOINTS
        from beholder.training.sources import FeatureSource

        split = np.full(len(folds), "train", object)
        split[folds == (fold + 1) % (folds.max() + 1)] = "val"
        split[folds == fold] = "test"
        divided = table.with_split(split.tolist())
        context = replace(self.context, data=replace(self.context.data, table=divided))
        trainer = Train(self.config.of, self._stage, context)
        task, (learnt, chosen_by, left) = trainer.task_and_sources("train", "val", "test")
        assert learnt and chosen_by and isinstance(left, FeatureSource), "no fold is empty"
        whole = Train(self.config.of, self._stage, self.context)  # knows how large steps will be
        with warnings_only("beholder.training"):  # epochs are in each fold's `metrics.jsonl`
            result = train(
                task,
                whole.full_sized(learnt),
                whole.full_sized_validation(chosen_by),
                trainer.training,
                folder,
                checkpoint_dir=folder / CHECKPOINTS,
            )
        predicted = _predict(task, left, trainer.training.batch_size)
        targets = divided.subset("test").frame.select("image", "score")
        joined = targets.join(predicted, on="image").with_columns(fold=pl.lit(fold))
        return joined, training_timings(result)


def _predict(task: Task, source: FeatureSource, batch_size: int) -> pl.DataFrame:
    """Image keys and predicted scores of all pictures of a source, within the judge's range."""
    import torch

    from beholder.training.loader import to_device

    model = task.model.eval()
    device = next(task.parameters()).device
    scores: list[float] = []
    for first in range(0, len(source), batch_size):
        rows = list(range(first, min(first + batch_size, len(source))))
        batch = to_device(source.load(rows, epoch=0), device)
        with torch.no_grad():
            score_B = model.opinions(model.features(batch, tokens=False)).score_B
        assert score_B is not None, "the stage has a score head"
        scores += score_B.cpu().double().tolist()
    low, high = model.score_range or (None, None)
    frame = pl.DataFrame({"image": source.keys, "predicted": scores})
    return frame.with_columns(pl.col("predicted").clip(low, high))


def _quality(frame: pl.DataFrame) -> dict[str, float]:
    """Correlations over all pictures, each predicted by what has not seen its group."""
    values = defined_metrics(frame["score"].to_numpy(), frame["predicted"].to_numpy())
    return {name: round(value, 6) for name, value in values.items()}
