"""Stage `average`: the mean of all regressors' predictions, with intervals, as Parquet and CSV."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from beholder.data.files import atomic_path, sha256_file, write_json
from beholder.errors import RecipeError
from beholder.evaluation.regressors import average_predictions
from beholder.metrics.conformal import ConformalInterval, coverage, enough_for, fit_conformal
from beholder.metrics.correlation import defined_metrics, mos_challenge
from beholder.pipeline.checks import Problems
from beholder.pipeline.schema import Needs, StageConfig
from beholder.pipeline.stages.base import Stage, StageResult
from beholder.pipeline.stages.regress import RegressStage

log = logging.getLogger("beholder")

FOLDER = "scores"
SMOKE_LEVEL = 0.5  # of intervals in a smoke run, which calibrates on a handful of pictures


class AverageStage(StageConfig):
    """Average the predictions of regress stages; write them, with intervals."""

    kind: Literal["average"]
    of: list[str] = Field(min_length=1, description="regress stages")
    calibrate: Literal["val", "test"] | None = Field(
        None,
        description="split whose errors tell how wide the intervals are; null: no intervals",
    )
    level: float = Field(0.9, gt=0, lt=1, description="share of pictures that intervals cover")
    normalised: bool = Field(
        True,
        description="intervals are wider where the predictions that are averaged disagree; false: "
        "all of one width",
    )

    def needs(self) -> Needs:
        return dict.fromkeys(self.of, ("regress",))


class Average(Stage[AverageStage]):
    """Writes `scores/<stage>/predictions.parquet`, `predictions.csv` and `metrics.json`."""

    schema = AverageStage

    def check(self, problems: Problems) -> None:
        if self.config.calibrate is None:
            return
        with problems:
            self._check_pictures(self.config.calibrate)
        with problems:
            self._check_spread()

    def smoke_config(self) -> AverageStage:
        """Intervals that a handful of pictures are enough for."""
        return self.config.model_copy(update={"level": min(self.config.level, SMOKE_LEVEL)})

    def _check_pictures(self, split: str) -> None:
        """Raises:
        RecipeError: there are too few pictures to calibrate on.
        """
        scored = self.context.rows(split).frame["score"].drop_nulls()
        enough = enough_for(self.config.level)
        if len(scored) < enough:
            raise RecipeError(
                f"The {split} split has {len(scored)} pictures with a score; "
                f"{self.config.level:.0%} intervals need at least {enough}.",
                where=f"stages.{self.name}.calibrate",
                fix="Give it a larger share in data.split, or leave `calibrate` out.",
            )

    def _check_spread(self) -> None:
        """Raises:
        RecipeError: there is nothing to tell a spread from.
        """
        stages = [self.context.recipe.stages[name] for name in self.config.of]
        stores = sum(len(stage.features) for stage in stages if isinstance(stage, RegressStage))
        if self.config.normalised and stores == 1:
            raise RecipeError(
                "A single prediction has no spread to make intervals wider or narrower by.",
                where=f"stages.{self.name}.normalised",
                fix="Set it to false, or average the predictions of several stores.",
            )

    def run(self, folder: Path) -> StageResult:
        context = self.context
        parts = []
        for name in self.config.of:
            part = pl.read_parquet(context.output(name, "predictions"))
            several = len(self.config.of) > 1
            regressor_name = pl.format("{} {}", pl.lit(name), "regressor").alias("regressor")
            parts.append(part.with_columns(regressor_name) if several else part)
        averaged = average_predictions(pl.concat(parts))
        targets = context.data.table.frame.select("image", "split", "group", "score")
        frame = targets.join(averaged, on="image", how="inner", maintain_order="left")
        interval = self._interval(frame)
        frame = _with_interval(frame, interval)
        metrics = self._metrics(frame)
        target = context.folder / FOLDER / self.name
        with atomic_path(target) as temporary:
            temporary.mkdir()
            frame.write_parquet(temporary / "predictions.parquet")
            short = pl.col("predicted_score").alias("score")
            frame.select("image", short, "low", "high", "spread").write_csv(
                temporary / "predictions.csv"
            )
            described = None if interval is None else interval.model_dump()
            write_json(temporary / "metrics.json", {"interval": described, **metrics})
        log.info("[%s] %d pictures, %d predictions each", self.name, frame.height,
                 averaged.width - 3)  # fmt: skip
        files = ("predictions.parquet", "predictions.csv", "metrics.json")
        outputs = {
            name: (target / file, sha256_file(target / file))
            for name, file in zip(("predictions", "csv", "metrics"), files, strict=True)
        }
        flat = {f"{name}.{split}": v for split, part in metrics.items() for name, v in part.items()}
        return StageResult(outputs, {name: round(value, 6) for name, value in flat.items()})

    def _interval(self, frame: pl.DataFrame) -> ConformalInterval | None:
        """What the errors on the calibration split say; the spread's floor is from training."""
        config = self.config
        if config.calibrate is None:
            return None
        known = frame.filter((pl.col("split") == config.calibrate) & pl.col("score").is_not_null())
        self._warn_of_few_groups(known["image"].to_list())
        targets, predicted = known["score"].to_numpy(), known["predicted_score"].to_numpy()
        if not config.normalised:
            return fit_conformal(targets, predicted, level=config.level)
        training = frame.filter(pl.col("split") == "train")["spread"]
        return fit_conformal(
            targets,
            predicted,
            level=config.level,
            spread_N=known["spread"].to_numpy(),
            floor=float(training.to_numpy().mean()),
        )

    def _warn_of_few_groups(self, keys: list[str]) -> None:
        """Intervals hold for pictures like those of the split; a few groups are like no others."""
        groups = len({self.context.data.units[key] for key in keys})
        if groups < enough_for(self.config.level):
            log.warning(
                "[%s] the %d pictures that intervals are calibrated on are of %d groups only; "
                "pictures of other groups may be covered less often than %.0f%%",
                self.name, len(keys), groups, 100 * self.config.level,
            )  # fmt: skip

    def _metrics(self, frame: pl.DataFrame) -> dict[str, dict[str, float]]:
        """Per held-out split: correlations, and of intervals that were not fitted on it, how many
        scores they cover and how wide they are."""
        by_split: dict[str, dict[str, float]] = {}
        for split in ("val", "test"):
            known = frame.filter((pl.col("split") == split) & pl.col("score").is_not_null())
            if known.height < 2:
                continue
            targets, predicted = known["score"].to_numpy(), known["predicted_score"].to_numpy()
            values = defined_metrics(targets, predicted)
            values["mos_challenge"] = mos_challenge(targets, predicted)
            if self.config.calibrate is not None and split != self.config.calibrate:
                low, high = known["low"].to_numpy(), known["high"].to_numpy()
                _, values["coverage"], values["interval_width"] = coverage(targets, low, high)
            by_split[split] = values
        return by_split


def _with_interval(frame: pl.DataFrame, interval: ConformalInterval | None) -> pl.DataFrame:
    """With the columns `low` and `high`, null without an interval."""
    if interval is None:
        return frame.with_columns(low=pl.lit(None, pl.Float64), high=pl.lit(None, pl.Float64))
    margins = pl.Series(interval.margins(frame.height, frame["spread"].to_numpy()))
    score = pl.col("predicted_score")
    return frame.with_columns(low=score - margins, high=score + margins)
