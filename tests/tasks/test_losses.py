"""Losses against plain computations, torch's own, scipy, and numerical gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.nn import functional as F

from beholder.tasks.losses import (
    IGNORED,
    attribute_loss,
    caption_loss,
    class_weights,
    effective_weights,
    emd_loss,
    log_frequencies,
    pairwise_rank_loss,
    plcc_loss,
)

sizes = st.integers(2, 24)
seeds = st.integers(0, 2**31)


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, size=sizes)
def test_plcc_loss_is_scipys_correlation(seed: int, size: int) -> None:
    x, y = draw(seed, 2, size)
    expected = (1 - stats.pearsonr(x.numpy(), y.numpy()).statistic) / 2
    # the variance floor shifts r by at most floor / variance
    room = 1e-8 / min(float(x.var(correction=0)), float(y.var(correction=0)))
    assert float(plcc_loss(x, y)) == pytest.approx(expected, abs=1e-9 + room)


def test_plcc_loss_ends() -> None:
    y = draw(1, 9)
    assert float(plcc_loss(3 * y + 1, y)) == pytest.approx(0, abs=1e-6)
    assert float(plcc_loss(-y, y)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_plcc_loss_undefined_has_no_gradient(rows: int) -> None:
    prediction = torch.linspace(0, 1, rows, requires_grad=True)
    loss = plcc_loss(prediction, torch.full((rows,), 3.3))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.5, abs=1e-4)
    torch.testing.assert_close(prediction.grad, torch.zeros(rows), atol=1e-4, rtol=0)


def test_plcc_loss_gradient_is_finite_where_all_predictions_are_equal() -> None:
    prediction = torch.zeros(6, requires_grad=True)
    plcc_loss(prediction, torch.arange(6.0)).backward()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()
    assert prediction.grad[5] < 0 < prediction.grad[0]


@settings(max_examples=40, deadline=None)
@given(seed=seeds, rows=st.integers(1, 5), rating_bins=st.integers(2, 10))
def test_emd_loss_is_a_plain_sum(seed: int, rows: int, rating_bins: int) -> None:
    p, q = draw(seed, 2, rows, rating_bins).softmax(-1)
    total = 0.0
    for row in range(rows):
        for k in range(rating_bins):
            total += (
                float(p[row, : k + 1].sum()) - float(q[row, : k + 1].sum())
            ) ** 2 / rating_bins
    assert float(emd_loss(p, q)) == pytest.approx(total / rows, abs=1e-12)


def test_emd_loss_grows_with_the_way_and_is_zero_without_pictures() -> None:
    q = torch.eye(5)[:1]
    losses = [float(emd_loss(torch.eye(5)[k : k + 1], q)) for k in range(5)]
    # moved over k rating bins: k cumulative shares of 5 are wrong by 1
    assert losses == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    empty = torch.zeros(0, 5, requires_grad=True)
    emd_loss(empty, torch.zeros(0, 5)).backward()
    p = q.clone().requires_grad_()
    emd_loss(p, q).backward()
    assert p.grad is not None
    assert p.grad.isfinite().all()


@settings(max_examples=40, deadline=None)
@given(seed=seeds, size=sizes, ties=st.booleans())
def test_rank_loss_is_a_mean_over_ordered_pairs(seed: int, size: int, ties: bool) -> None:
    x, y = draw(seed, 2, size)
    if ties:
        y = y.round()
    terms = [
        math.log1p(math.exp(-(float(x[i]) - float(x[j]))))
        for i in range(size)
        for j in range(size)
        if y[i] > y[j]
    ]
    expected = float(np.mean(terms)) if terms else 0.0
    assert float(pairwise_rank_loss(x, y)) == pytest.approx(expected, abs=1e-12)


def test_rank_loss_without_a_pair_is_zero() -> None:
    for size in (0, 1, 4):
        x = torch.ones(size, requires_grad=True)
        loss = pairwise_rank_loss(x, torch.ones(size))
        loss.backward()
        assert float(loss.detach()) == 0
        assert x.grad is not None
        assert not x.grad.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_attribute_loss_is_the_written_formula(smoothing: float) -> None:
    logits = draw(3, 6, 4)
    target = torch.tensor([0, 3, -1, 1, 1, -1])
    weight = torch.tensor([0.5, 2.0, 1.0, 0.0], dtype=torch.float64)
    log_p = logits.log_softmax(-1)
    expected = 0.0
    for row, t in enumerate(target.tolist()):
        if t >= 0:
            expected -= (1 - smoothing) * float(weight[t] * log_p[row, t])
            expected -= smoothing / 4 * float((weight * log_p[row]).sum())
    assert float(attribute_loss(logits, target, weight, smoothing)) == pytest.approx(expected)


def test_attribute_loss_of_parts_adds_up_to_the_whole() -> None:
    logits, target = draw(4, 8, 3), torch.tensor([0, 1, 2, 2, 2, -1, 0, 2])
    weight = class_weights(torch.bincount(target[target >= 0], minlength=3), 1.0).double()
    whole = attribute_loss(logits, target, weight, 0.1)
    parts = [attribute_loss(logits[a:b], target[a:b], weight, 0.1) for a, b in ((0, 3), (3, 8))]
    torch.testing.assert_close(sum(parts), whole)


def test_attribute_loss_without_labels_is_zero() -> None:
    logits = draw(5, 3, 4).requires_grad_()
    loss = attribute_loss(logits, torch.full((3,), -1), torch.ones(4).double(), 0.1)
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@given(counts=st.lists(st.integers(0, 500), min_size=2, max_size=8), power=st.floats(0, 1))
def test_class_weights(counts: list[int], power: float) -> None:
    weights = class_weights(torch.tensor(counts), power).double()
    n = np.array(counts, dtype=np.float64)
    assert ((weights.numpy() == 0) == (n == 0)).all()
    if n.sum():
        assert float((weights.numpy() * n).sum() / n.sum()) == pytest.approx(1, rel=1e-5)
    if n.all():
        balanced = class_weights(torch.tensor(counts), 1.0).numpy()
        np.testing.assert_allclose(balanced, n.sum() / (len(n) * n), rtol=1e-5)
        np.testing.assert_allclose(class_weights(torch.tensor(counts), 0.0).numpy(), 1, rtol=1e-6)


@given(counts=st.lists(st.integers(0, 500), min_size=2, max_size=8), beta=st.floats(0, 0.9999))
def test_effective_weights(counts: list[int], beta: float) -> None:
    n = torch.tensor(counts)
    weights = effective_weights(n, beta).tolist()
    # the effective number as the paper begins: 1 + beta E(n - 1)
    number = []
    for count in counts:
        effective = 0.0
        for _ in range(count):
            effective = 1 + beta * effective
        number.append(effective)
    plain = [1 / effective if effective else 0.0 for effective in number]
    mean = sum(w * c for w, c in zip(plain, counts, strict=True)) / max(sum(counts), 1)
    expected = [w / mean if mean else 0.0 for w in plain]
    np.testing.assert_allclose(weights, expected, rtol=1e-4)


def test_effective_weights_lie_between_none_and_inverse() -> None:
    counts = torch.tensor([1, 7, 90, 0])
    none, inverse = class_weights(counts, 0.0), class_weights(counts, 1.0)
    torch.testing.assert_close(effective_weights(counts, 0.0), none)
    torch.testing.assert_close(effective_weights(counts, 1 - 1e-9), inverse, rtol=1e-5, atol=0)
    between = effective_weights(counts, 0.95)
    assert none[0] < between[0] < inverse[0]
    assert inverse[2] < between[2] < none[2]


def test_log_frequencies_take_the_frequency_out_of_the_logits() -> None:
    counts = torch.tensor([60, 30, 10])
    shift = log_frequencies(counts)
    assert shift.exp().tolist() == pytest.approx([0.6, 0.3, 0.1])
    # pictures that say nothing: the best adjusted logits are all alike, whatever the frequencies
    target = torch.arange(3).repeat_interleave(counts)
    same = torch.zeros(3, requires_grad=True)
    attribute_loss((same + shift).expand(100, 3), target, None, 0.0).backward()
    assert same.grad is not None
    assert float(same.grad.abs().max()) < 1e-4
    assert log_frequencies(torch.tensor([3, 0])).isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_caption_loss_is_the_written_formula_and_the_published_divergence(
    smoothing: float,
) -> None:
    words = 11
    logits = draw(6, 9, words)
    target = torch.randint(words, (9,), generator=torch.Generator().manual_seed(0))
    target[[2, 8]] = IGNORED
    loss = caption_loss(logits, target, smoothing)
    torch.testing.assert_close(caption_loss(logits.log_softmax(-1), target, smoothing), loss)

    log_p = logits.log_softmax(-1).tolist()
    expected = 0.0
    for row, t in zip(log_p, target.tolist(), strict=True):
        if t != IGNORED:
            others = sum(value for v, value in enumerate(row) if v != t)
            expected -= (1 - smoothing) * row[t] + smoothing / (words - 1) * others
    assert float(loss) == pytest.approx(expected)

    real = target != IGNORED
    smoothed = torch.full((7, words), smoothing / (words - 1), dtype=torch.float64)
    smoothed.scatter_(1, target[real][:, None], 1 - smoothing)
    divergence = F.kl_div(logits[real].log_softmax(-1), smoothed, reduction="sum")
    entropy = -torch.special.xlogy(smoothed, smoothed).sum()
    torch.testing.assert_close(loss, divergence + entropy)


def test_caption_loss_of_padding_alone_is_zero() -> None:
    assert float(caption_loss(draw(7, 4, 6), torch.full((4,), IGNORED), 0.1)) == 0


def test_gradients() -> None:
    x, y = draw(8, 7).requires_grad_(), draw(9, 7)
    assert torch.autograd.gradcheck(lambda p: plcc_loss(p, y), (x,))
    assert torch.autograd.gradcheck(lambda p: pairwise_rank_loss(p, y.round()), (x,))
    logits = draw(10, 4, 3).requires_grad_()
    target, weight = torch.tensor([0, 2, -1, 1]), torch.tensor([1.0, 0.5, 2.0]).double()
    assert torch.autograd.gradcheck(lambda z: attribute_loss(z, target, weight, 0.1), (logits,))
    words = torch.tensor([1, 4, IGNORED, 0])
    scores = draw(11, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: caption_loss(z, words, 0.2), (scores,))
