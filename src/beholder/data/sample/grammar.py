"""Comments on the sample's pictures, generated from the grammar of `phrases.py`.

Nobody said them. They are true of their picture by construction: every phrase is chosen by what is
known of the distortion and measured on the picture, and by nothing else but (seed, key, index).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from beholder.data.sample.catalogue import Entry
from beholder.data.sample.distortions import PRISTINE
from beholder.data.sample.phrases import KEYWORDS, RULES, SENTENCES, SUBJECTS
from beholder.data.sample.traits import Traits
from beholder.data.vocabulary import normalise_caption

COMMENTS_PER_PICTURE = len(SENTENCES)
GRADES = ("bad", "poor", "fair", "good", "excellent")
CONTRAST_GRADES = ("good", "fair", "poor", "bad")  # of levels 1 to 4
_ARTICLE = re.compile(r"\ba(?= [aeiou])", re.IGNORECASE)
_SYMBOL = re.compile(r"\{(\w+)\}")


def comments(entry: Entry, traits: Traits, score: float, *, seed: int = 0) -> list[str]:
    """The comments on a picture, 4 to 20 words each; every one names its distortion.

    Args:
        entry: the picture; says what was done to it and what it shows.
        traits: as measured on it.
        score: its pseudo-MOS, 1 to 5.
        seed: another seed, other words.
    """
    facts = _facts(entry, traits, score)
    return [_expand(index, facts, f"{seed}/{entry.key}/{index}") for index in range(len(SENTENCES))]


def grade_of(score: float) -> str:
    """The five-grade scale's word for a score of 1 to 5, by rounding."""
    return GRADES[min(max(int(score + 0.5), 1), 5) - 1]


def named_distortions(comment: str) -> frozenset[str]:
    """The kinds of distortion (or `none`) that a comment names by one of their keywords."""
    words = set(normalise_caption(comment))
    return frozenset(kind for kind, keywords in KEYWORDS.items() if words & keywords)


def _facts(entry: Entry, traits: Traits, score: float) -> Mapping[str, str]:
    """Symbol -> name of the rule that holds for this picture."""
    grade, kind = grade_of(score), entry.kind
    strength = grade
    if kind == PRISTINE:
        strength = PRISTINE
    elif kind == "contrast":
        strength = CONTRAST_GRADES[entry.level - 1]
    brightness, colourfulness = traits.brightness_label, traits.colourfulness_label
    return {
        "thing": "thing",
        "everywhere": "everywhere",
        "adverb": f"adverb.{strength}",
        "amount": f"amount.{strength}",
        "adjective": f"adjective.{kind}",
        "noun": f"noun.{kind}",
        "clause": f"clause.{kind}",
        "verdict": f"verdict.{grade}",
        "opinion": f"opinion.{grade}",
        "light": f"light.{brightness}",
        "colour": f"colour.{colourfulness}",
        "tones": f"tones.{colourfulness}",
        "mood": f"mood.{brightness}.{colourfulness}",
        "edges": f"edges.{traits.texture_label}",
        "subject": SUBJECTS[entry.photo][entry.crop],
    }


def _expand(index: int, facts: Mapping[str, str], seed: str) -> str:
    """One comment, with a capital and a full stop."""

    def phrase(match: re.Match[str]) -> str:
        symbol = match.group(1)
        if symbol == "subject":
            return facts[symbol]
        options = RULES[facts[symbol]]
        return options[_draw(f"{seed}/{symbol}", len(options))]

    sentence = SENTENCES[index][_draw(seed, len(SENTENCES[index]))]
    text = _ARTICLE.sub("an", _SYMBOL.sub(phrase, sentence))
    return f"{text[0].upper()}{text[1:]}."


def _draw(seed: str, count: int) -> int:
    """A number below `count`, a function of `seed` alone."""
    return int.from_bytes(hashlib.sha256(seed.encode("utf-8")).digest()[:8], "big") % count
