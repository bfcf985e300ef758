"""Familiarity and distributions of votes are the same in every runtime, and cost a few KB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_judge import make_model

from beholder.errors import JudgeError
from beholder.export.graphs import judge_graphs
from beholder.export.judge_file import pack, versions
from beholder.judge import Judge, Verdict
from beholder.judge.calibration import Calibration
from beholder.judge.model import JudgeModel
from beholder.judge.runtime.backends import BACKENDS
from beholder.judge.store.folder import load_judge, save_judge
from beholder.judge.store.packed import CARD, read_packed, write_packed
from beholder.metrics.familiarity import fit_familiarity

BINS = (1.0, 2.5, 4.0)


def noise(count: int, seed: int) -> NDArray[np.float32]:
    draws = np.random.default_rng(seed)
    spreads = draws.uniform(0.2, 1.0, (count, 1, 1, 1))
    return (draws.normal(size=(count, 3, 64, 64)) * spreads).astype(np.float32)


def knowing(**changes: object) -> JudgeModel:
    """A judge that knows noise of these strengths."""
    model = make_model(score_range=(1.0, 4.0), **changes)
    assert model.backbone is not None
    with torch.inference_mode():
        pooled_NP = model.backbone(torch.from_numpy(noise(120, 0))).pooled_BP.numpy()
    known = fit_familiarity(pooled_NP, range(120))
    calibration = Calibration(familiarity=known)
    model.config = model.config.model_copy(update={"calibration": calibration})
    return model


def packed(folder: Path, path: Path) -> Path:
    stored = load_judge(folder)
    (version,) = versions(stored, judge_graphs(stored.model), "fp32")
    manifest, members = pack(stored, version, "fp32")
    write_packed(path, manifest, {**members, CARD: b""})
    return path


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A judge that predicts votes, as folder and file."""
    root = tmp_path_factory.mktemp("votes")
    save_judge(knowing(score_grades=BINS), root / "judge", beam_size=1)
    return root / "judge", packed(root / "judge", root / "judge.beholder")


def said(judge: Judge, views: NDArray[np.float32]) -> list[Verdict]:
    judge.beam_size = None
    return judge.verdicts([str(row) for row in range(len(views))], views[:, None])


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_runtime_says_the_same(places: tuple[Path, Path], backend: str) -> None:
    folder, file = places
    strange = np.full((2, 3, 64, 64), 3.0, np.float32)
    views = np.concatenate([noise(30, 1), strange])
    expected = said(Judge.load(folder, device="cpu"), views)
    found = said(Judge.load(file, device="cpu", backend=backend), views)  # type: ignore[arg-type]
    for left, right in zip(expected, found, strict=True):
        assert left.familiarity == pytest.approx(right.familiarity, abs=1e-3)
        assert left.unfamiliar == right.unfamiliar
        assert left.distribution is not None and right.distribution is not None
        assert tuple(left.distribution) == tuple(right.distribution) == BINS
        shares = list(right.distribution.values())
        assert list(left.distribution.values()) == pytest.approx(shares, abs=1e-5)
        assert sum(shares) == pytest.approx(1.0)
        mean = sum(rating * share for rating, share in right.distribution.items())
        assert right.score == pytest.approx(mean, abs=1e-4)
    assert [verdict.unfamiliar for verdict in found[-2:]] == [True, True]
    assert sum(bool(verdict.unfamiliar) for verdict in found[:30]) <= 6


def test_batches_of_one_say_what_batches_of_many_do(places: tuple[Path, Path]) -> None:
    judge = Judge.load(places[1], device="cpu")
    views = noise(8, 2)
    together = [verdict.familiarity for verdict in said(judge, views)]
    alone = [said(judge, views[row : row + 1])[0].familiarity for row in range(8)]
    assert together == pytest.approx(alone, abs=1e-4)


@pytest.mark.slow
def test_it_costs_a_few_kilobytes(places: tuple[Path, Path], tmp_path: Path) -> None:
    folder, file = places
    stored = load_judge(folder)
    save_judge(stored.model, tmp_path / "with", beam_size=1)
    stored.model.config = stored.model.config.model_copy(update={"calibration": Calibration()})
    save_judge(stored.model, tmp_path / "without", beam_size=1)
    plain = packed(tmp_path / "without", tmp_path / "without.beholder")
    assert file.stat().st_size - plain.stat().st_size < 8_000
    assert said(Judge.load(plain), noise(1, 3))[0].familiarity is None


@pytest.mark.slow
def test_a_judge_that_only_writes_knows_too(tmp_path: Path) -> None:
    model = knowing(score=None, attributes=None, classes={})
    save_judge(model, tmp_path / "judge", beam_size=1)
    judge = Judge.load(packed(tmp_path / "judge", tmp_path / "judge.beholder"), device="cpu")
    expected = said(Judge.load(tmp_path / "judge", device="cpu"), noise(5, 4))
    found = said(judge, noise(5, 4))
    assert [v.familiarity for v in found] == pytest.approx([v.familiarity for v in expected])
    assert found[0].distribution is None


def test_a_distribution_of_other_ratings_is_refused(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    content = read_packed(places[1])
    manifest = content.manifest.model_copy(update={"rating_bins": (1.0, 2.0)})
    write_packed(tmp_path / "other.beholder", manifest, content.members)
    with pytest.raises(JudgeError, match="for a distribution of 2 ratings"):
        Judge.load(tmp_path / "other.beholder", device="cpu")
