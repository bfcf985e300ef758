"""Comments of the starter's pictures: what a person would say of the faults that are there."""

from __future__ import annotations

from collections.abc import Mapping

from beholder.data.augment import generator_of

PHRASES = {
    "underexposure": ("rather dark|a little dark", "much too dark|far too dark"),
    "overexposure": ("rather bright|a little too bright", "much too bright|far too bright"),
    "low contrast": ("a little flat|slightly hazy", "very flat|covered by haze"),
    "colour": (
        "a little off in colour|slightly wrong in its colours",
        "badly off in colour|clearly wrong in its colours",
    ),
    "blur": ("a little blurred|slightly soft", "badly blurred|very soft"),
    "motion blur": (
        "a little shaken|slightly blurred by motion",
        "badly shaken|badly blurred by motion",
    ),
    "noise": ("a little noisy|slightly grainy", "very noisy|very grainy"),
    "low resolution": (
        "a little short of detail|slightly low in resolution",
        "very low in resolution|without any detail",
    ),
    "smoothing": ("a little smeared|slightly waxy", "badly smeared|very waxy"),
    "oversharpening": (
        "a little too sharp|slightly oversharpened",
        "much too sharp|badly oversharpened",
    ),
    "banding": ("a little banded|slightly short of colours", "badly banded|reduced to few colours"),
    "compression": (
        "a little compressed|slightly marked by compression",
        "badly compressed|full of compression blocks",
    ),
}
"""Family -> what is said of a visible fault, and of a severe one: either of two phrases."""

CLEAN = ("clean and sharp", "without visible faults", "as it should be")


def comment(key: str, faults: Mapping[str, bool]) -> str:
    """A sentence about a picture; equal arguments give equal sentences.

    Args:
        key: the picture's, from which the wording is drawn.
        faults: family -> whether the fault is severe.
    """
    chance = generator_of(0, 0, key, "comment")
    # the worst first, as people do
    names = sorted(faults, key=lambda family: not faults[family])
    phrases = [str(chance.choice(PHRASES[family][faults[family]].split("|"))) for family in names]
    if not phrases:
        phrases = [str(chance.choice(CLEAN))]
    words = " and ".join([", ".join(phrases[:-1]), phrases[-1]] if phrases[1:] else phrases)
    return f"This photo is {words}."
