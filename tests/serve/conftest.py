"""Pictures, and a server in a process of its own."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from served import Server, wait_for_address


def picture_bytes(level: int, size: int = 32, style: str = "PNG") -> bytes:
    """A picture of one gray level, 0 to 255."""
    stream = io.BytesIO()
    PIL.Image.fromarray(np.full((size, size, 3), level, np.uint8)).save(stream, style)
    return stream.getvalue()


@pytest.fixture
def picture() -> Callable[..., bytes]:
    return picture_bytes


@contextmanager
def run_server(seconds: float = 0.0, **options: object) -> Iterator[Server]:
    """A server of the stub judge, as `stub_judge.py` starts it."""
    given = [f"{name}={value}" for name, value in options.items()]
    program = [sys.executable, str(Path(__file__).with_name("stub_judge.py"))]
    with subprocess.Popen(
        [*program, str(seconds), *given], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Server(process, wait_for_address(process))
        finally:
            process.kill()
