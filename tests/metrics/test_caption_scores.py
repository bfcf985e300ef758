"""BLEU, ROUGE-L and CIDEr-D against the golden values, the reference package and plain code."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_cider import PlainCiderD

from beholder.errors import DataError
from beholder.metrics.captions import (
    CiderD,
    comment_challenge,
    evaluate_captions,
    normalise,
)
from beholder.metrics.info import METRICS

Captions = tuple[dict[str, list[str]], dict[str, str]]
WITHOUT_DATA = ("BLEU", "ROUGE_L", "CIDEr-D")


def test_golden_corpus_and_pictures(golden: dict[str, Any]) -> None:
    scores = evaluate_captions(golden["references"], golden["hypotheses"], WITHOUT_DATA)
    expected = {f"BLEU-{n + 1}": (golden["BLEU"][n], golden["BLEU_each"][n]) for n in range(4)}
    expected["ROUGE_L"] = golden["ROUGE_L"], golden["ROUGE_L_each"]
    expected["CIDEr-D"] = golden["CIDEr"], golden["CIDEr_each"]
    assert list(scores.corpus) == list(expected)
    for name, (corpus, per_picture) in expected.items():
        assert scores.corpus[name] == pytest.approx(corpus, abs=1e-9)
        ours = [scores.per_image[name][key] for key in golden["ids"]]
        assert np.abs(np.array(ours) - per_picture).max() < 1e-9
    assert scores.counts == {"pictures": 60, "references": 182}


def test_equals_the_reference_package(captions: Captions, pycocoevalcap: None) -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    references, hypotheses = captions
    listed = {key: [text] for key, text in hypotheses.items()}
    scores = evaluate_captions(references, hypotheses, WITHOUT_DATA, tokenizer="none")
    corpus, per_picture = Bleu(4).compute_score(references, listed, verbose=0)
    for n in range(4):
        assert scores.corpus[f"BLEU-{n + 1}"] == pytest.approx(corpus[n], abs=1e-12)
        assert list(scores.per_image[f"BLEU-{n + 1}"].values()) == pytest.approx(per_picture[n])
    for name, metric in (("ROUGE_L", Rouge()), ("CIDEr-D", Cider())):
        corpus, per_picture = metric.compute_score(references, listed)
        assert scores.corpus[name] == pytest.approx(corpus, abs=1e-12)
        assert list(scores.per_image[name].values()) == pytest.approx(per_picture.tolist())


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_short_and_empty_captions_as_in_the_reference_package(data: st.DataObject) -> None:
    bleu = pytest.importorskip("pycocoevalcap.bleu.bleu")
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge")
    text = st.lists(st.sampled_from("abc"), max_size=7).map(" ".join)
    hypotheses = data.draw(st.lists(text, min_size=1, max_size=5))
    groups = [data.draw(st.lists(text, min_size=1, max_size=3)) for _ in hypotheses]
    references = {str(row): group for row, group in enumerate(groups)}
    chosen = {str(row): caption for row, caption in enumerate(hypotheses)}
    listed = {key: [caption] for key, caption in chosen.items()}
    scores = evaluate_captions(references, chosen, ("BLEU", "ROUGE_L"), tokenizer="none")
    corpus, per_picture = bleu.Bleu(4).compute_score(references, listed, verbose=0)
    for n in range(4):
        assert scores.corpus[f"BLEU-{n + 1}"] == pytest.approx(corpus[n], abs=1e-12)
        assert list(scores.per_image[f"BLEU-{n + 1}"].values()) == pytest.approx(
            per_picture[n], abs=1e-12
        )
    corpus, per_picture = rouge.Rouge().compute_score(references, listed)
    assert list(scores.per_image["ROUGE_L"].values()) == pytest.approx(
        per_picture.tolist(), abs=1e-12
    )


def test_long_captions() -> None:
    long = " ".join(f"w{index % 97}" for index in range(700))
    scores = evaluate_captions({"a": [long], "b": ["x y"]}, {"a": long, "b": "x z"}, ("BLEU",))
    assert scores.per_image["BLEU-4"]["a"] == pytest.approx(1.0)
    rouge = evaluate_captions({"a": [long], "b": ["x"]}, {"a": long, "b": "y"}, ("ROUGE_L",))
    assert rouge.per_image["ROUGE_L"] == {"a": 1.0, "b": 0.0}


def test_golden_reward(golden_reward: dict[str, Any]) -> None:
    corpus = [[text.split() for text in group] for group in golden_reward["normalised_corpus"]]
    samples = [tokens[1:] for group in golden_reward["sampled"] for tokens in group]
    references = [corpus[row] for row in golden_reward["image_index"] for _ in range(5)]
    rewards = CiderD(corpus).score(samples, references)
    assert np.abs(rewards - np.ravel(golden_reward["reward"])).max() < 1e-9


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_reward_equals_plain_dictionaries(data: st.DataObject) -> None:
    caption = st.lists(st.sampled_from("abcdefg"), max_size=9)
    corpus = data.draw(st.lists(st.lists(caption, min_size=1, max_size=4), min_size=1, max_size=6))
    unknown = st.lists(st.sampled_from("abcxyz"), max_size=9)
    hypotheses = data.draw(st.lists(unknown, max_size=6))
    new_group = st.lists(unknown, min_size=1, max_size=3)
    references = [data.draw(st.one_of(st.sampled_from(corpus), new_group)) for _ in hypotheses]
    expected = PlainCiderD(corpus).score(hypotheses, references)
    assert CiderD(corpus).score(hypotheses, references) == pytest.approx(expected, abs=1e-9)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_reward_of_repeated_ngrams_and_ties(data: st.DataObject) -> None:
    """Two words make captions that repeat n-grams, end on each other's, and share groups."""
    caption = st.lists(st.sampled_from("ab"), max_size=14)
    corpus = data.draw(st.lists(st.lists(caption, min_size=1, max_size=5), min_size=1, max_size=5))
    odd = st.lists(st.sampled_from("abz?"), max_size=14)
    hypotheses = data.draw(st.lists(odd, max_size=8))
    group = st.one_of(st.sampled_from(corpus), st.lists(odd, min_size=1, max_size=4))
    references = [data.draw(group) for _ in hypotheses]
    expected = PlainCiderD(corpus).score(hypotheses, references)
    assert CiderD(corpus).score(hypotheses, references) == pytest.approx(expected, abs=1e-9)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_evaluation_equals_plain_dictionaries(data: st.DataObject) -> None:
    caption = st.lists(st.sampled_from("abcd"), max_size=9)
    corpus = data.draw(st.lists(st.lists(caption, min_size=1, max_size=4), min_size=1, max_size=6))
    hypotheses = [data.draw(caption) for _ in corpus]
    expected = PlainCiderD(corpus).score(hypotheses, corpus)
    references = {str(row): [" ".join(text) for text in group] for row, group in enumerate(corpus)}
    texts = {str(row): " ".join(text) for row, text in enumerate(hypotheses)}
    scores = evaluate_captions(references, texts, ("CIDEr-D",), tokenizer="none")
    assert list(scores.per_image["CIDEr-D"].values()) == pytest.approx(expected, abs=1e-9)


