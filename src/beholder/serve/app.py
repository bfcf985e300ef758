"""The API of a judge, and its page.

Nothing is fetched from an address that a request names, no model is loaded on request, and the page
needs nothing from elsewhere.
"""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from starlette.datastructures import FormData, Headers, MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from beholder.errors import (
    BeholderError,
    DataError,
    MachineError,
    OpinionError,
    OutOfMemory,
    PictureError,
)
from beholder.judge import Judge
from beholder.judge.runner import BY_THE_JUDGE, Box, checked_box
from beholder.judge.verdict import Failure, Judged
from beholder.serve.batcher import Busy, MicroBatcher
from beholder.serve.config import ServeConfig
from beholder.serve.limits import BodyLimits, Refused, error_body
from beholder.serve.metrics import Metrics, MetricsMiddleware
from beholder.serve.schemas import (
    EXAMPLE,
    FAILED,
    Error,
    JudgeDescription,
    Status,
    Verdicts,
)

log = logging.getLogger("beholder")

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/words.js": ("words.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
SAFETY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_BINARY = {"type": "string", "format": "binary"}
_NUMBER = r"\s*-?[0-9]+(\.[0-9]+)?\s*"
_BOX_PATTERN = rf"^({_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER})?$"
_BOXES: dict[str, Any] = {
    "type": "array",
    "items": {"type": "string", "pattern": _BOX_PATTERN, "example": "10,20,210,320"},
    "description": "xmin,ymin,xmax,ymax of each picture in pixels of the upright picture; empty: "
    "all of it",
}
OVERLAY_SIDE = 768  # pixels of a heat map's longer side
_FIELD_BYTES = 1000  # of the names that a form gives
_PICTURES, _PICTURE, _BOX = "pictures", "picture", "box"


def create_app(judge: Judge, config: ServeConfig) -> FastAPI:
    """The application that serves one judge. `app.state.batcher` and `app.state.draining` are there
    to be looked at; setting `draining` makes /ready answer 503."""
    batcher = MicroBatcher(judge, config)
    counters = Metrics(batcher)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await batcher.start()
        app.state.started = True
        yield
        app.state.started = False
        await batcher.stop()

    app = FastAPI(
        title="Beholder",
        description="What people would say about a picture: a score, a comment, attributes.",
        version="1",
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        responses={code: {"model": Error} for code in (408, 413, 422, 500, 503)},
    )
    app.state.batcher, app.state.started, app.state.draining = batcher, False, False
    app.add_middleware(BodyLimits, config=config)
    app.add_middleware(MetricsMiddleware, metrics=counters)
    app.add_middleware(_Safety)
    _add_error_handlers(app)
    _add_verdicts(app, batcher, counters)
    _add_explanations(app, batcher)
    _add_state(app, judge, config, counters)
    for path, (name, media_type) in PAGE.items():
        app.add_api_route(path, _file(name, media_type), include_in_schema=False)
    return app


def _add_verdicts(app: FastAPI, batcher: MicroBatcher, counters: Metrics) -> None:
    most = batcher.config.max_pictures

    @app.post(
        "/v1/verdicts",
        response_model=Verdicts,
        tags=["verdicts"],
        summary="Judge pictures",
        openapi_extra=_form(
            {
                _PICTURES: {"type": "array", "items": _BINARY, "minItems": 1, "maxItems": most},
                _BOX: _BOXES | {"maxItems": most},
            },
            required=[_PICTURES],
        ),
        responses={
            200: {"content": {"application/json": {"example": {"verdicts": [EXAMPLE, FAILED]}}}},
            400: {"model": Error},
            422: {"model": Verdicts | Error, "description": "No picture could be judged."},
        },
    )
    async def verdicts(request: Request) -> Response:
        """Score, comment and attributes of pictures: JPEG, PNG, WebP, BMP, TIFF or GIF, in the
        order of the form's `pictures`. What can't be judged has an error in its place. With `box`
        only a part of each picture is judged: as many as pictures, in their order, each
        `xmin,ymin,xmax,ymax` in pixels of the upright picture, or empty for all of it."""
        async with request.form(
            max_files=most, max_fields=most, max_part_size=_FIELD_BYTES
        ) as form:
            uploads = _uploads(form, _PICTURES)
            boxes = _boxes(form, len(uploads))
            with batcher.room(len(uploads)):
                judged = await batcher.verdicts(
                    [
                        (upload.filename or "picture", await upload.read(), box)
                        for upload, box in zip(uploads, boxes, strict=True)
                    ]
                )
        counters.count(judged)
        return _verdicts_response(judged)


def _verdicts_response(judged: Sequence[Judged]) -> Response:
    """The rows; if there is no verdict among them, a status that says whose fault it is."""
    if all(isinstance(entry, Failure) for entry in judged):
        for failure in judged:
            if isinstance(failure, Failure) and failure.code in BY_THE_JUDGE:
                status = 503 if failure.code == OutOfMemory.code else 500
                return JSONResponse(error_body(failure.code, failure.message), status)
        return JSONResponse({"verdicts": [entry.to_dict() for entry in judged]}, 422)
    return JSONResponse({"verdicts": [entry.to_dict() for entry in judged]})


