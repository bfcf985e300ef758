"""A served judge under load: pictures per second together and one by one, and 1,000 at once.

    python benchmarks/bench_serve.py [JUDGE] [PICTURES]

JUDGE is a judge's folder or file, PICTURES a folder of pictures; by default those of `make demo`.
Prints the throughput of requests that come together (32 at a time) as a ratio to that of requests
one by one, in turns; then sends 1,000 requests at once and prints how they were answered, the
largest difference from offline verdicts, and what /health took meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beholder import Judge
from beholder.batch.requests import find_pictures
from beholder.errors import BeholderError

BOUNDARY = "picture-boundary"
PICTURES, TOGETHER, ROUNDS, AT_ONCE = 32, 32, 5, 1000
Answer = tuple[int, dict[str, Any]]

LOOKING = """
import http.client, json, select, sys, time
waits = []
while not select.select([sys.stdin], [], [], 0.01)[0]:
    clock = time.perf_counter()
    asked = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
    asked.request("GET", "/health")
    assert asked.getresponse().status == 200
    waits.append(time.perf_counter() - clock)
    asked.close()
    if len(waits) == 1:
        print(flush=True)
print(json.dumps(waits))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("judge", nargs="?", type=Path, default=Path("runs/demo/judge"))
    parser.add_argument("pictures", nargs="?", default="runs/demo/sample/images")
    arguments = parser.parse_args()
    model = arguments.judge
    judge = Judge.load(model, "cpu")  # tells at once if there is none
    paths = [picture.path for picture in find_pictures([arguments.pictures])][:PICTURES]
    contents = [path.read_bytes() for path in paths]
    offline = [judge(content).to_dict() for content in contents]
    command = [sys.executable, "-m", "beholder", "serve", str(model), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = re.search(r":(\d+) ", server.stdout.readline())
            assert address is not None
            port = int(address[1])
            asyncio.run(compare(port, contents))
            asyncio.run(flood(port, contents, offline))
        finally:
            server.terminate()


async def compare(port: int, contents: Sequence[bytes]) -> None:
    seconds: dict[int, list[float]] = {1: [], TOGETHER: []}
    for _ in range(ROUNDS):
        for width, taken in seconds.items():
            clock = time.perf_counter()
            room = asyncio.Semaphore(width)
            answers = await asyncio.gather(*[ask(port, content, room) for content in contents])
            taken.append(time.perf_counter() - clock)
            assert all(status == 200 for status, _ in answers)
    alone, together = (len(contents) / statistics.median(taken) for taken in seconds.values())
    print(
        f"{len(contents)} pictures: one by one {alone:.1f} pictures/s, {TOGETHER} at a time "
        f"{together:.1f} pictures/s, {together / alone:.2f} x",
        flush=True,
    )


async def flood(port: int, contents: Sequence[bytes], offline: Sequence[dict[str, Any]]) -> None:
    # from a process of its own: this one's loop is busy with a thousand requests
    command = [sys.executable, "-c", LOOKING, str(port)]
    looking = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert looking.stdout is not None
    looking.stdout.readline()
    room = asyncio.Semaphore(AT_ONCE)
    requests = [ask(port, contents[index % len(contents)], room) for index in range(AT_ONCE)]
    answers = await asyncio.gather(*requests)
    waits = json.loads(looking.communicate("stop")[0])
    worst, wrong = 0.0, 0
    for index, (status, answer) in enumerate(answers):
        if status != 200:
            continue
        verdict, expected = answer["verdicts"][0], offline[index % len(contents)]
        wrong += verdict["comment"] != expected["comment"]
        if expected["score"] is not None:
            worst = max(worst, abs(verdict["score"] - expected["score"]))  # type: ignore[operator]
    statuses = dict(collections.Counter(status for status, _ in answers))
    print(
        f"{AT_ONCE} at once: answered {statuses}; scores within {worst:.1e}, comments {wrong} off"
    )
    waits.sort()
    p99 = 1e3 * waits[int(0.99 * len(waits))]
    print(f"/health meanwhile, {len(waits)} times: p99 {p99:.0f} ms, most {1e3 * waits[-1]:.0f} ms")


async def ask(port: int, content: bytes, room: asyncio.Semaphore) -> Answer:
    head = 'Content-Disposition: form-data; name="pictures"; filename="picture"\r\n\r\n'
    body = f"--{BOUNDARY}\r\n{head}".encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    async with room:
        return await request(port, "POST", "/v1/verdicts", body)


async def request(port: int, method: str, path: str, body: bytes) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{kind}\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = await reader.read()
    writer.close()
    response_head, _, text = answer.partition(b"\r\n\r\n")
    return int(response_head.split()[1]), json.loads(text)


if __name__ == "__main__":
    try:
        main()
    except BeholderError as error:
        raise SystemExit(str(error)) from None
