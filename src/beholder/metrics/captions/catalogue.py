"""The caption metrics by name, and other spellings of their names."""

from __future__ import annotations

from typing import TypeVar

from beholder.errors import DataError
from beholder.metrics.info import METRICS

Value = TypeVar("Value")

GROUPS: dict[str, tuple[str, ...]] = {
    "BLEU": ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"),
    "ROUGE_L": ("ROUGE_L",),
    "METEOR": ("METEOR",),
    "CIDEr-D": ("CIDEr-D",),
    "SPICE": ("SPICE",),
    "comment_challenge": ("comment_challenge",),
}
"""The metrics of `evaluate_captions`, and the names of the scores that each gives."""

PARTS = {"comment_challenge": ("BLEU", "ROUGE_L", "METEOR", "CIDEr-D")}
"""The metrics that a metric consists of, which are computed with it."""


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


_SPELLINGS = {_plain(name): name for name in (*GROUPS, *METRICS)}
_SPELLINGS |= {"rouge": "ROUGE_L", "cider": "CIDEr-D"}  # as pycocoevalcap says


def canonical(name: str) -> str:
    """The project's spelling of a metric: Bleu_4 is BLEU-4, CIDEr (of that package) CIDEr-D.

    Raises:
        DataError: no such metric.
    """
    spelling = _SPELLINGS.get(_plain(name))
    if spelling is None:
        raise DataError(
            f"There is no caption metric {name!r}.", fix=f"Choose from {', '.join(GROUPS)}."
        )
    return spelling


class ByMetric(dict[str, Value]):
    """Values by metric name; other spellings of a name find them too."""

    def __missing__(self, name: str) -> Value:
        spelling = _SPELLINGS.get(_plain(name))
        if spelling is None or spelling not in self:
            raise KeyError(name)
        return self[spelling]
