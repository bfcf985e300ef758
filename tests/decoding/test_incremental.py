"""Decoding word by word against running the whole prefix for every token, on random models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from beholder.decoding import beam_search, sample, sample_memory
from beholder.decoding.torch_step import TorchStep
from beholder.models import incremental
from beholder.models.expansionnet import ExpansionNet, ExpansionNetConfig
from plain_expansionnet import PlainNet, plain_beam_search


@dataclass
class Case:
    models: list[ExpansionNet]
    features: Tensor
    lengths: list[int]
    beam_size: int
    max_length: int


@st.composite
def cases(draw: st.DrawFn, most_models: int = 2) -> Case:
    torch.manual_seed(draw(st.integers(0, 10_000)))
    heads = draw(st.sampled_from([1, 2, 4]))
    config = ExpansionNetConfig(
        vocab_size=draw(st.integers(6, 300)),
        d_model=heads * draw(st.sampled_from([4, 6])),
        enc_layers=draw(st.integers(1, 2)),
        dec_layers=draw(st.integers(1, 3)),
        ff=draw(st.integers(4, 20)),
        heads=heads,
        enc_expansions=draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)),
        dec_expansions=draw(st.integers(1, 5)),
        max_length=12,
        feature_dim=5,
    )
    models = []
    for _ in range(draw(st.integers(1, most_models))):
        model = ExpansionNet(config).double().eval()
        # Sharper than a fresh model, with an end that is likely enough to end beams early.
        model.output.weight.data *= 4
        model.output.bias.data[0] = draw(st.sampled_from([0.0, 2.0, 4.0]))
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        models.append(model)
    pictures, tokens = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    return Case(
        models,
        torch.randn(pictures, tokens, 5, dtype=torch.float64),
        draw(st.lists(st.integers(1, tokens), min_size=pictures, max_size=pictures)),
        draw(st.integers(1, 5)),
        draw(st.integers(2, 12)),
    )


def plain(model: ExpansionNet) -> PlainNet:
    config = model.config
    return PlainNet(model.reference_state_dict(), config.heads, config.enc_expansions)


@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_beam_search_finds_what_full_prefixes_find(case: Case) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        expected = plain_beam_search(
            [plain(model) for model in case.models],
            case.features,
            case.beam_size,
            case.max_length,
            lengths=case.lengths,
        )
    finally:
        torch.set_default_dtype(torch.float32)
    actual = beam_search(
        case.models,
        case.features,
        case.beam_size,
        case.max_length,
        n_best=case.beam_size,
        lengths=case.lengths,
    )
    assert [[h.tokens for h in hypotheses] for hypotheses in actual] == [
        [tokens for tokens, _ in hypotheses] for hypotheses in expected
    ]
    for hypotheses, picture in zip(actual, expected, strict=True):
        for hypothesis, (_, log_probs) in zip(hypotheses, picture, strict=True):
            np.testing.assert_allclose(hypothesis.token_log_probs, log_probs, atol=1e-9)


@given(case=cases(most_models=1), seed=st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_sampled_log_probabilities_are_those_of_a_full_pass(case: Case, seed: int) -> None:
    (model,) = case.models
    generator = torch.Generator().manual_seed(seed)
    samples = sample(
        model,
        case.features,
        n=3,
        max_length=case.max_length,
        generator=generator,
        lengths=case.lengths,
    )
    memory = model.encode(case.features, case.lengths)
    for picture, hypotheses in enumerate(samples):
        assert len(hypotheses) == 3
        for hypothesis in hypotheses:
            tokens = hypothesis.tokens
            assert tokens[0] == 2
            assert 0 not in tokens[1:-1]
            assert tokens[-1] == 0 or len(tokens) == case.max_length + 1
            log_probs = model.decode(
                memory[picture : picture + 1],
                torch.tensor([tokens[:-1]]),
                case.lengths[picture : picture + 1],
            )[0]
            expected = log_probs.gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
            np.testing.assert_allclose(hypothesis.token_log_probs[1:], expected, atol=1e-9)


@given(case=cases(most_models=1), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_any_reordering_of_rows_keeps_their_pasts(case: Case, seed: int) -> None:
    """Rows are continued, doubled, dropped and shuffled at random, each with its own words."""
    (model,) = case.models
    chance = np.random.default_rng(seed)
    pictures, words = len(case.features), model.config.vocab_size
    memory = model.encode(case.features, case.lengths)
    slots = 7
    step = TorchStep([model], [memory], case.lengths, slots=slots, room=12)
    pasts: list[tuple[int, list[int]]] = [(picture, []) for picture in range(pictures)]
    for _ in range(case.max_length):
        parents = chance.integers(0, len(pasts), chance.integers(1, slots + 1))
        tokens = chance.integers(0, words, len(parents))
        pasts = [
            (pasts[parent][0], [*pasts[parent][1], int(token)])
            for parent, token in zip(parents, tokens, strict=True)
        ]
        values, best = step(tokens, parents, 3)
        index = torch.tensor([picture for picture, _ in pasts])
        log_probs = model.decode(
            memory, torch.tensor([past for _, past in pasts]), case.lengths, picture_index=index
        )[:, -1]
        expected = log_probs.topk(3)
        np.testing.assert_allclose(values, expected.values, atol=1e-9)
        np.testing.assert_allclose(log_probs.gather(1, torch.tensor(best)), values, atol=1e-9)


def tiny(**changes: object) -> ExpansionNet:
    torch.manual_seed(0)
    config = ExpansionNetConfig(
        vocab_size=140,
        d_model=8,
        enc_layers=1,
        dec_layers=1,
        ff=8,
        heads=2,
        enc_expansions=(2,),
        dec_expansions=2,
        max_length=12,
        feature_dim=4,
    )
    return ExpansionNet(config.model_copy(update=changes)).eval()


def test_samples_follow_the_distribution() -> None:
    """First words of many samples against the model's probabilities, by a chi-square bound."""
    model = tiny()
    model.output.weight.data *= 3
    features, count = torch.randn(1, 3, 4), 20_000
    generator = torch.Generator().manual_seed(1)
    drawn = sample(model, features, n=count, max_length=1, generator=generator)[0]
    observed = np.bincount([h.tokens[1] for h in drawn], minlength=140)
    expected = model.decode(model.encode(features), torch.tensor([[2]]))[0, 0].exp()
    expected = count * expected.detach().double().numpy()
    statistic = float(((observed - expected) ** 2 / expected).sum())
    # Mean 139, deviation sqrt(2 x 139) = 16.7.
    assert 139 - 5 * 16.7 < statistic < 139 + 5 * 16.7


