"""Beam search against golden values of the published implementation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from torch import Tensor

from beholder.decoding import beam_search
from beholder.models.expansionnet import ExpansionNet, ExpansionNetConfig

GOLDEN = Path(__file__).parents[1] / "golden"
EXPECTED = json.loads((GOLDEN / "expansionnet.json").read_text())
CASES = EXPECTED["beam"]


@pytest.fixture(scope="module")
def models() -> list[ExpansionNet]:
    config = EXPECTED["config"]
    fields = {name: config[name] for name in ExpansionNetConfig.model_fields if name in config}
    models = []
    for name in ("expansionnet_weights", "expansionnet_weights2"):
        model = ExpansionNet(ExpansionNetConfig(vocab_size=config["vocab"], **fields)).eval()
        model.load_reference_state_dict(load_file(GOLDEN / f"{name}.safetensors"))
        models.append(model)
    return models


@pytest.fixture(scope="module")
def features() -> Tensor:
    return load_file(GOLDEN / "expansionnet_tensors.safetensors")["features"]


def name_of(case: dict[str, object]) -> str:
    return f"beams {case['beam_size']}, length {case['max_length']}, {case['feature_pads']}"


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_all_hypotheses_as_published(
    case: dict, models: list[ExpansionNet], features: Tensor
) -> None:
    actual = beam_search(
        models[0],
        features,
        beam_size=case["beam_size"],
        max_length=case["max_length"],
        n_best=case["beam_size"],
        lengths=[features.shape[1] - pad for pad in case["feature_pads"]],
    )
    assert [[h.tokens for h in hypotheses] for hypotheses in actual] == case["tokens"]
    for hypotheses, expected in zip(actual, case["token_log_probs"], strict=True):
        for hypothesis, log_probs in zip(hypotheses, expected, strict=True):
            length = len(hypothesis.tokens)
            np.testing.assert_allclose(hypothesis.token_log_probs, log_probs[:length], atol=1e-5)
            assert hypothesis.score == pytest.approx(sum(log_probs[:length]) / length, abs=1e-5)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_ensemble_as_published(case: dict, models: list[ExpansionNet], features: Tensor) -> None:
    actual = beam_search(
        models,
        features,
        beam_size=case["beam_size"],
        max_length=case["max_length"],
        n_best=case["beam_size"],
        lengths=[features.shape[1] - pad for pad in case["feature_pads"]],
    )
    assert [[h.tokens for h in hypotheses] for hypotheses in actual] == case["ensemble_tokens"]
