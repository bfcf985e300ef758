"""What a server counts, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from beholder.judge.verdict import Failure, Judged
from beholder.serve.batcher import MicroBatcher

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Measures:
    """The counters of one server."""

    def __init__(self, batcher: MicroBatcher) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "beholder_requests", "Requests answered.", ("path", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "beholder_request_seconds", "From a request's head to the end of its answer.",
            ("path",), buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.pictures = Counter(
            "beholder_pictures", "Pictures answered: judged, or why not.", ("outcome",),
            registry=self.registry,
        )  # fmt: skip
        shown = {
            "beholder_pictures_under_way": ("Pictures taken on and not answered yet.", "under_way"),
            "beholder_batches": ("Batches judged since the start.", "batches"),
            "beholder_batched_pictures": ("Pictures judged in them.", "pictures"),
        }
        for name, (text, attribute) in shown.items():
            gauge = Gauge(name, text, registry=self.registry)
            gauge.set_function(lambda attribute=attribute: getattr(batcher, attribute))  # type: ignore[misc]

    def count(self, verdicts: Sequence[Judged]) -> None:
        for judged in verdicts:
            kind = judged.code if isinstance(judged, Failure) else "judged"
            self.pictures.labels(kind).inc()


class Measuring:
    """Counts and times requests by the path of their route: a client can't invent new ones."""

    def __init__(self, app: ASGIApp, measures: Measures) -> None:
        self.app = app
        self.measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        clock = time.perf_counter()
        status = 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self.measures.requests.labels(path, str(status)).inc()
            self.measures.seconds.labels(path).observe(time.perf_counter() - clock)
