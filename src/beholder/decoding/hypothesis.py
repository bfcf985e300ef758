"""A decoded sequence with its log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hypothesis:
    """One sequence of a search or a sample.

    Attributes:
        tokens: word ids, from bos to eos; without eos if the length was reached first.
        token_log_probs: log-probability of each token given those before it; 0 for bos.
        score: their sum divided by the number of tokens, as published; higher is better.
    """

    tokens: list[int]
    token_log_probs: list[float]
    score: float
