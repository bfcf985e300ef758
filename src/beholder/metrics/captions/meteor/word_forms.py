"""Words as METEOR sees them: its normalisation of text, English stems, base forms.

Normalisation follows the tokenizer that comes with the Moses translation system, as METEOR's
`-norm` does. Stems are those of the Snowball English stemmer (Porter2, M. F. Porter, 2002); base
forms are found as WordNet's morphology does, from its exceptions and endings.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

_ALPHA = "A-Za-zŠŽšžŸÀ-ÖØ-öø-žЀ-ӿԀ-ԧꙀ-ꙮꙿ-ꚗᴀ-ᵿ"
_ALNUM = f"0-9{_ALPHA}"

_OTHER = re.compile(rf"([^{_ALNUM}\s.'`,\-‘’])")
_DOTS = re.compile(r"\.{2,}")
_COMMA = re.compile(r"(?<!\d),|,(?!\d)")
_SINGLE = re.compile(r"[`‘’]")
_DOUBLE = re.compile(r"[“”]|''")
_LONE_APOSTROPHE = (
    (re.compile(rf"([^{_ALPHA}])'([^{_ALPHA}])"), r"\1 ' \2"),
    (re.compile(rf"([^0-9{_ALPHA}])'([{_ALPHA}])"), r"\1 ' \2"),
    (re.compile(rf"([{_ALPHA}])'([^{_ALPHA}])"), r"\1 ' \2"),
    (re.compile(rf"([{_ALPHA}])'([{_ALPHA}])"), r"\1 '\2"),
    (re.compile(r"([0-9])'([s])"), r"\1 '\2"),
)
_INNER_DASH = re.compile(rf"([.{_ALNUM}])-([{_ALNUM}])")
_HAS_ALPHA = re.compile(f"[{_ALPHA}]")


def normalise_line(text: str, prefixes: Collection[str]) -> list[str]:
    """Words of a caption: signs apart, hyphenated words in parts, acronyms without dots.

    Args:
        text: a lower-case caption.
        prefixes: words after which a full stop does not end a sentence.
    """
    text = _OTHER.sub(r" \1 ", f" {text} ")
    text = _DOTS.sub(lambda dots: f" {dots[0].replace('.', _DOT)} ", text)
    text = _COMMA.sub(" , ", text)
    text = _DOUBLE.sub(' " ', _SINGLE.sub("'", text))
    text = text.replace("–", "-").replace("--", "-")
    for pattern, parts in _LONE_APOSTROPHE:
        text = pattern.sub(parts, text)
    words = _INNER_DASH.sub(r"\1 \2", text).split()
    result: list[str] = []
    for index, word in enumerate(words):
        if not word.endswith(".") or len(word) == 1:
            result.append(word.replace(_DOT, "."))
            continue
        stem = word[:-1]
        following = words[index + 1] if index + 1 < len(words) else ""
        if "." in stem and _HAS_ALPHA.search(stem):
            result.append(word.replace(".", ""))
        elif stem in prefixes or following[:1].islower():
            result.append(word)
        else:
            result += [stem, "."]
    return result


_DOT = "\ue000"  # stands for the dots of an ellipsis until the end

# The Snowball English stemmer ---------------------------------------------------------------

_VOWELS = "aeiouy"
_DOUBLES = ("bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt")
_SPECIAL = {
    "skis": "ski", "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "idly": "idl",
    "gently": "gentl", "ugly": "ugli", "early": "earli", "only": "onli", "singly": "singl",
    "sky": "sky", "news": "news", "howe": "howe", "atlas": "atlas", "cosmos": "cosmos",
    "bias": "bias", "andes": "andes",
}  # fmt: skip
_KEPT_AFTER_1A = {
    "inning", "outing", "canning", "herring", "earring", "proceed", "exceed", "succeed",
}  # fmt: skip
_STEP_2 = (
    ("ization", "ize"), ("ational", "ate"), ("fulness", "ful"), ("ousness", "ous"),
    ("iveness", "ive"), ("tional", "tion"), ("biliti", "ble"), ("lessli", "less"), ("entli", "ent"),
    ("ation", "ate"), ("alism", "al"), ("aliti", "al"), ("ousli", "ous"), ("iviti", "ive"),
    ("fulli", "ful"), ("enci", "ence"), ("anci", "ance"), ("abli", "able"), ("izer", "ize"),
    ("ator", "ate"), ("alli", "al"), ("bli", "ble"), ("ogi", None), ("li", None),
)  # fmt: skip
_STEP_3 = (
    ("ational", "ate"), ("tional", "tion"), ("alize", "al"), ("icate", "ic"), ("iciti", "ic"),
    ("ative", None), ("ical", "ic"), ("ness", ""), ("ful", ""),
)  # fmt: skip
_STEP_4 = (
    "ement", "ance", "ence", "able", "ible", "ment", "ant", "ent", "ism", "ate", "iti", "ous",
    "ive", "ize", "ion", "al", "er", "ic",
)  # fmt: skip
_REGION = re.compile(r"[aeiouy][^aeiouy]")


@lru_cache(maxsize=200_000)
def stem(word: str) -> str:
    """The Snowball English stem of a lower-case word."""
    if word in _SPECIAL:
        return _SPECIAL[word]
    if len(word) <= 2:
        return word
    word = _mark_consonant_y(word.removeprefix("'"))
    first, second = _regions(word)
    word = _step_1a(_step_0(word))
    if word in _KEPT_AFTER_1A:
        return word.lower()
    word = _step_1c(_step_1b(word, first))
    word = _step_2(word, first)
    word = _step_3(word, first, second)
    word = _step_4(word, second)
    return _step_5(word, first, second).replace("Y", "y")


def _mark_consonant_y(word: str) -> str:
    letters = list(word)
    for index, letter in enumerate(letters):
        if letter == "y" and (index == 0 or letters[index - 1] in _VOWELS):
            letters[index] = "Y"
    return "".join(letters)


def _regions(word: str) -> tuple[int, int]:
    """Where the regions R1 and R2 start."""
    prefix = re.match("gener|commun|arsen", word)
    if prefix is not None:
        first = prefix.end()
    else:
        match = _REGION.search(word)
        first = match.end() if match else len(word)
    match = _REGION.search(word, first)
    return first, match.end() if match else len(word)


def _step_0(word: str) -> str:
    for ending in ("'s'", "'s", "'"):
        if word.endswith(ending):
            return word[: -len(ending)]
    return word


def _step_1a(word: str) -> str:
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith(("ied", "ies")):
        return word[:-2] if len(word) > 4 else word[:-1]
    if word.endswith(("us", "ss")):
        return word
    if word.endswith("s") and any(letter in _VOWELS for letter in word[:-2]):
        return word[:-1]
    return word


def _step_1b(word: str, first: int) -> str:
    for ending in ("eedly", "eed"):
        if word.endswith(ending):
            return word[: -len(ending)] + "ee" if len(word) - len(ending) >= first else word
    for ending in ("ingly", "edly", "ing", "ed"):
        if word.endswith(ending):
            cut = word[: -len(ending)]
            if not any(letter in _VOWELS for letter in cut):
                return word
            if cut.endswith(("at", "bl", "iz")):
                return cut + "e"
            if cut.endswith(_DOUBLES):
                return cut[:-1]
            return cut + "e" if first >= len(cut) and _ends_short(cut) else cut
    return word


def _step_1c(word: str) -> str:
    if len(word) > 2 and word[-1] in "yY" and word[-2] not in _VOWELS:
        return word[:-1] + "i"
    return word


def _step_2(word: str, first: int) -> str:
    for ending, replacement in _STEP_2:
        if word.endswith(ending):
            cut = word[: -len(ending)]
            if len(cut) < first:
                return word
            if ending == "ogi":
                return cut + "og" if cut.endswith("l") else word
            if ending == "li":
                return cut if cut[-1:] and cut[-1] in "cdeghkmnrt" else word
            return cut + (replacement or "")
    return word


def _step_3(word: str, first: int, second: int) -> str:
    for ending, replacement in _STEP_3:
        if word.endswith(ending):
            cut = word[: -len(ending)]
            if len(cut) < first:
                return word
            if ending == "ative":
                return cut if len(cut) >= second else word
            return cut + (replacement or "")
    return word


def _step_4(word: str, second: int) -> str:
    for ending in _STEP_4:
        if word.endswith(ending):
            cut = word[: -len(ending)]
            if len(cut) < second or (ending == "ion" and cut[-1:] not in ("s", "t")):
                return word
            return cut
    return word


def _step_5(word: str, first: int, second: int) -> str:
    cut = word[:-1]
    if word.endswith("e"):
        removable = len(cut) >= second or (len(cut) >= first and not _ends_short(cut))
        return cut if removable else word
    if word.endswith("ll") and len(cut) >= second:
        return cut
    return word


def _ends_short(word: str) -> bool:
    """Whether the word ends in a short syllable."""
    if len(word) == 2:
        return word[0] in _VOWELS and word[1] not in _VOWELS
    return (
        len(word) > 2
        and word[-3] not in _VOWELS
        and word[-2] in _VOWELS
        and word[-1] not in _VOWELS + "wxY"
    )


# Base forms ---------------------------------------------------------------------------------

_NOUN_ENDINGS = (
    ("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
    ("men", "man"), ("ies", "y"),
)  # fmt: skip
_VERB_ENDINGS = (
    ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"),
    ("ing", ""),
)  # fmt: skip
_ADJECTIVE_ENDINGS = (("er", ""), ("est", ""), ("er", "e"), ("est", "e"))


def base_candidates(word: str) -> list[list[str]]:
    """Possible base forms of a word that is no exception: of each list the first known one counts.

    One list each as a noun, as a verb and as an adjective.
    """
    if len(word) <= 2 or word.endswith("ss"):
        return [[word]]
    return [
        [word[: -len(ending)] + base for ending, base in endings if word.endswith(ending)]
        for endings in (_NOUN_ENDINGS, _VERB_ENDINGS, _ADJECTIVE_ENDINGS)
    ]
