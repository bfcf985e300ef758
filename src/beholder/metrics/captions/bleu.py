"""BLEU-1 to BLEU-4 as the MS-COCO caption evaluation computes them.

Papineni et al., BLEU, ACL 2002, with the closest reference length and the evaluation's own
smoothing: 1e-15 is added to matches and 1e-9 to totals, on the corpus and per picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beholder.metrics.captions.tokens import CaptionSet, Overlap

ORDERS = 4
_TINY = 1e-15
_SMALL = 1e-9


def bleu(captions: CaptionSet) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """BLEU-1..4 of the corpus [4] and of each picture [4, P], 0 to 1, higher is better.

    Pictures keep the order of `captions`.
    """
    matches = np.zeros((ORDERS, len(captions)))
    closest = np.zeros(len(captions))
    for chunk in captions.chunks():
        matches[:, chunk.pictures] = _clipped_matches(chunk)
        closest[chunk.pictures] = _closest_length(chunk)
    lengths = captions.hypothesis_lengths.astype(np.float64)
    totals = np.maximum(0.0, lengths - np.arange(ORDERS)[:, None])
    corpus = _combine(
        matches.sum(axis=1, keepdims=True),
        totals.sum(axis=1, keepdims=True),
        lengths.sum(keepdims=True),
        closest.sum(keepdims=True),
    )
    return corpus[:, 0], _combine(matches, totals, lengths, closest)


def _combine(
    matches: NDArray[np.float64],
    totals: NDArray[np.float64],
    lengths: NDArray[np.float64],
    reference_lengths: NDArray[np.float64],
) -> NDArray[np.float64]:
    precision = (matches + _TINY) / (totals + _SMALL)
    roots = 1.0 / np.arange(1, ORDERS + 1)[:, None]
    scores = np.cumprod(precision, axis=0) ** roots
    ratio = (lengths + _TINY) / (reference_lengths + _SMALL)
    with np.errstate(over="ignore"):  # an empty hypothesis: exp(-huge) is the wanted 0
        penalty = np.where(ratio < 1, np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio)), 1.0)
    return scores * penalty


def _clipped_matches(chunk: Overlap) -> NDArray[np.float64]:
    """[4, P]: n-grams of the hypothesis found in a reference, each at most as often as in there.

    No n-gram is ever built: two n-grams are equal where n token matches lie on a diagonal.
    """
    width = np.uint8 if max(len(chunk.reference_TR), len(chunk.hypothesis_TP)) < 255 else np.uint16
    result = np.zeros((ORDERS, len(chunk.pictures)))
    tokens = chunk.equal()
    hypothesis_tokens = chunk.self_equal()
    equal, repeated = tokens.copy(), hypothesis_tokens.copy()
    for order in range(ORDERS):
        if order:
            if min(equal.shape[0], equal.shape[1]) < 2:
                break
            equal, repeated = equal[:-1, :-1], repeated[:-1, :-1]
            equal &= tokens[order:, order:]
            repeated &= hypothesis_tokens[order:, order:]
        in_reference = equal.view(np.uint8).sum(axis=0, dtype=width)
        available = chunk.best_reference(in_reference)
        # the k-th occurrence in the hypothesis counts if a reference has at least k
        occurrence = np.zeros_like(available)
        for position in range(1, len(occurrence)):
            occurrence[position] = repeated[:position, position].view(np.uint8).sum(0, dtype=width)
        # padding never equals a reference, so that `available` is 0 there
        result[order] = (occurrence < available).sum(axis=0)
    return result


def _closest_length(chunk: Overlap) -> NDArray[np.float64]:
    """[P]: length of the reference closest to the hypothesis, the shorter of two as close."""
    gaps = np.abs(chunk.reference_lengths - chunk.hypothesis_lengths[chunk.pair_picture])
    longest = int(chunk.reference_lengths.max(initial=0)) + 1
    best = -chunk.best_reference(-(gaps * longest + chunk.reference_lengths))
    return (best % longest).astype(np.float64)