def test_reward_of_integers_strings_and_rows_is_the_same(captions: Captions) -> None:
    groups, chosen = list(captions[0].values()), list(captions[1].values())
    numbers: dict[str, int] = {}

    def number(text: str) -> list[int]:
        return [numbers.setdefault(word, len(numbers)) for word in text.split()]

    as_rows = CiderD(groups).score(chosen, range(len(groups)))
    as_strings = CiderD(groups).score(chosen, groups)
    numbered = [[number(text) for text in group] for group in groups]
    as_numbers = CiderD(numbered).score([number(text) for text in chosen], numbered)
    assert np.array_equal(as_rows, as_strings)
    assert as_numbers == pytest.approx(as_rows)


def test_reward_does_not_depend_on_the_batch(captions: Captions) -> None:
    groups, chosen = list(captions[0].values()), list(captions[1].values())
    scorer = CiderD(groups)
    together = scorer.score(chosen, groups)
    rows = list(range(len(chosen)))
    random.Random(1).shuffle(rows)
    shuffled = scorer.score([chosen[row] for row in rows], [groups[row] for row in rows])
    assert shuffled == pytest.approx(together[rows], abs=1e-12)
    alone = [scorer.score([chosen[row]], [groups[row]])[0] for row in rows[:10]]
    assert alone == pytest.approx(together[rows[:10]], abs=1e-12)