def test_samples_of_a_picture_are_independent_and_repeatable() -> None:
    model, features = tiny(), torch.randn(2, 3, 4)
    first, again, other = (
        sample(model, features, n=4, max_length=8, generator=torch.Generator().manual_seed(seed))
        for seed in (5, 5, 6)
    )
    assert first == again != other
    assert len({tuple(h.tokens) for h in first[0]}) == 4


def test_training_mode_is_left_as_it_was_and_has_no_effect() -> None:
    model = tiny(dropout_decoder=0.5, dropout_other=0.5)
    features = torch.randn(2, 3, 4)
    calm = beam_search(model, features, 3, 8)
    model.train()
    assert beam_search(model, features, 3, 8) == calm
    assert all(module.training for module in model.modules())


def test_sampling_from_a_memory_has_no_dropout_in_training_mode() -> None:
    model = tiny(**{f"dropout_{name}": 0.5 for name in ("decoder", "decoder_input", "other")})
    memory = model.encode(torch.randn(2, 3, 4))
    calm, noisy = (
        sample_memory(model.train(mode), memory, 3, 8, generator=torch.Generator().manual_seed(0))
        for mode in (False, True)
    )
    assert calm == noisy


@pytest.mark.parametrize("pays", [0, 10**9])
def test_layers_stored_either_way_agree(pays: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, features = tiny(), torch.randn(2, 3, 4)
    expected = beam_search(model, features, 3, 8)
    monkeypatch.setattr(incremental, "TRANSPOSING_PAYS", pays)
    actual = beam_search(model, features, 3, 8)
    assert [h[0].tokens for h in actual] == [h[0].tokens for h in expected]


def test_weights_are_read_anew_by_every_search() -> None:
    model, features = tiny(), torch.randn(2, 3, 4)
    before = beam_search(model, features, 3, 8)
    with torch.no_grad():
        model.decoder[0].expansion.project.weight.mul_(-2.0)
        model.output.weight.mul_(-2.0)
    assert beam_search(model, features, 3, 8) != before


def test_more_positions_than_the_model_has_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 12"):
        beam_search(tiny(), torch.randn(1, 3, 4), 2, max_length=14)


def test_models_of_different_vocabularies_are_refused() -> None:
    with pytest.raises(ValueError, match="not the same one"):
        beam_search([tiny(), tiny(vocab_size=9)], torch.randn(1, 3, 4), 2, 6)


def test_more_beams_than_words_are_refused() -> None:
    with pytest.raises(ValueError, match="has 5"):
        beam_search(tiny(vocab_size=5), torch.randn(1, 3, 4), 6, 6)


def test_no_pictures_give_no_comments() -> None:
    assert beam_search(tiny(), torch.randn(0, 3, 4), 2, 6) == []
    assert sample(tiny(), torch.randn(0, 3, 4)) == []


def test_words_are_looked_for_in_float32_under_autocast() -> None:
    model = tiny()
    features = torch.randn(2, 4, 4)
    expected = beam_search(model, features, beam_size=3, max_length=8)
    memory = model.eval().encode(features)
    drawn = sample_memory(model, memory, 3, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = beam_search(model, features, beam_size=3, max_length=8)
        again = sample_memory(model, memory, 3, 8, generator=torch.Generator().manual_seed(0))
    assert again == drawn
    scores = [[beams[0].score for beams in hypotheses] for hypotheses in (actual, expected)]
    assert scores[0] == pytest.approx(scores[1], abs=0.1)
