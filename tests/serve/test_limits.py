"""Bodies that are too large or too slow, requests that never come, and too many of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from served import BOUNDARY, Answer, Server, form, parse, post, request, run_server

HEAD = (
    "POST /v1/verdicts HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
)
PART = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="pictures"; filename="a"\r\n\r\n'
).encode()


def test_bodies_are_capped_while_they_are_read(picture: Callable[..., bytes]) -> None:
    with run_server(max_body=100_000, body_timeout=2) as server:
        announced = server.send(f"{HEAD}Content-Length: 100001\r\n\r\n".encode())
        assert parse(announced).status == 413
        assert parse(announced).json()["error"]["code"] == "body_too_large"
        chunk = b"2000\r\n" + b"x" * 0x2000 + b"\r\n"
        start = (
            f"{HEAD}Transfer-Encoding: chunked\r\n\r\n{len(PART):x}\r\n".encode() + PART + b"\r\n"
        )
        endless = [start, *[chunk] * 500]
        assert parse(server.send(*endless, pause=0.001)).status == 413
        assert server.judge(("a.png", picture(10))).status == 200


def test_slow_bodies_and_heads_are_cut_off(picture: Callable[..., bytes]) -> None:
    with run_server(body_timeout=1, header_timeout=1) as server:
        clock = time.monotonic()
        drops = [b"--"] * 40
        start = f"{HEAD}Content-Length: 5000\r\n\r\n".encode() + PART
        slow = server.send(start, *drops, pause=0.1)
        assert parse(slow).status == 408
        assert server.send(b"GET /health HTTP/1.1\r\nX-Slow: ", *[b"a"] * 40, pause=0.1) == b""
        assert server.send() == b""  # a connection on which nothing is asked
        assert time.monotonic() - clock < 20
        # who is quick again is answered on the same connection
        twice = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert server.send(twice, last, pause=0.2).count(b"200 OK") == 2
        assert server.judge(("a.png", picture(10))).status == 200


def test_what_the_server_holds_is_bounded(picture: Callable[..., bytes]) -> None:
    with run_server(max_body=60_000, max_held=100_000, body_timeout=5) as server:
        body = form([("pictures", "a.bmp", b"BM" + bytes(50_000))])

        async def two_slowly() -> list[Answer]:
            async def slowly() -> Answer:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-10])
                await asyncio.sleep(1.0)
                writer.write(body[-10:])
                answer = parse(await reader.read())
                writer.close()
                return answer

            return list(await asyncio.gather(slowly(), slowly()))

        first, second = sorted(asyncio.run(two_slowly()), key=lambda answer: answer.status)
        assert (first.status, second.status) == (422, 503)  # it is not a picture; there is no room
        assert second.headers["retry-after"] == "1"
        assert server.judge(("a.png", picture(10))).status == 200  # what was held is free again


def test_a_thousand_requests_at_once(picture: Callable[..., bytes]) -> None:
    """Each is answered 200 or 503, with its own verdict, and the server stays awake."""
    levels = [level for level in range(256) if abs(level - 100) > 1]
    with run_server(0.02, capacity=128, batch_size=8) as server:
        answers, waits = asyncio.run(_many(server, [picture(level) for level in levels], levels))
        for level, answer in answers:
            assert answer.status in (200, 503), answer
            if answer.status == 503:
                assert int(answer.headers["retry-after"]) >= 1
                continue
            (verdict,) = answer.json()["verdicts"]
            assert verdict["image"] == f"{level}.png"
            assert abs(verdict["score"] - 100 * level / 255) < 1e-5 * 100
        statuses = [answer.status for _, answer in answers]
        assert len(statuses) == 1000
        assert statuses.count(200) >= 128 and statuses.count(503) > 0
        assert len(waits) > 10  # /health was answered all the time
        assert server.get("/ready").status == 200
        text = server.get("/metrics").body.decode()
        assert "beholder_pictures_under_way 0.0" in text


async def _many(
    server: Server, contents: list[bytes], levels: list[int]
) -> tuple[list[tuple[int, Answer]], list[float]]:
    """1,000 requests and, meanwhile, the seconds that /health takes."""
    done = asyncio.Event()
    waits: list[float] = []

    async def ask(index: int) -> tuple[int, Answer]:
        level_index = index % len(levels)
        body = form([("pictures", f"{levels[level_index]}.png", contents[level_index])])
        return levels[level_index], await post(server.port, body)

    async def look() -> None:
        while not done.is_set():
            clock = time.perf_counter()
            assert (await request(server.port, "GET", "/health")).status == 200
            waits.append(time.perf_counter() - clock)
            await asyncio.sleep(0.02)

    looking = asyncio.create_task(look())
    answers = await asyncio.gather(*[ask(index) for index in range(1000)])
    done.set()
    await looking
    return list(answers), waits
