"""The caption metrics by name: what each declares, its parameters, and its other spellings."""

from __future__ import annotations

import math

from beholder.errors import DataError
from beholder.metrics.info import METRICS, MetricInfo

_COCO = "as in the MS-COCO caption evaluation (Chen et al., arXiv:1504.00325)"

CAPTION_METRICS: tuple[MetricInfo, ...] = (
    *(
        MetricInfo(
            name=f"BLEU-{order}",
            direction="max",
            low=0.0,
            high=1.0,
            formula=f"min(1, exp(1 - r/c)) (p1...p{order})^(1/{order}), clipped n-gram precisions",
            source=f"Papineni et al., ACL 2002, {_COCO}",
            version="closest reference length, +1e-15/+1e-9",
        )
        for order in range(1, 5)
    ),
    MetricInfo(
        name="ROUGE_L",
        direction="max",
        low=0.0,
        high=1.0,
        formula="(1 + b^2) P R / (R + b^2 P), P and R largest over references of LCS / length",
        source=f"Lin, ACL workshop 2004, {_COCO}",
        version="beta 1.2",
    ),
    MetricInfo(
        name="METEOR",
        direction="max",
        low=0.0,
        high=1.0,
        formula="(1 - g (chunks/matches)^b) P R / (a P + (1 - a) R), best reference",
        source=f"Denkowski and Lavie, WMT 2014, {_COCO}",
        version="1.5 en, rank, normalised, exact stem synonym paraphrase",
    ),
    MetricInfo(
        name="CIDEr-D",
        direction="max",
        low=0.0,
        high=10.0,
        formula="10 mean over n, references of exp(-d^2/2s^2) min(h, r).r / |h||r|, tf-idf n-grams",
        source=f"Vedantam et al., CVPR 2015, {_COCO}",
        version="n 1-4, sigma 6, df of the references",
    ),
    MetricInfo(
        name="SPICE",
        direction="max",
        low=0.0,
        high=1.0,
        formula="F1 of the tuples of the scene graphs of hypothesis and references",
        source="Anderson et al., ECCV 2016, the Java program of pycocoevalcap",
        version="1.0",
    ),
    MetricInfo(
        name="CLIPScore",
        direction="max",
        low=0.0,
        high=2.5,
        formula="2.5 max(cos(picture, caption), 0)",
        source="Hessel et al., EMNLP 2021",
        version="w 2.5, prefix 'A photo depicts '",
    ),
    MetricInfo(
        name="comment_challenge",
        direction="max",
        low=0.0,
        high=math.inf,
        formula="4 CIDEr-D + 3 METEOR + 2 mean(BLEU-3, BLEU-4) + ROUGE_L",
        source="2023 Samsung AI Challenge: Image Quality Assessment",
        version="2023",
    ),
)

METRICS.update((info.name, info) for info in CAPTION_METRICS)

GROUPS: dict[str, tuple[str, ...]] = {
    "BLEU": ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"),
    "ROUGE_L": ("ROUGE_L",),
    "METEOR": ("METEOR",),
    "CIDEr-D": ("CIDEr-D",),
    "SPICE": ("SPICE",),
}
"""What `evaluate_captions` can be asked for, and the names of the scores each gives."""


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


_SPELLINGS = {_plain(name): name for name in (*GROUPS, *(info.name for info in CAPTION_METRICS))}
_SPELLINGS |= {"rouge": "ROUGE_L", "cider": "CIDEr-D"}  # as pycocoevalcap says


def canonical(name: str) -> str:
    """The project's spelling of a metric: Bleu_4 is BLEU-4, CIDEr (of that package) CIDEr-D.

    Raises:
        DataError: no such metric.
    """
    found = _SPELLINGS.get(_plain(name))
    if found is None:
        raise DataError(
            f"There is no caption metric {name!r}.", fix=f"Choose from {', '.join(GROUPS)}."
        )
    return found


class Scores(dict[str, float]):
    """Score by metric name; other spellings of a name find it too."""

    def __missing__(self, name: str) -> float:
        found = _SPELLINGS.get(_plain(name))
        if found is None or found not in self:
            raise KeyError(name)
        return self[found]


class ImageScores(dict[str, dict[str, float]]):
    """Metric name -> image key -> score; other spellings of a name find it too."""

    def __missing__(self, name: str) -> dict[str, float]:
        found = _SPELLINGS.get(_plain(name))
        if found is None or found not in self:
            raise KeyError(name)
        return self[found]