def _add_explanations(app: FastAPI, batcher: MicroBatcher) -> None:
    judge = batcher.judge

    @app.post(
        "/v1/explanations",
        response_class=Response,
        tags=["verdicts"],
        summary="Show where an opinion comes from",
        openapi_extra=_form(
            {
                _PICTURE: _BINARY,
                "opinion": {"type": "string"},
                "label": {"type": "string"},
                _BOX: {"type": "string", "pattern": _BOX_PATTERN},
            },
            required=[_PICTURE, "opinion"],
        ),
        responses={
            200: {"content": {"image/png": {}}, "description": "The picture with heat on it."},
            400: {"model": Error},
        },
    )
    async def explanations(request: Request) -> Response:
        """A PNG of the picture on which the places glow that speak for an opinion: an attribute
        (of the most probable class, or of `label`), or `score`. `box` as for verdicts."""
        async with request.form(max_files=1, max_fields=3, max_part_size=_FIELD_BYTES) as form:
            (upload,) = _uploads(form, _PICTURE)
            (box,) = _boxes(form, 1)
            opinion, label = form.get("opinion"), form.get("label")
            if not isinstance(opinion, str) or opinion not in judge.explainable():
                known = ", ".join(judge.explainable()) or "none"
                raise Refused(400, "opinion", f"Opinions that can be explained: {known}.")
            chosen = label if isinstance(label, str) and label else None
            judge.check_opinion(opinion, chosen)
            content = await upload.read()
        with batcher.room(1):
            png = await batcher.run(lambda: _explain(judge, content, opinion, chosen, box))
        return Response(png, media_type="image/png")


def _add_state(app: FastAPI, judge: Judge, config: ServeConfig, counters: Metrics) -> None:
    @app.get(
        "/v1/judge", response_model=JudgeDescription, tags=["judge"], summary="What it can say"
    )
    async def about() -> Response:
        interval = judge.calibration.score
        return JSONResponse(
            {
                "score_range": judge.score_range,
                "coverage": None if interval is None else interval.level,
                "comments": judge.generation is not None,
                "attributes": judge.classes,
                "multi_label": sorted(judge.multi_label),
                "explains": judge.explainable(),
                "limits": {"max_body": config.max_body, "max_pictures": config.max_pictures},
            }
        )

    @app.get("/health", response_model=Status, tags=["state"], summary="Is the process alive?")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/ready", response_model=Status, tags=["state"], summary="Does it take pictures?")
    async def ready() -> Response:
        if app.state.draining or not app.state.started:
            raise Refused(503, "not_ready", "The server is stopping.", retry_after=1)
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", response_class=Response, tags=["state"], summary="Prometheus's text")
    async def metrics() -> Response:
        text = generate_latest(counters.registry)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_1_0_0)


def _form(properties: Mapping[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    """The body of an operation in OpenAPI."""
    schema = {
        "type": "object",
        "properties": properties,
        "required": required or list(properties),
    }
    content = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


def _uploads(form: FormData, field: str) -> list[UploadFile]:
    """The files of a field, at least one."""
    uploads = [value for value in form.getlist(field) if isinstance(value, UploadFile)]
    if not uploads:
        raise Refused(
            400,
            "no_picture",
            f"There is no picture in the form's field {field!r}: send multipart/form-data with "
            "files.",
        )
    return uploads


def _boxes(form: FormData, pictures: int) -> list[Box | None]:
    """The box of each picture, None where there is none."""
    texts = form.getlist(_BOX)
    if not texts:
        return [None] * pictures
    if len(texts) != pictures:
        raise Refused(
            400,
            "box",
            f"The form has {len(texts)} fields {_BOX!r} for {pictures} pictures: give one for each "
            "picture, empty where all of it is meant.",
        )
    boxes: list[Box | None] = []
    for text in texts:
        if not isinstance(text, str):
            raise Refused(400, "box", f"The form's field {_BOX!r} is text, not a file.")
        try:
            boxes.append(checked_box(text.split(",")) if text.strip() else None)
        except DataError as error:
            raise Refused(400, "box", f"{error.what} {error.fix}") from error
    return boxes


def _explain(
    judge: Judge, content: bytes, opinion: str, label: str | None, box: Box | None
) -> bytes:
    """The overlay as a PNG."""
    explanation = judge.explain(content, opinion, label=label, box=box)
    stream = io.BytesIO()
    explanation.overlay(OVERLAY_SIDE).save(stream, "PNG")
    return stream.getvalue()


def _file(name: str, media_type: str) -> Any:
    content = files("beholder.serve").joinpath("page", name).read_bytes()

    async def give() -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return give


class _Safety:
    """Every answer tells browsers to run and to load nothing but what comes from here."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(Headers(SAFETY))
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _add_error_handlers(app: FastAPI) -> None:
    """Errors of all kinds answer in one form."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return error.response()

    @app.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> Response:
        message = "As many pictures as the server takes on are under way; come back soon."
        return Refused(503, "busy", message, error.retry_after).response()

    @app.exception_handler(PictureError)
    async def picture(request: Request, error: PictureError) -> Response:
        return JSONResponse(error_body(error.code, error.what), 422)

    @app.exception_handler(OutOfMemory)
    @app.exception_handler(MachineError)
    async def memory(request: Request, error: BeholderError) -> Response:
        return JSONResponse(error_body(error.code, error.what), 503)

    @app.exception_handler(OpinionError)
    async def opinion(request: Request, error: OpinionError) -> Response:
        return JSONResponse(error_body(error.code, error.what), 500)

    @app.exception_handler(BeholderError)
    async def asked_wrongly(request: Request, error: BeholderError) -> Response:
        fix = f" {error.fix}" if error.fix else ""
        return JSONResponse(error_body(error.code, error.what + fix), 400)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method"}.get(error.status_code, "request")
        body = error_body(code, str(error.detail))
        return JSONResponse(body, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return JSONResponse(error_body("request", str(error)), 422)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        log.error("%s %s failed.", request.method, request.url.path, exc_info=error)
        return JSONResponse(error_body("internal", "The server failed; its log says why."), 500)
