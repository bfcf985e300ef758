"""The judge: a backbone and its heads, and what it says of pictures."""

from __future__ import annotations

from beholder.judge.explain import Explanation
from beholder.judge.judge import Judge
from beholder.judge.verdict import Attribute, Failure, Verdict

__all__ = ["Attribute", "Explanation", "Failure", "Judge", "Verdict"]
