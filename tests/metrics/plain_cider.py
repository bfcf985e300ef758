"""CIDEr-D written plainly, with one dictionary per caption: the oracle of the fast one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

Vector = list[dict[tuple[str, ...], float]]


class PlainCiderD:
    """Document frequencies of `corpus` (token lists per picture), then one caption at a time."""

    def __init__(self, corpus: Sequence[Sequence[Sequence[str]]], sigma: float = 6.0) -> None:
        self.sigma = sigma
        self.log_pictures = math.log(len(corpus))
        self.frequency: Counter[tuple[str, ...]] = Counter()
        for group in corpus:
            self.frequency.update({ngram for tokens in group for ngram in ngrams(tokens)})

    def score(
        self,
        hypotheses: Sequence[Sequence[str]],
        references: Sequence[Sequence[Sequence[str]]],
    ) -> list[float]:
        return [
            sum(self.similarity(hypothesis, reference) for reference in group) / len(group)
            for hypothesis, group in zip(hypotheses, references, strict=True)
        ]

    def similarity(self, hypothesis: Sequence[str], reference: Sequence[str]) -> float:
        mine, mine_norms = self.vectors(hypothesis)
        theirs, theirs_norms = self.vectors(reference)
        gap = max(len(hypothesis) - 1, 0) - max(len(reference) - 1, 0)
        total = 0.0
        for order in range(4):
            product = sum(
                min(weight, theirs[order].get(ngram, 0.0)) * theirs[order].get(ngram, 0.0)
                for ngram, weight in mine[order].items()
            )
            norm = mine_norms[order] * theirs_norms[order]
            total += product / norm if norm else 0.0
        return 10 * total / 4 * math.exp(-(gap**2) / (2 * self.sigma**2))

    def vectors(self, tokens: Sequence[str]) -> tuple[Vector, list[float]]:
        vectors: Vector = [{}, {}, {}, {}]
        for ngram, count in Counter(ngrams(tokens)).items():
            idf = self.log_pictures - math.log(max(1.0, self.frequency[ngram]))
            vectors[len(ngram) - 1][ngram] = count * idf
        norms = [math.sqrt(sum(weight**2 for weight in vector.values())) for vector in vectors]
        return vectors, norms


def ngrams(tokens: Sequence[str]) -> list[tuple[str, ...]]:
    return [
        tuple(tokens[start : start + order])
        for order in range(1, 5)
        for start in range(len(tokens) - order + 1)
    ]
