"""What a server is told: where it listens, and what it takes on at most."""

from __future__ import annotations

from dataclasses import dataclass

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class ServeConfig:
    """Limits of a server.

    Args:
        host, port: where it listens; port 0: any that is free.
        batch_size: pictures that are judged together, at most.
        max_wait: seconds that a picture waits for others that are on their way.
        capacity: pictures that are taken on and not answered yet, at most; more are refused with
            503 and the time to come back after.
        decoders: threads that decode pictures.
        max_body: bytes of a request's body, at most.
        max_held: bytes of all bodies that are being read or judged, at most.
        max_pictures: pictures of a request, at most; not more than `capacity`.
        header_timeout: seconds until the head of a request must have come.
        body_timeout: seconds until its body must have come.
        keep_alive: seconds that an idle connection stays open.
        drain: seconds that requests under way have, once the server is told to stop.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    batch_size: int = 16
    max_wait: float = 0.005
    capacity: int = 256
    decoders: int = 2
    max_body: int = 10 * MEGABYTE
    max_held: int = 256 * MEGABYTE
    max_pictures: int = 32
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    keep_alive: float = 5.0
    drain: float = 30.0
