"""Pictures of one gray level."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import PIL.Image
import pytest


def picture_bytes(level: int, size: int = 32, style: str = "PNG") -> bytes:
    """A picture of one gray level, 0 to 255."""
    stream = io.BytesIO()
    PIL.Image.fromarray(np.full((size, size, 3), level, np.uint8)).save(stream, style)
    return stream.getvalue()


@pytest.fixture
def picture() -> Callable[..., bytes]:
    return picture_bytes
