"""The kinds of stages."""

from __future__ import annotations

from beholder.pipeline.context import RunContext
from beholder.pipeline.recipe import (
    AverageStage,
    CrossStage,
    EvaluateStage,
    ExportStage,
    ExtractStage,
    GateStage,
    RegressStage,
    ShipStage,
    StageConfig,
    TrainStage,
    WriteStage,
)
from beholder.pipeline.stages.base import Stage, StageResult

__all__ = ["Stage", "StageResult", "make_stage"]


def make_stage(name: str, config: StageConfig, context: RunContext) -> Stage:
    """The stage of a name in the recipe; its module (and torch) is imported only here."""
    if isinstance(config, ExtractStage):
        from beholder.pipeline.stages.extract import Extract

        return Extract(name, config, context)
    if isinstance(config, TrainStage):
        from beholder.pipeline.stages.train import Train

        return Train(name, config, context)
    if isinstance(config, ExportStage):
        from beholder.pipeline.stages.export import Export

        return Export(name, config, context)
    if isinstance(config, RegressStage):
        from beholder.pipeline.stages.regress import Regress

        return Regress(name, config, context)
    if isinstance(config, AverageStage):
        from beholder.pipeline.stages.average import Average

        return Average(name, config, context)
    if isinstance(config, GateStage):
        from beholder.pipeline.stages.gate import Gate

        return Gate(name, config, context)
    if isinstance(config, ShipStage):
        from beholder.pipeline.stages.ship import Ship

        return Ship(name, config, context)
    if isinstance(config, WriteStage):
        from beholder.pipeline.stages.write import Write

        return Write(name, config, context)
    if isinstance(config, CrossStage):
        from beholder.pipeline.stages.cross import Cross

        return Cross(name, config, context)
    assert isinstance(config, EvaluateStage)
    from beholder.pipeline.stages.evaluate import Evaluate

    return Evaluate(name, config, context)
