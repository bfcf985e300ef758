"""A new kind of stage is one file and one line, as CONTRIBUTING.md says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import beholder

STAGE = '''
"""Stage `count`: how many pictures have a score."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from beholder.data.files import sha256_file, write_json
from beholder.pipeline.checks import Problems
from beholder.pipeline.schema import Needs, StageConfig
from beholder.pipeline.stages.base import Stage, StageResult


class CountStage(StageConfig):
    writes: ClassVar[str | None] = "count.json"

    kind: Literal["count"]
    split: Literal["train", "val", "test"]
    after: str | None = None

    def needs(self) -> Needs:
        return {self.after: ("count",)} if self.after else {}


class Count(Stage[CountStage]):
    schema = CountStage

    def check(self, problems: Problems) -> None:
        pass

    def run(self, folder: Path) -> StageResult:
        scored = self.context.rows(self.config.split).with_opinion("score")
        path = self.context.folder / "count.json"
        write_json(path, {"pictures": len(scored)})
        return StageResult({"count": (path, sha256_file(path))}, {"pictures": len(scored)})
'''
RECIPE = """
name: counted
data: {annotations: table.csv, images: pictures}
stages:
  scored: {kind: count, split: train}
"""
BEFORE = Path(__file__).parents[1] / "golden" / "before"


def test_a_new_stage_is_one_file_and_one_line(tmp_path: Path) -> None:
    package = tmp_path / "src" / "beholder"
    shutil.copytree(
        Path(beholder.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    stages = package / "pipeline" / "stages"
    (stages / "count.py").write_text(STAGE, "utf-8")
    registry = (stages / "__init__.py").read_text("utf-8")
    imported = "from beholder.pipeline.stages.count import Count\n\nSTAGES"
    registry = registry.replace("\nSTAGES", f"\n{imported}", 1).replace(
        "    Extract,", "    Count, Extract,"
    )
    (stages / "__init__.py").write_text(registry, "utf-8")
    work = tmp_path / "work"
    work.mkdir()
    shutil.copytree(BEFORE / "pictures", work / "pictures")
    shutil.copyfile(BEFORE / "table.csv", work / "table.csv")
    (work / "recipe.yaml").write_text(RECIPE, "utf-8")

    def fit(*options: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "beholder",
            "fit",
            "recipe.yaml",
            "--into",
            "run",
            *options,
        ]
        environment = {**os.environ, "PYTHONPATH": str(package.parent)}
        return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)

    done = fit()
    assert done.returncode == 0, done.stderr
    count = json.loads((work / "run" / "count.json").read_text())["pictures"]
    manifest = json.loads((work / "run" / "manifest.json").read_text())
    [record] = manifest["stages"]
    assert record["kind"] == "count" and record["metrics"] == {"pictures": count} and count > 0
    assert "Nothing to do" in fit().stderr, "it is recognised as done"
    wrong = fit("stages.scored.split=tset")
    assert wrong.returncode == 2 and "stages.scored.split" in wrong.stderr
    twice = fit("stages.again={kind: count, split: val}")
    assert twice.returncode == 2 and "a run has one count stage" in twice.stderr
