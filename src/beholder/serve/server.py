"""Runs the application: sockets, signals, time-outs."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType

import numpy as np
import uvicorn

from beholder.errors import DataError
from beholder.judge import Judge
from beholder.serve.app import create_app
from beholder.serve.config import ServeConfig
from beholder.serve.limits import PatientProtocol

log = logging.getLogger("beholder")


def serve(judge: Judge, config: ServeConfig, tell: Callable[[str], None] = print) -> None:
    """Serve until the process is told to stop (SIGINT, SIGTERM); what is under way is answered.

    Args:
        tell: is given the address once the server takes pictures.

    Raises:
        DataError: the limits contradict each other, or the address can't be listened on.
    """
    if config.max_pictures > config.capacity:
        raise DataError(
            f"A request may have {config.max_pictures} pictures, but only {config.capacity} are "
            "taken on at a time.",
            where="--max-pictures",
            fix="Lower it, or raise --capacity.",
        )
    listener = _listen(config)
    _warm_up(judge)
    app = create_app(judge, config)
    server = _Server(
        uvicorn.Config(
            app,
            http=partial(PatientProtocol, timeouts=config),  # type: ignore[arg-type]
            ws="none",
            timeout_keep_alive=int(config.keep_alive),
            timeout_graceful_shutdown=int(config.drain),
            server_header=False,
            access_log=False,
            log_level="warning",
        ),
        lambda: setattr(app.state, "draining", True),
    )
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    tell(f"Serving on http://{shown}:{port} (stop with Ctrl+C)")
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """Says at once that it is about to stop."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping()
        super().handle_exit(sig, frame)


def _listen(config: ServeConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server(
            (config.host, config.port), family=family, backlog=2048, reuse_port=False
        )
    except (OSError, OverflowError) as error:
        raise DataError(
            f"The address can't be listened on: {getattr(error, 'strerror', None) or error}.",
            where=f"{config.host}:{config.port}",
            fix="Take another --port (0: any that is free), or another --host.",
        ) from error


def _warm_up(judge: Judge) -> None:
    """Judge a gray picture, so that the first request does not wait for what is done only once."""
    import PIL.Image

    gray = PIL.Image.fromarray(np.full((64, 64, 3), 128, np.uint8))
    judge(gray)
