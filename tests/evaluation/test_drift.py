"""Whether a batch is unlike the training pictures: rarely wrong, stronger than single alarms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from beholder.errors import DataError, JudgeError
from beholder.evaluation.drift import Drift, drift_of, drift_of_file
from beholder.judge import Failure, Verdict
from beholder.metrics.familiarity import Familiarity, fit_familiarity


def features(count: int, seed: int, groups: int | None = None, shift: float = 0.0) -> np.ndarray:
    """Of pictures, or of pictures in groups that are alike."""
    draws = np.random.default_rng(seed)
    own = draws.normal(size=(count, 12))
    if groups is not None:
        own = 3.0 * draws.normal(size=(groups, 12))[np.arange(count) % groups] + 0.3 * own
    return own * (1.0 + shift)


def verdicts(known: Familiarity, pooled: np.ndarray) -> list[Verdict]:
    return [Verdict(str(row), familiarity=p) for row, p in enumerate(known.p_values(pooled))]


@pytest.mark.parametrize("groups", [None, 40])
def test_it_is_rarely_wrong(groups: int | None) -> None:
    """In 1 of 100 fits at most; chance may make it 3 of 60."""
    wrong = 0
    for seed in range(60):
        own = features(160, 2 * seed, groups)
        units = range(160) if groups is None else (np.arange(160) % groups).tolist()
        known = fit_familiarity(own, units)
        new = features(60, 2 * seed + 1, None if groups is None else 60)
        wrong += drift_of(verdicts(known, new), known).drifted
    assert wrong <= 3


def test_it_sees_what_no_picture_shows() -> None:
    known = fit_familiarity(features(300, 0), range(300))
    drift = drift_of(verdicts(known, features(200, 1, shift=0.1)), known)
    assert drift.drifted
    assert drift.unfamiliar < 40  # most of them pass by themselves
    # pictures that are closer than usual are no reason for alarm
    assert not drift_of(verdicts(known, features(200, 2, shift=-0.3)), known).drifted


def test_one_sentence() -> None:
    assert str(Drift(120, 0.00001, 9)) == (
        "The batch of 120 pictures as a whole is unlike the pictures that the judge was trained on "
        "(p < 0.0001, Kolmogorov-Smirnov); 9 of them are unfamiliar by themselves."
    )
    assert str(Drift(1, 0.25, 0)) == (
        "The batch of 1 picture as a whole can't be told from the pictures that the judge was "
        "trained on (p = 0.2500, Kolmogorov-Smirnov)."
    )


def test_failures_are_left_out_and_nothing_is_refused() -> None:
    known = fit_familiarity(features(100, 0), range(100))
    judged = [*verdicts(known, features(20, 1)), Failure("x", "truncated", "Cut off.")]
    assert drift_of(judged, known).pictures == 20
    with pytest.raises(DataError, match="No verdict tells"):
        drift_of([Failure("x", "truncated", "Cut off."), Verdict("y")], known)
    with pytest.raises(JudgeError, match="does not know"):
        drift_of(judged, None)


def test_verdicts_of_another_judge_are_refused(tmp_path: Path) -> None:
    from brightness_judge import make_judge

    judge = make_judge()
    judge.identity = "a/judge@111"
    lines = [Verdict("x", familiarity=0.5, judge="b@222").to_dict()]
    (tmp_path / "verdicts.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    with pytest.raises(DataError, match="those of b@222, not of a/judge@111"):
        drift_of_file(tmp_path / "verdicts.jsonl", judge)
