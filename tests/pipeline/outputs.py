"""Where a run's manifest says that a stage's output is."""

from __future__ import annotations

from pathlib import Path

from beholder.pipeline.manifest import load_manifest


def output(run: Path, stage: str, name: str) -> Path:
    manifest = load_manifest(run)
    assert manifest is not None
    record = manifest.find(stage)
    assert record is not None
    return run / record.outputs[name].path
