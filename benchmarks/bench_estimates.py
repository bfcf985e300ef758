"""What a dry run says that each stage takes, against what it took: the embedded sample by default.

    python benchmarks/bench_estimates.py [RECIPE [key=value ...]]

Prints seconds, peak memory and disk of every stage, estimated and measured, and their ratios; and
how long the checks before it take on a table of 100,000 rows.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

from beholder.data.annotations import AnnotationTable
from beholder.pipeline import runner
from beholder.pipeline.context import RunContext
from beholder.pipeline.data import RunData
from beholder.pipeline.estimates import PlannedStage
from beholder.pipeline.manifest import Manifest, load_manifest
from beholder.pipeline.plan import stage_order
from beholder.pipeline.recipe import find_recipe, load_recipe, shipped_recipes
from beholder.pipeline.runner import fit_recipe

ROWS = 100_000


def compare(recipe: str, overrides: list[str], folder: Path) -> None:
    """Run a recipe and print every stage's estimate beside what it took."""
    plans: list[list[PlannedStage]] = []
    prepare = runner._prepare

    def kept(*args: object) -> object:
        context, plan = prepare(*args)
        plans.append(plan)
        return context, plan

    with mock.patch.object(runner, "_prepare", kept):
        fit_recipe(load_recipe(find_recipe(recipe), overrides), folder)
    manifest = load_manifest(folder)
    assert manifest is not None
    print(f"{'stage':<26} {'seconds':>21} {'memory, MB':>21} {'disk, MB':>21}")
    sums = [0.0, 0.0]
    for planned in plans[0]:
        record, cost = manifest.find(planned.name), planned.cost
        assert record is not None and cost is not None
        sums = [sums[0] + cost.seconds, sums[1] + record.seconds]
        pairs = (
            (cost.seconds, record.seconds),
            ((cost.host_bytes or 0) / 1e6, (record.host_bytes or 0) / 1e6),
            (cost.disk_bytes / 1e6, (record.disk_bytes or 0) / 1e6),
        )
        columns = " ".join(f"{a:7.2f} {b:7.2f} {a / max(b, 1e-9):5.2f}" for a, b in pairs)
        print(f"{planned.name:<26} {columns}")
    print(f"{'all':<26} {sums[0]:7.2f} {sums[1]:7.2f} {sums[0] / sums[1]:5.2f}")


def check_seconds(recipe: str) -> float:
    """Seconds that the checks of a recipe take on a table of `ROWS` rows."""
    keys = [f"{row:06}.jpg" for row in range(ROWS)]
    table = AnnotationTable.from_columns(
        keys,
        score=[float(row % 100) for row in range(ROWS)],
        comments=[
            [f"a picture of thing {row % 5000} with detail {row % 77}"] for row in range(ROWS)
        ],
        attributes={name: [str(row % 3) for row in range(ROWS)] for name in ("one", "two")},
    )
    loaded = load_recipe(shipped_recipes()[recipe])
    manifest = Manifest(name=loaded.name, seed=0, code_version="0")
    # weights that are not on this machine are one of the things that a check tells
    context = RunContext(Path("nowhere"), loaded, RunData(table, Path(), "", {}), manifest)
    clock = time.perf_counter()
    try:
        runner.check(stage_order(loaded), context)
    except runner.BeholderError as error:
        print(f"  told: {str(error).splitlines()[0]}")
    return time.perf_counter() - clock


def main() -> None:
    recipe, *overrides = sys.argv[1:] or ["demo"]
    with tempfile.TemporaryDirectory() as folder:
        compare(recipe, overrides, Path(folder) / "run")
    for name in shipped_recipes():
        print(f"{ROWS:,} rows, checks of {name}: {check_seconds(name):.1f} s (bar: 10 s)")


if __name__ == "__main__":
    main()
