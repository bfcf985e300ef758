"""The rooms keep their order, and the light part stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "beholder"
ROOMS = (
    "cli", "auto", "serve", "report", "pipeline", "challenges", "export", "batch", "evaluation",
    "training", "tasks", "judge", "decoding", "models", "features", "metrics", "data", "errors",
    "version",
)  # fmt: skip
# Allowed where a schema below is part of a schema above, or a type of an argument.
LIGHT = (
    "beholder",
    "beholder.cli",
    "beholder.data.annotations",
    "beholder.data.augment",
    "beholder.data.check",
    "beholder.data.formats",
    "beholder.data.images",
    "beholder.data.sample",
    "beholder.data.splits",
    "beholder.data.transforms",
    "beholder.data.vocabulary",
    "beholder.decoding",
    "beholder.decoding.graph_step",
    "beholder.features.device",
    "beholder.judge",
    "beholder.judge.calibration",
    "beholder.judge.explain",
    "beholder.judge.runtime.graph_engine",
    "beholder.judge.store.graph_proto",
    "beholder.judge.store.packed",
    "beholder.metrics.captions",
    "beholder.metrics.classification",
    "beholder.metrics.correlation",
    "beholder.pipeline.recipe",
    "beholder.pipeline.runner",
    "beholder.evaluation.calibrate",
    "beholder.evaluation.evaluate",
    "beholder.judge.runner",
    "beholder.batch.ray",
    "beholder.report",
    "beholder.serve.app",
    "beholder.serve.server",
)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "beholder" and len(part) > 1}


def test_arrows_between_rooms_point_down() -> None:
    order = {room: index for index, room in enumerate(ROOMS)}
    upward = []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = room_of(path)
        if room in ("__init__", "__main__"):
            continue
        assert room in order, f"{path} is in a room that ARCHITECTURE.md does not know"
        upward += [
            f"{path.relative_to(PACKAGE)} -> {other}"
            for other in imported_rooms(path)
            if order.get(other, -1) < order[room]
        ]
    assert upward == []


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_no_torch(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "heavy = {'torch', 'timm', 'transformers', 'sklearn', 'lightgbm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_and_help_load_nothing_heavy() -> None:
    # The bar is one second; what costs seconds is counted here instead of timed.
    code = (
        "import sys\n"
        "import beholder\n"
        "assert not {'numpy', 'polars', 'PIL'} & set(sys.modules)\n"
        "from beholder.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as leave:\n    assert not leave.code\n"
        "heavy = {'torch', 'timm', 'numpy', 'polars', 'PIL', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
