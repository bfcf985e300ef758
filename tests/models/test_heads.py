"""Standardisation, calibration and shapes of the score and attribute heads."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from beholder.models.config import HeadConfig
from beholder.models.heads import AttributeHeads, Moments, ScoreHead, Standardise

CONFIGS = [
    HeadConfig(),
    HeadConfig(bottleneck=4),
    HeadConfig(inputs=5),
    HeadConfig(hidden=(8, 5), dropout=0.5),
    HeadConfig(bottleneck=4, hidden=(8,), dropout=0.5, input_dropout=0.2),
]


def features(rows: int = 40, dim: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-6, 6, dim)
    return torch.randn(rows, dim, generator=generator) * scale + 3 * scale


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(0, 40), max_size=4))
def test_moments_of_parts_are_those_of_the_whole(seed: int, cuts: list[int]) -> None:
    pooled = features(seed=seed)
    moments = Moments()
    edges = [0, *sorted(cuts), 40]
    for start, stop in pairwise(edges):
        moments.update(pooled[start:stop])
    double = pooled.double()
    torch.testing.assert_close(moments.mean, double.mean(0))
    torch.testing.assert_close(moments.std, double.std(0, correction=0))
    assert moments.count == 40


def test_standardise_gives_mean_zero_deviation_one() -> None:
    pooled = features()
    standardise = Standardise(12, clamp=100.0)
    standardise.fit(pooled)
    out = standardise(pooled)
    torch.testing.assert_close(out.mean(0), torch.zeros(12), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.std(0, correction=0), torch.ones(12), atol=1e-4, rtol=0)


def test_standardise_removes_constant_features_and_cuts_outliers() -> None:
    pooled = torch.randn(30, 3)
    pooled[:, 1] = 0.1  # not exact in float32
    standardise = Standardise(3, clamp=8.0)
    standardise.fit(pooled)
    out = standardise(torch.tensor([[1e9, 5.0, -1e9]]))
    assert out.tolist() == [[8.0, 0.0, -8.0]]


@pytest.mark.parametrize("config", CONFIGS)
def test_score_head(config: HeadConfig) -> None:
    head = ScoreHead(12, config)
    pooled = features()
    head.fit_input(pooled)
    head.fit_output(torch.tensor([2.0, 4.0, float("nan"), 6.0]))
    head.eval()
    scores = head(pooled).detach()
    assert scores.shape == (40,)
    assert float(head.output_mean) == 4.0
    assert float(head.output_std) == pytest.approx((8 / 3) ** 0.5)
    torch.testing.assert_close(scores, head.standardised(pooled) * head.output_std + 4.0)
    # untrained, it says about the mean
    assert float((scores - 4.0).abs().max()) < float(head.output_std)
    dropouts = config.dropout > 0 or config.input_dropout > 0
    head.train()
    assert torch.equal(head(pooled), scores) != dropouts


def test_score_head_is_linear_by_default_and_its_buffers_are_saved() -> None:
    head = ScoreHead(12)
    assert [name for name, _ in head.named_parameters()] == ["layers.0.weight", "layers.0.bias"]
    head.fit_input(features())
    head.fit_output(torch.arange(5.0))
    other = ScoreHead(12)
    other.load_state_dict(head.state_dict())
    torch.testing.assert_close(other.eval()(features()), head.eval()(features()))


def test_a_head_reads_only_its_inputs() -> None:
    head = ScoreHead(12, HeadConfig(inputs=5)).eval()
    head.fit_input(features())
    other = features()
    other[:, 5:] = 1e3
    assert torch.equal(head(features()), head(other))
    with pytest.raises(ValueError, match="13 inputs, but 12"):
        ScoreHead(12, HeadConfig(inputs=13))


def test_equal_scores_do_not_divide_by_zero() -> None:
    head = ScoreHead(3)
    head.fit_output(torch.full((7,), 3.3))  # whose mean is not exact
    assert (float(head.output_mean), float(head.output_std)) == (pytest.approx(3.3), 1.0)


@pytest.mark.parametrize("config", CONFIGS)
def test_attribute_heads(config: HeadConfig) -> None:
    # names that a torch module could not hold as children
    classes = {"a.b": ("x", "y", "z"), "type": ("p", "q"), "keys": ("1", "2")}
    heads = AttributeHeads(12, classes, config).eval()
    heads.fit_input(features())
    logits = heads(features())
    assert {name: tuple(z.shape) for name, z in logits.items()} == {
        "a.b": (40, 3),
        "type": (40, 2),
        "keys": (40, 2),
    }
    assert list(logits) == list(classes)
    other = AttributeHeads(12, classes, config).eval()
    other.load_state_dict(heads.state_dict())
    for name, values in other(features()).items():
        assert torch.equal(values, logits[name])


@pytest.mark.parametrize("wrong", [{"dropout": 1.0}, {"bottleneck": 0}, {"hiden": (3,)}])
def test_config_is_strict(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        HeadConfig(**wrong)
