"""METEOR against golden values and the Java program."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from beholder.errors import BeholderError
from beholder.metrics.captions import comment_challenge, evaluate_captions
from beholder.metrics.captions.meteor import data, meteor
from beholder.metrics.captions.meteor.word_forms import normalise_line, stem

CHANGES = {
    "picture": "photo", "photo": "image", "good": "well", "well": "nice", "muted": "dull",
    "cold": "chilly", "also": "as well", "lovely": "beautiful", "is": "are", "look": "looks",
    "lighting": "light", "dark": "darker", "whites": "white", "detail": "details",
}  # fmt: skip


def test_golden_corpus_and_pictures(golden: dict[str, Any], pycocoevalcap: None) -> None:
    scores = evaluate_captions(golden["references"], golden["hypotheses"], ("METEOR",))
    assert scores.corpus["METEOR"] == pytest.approx(golden["METEOR"], abs=1e-9)
    ours = [scores.per_image["METEOR"][key] for key in golden["ids"]]
    assert np.abs(np.array(ours) - golden["METEOR_each"]).max() < 1e-9


@pytest.mark.slow
def test_equals_java(golden: dict[str, Any], java: None) -> None:
    from pycocoevalcap.meteor.meteor import Meteor

    rng = random.Random(2)
    pool = [text for group in golden["tokens_refs"].values() for text in group]

    def vary(text: str) -> str:
        words = [CHANGES.get(word, word) if rng.random() < 0.5 else word for word in text.split()]
        if rng.random() < 0.5:
            cut = rng.randrange(len(words))
            words = words[cut:] + words[:cut]
        return " ".join(words)

    references = [[vary(rng.choice(pool)) for _ in range(4)] for _ in range(300)]
    hypotheses = [vary(rng.choice([*group, rng.choice(pool)])) for group in references]
    corpus, per_picture = Meteor().compute_score(
        dict(enumerate(references)), {row: [text] for row, text in enumerate(hypotheses)}
    )
    ours_corpus, ours = meteor(references, hypotheses)
    assert ours_corpus == pytest.approx(corpus, abs=1e-6)
    assert np.quantile(np.abs(ours - per_picture), 0.99) < 1e-6


def test_challenge_score_brings_its_parts(golden: dict[str, Any], pycocoevalcap: None) -> None:
    texts = golden["references"], golden["hypotheses"]
    scores = evaluate_captions(*texts, metrics=["comment_challenge"])
    expected = 4 * golden["CIDEr"] + 3 * golden["METEOR"] + golden["ROUGE_L"]
    expected += golden["BLEU"][2] + golden["BLEU"][3]
    assert scores.corpus["comment_challenge"] == pytest.approx(expected, abs=1e-6)
    assert list(scores.corpus)[-1] == "comment_challenge" and len(scores.corpus) == 8
    key = golden["ids"][0]
    parts = {name: values[key] for name, values in scores.per_image.items()}
    assert comment_challenge(parts) == pytest.approx(parts["comment_challenge"])
    assert scores.signature["comment_challenge"].startswith("comment_challenge|2023|tokens")


def test_empty_and_foreign_captions(pycocoevalcap: None) -> None:
    corpus, per_picture = meteor([["a dog"], ["a dog"], [""]], ["", "zzz qqq", ""])
    assert per_picture.tolist() == [0.0, 0.0, 0.0]
    assert corpus == 0.0


def test_without_the_package_only_meteor_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    data.meteor_data.cache_clear()
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    captions = {"a": ["a dog"], "b": ["a cat"]}, {"a": "a dog", "b": "a cat"}
    with pytest.raises(BeholderError, match="pip install pycocoevalcap"):
        evaluate_captions(*captions)
    scores = evaluate_captions(*captions, metrics=("BLEU", "ROUGE_L", "CIDEr-D"))
    assert scores.corpus["ROUGE_L"] == 1.0
    data.meteor_data.cache_clear()


def test_normalisation() -> None:
    cases = {
        "well-done john 's best": "well done john ' s best",
        "i do n't like it's dogs'": "i do n 't like it 's dogs '",
        "f/2 .8 1,000 a,b 3.5 x...": "f / 2 .8 1,000 a , b 3.5 x ...",
        "mr. smith u.s. end.": "mr. smith us end .",
        "-lrb-650-rrb- $ 5%": "-lrb 650 rrb- $ 5 %",
        "``x'' 한국": '" x " 한 국',
    }
    for text, expected in cases.items():
        assert " ".join(normalise_line(text, {"mr"})) == expected


def test_stems() -> None:
    cases = {
        "running": "run", "flies": "fli", "happily": "happili", "generously": "generous",
        "relational": "relat", "skies": "sky", "hopping": "hop", "hoping": "hope", "cats": "cat",
        "agreed": "agre", "exceed": "exceed", "conditional": "condit", "arguments": "argument",
        "communities": "communiti", "is": "is", "gas": "gas", "y": "y", "sayings": "say",
    }  # fmt: skip
    assert {word: stem(word) for word in cases} == cases
