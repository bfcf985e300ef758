"""ROUGE-L as the MS-COCO caption evaluation computes it.

Lin, ROUGE, 2004: F-measure with beta 1.2 of the longest common subsequence, with the largest
precision and the largest recall over the references, each on its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beholder.metrics.captions.tokens import CaptionSet, Overlap

BETA = 1.2


def rouge_l(captions: CaptionSet) -> tuple[float, NDArray[np.float64]]:
    """ROUGE-L of the corpus (mean over pictures) and of each picture [P], 0 to 1.

    An empty caption counts as one token that equals only another empty caption, as there.
    """
    scores = np.zeros(len(captions))
    for chunk in captions.chunks():
        lcs = _common_subsequence(chunk).astype(np.float64)
        empty = chunk.reference_lengths + chunk.hypothesis_lengths[chunk.pair_picture] == 0
        lcs[empty] = 1
        lengths = np.maximum(chunk.hypothesis_lengths, 1)[chunk.pair_picture]
        precision = chunk.best_reference(lcs / lengths)
        recall = chunk.best_reference(lcs / np.maximum(chunk.reference_lengths, 1))
        weighted = recall + BETA**2 * precision
        product = (1 + BETA**2) * precision * recall
        scores[chunk.pictures] = np.where(product > 0, product / np.maximum(weighted, 1e-300), 0.0)
    return (float(scores.mean()) if len(scores) else 0.0), scores


def _common_subsequence(chunk: Overlap) -> NDArray[np.uint16]:
    """[R]: length of the longest common subsequence of each reference and its hypothesis.

    The textbook table, row by row, for all pairs of the chunk at once.
    """
    references, positions = len(chunk.reference_TR), len(chunk.hypothesis_TP)
    dtype = np.uint8 if max(references, positions) < 255 else np.uint16
    row = np.zeros((positions + 1, len(chunk.reference_lengths)), dtype=dtype)
    if references and positions:
        for equal in chunk.equal().view(np.uint8):
            diagonal = row[:-1] + equal
            np.maximum(row[1:], diagonal, out=row[1:])
            np.maximum.accumulate(row, axis=0, out=row)
    return row[-1].astype(np.uint16)
