"""Pictures of many requests are judged together, off the event loop.

A picture is decoded by a thread of its own, waits for others that are being decoded, at most
`max_wait`, and is judged with them by the one thread that runs the networks. While a batch is being
judged the next one gathers, so that under load nothing waits for the clock.

The number of pictures that are under way is bounded: what is more is refused at once, with the time
to come back after.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from beholder.judge import Judge
from beholder.judge.runner import Box, Request, decode, failure_of, judge_prepared
from beholder.judge.verdict import Failure, Judged
from beholder.serve.config import ServeConfig

log = logging.getLogger("beholder")

Result = TypeVar("Result")
_MEMORY = 0.8  # of the seconds that a picture took, from one batch to the next


class Busy(Exception):
    """No room; `retry_after` seconds are a good time to come back."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"busy for about {retry_after} s")
        self.retry_after = retry_after


@dataclass(frozen=True)
class _Waiting:
    """A decoded picture and the verdict that is awaited."""

    name: str
    views: NDArray[np.float32]
    verdict: asyncio.Future[Judged]


class MicroBatcher:
    """Judges single pictures in batches.

    Args:
        judge: is used by one thread at a time.
        config: batch_size, max_wait, capacity and decoders are read.

    Attributes:
        under_way: pictures taken on and not answered yet.
        batches, pictures: how many have been judged.
    """

    def __init__(self, judge: Judge, config: ServeConfig) -> None:
        self.judge = judge
        self.config = config
        self.under_way = 0
        self.batches = 0
        self.pictures = 0
        self._decoding = 0
        self._seconds = 0.05  # of a picture, as measured lately
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._decoders = ThreadPoolExecutor(config.decoders, thread_name_prefix="decode")
        self._network = ThreadPoolExecutor(1, thread_name_prefix="judge")
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._loop = asyncio.create_task(self._judge_forever())

    async def stop(self) -> None:
        """Ends the threads. What is under way should have been answered before."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        self._decoders.shutdown(wait=True, cancel_futures=True)
        self._network.shutdown(wait=True, cancel_futures=True)

    @contextmanager
    def room(self, pictures: int) -> Iterator[None]:
        """Room for so many pictures, for as long as the block runs.

        Raises:
            Busy: there is none.
        """
        if self.under_way + pictures > self.config.capacity:
            raise Busy(max(1, math.ceil(self.under_way * self._seconds)))
        self.under_way += pictures
        try:
            yield
        finally:
            self.under_way -= pictures

    async def verdict(self, name: str, content: bytes, box: Box | None = None) -> Judged:
        """The verdict on a picture, or why there is none. Needs `room`.

        Args:
            name: that it is reported under.
            content: the bytes of the picture's file.
            box: what of it is judged; None: all of it.
        """
        loop = asyncio.get_running_loop()
        request = Request(name, content, box)
        self._decoding += 1
        try:
            views = await loop.run_in_executor(self._decoders, decode, self.judge, request)
        finally:
            self._decoding -= 1
        if isinstance(views, Failure):
            return views
        waiting = _Waiting(name, views, loop.create_future())
        self._waiting.put_nowait(waiting)
        return await waiting.verdict

    async def verdicts(self, pictures: Sequence[tuple[str, bytes, Box | None]]) -> list[Judged]:
        """Of several pictures with their names and boxes, in their order. Needs `room` for all of
        them."""
        pending = [self.verdict(name, content, box) for name, content, box in pictures]
        return list(await asyncio.gather(*pending))

    async def run(self, function: Callable[[], Result]) -> Result:
        """Something else that needs the networks, in turn with the batches."""
        return await asyncio.get_running_loop().run_in_executor(self._network, function)

    async def _judge_forever(self) -> None:
        while True:
            batch = await self._gather()
            try:
                verdicts = await self.run(partial(self._judge, batch))
            except Exception as error:  # of the judge as a whole: no picture is to blame
                log.exception("A batch of %d pictures could not be judged.", len(batch))
                for waiting in batch:
                    if not waiting.verdict.done():
                        waiting.verdict.set_exception(error)
                continue
            for waiting, judged in zip(batch, verdicts, strict=True):
                if not waiting.verdict.done():
                    waiting.verdict.set_result(judged)

    async def _gather(self) -> list[_Waiting]:
        """At least one picture, and those that come soon after."""
        batch = [await self._waiting.get()]
        until = time.monotonic() + self.config.max_wait
        while len(batch) < self.config.batch_size:
            if self._waiting.empty():
                left = until - time.monotonic()
                if left <= 0 or not self._decoding:
                    break
                try:
                    batch.append(await asyncio.wait_for(self._waiting.get(), left))
                except TimeoutError:
                    break
            else:
                batch.append(self._waiting.get_nowait())
        return [waiting for waiting in batch if not waiting.verdict.cancelled()]

    def _judge(self, batch: Sequence[_Waiting]) -> list[Judged]:
        if not batch:  # all who asked have gone
            return []
        clock = time.perf_counter()
        names = [waiting.name for waiting in batch]
        judged = judge_prepared(self.judge, names, [waiting.views for waiting in batch])
        seconds = (time.perf_counter() - clock) / len(batch)
        self._seconds += (1 - _MEMORY) * (seconds - self._seconds)
        self.batches += 1
        self.pictures += len(batch)
        return [
            failure_of(name, entry) if isinstance(entry, Exception) else entry
            for name, entry in zip(names, judged, strict=True)
        ]
