"""Pictures of many requests are judged together, and each gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from stub_judge import StubEngine, stub_judge

from beholder.judge import Judge, Verdict
from beholder.judge.verdict import Failure, Judged
from beholder.serve.batcher import Busy, MicroBatcher
from beholder.serve.config import ServeConfig

T = TypeVar("T")


def with_batcher(
    judge: Judge, config: ServeConfig, use: Callable[[MicroBatcher], Coroutine[Any, Any, T]]
) -> T:
    async def run() -> T:
        batcher = MicroBatcher(judge, config)
        await batcher.start()
        try:
            return await use(batcher)
        finally:
            await batcher.stop()

    return asyncio.run(run())


def batches(judge: Judge) -> list[int]:
    assert isinstance(judge.engine, StubEngine)
    return judge.engine.batches


def test_everyone_gets_their_own_verdict_and_batches_fill_under_load(
    picture: Callable[..., bytes],
) -> None:
    judge = stub_judge(seconds=0.02)
    levels = [level for level in range(0, 250, 2) if abs(level - 100) > 1]
    contents = [(f"{level}.png", picture(level), None) for level in levels]

    async def use(batcher: MicroBatcher) -> list[Judged]:
        with batcher.room(len(contents)):
            return await batcher.verdicts(contents)

    verdicts = with_batcher(judge, ServeConfig(batch_size=8), use)
    taken = list(batches(judge))
    expected = [judge(content) for _, content, _ in contents]
    for (name, _, _), judged, alone in zip(contents, verdicts, expected, strict=True):
        assert isinstance(judged, Verdict)
        assert (judged.image, judged.comment) == (name, alone.comment)
        assert judged.score == pytest.approx(alone.score, abs=1e-9)
    assert max(taken) == 8 and sum(taken) == len(contents)
    assert len(taken) < len(contents) / 3  # nearly all are full


def test_what_is_no_picture_fails_alone(picture: Callable[..., bytes]) -> None:
    async def use(batcher: MicroBatcher) -> list[Judged]:
        with batcher.room(3):
            return await batcher.verdicts(
                [("a", picture(10), None), ("b", b"text", None), ("c", b"", None)]
            )

    good, text, empty = with_batcher(stub_judge(), ServeConfig(), use)
    assert isinstance(good, Verdict)
    assert isinstance(text, Failure) and (text.image, text.code) == ("b", "not_a_picture")
    assert isinstance(empty, Failure) and empty.code == "empty"


def test_a_picture_that_breaks_the_network_costs_no_other_its_verdict(
    picture: Callable[..., bytes],
) -> None:
    judge = stub_judge()
    levels = (10, 100, 30, 40, 100, 60)

    async def use(batcher: MicroBatcher) -> list[Judged]:
        with batcher.room(len(levels)):
            pictures = [(str(level), picture(level), None) for level in levels]
            together = await batcher.verdicts(pictures)
        with batcher.room(1):
            return [*together, await batcher.verdict("next", picture(10))]

    judged = with_batcher(judge, ServeConfig(max_wait=5.0), use)
    assert [entry.image for entry in judged] == [*map(str, levels), "next"]
    for entry in judged:
        if entry.image == "100":
            assert isinstance(entry, Failure)
            assert entry.code == "internal" and "RuntimeError" in entry.message
        else:
            assert isinstance(entry, Verdict)
    assert max(batches(judge)) > 1, "they were judged together"


def test_what_is_too_much_is_refused_and_room_comes_back(picture: Callable[..., bytes]) -> None:
    async def use(batcher: MicroBatcher) -> None:
        with batcher.room(3):
            with pytest.raises(Busy) as refused, batcher.room(2):
                pass
            assert refused.value.retry_after >= 1
            assert batcher.under_way == 3
            with batcher.room(1):
                assert batcher.under_way == 4
        assert batcher.under_way == 0

    with_batcher(stub_judge(), ServeConfig(capacity=4), use)


def test_who_has_gone_is_not_judged(picture: Callable[..., bytes]) -> None:
    judge = stub_judge(seconds=0.1)

    async def use(batcher: MicroBatcher) -> None:
        with batcher.room(3):
            first = asyncio.create_task(batcher.verdict("first", picture(10)))
            await asyncio.sleep(0.05)  # it is being judged
            gone = asyncio.create_task(batcher.verdict("gone", picture(20)))
            last = asyncio.create_task(batcher.verdict("last", picture(30)))
            await asyncio.sleep(0.03)  # both are decoded
            gone.cancel()
            await asyncio.gather(first, last)

    with_batcher(judge, ServeConfig(), use)
    assert batches(judge) == [1, 1]


def test_a_picture_alone_does_not_wait_for_the_clock(picture: Callable[..., bytes]) -> None:
    async def use(batcher: MicroBatcher) -> float:
        clock = asyncio.get_running_loop().time()
        with batcher.room(1):
            await batcher.verdict("alone", picture(10))
        return asyncio.get_running_loop().time() - clock

    assert with_batcher(stub_judge(), ServeConfig(max_wait=20.0), use) < 10.0
