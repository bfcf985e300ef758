"""Caption metrics of the MS-COCO evaluation, without Java: BLEU, ROUGE-L, METEOR, CIDEr-D."""

from __future__ import annotations

from beholder.data.vocabulary import normalise_caption as normalise
from beholder.metrics.captions.cider import CiderD
from beholder.metrics.captions.evaluate import CaptionScores, comment_challenge, evaluate_captions
from beholder.metrics.captions.ptb import ptb_tokenize

__all__ = [
    "CaptionScores",
    "CiderD",
    "comment_challenge",
    "evaluate_captions",
    "normalise",
    "ptb_tokenize",
]
