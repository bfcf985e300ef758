"""Benchmarks are scripts, not part of the package: their functions are imported from the folder."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
