"""Bounds on what a judge says of itself: files come from strangers, whose numbers are not believed.

They are far beyond any judge that a recipe makes, and small enough that none of them alone makes
loading hang or fills the memory. Those of single layers are in `models.config`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from beholder.data.labels import joinable

MOST_BEAMS = 64
MOST_WRITERS = 16
MOST_BINS = 1024  # of a vote

Classes = Annotated[
    dict[str, Annotated[tuple[str, ...], Field(max_length=100_000)]], Field(max_length=1024)
]
"""Attribute -> labels, in order."""

MultiLabel = Annotated[tuple[str, ...], Field(max_length=1024)]
"""Attributes of which several labels may hold at once."""


def check_multi_label(multi_label: Sequence[str], classes: Mapping[str, Sequence[str]]) -> None:
    """Raises:
    ValueError: there is no such attribute, one comes twice, or a label of it can't stand beside
        others in one text.
    """
    if len(set(multi_label)) < len(multi_label) or not set(multi_label) <= classes.keys():
        raise ValueError("multi_label must be some of the attributes, each once")
    if not all(joinable(label) for name in multi_label for label in classes[name]):
        raise ValueError("a label of a multi-label attribute can't stand beside others")
