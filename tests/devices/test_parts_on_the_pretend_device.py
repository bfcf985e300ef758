"""Runs the tests of devices on the pretend one, in processes of their own; see `conftest`.

Once without float64, as on MPS, which asks for more; once with it (slow: the same again, and twins
beside their runs on the CPU).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from on_pretend_device import DEVICES, run_on

HERE = Path(__file__).parent
STARTERS = "_on_the_pretend_device.py"
PARTS = [
    path.name
    for path in sorted(HERE.glob("test_*.py"))
    if path.name != "test_twins.py" and not path.name.endswith(STARTERS)
]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("device", DEVICES)
def test_on(device: str, part: str) -> None:
    run_on(device, HERE / part)
