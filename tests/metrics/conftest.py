"""Golden values, and what the comparisons with the Java programs need."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    return json.loads((GOLDEN / "caption_metrics.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def golden_reward() -> dict[str, Any]:
    return json.loads((GOLDEN / "reward.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def pycocoevalcap() -> None:
    if importlib.util.find_spec("pycocoevalcap") is None:
        pytest.skip("pycocoevalcap is not installed")


@pytest.fixture(scope="session")
def java(pycocoevalcap: None) -> None:
    if shutil.which("java") is None:
        pytest.skip("Java is not installed")


@pytest.fixture
def captions() -> tuple[dict[str, list[str]], dict[str, str]]:
    """200 pictures of made-up tokens: references that resemble each other, and a hypothesis."""
    rng = random.Random(7)
    words = [f"w{index}" for index in range(300)]

    def near(tokens: list[str]) -> str:
        changed = [word if rng.random() < 0.7 else rng.choice(words) for word in tokens]
        return " ".join(changed[: rng.randint(1, len(changed))])

    references, hypotheses = {}, {}
    for picture in range(200):
        base = rng.choices(words, k=rng.randint(1, 25))
        references[f"{picture}.jpg"] = [near(base) for _ in range(rng.randint(1, 7))]
        hypotheses[f"{picture}.jpg"] = near(base)
    return references, hypotheses
