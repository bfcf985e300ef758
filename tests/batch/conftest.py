"""The smallest exported judge, written once."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_exported import write_brightness_judge


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("judge") / "judge.beholder"
    write_brightness_judge(path)
    return path
