"""How much of a request is taken on, and how long it may take.

Bodies are measured while they come in, chunked ones too; whoever sends too much, or too slowly, is
told so and nothing more of it is kept. An answer that is known before the body has come waits until
it has been read and thrown away, within limits: closing the connection earlier would take the
answer from the client. What never becomes a request is cut off by the protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from beholder.serve.config import MEGABYTE, ServeConfig

DISCARDED = 16 * MEGABYTE  # of a body that is not wanted are read at most
GRACE = 5.0  # seconds that a request has to read its answer after its body's time is up


class Refused(Exception):
    """A request that is not taken on: its status, and an error as the API tells it."""

    def __init__(
        self, status: int, code: str, message: str, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after

    def response(self) -> JSONResponse:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return JSONResponse(error_body(self.code, self.message), self.status, headers)


def error_body(code: str, message: str) -> dict[str, Any]:
    """Every error of the API has this form."""
    return {"error": {"code": code, "message": message}}


class BodyLimits:
    """Keeps bodies within their limits.

    Args:
        app: what gets the requests.
        config: max_body, max_held and body_timeout are read.

    Attributes:
        held: bytes of all bodies that are being read or answered.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        self.app = app
        self.config = config
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        body = _Body(self, receive, asks_first="expect" in headers)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                await body.discard()
            await send(message)

        try:
            body.expect(int(headers.get("content-length", 0)))  # h11 lets numbers through alone
            await self.app(scope, body.receive, answer)
        except Refused as refused:  # before the application has looked at it
            await refused.response()(scope, receive, answer)
        finally:
            self.held -= body.taken


class _Body:
    """The body of one request, as it comes in.

    Args:
        asks_first: the client sends it only after it has been told to.
    """

    def __init__(self, limits: BodyLimits, receive: Receive, *, asks_first: bool) -> None:
        self.limits = limits
        self.taken = 0
        self._receive = receive
        self._complete = False
        self._wanted = not asks_first
        loop = asyncio.get_running_loop()
        self._left: Callable[[], float] = lambda: until - loop.time()
        until = loop.time() + limits.config.body_timeout

    def expect(self, length: int) -> None:
        """Refuse what is announced to be too much."""
        config = self.limits.config
        if self.taken + length > config.max_body:
            raise Refused(
                413,
                "body_too_large",
                f"A request may have {config.max_body / MEGABYTE:g} MB at most.",
            )
        if self.limits.held + length > config.max_held:
            raise Refused(
                503, "busy", "The server holds as much as it can; come back soon.", retry_after=1
            )

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        self._wanted = True
        try:
            message = await self._next()
        except TimeoutError as error:
            seconds = self.limits.config.body_timeout
            raise Refused(
                408, "body_too_slow", f"The body did not come within {seconds:g} seconds."
            ) from error
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self.expect(size)
            self.taken += size
            self.limits.held += size
        return message

    async def discard(self) -> None:
        """Read on for a while, and keep nothing."""
        size = 0
        try:
            while self._wanted and not self._complete and size < DISCARDED:
                size += len((await self._next()).get("body", b""))
        except TimeoutError:
            self._complete = True

    async def _next(self) -> Message:
        message = await asyncio.wait_for(self._receive(), max(0.0, self._left()))
        self._complete = not message.get("more_body", False)  # or the client has gone
        return message


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that cuts off connections on which no whole request comes in.

    Args:
        config: of uvicorn; its application is unimportant here.
        timeouts: header_timeout and body_timeout are read.
    """

    def __init__(self, *args: Any, timeouts: ServeConfig, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timeouts = timeouts
        self._timer: asyncio.TimerHandle | None = None
        self._timed: object = None  # what the timer is for

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect("head", self._timeouts.header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None, 0)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def _watch(self) -> None:
        if self.conn.their_state is h11.SEND_BODY:
            self._expect(self.cycle, self._timeouts.body_timeout + GRACE)
        elif self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._expect("head", self._timeouts.header_timeout)
        else:
            self._expect(None, 0)

    def _expect(self, what: object, seconds: float) -> None:
        """(Re)start the timer, unless it is running for the same thing already."""
        if what is not None and what is self._timed:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timed = what
        if what is not None:
            self._timer = self.loop.call_later(seconds, self.transport.close)
