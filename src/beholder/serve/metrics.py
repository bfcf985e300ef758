"""What a server counts, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from beholder.judge.verdict import Failure, Judged
from beholder.serve.batcher import MicroBatcher

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
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
        self.registry.register(_BatcherCollector(batcher))

    def count(self, verdicts: Sequence[Judged]) -> None:
        for judged in verdicts:
            kind = judged.code if isinstance(judged, Failure) else "judged"
            self.pictures.labels(kind).inc()


class _BatcherCollector(Collector):
    """What the micro-batcher counts anyway, read when it is asked for."""

    def __init__(self, batcher: MicroBatcher) -> None:
        self.batcher = batcher

    def collect(self) -> Iterator[Metric]:
        batcher = self.batcher
        yield GaugeMetricFamily(
            "beholder_pictures_under_way", "Pictures taken on and not answered yet.",
            batcher.under_way,
        )  # fmt: skip
        yield CounterMetricFamily(
            "beholder_batches", "Batches judged since the start.", batcher.batches
        )
        yield CounterMetricFamily(
            "beholder_batched_pictures", "Pictures judged in them.", batcher.pictures
        )


class MetricsMiddleware:
    """Counts and times requests by the path of their route: a client can't invent new ones."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

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
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - clock)
