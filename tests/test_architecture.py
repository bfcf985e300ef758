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
        "heavy = {'torch', 'timm', 'transformers', 'sklearn', 'lightgbm', 'safetensors'}\n"
        "heavy &= set(sys.modules)\n"
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


LONGEST_FILE, LONGEST_FUNCTION = 450, 60


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imported_modules(path: Path, modules: set[str]) -> set[str]:
    """Modules of the package that a file names in an import, wherever it stands."""
    names_imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names_imported.add(inner if inner in modules else node.module)
        elif isinstance(node, ast.Import):
            names_imported.update(alias.name for alias in node.names)
    return (names_imported & modules) - {module_of(path)}


def test_no_files_import_each_other() -> None:
    paths = {module_of(path): path for path in PACKAGE.rglob("*.py")}
    left = {name: imported_modules(path, set(paths)) for name, path in paths.items()}
    # take away what imports nothing that is left, until nothing or only circles are
    while leaves := {name for name, imports in left.items() if not imports & set(left)}:
        left = {name: imports for name, imports in left.items() if name not in leaves}
    importing = {name for imports in left.values() for name in imports}
    assert sorted(name for name in left if name in importing) == []


def test_files_and_functions_fit_a_reader() -> None:
    too_long = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text("utf-8")
        lines = len(text.splitlines())
        if lines > LONGEST_FILE:
            too_long.append(f"{path.relative_to(PACKAGE)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    too_long.append(f"{path.relative_to(PACKAGE)}: {node.name} has {length} lines")
    assert too_long == []
