"""Runs the tiny twins on the pretend device, in processes of their own; see `conftest`.

A file apart from the other parts, so that two processes share the work.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from on_pretend_device import DEVICES, run_on

HERE = Path(__file__).parent
RECIPES = HERE.parents[1] / "src" / "beholder" / "recipes" / "tiny"
# the kinds of their stages are in judge-25mb too
MINUTES = {"samsung-iqa-comments", "samsung-iqa-score", "fascode-attributes"}
TWINS = [
    pytest.param(path.stem, marks=[pytest.mark.slow] if path.stem in MINUTES else [])
    for path in sorted(RECIPES.glob("*.yaml"))
]


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("device", DEVICES)
def test_on(device: str, twin: str) -> None:
    run_on(device, HERE / "test_twins.py", "-k", twin)
