"""Tests in a process of their own, on the pretend device: it changes torch for good."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEVICES = ["pretend-without-float64", pytest.param("pretend", marks=pytest.mark.slow)]


def run_on(device: str, file: Path, *options: str) -> None:
    """Run a file of tests; fails with what it has printed."""
    program = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(
        [*program, *options],
        env={**os.environ, "BEHOLDER_TEST_DEVICE": device, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
