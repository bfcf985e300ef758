"""Bounds on what a judge says of itself: files come from strangers, whose numbers are not believed.

They are far beyond any judge that a recipe makes, and small enough that none of them alone makes
loading hang or fills the memory. Those of single layers are in `models.config`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MOST_BEAMS = 64
MOST_WRITERS = 16

Classes = Annotated[
    dict[str, Annotated[tuple[str, ...], Field(max_length=100_000)]], Field(max_length=1024)
]
"""Attribute -> labels, in order."""
