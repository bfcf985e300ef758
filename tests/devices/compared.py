"""How near to the CPU's the numbers of a device must be."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

# The pretend device computes as the CPU does; only sums of another order may differ.
DEVICE = os.environ.get("BEHOLDER_TEST_DEVICE", "")
PRETENDS = DEVICE.startswith("pretend")
ROOM = {"rtol": 1e-5, "atol": 1e-6} if PRETENDS else {"rtol": 2e-2, "atol": 2e-3}
CLOCKS = {"time", "throughput", "data_wait", "peak_memory"}  # in a line of metrics.jsonl


def assert_same(actual: Any, expected: Any, room: Mapping[str, float] = ROOM) -> None:
    """Numbers, tensors, and what holds them."""
    if isinstance(expected, Mapping):
        assert actual.keys() == expected.keys()
        for name in expected:
            assert_same(actual[name], expected[name], room)
    elif isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected)
        for ours, theirs in zip(actual, expected, strict=True):
            assert_same(ours, theirs, room)
    elif isinstance(expected, (float, torch.Tensor)):
        ours, theirs = (torch.as_tensor(value).cpu().double() for value in (actual, expected))
        torch.testing.assert_close(ours, theirs, equal_nan=True, **room)
    else:
        assert actual == expected


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """What a training has logged, without what clocks say."""
    text = (folder / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    return [{n: v for n, v in line.items() if n not in CLOCKS} for line in lines]
