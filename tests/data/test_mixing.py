"""MixUp and CutMix against what their definitions say of every pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from beholder.data.augment import AugmentConfig
from beholder.data.mixing import mix

ROWS, SIDES = 8, (12, 16)
KEYS = [f"{row}.png" for row in range(ROWS)]


def pixels() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(ROWS, 3, *SIDES)).astype(np.float32)


def mixed(epoch: int = 0, seed: int = 0, keys: list[str] = KEYS, **config: Any) -> Any:
    return mix(pixels()[: len(keys)], AugmentConfig(**config), seed=seed, epoch=epoch, keys=keys)


def test_mixup_blends_pairs_by_their_shares() -> None:
    blended, (partner, share) = mixed(mixup=0.8)
    assert sorted(partner) == list(range(ROWS))
    assert (partner != np.arange(ROWS)).all()
    for row in range(ROWS):
        before, other = pixels()[row], pixels()[partner[row]]
        np.testing.assert_allclose(
            blended[row], share[row] * before + (1 - share[row]) * other, 1e-5
        )


@pytest.mark.parametrize("epoch", range(5))
def test_cutmix_pastes_one_rectangle_and_tells_its_area(epoch: int) -> None:
    result, (partner, share) = mixed(epoch, cutmix=1.0)
    for row in range(ROWS):
        before, other = pixels()[row], pixels()[partner[row]]
        pasted = (result[row] == other).all(axis=0)
        kept = (result[row] == before).all(axis=0)
        assert (pasted ^ kept).all()
        assert share[row] == pytest.approx(kept.mean(), abs=1e-6)
        if pasted.any():
            rows, columns = np.flatnonzero(pasted.any(axis=1)), np.flatnonzero(pasted.any(axis=0))
            assert pasted.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


def test_shares_are_drawn_from_the_beta_distribution() -> None:
    for strength in (0.4, 2.0):
        shares = np.concatenate([mixed(epoch, mixup=strength)[1].share_B for epoch in range(400)])
        assert shares.mean() == pytest.approx(0.5, abs=0.02)
        assert shares.var() == pytest.approx(1 / (4 * (2 * strength + 1)), rel=0.06)


def test_a_batch_is_mixed_by_seed_epoch_and_keys() -> None:
    first = mixed(mixup=1.0)[0]
    assert np.array_equal(mixed(mixup=1.0)[0], first)
    others = (mixed(1, mixup=1.0), mixed(seed=1, mixup=1.0), mixed(keys=KEYS[::-1], mixup=1.0))
    assert not any(np.array_equal(other, first) for other, _ in others)
    both = [mixed(epoch, mixup=1.0, cutmix=1.0)[0] for epoch in range(10)]
    blended = sum(not np.isin(row, pixels()).all() for batch in both for row in batch)
    assert 20 <= blended <= 60


def test_the_first_of_an_odd_number_stays() -> None:
    result, (partner, share) = mixed(keys=KEYS[:5], mixup=1.0)
    assert result.shape == (5, 3, *SIDES)
    assert partner.tolist() == [0, 4, 3, 2, 1]
    np.testing.assert_allclose(result[0], pixels()[0], rtol=1e-5)
    for row in range(1, 5):
        expected = share[row] * pixels()[row] + (1 - share[row]) * pixels()[partner[row]]
        np.testing.assert_allclose(result[row], expected, rtol=1e-4, atol=1e-5)


def test_a_single_picture_stays() -> None:
    for config in ({"mixup": 1.0}, {"cutmix": 1.0}):
        result, (partner, _) = mixed(keys=KEYS[:1], **config)
        np.testing.assert_allclose(result, pixels()[:1], rtol=1e-6)
        assert partner.tolist() == [0]


def test_mixing_is_off_unless_asked_for() -> None:
    assert not AugmentConfig().mixes
    assert AugmentConfig(cutmix=0.5).mixes
    assert not AugmentConfig(mixup=0.5).preserves_quality
