"""What the tests of runs share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run that the module has finished once, to change."""
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path / "run"
