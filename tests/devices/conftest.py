"""Tests of a device: which one is said by BEHOLDER_TEST_DEVICE, e.g. `cuda`, `pretend`, or
`pretend-without-float64`. Without it nothing here but `test_*_on_the_pretend_device.py` is
collected, which run all of the rest in processes of their own: the pretend device changes torch
for good.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DEVICE = os.environ.get("BEHOLDER_TEST_DEVICE", "")
STARTERS = "_on_the_pretend_device.py"

collect_ignore = [
    path.name for path in HERE.glob("test_*.py") if path.name.endswith(STARTERS) == bool(DEVICE)
]

if DEVICE:
    import torch

    if DEVICE.startswith("pretend"):
        import pretend_device

        pretend_device.install(refuse_float64=DEVICE != "pretend")
    NAME = DEVICE.partition("-")[0]

    @pytest.fixture(autouse=True)
    def chosen(monkeypatch: pytest.MonkeyPatch) -> None:
        """Everything computes on the device, in float32: numbers are compared, not speed."""
        monkeypatch.setenv("BEHOLDER_DEVICE", NAME)
        monkeypatch.setattr(torch.amp, "is_autocast_available", lambda kind: False)

    @pytest.fixture
    def device() -> torch.device:
        """The device under test, as Beholder chooses it."""
        from beholder.features.device import choose_device

        return choose_device(NAME)
