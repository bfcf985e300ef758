"""Mutated judges give the same verdict or a sentence, in bounded time: never a traceback, a crash,
a hang or what is not a number."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hand_made import picture, write_judge

from beholder import Judge

LONGEST = 10.0  # seconds for loading and a verdict


def outcomes(kind: str, folder: Path, count: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What came of each mutant, and the verdict of the judge as it is."""
    whole, photo = write_judge(folder / "judge"), picture(folder / "photo.png")
    script = Path(__file__).with_name("judge_mutants.py")
    command = [sys.executable, script, kind, whole, photo, "0", str(count)]
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=60 + LONGEST * count / 10,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"after {lines[-1:]}: {done.stderr[-2000:]}"
    verdict = json.loads(json.dumps(Judge.load(whole, "cpu", threads=1)(str(photo)).to_dict()))
    results = [line for line in lines if "seconds" in line]
    assert len(results) == count
    return results, verdict


def check_sentences(results: list[dict[str, Any]]) -> None:
    for outcome in results:
        assert "traceback" not in outcome, outcome
        assert outcome["seconds"] < LONGEST, outcome
        if "what" in outcome:
            assert outcome["what"].isprintable(), outcome
            assert 10 < len(outcome["what"]) < 600, outcome


def test_bytes_of_the_file(tmp_path: Path) -> None:
    check_bytes(tmp_path, 60)


def test_what_is_in_a_file_that_is_sealed_again(tmp_path: Path) -> None:
    check_resealed(tmp_path, 60)


@pytest.mark.slow
def test_500_of_the_bytes(tmp_path: Path) -> None:
    check_bytes(tmp_path, 500)


@pytest.mark.slow
def test_500_that_are_sealed_again(tmp_path: Path) -> None:
    check_resealed(tmp_path, 500)


def check_bytes(folder: Path, count: int) -> None:
    results, verdict = outcomes("bytes", folder, count)
    check_sentences(results)
    same = [outcome for outcome in results if "verdict" in outcome]
    assert all(outcome["verdict"] == verdict for outcome in same)
    assert len(same) < 0.5 * count
    print(f"{len(same)} of {count} say the same, the others a sentence")


def check_resealed(folder: Path, count: int) -> None:
    """Of one that is sealed again another judge may have been made, which gives a verdict too."""
    results, verdict = outcomes("resealed", folder, count)
    check_sentences(results)
    judged = [outcome["verdict"] for outcome in results if "verdict" in outcome]
    for other in judged:
        assert math.isfinite(other["score"] if other["score"] is not None else 0.0)
        for attribute in other["attributes"].values():
            assert 0 <= attribute["probability"] <= 1.001
        assert all(math.isfinite(end) for end in other["interval"] or [])
    same = sum(other == verdict for other in judged)
    assert len(judged) < count
    slowest = max(outcome["seconds"] for outcome in results)
    print(f"{same} of {count} say the same, {len(judged) - same} something else, {slowest:.2f} s")
