"""A server in a process of its own, and its client: standard library only."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BOUNDARY = "picture-boundary"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    port: int

    def get(self, path: str) -> Answer:
        return asyncio.run(request(self.port, "GET", path))

    def judge(self, *pictures: tuple[str, bytes], field: str = "pictures") -> Answer:
        return asyncio.run(post(self.port, form([(field, *picture) for picture in pictures])))

    def send(self, *parts: bytes, pause: float = 0.0, patience: float = 30.0) -> bytes:
        """Raw bytes, with pauses between them; everything that comes back until it closes."""
        return asyncio.run(_send(self.port, parts, pause, patience))


@contextmanager
def run_server(seconds: float = 0.0, **options: object) -> Iterator[Server]:
    """A server of the stub judge, as `stub_judge.py` starts it."""
    settings = [f"{name}={value}" for name, value in options.items()]
    program = [sys.executable, str(Path(__file__).with_name("stub_judge.py"))]
    with subprocess.Popen(
        [*program, str(seconds), *settings], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Server(process, wait_for_address(process))
        finally:
            process.kill()


def wait_for_address(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        if match := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            return int(match[1])
    raise AssertionError(f"the server ended with {process.wait()}")


def form(files: Sequence[tuple[str, str, bytes]], fields: Mapping[str, str] | None = None) -> bytes:
    """The body of multipart/form-data: (field, file name, content)."""
    parts = []
    for field, name, content in files:
        head = f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        kind = "Content-Type: application/octet-stream\r\n\r\n"
        parts.append(f"--{BOUNDARY}\r\n{head}{kind}".encode() + content + b"\r\n")
    for field, value in (fields or {}).items():
        head = f'Content-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
        parts.append(f"--{BOUNDARY}\r\n{head}".encode())
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


async def post(port: int, body: bytes, path: str = "/v1/verdicts") -> Answer:
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    return await request(port, "POST", path, body, {"Content-Type": kind})


async def request(
    port: int, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent_headers = {"Host": "localhost", "Connection": "close", "Content-Length": str(len(body))}
    lines = [
        f"{method} {path} HTTP/1.1",
        *map(": ".join, {**sent_headers, **(headers or {})}.items()),
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    return parse(answer)


def parse(answer: bytes) -> Answer:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    return Answer(int(first.split()[1]), headers, body)


async def _send(port: int, parts: Sequence[bytes], pause: float, patience: float) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.create_task(_all_of(reader))
    for part in parts:
        if answer.done():
            break
        writer.write(part)
        await asyncio.sleep(pause)
    response = await asyncio.wait_for(answer, patience)
    writer.close()
    return response


async def _all_of(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection is closed, or cut while something is being sent."""
    content = b""
    try:
        while part := await reader.read(1 << 16):
            content += part
    except ConnectionResetError:
        return content
    return content