def test_large_vocabularies_take_the_wide_path(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = [[["a", "b", "c", "a", "b"]], [["a", "c", "d"]], [["b", "b", "b"]]]
    samples = [["a", "b", "c"], ["d"], []]
    narrow = CiderD(corpus).score(samples, [0, 1, 2])
    from beholder.metrics.captions import ngrams

    monkeypatch.setattr(ngrams, "_PACKED_BITS", 0)
    assert np.array_equal(CiderD(corpus).score(samples, [0, 1, 2]), narrow)


def test_blocks_change_nothing(captions: Captions, monkeypatch: pytest.MonkeyPatch) -> None:
    groups, chosen = list(captions[0].values()), list(captions[1].values())
    whole = evaluate_captions(*captions, WITHOUT_DATA, tokenizer="none")
    others = [[*group, "w1 w2 new"] for group in groups]
    reward, foreign = (
        CiderD(groups).score(chosen, their_references) for their_references in (groups, others)
    )
    from beholder.metrics.captions import cider, ngrams, tokens

    monkeypatch.setattr(ngrams, "BLOCK", 7)
    monkeypatch.setattr(cider, "BLOCK", 5)
    monkeypatch.setattr(tokens, "_CELLS", 500)
    parts = evaluate_captions(*captions, WITHOUT_DATA, tokenizer="none")
    assert parts.corpus == pytest.approx(whole.corpus, abs=1e-12)
    for name, scores in whole.per_image.items():
        assert parts.per_image[name] == pytest.approx(scores, abs=1e-12)
    assert CiderD(groups).score(chosen, groups) == pytest.approx(reward, abs=1e-12)
    assert CiderD(groups).score(chosen, others) == pytest.approx(foreign, abs=1e-12)
    assert reward == pytest.approx(list(whole.per_image["CIDEr-D"].values()), abs=1e-12)


def test_reward_refuses_what_it_cannot_score() -> None:
    with pytest.raises(DataError, match="needs a corpus"):
        CiderD([])
    with pytest.raises(DataError, match="needs a corpus"):
        CiderD([[["a"]], []])
    scorer = CiderD([[["a"]], [["b"]]])
    with pytest.raises(DataError, match="1 hypotheses for 2"):
        scorer.score([["a"]], [0, 1])
    with pytest.raises(DataError, match="no reference"):
        scorer.score([["a"]], [[]])
    assert scorer.score([], []).shape == (0,)


def test_every_problem_is_listed() -> None:
    references = {"a": ["x"], "b": ["y"], "c": [], "d": "text", "e": ["z", 5]}
    hypotheses = {"a": "x", "c": "y", "d": "y", "e": None, "f": "y"}
    with pytest.raises(DataError) as caught:
        evaluate_captions(references, hypotheses, ("BLEU",))  # type: ignore[arg-type]
    problems = {(problem.code, problem.key) for problem in caught.value.problems}
    assert problems == {
        ("no_hypothesis", "b"),
        ("no_reference", "c"),
        ("not_a_list", "d"),
        ("not_text", "e"),
        ("no_reference", "f"),
    }
    assert "'f'" in str(caught.value) or " f:" in str(caught.value)
    with pytest.raises(DataError, match="problem"):
        evaluate_captions({}, {}, ("BLEU",))


def test_oddities_are_noted() -> None:
    scores = evaluate_captions({"a": ["a dog"]}, {"a": ""}, WITHOUT_DATA)
    assert {problem.code for problem in scores.problems} == {"empty_text", "one_picture"}
    references = {"a": ["a dog", " "], "b": ["...", "a cat"]}
    with_notes = evaluate_captions(references, {"a": "a dog", "b": "a cat"}, WITHOUT_DATA).problems
    assert [(problem.key, problem.message.split(":")[0]) for problem in with_notes] == [
        ("a", "reference 1 is empty"),
        ("b", "reference 0 has no words"),
    ]
    assert scores.corpus["CIDEr-D"] == 0.0
    assert "warning" in scores.render()


def test_spellings_of_metrics() -> None:
    scores = evaluate_captions({"a": ["a dog"], "b": ["b"]}, {"a": "a cat", "b": ["b"]}, ["Bleu"])
    assert scores.corpus["Bleu_4"] == scores.corpus["BLEU-4"]
    assert scores.per_image["bleu_1"]["a"] == pytest.approx(0.5, abs=1e-6)
    with pytest.raises(KeyError):
        scores.corpus["CIDEr"]
    with pytest.raises(DataError, match="ROUG"):
        evaluate_captions({"a": ["x"]}, {"a": "x"}, ("ROUG",))
    with pytest.raises(DataError, match="not computed from captions alone"):
        evaluate_captions({"a": ["x"]}, {"a": "x"}, ("plcc",))


def test_signature_and_declarations(golden: dict[str, Any]) -> None:
    scores = evaluate_captions(golden["references"], golden["hypotheses"], WITHOUT_DATA)
    assert scores.signature["CIDEr-D"].startswith("CIDEr-D|n 1-4, sigma 6")
    assert "ptb-coco" in scores.signature["BLEU-4"]
    for name, info in METRICS.items():
        assert info.name == name
        assert info.direction in ("max", "min")
        assert info.low < info.high
        assert info.formula and "\n" not in info.formula and info.source
    plain = scores.to_dict()
    assert plain["metrics"]["BLEU-1"]["range"] == [0.0, 1.0]  # type: ignore[index]


def test_challenge_score_and_normalise() -> None:
    corpus = {"CIDEr-D": 1.0, "METEOR": 0.5, "BLEU-3": 0.4, "BLEU-4": 0.2, "ROUGE_L": 0.25}
    assert comment_challenge(corpus) == pytest.approx(4 + 1.5 + 0.6 + 0.25)
    assert normalise("Nice shot -- it's HDR!") == ["nice", "shot", "it", "s", "hdr"]
