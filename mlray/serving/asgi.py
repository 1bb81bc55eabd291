"""The HTTP API as a plain ASGI application: bytes in, one parse, one forward, ready bytes out.

Order of the guard: size, time to arrive, JSON, shape, schema. All requests that reach the model in
one tick of the event loop share one forward, without a timer: a lonely request waits for nobody.
Nothing of a request is logged.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from mlray.serving import openapi, page, problems
from mlray.serving.problems import Problem
from mlray.serving.reading import Row, rows_of
from mlray.serving.served import Served

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

LARGE_ROWS = 512
"""Requests with more rows are computed beside the event loop, so that others do not wait."""
READ_S = 10.0
"""A body must have arrived in this time."""
_DISCARD_S, _DISCARD_BYTES = 1.0, 64 << 20
_ID_PATTERN = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_JSON = b"application/json"


@dataclass(frozen=True)
class Limits:
    """What a request may be; `serving` section of the project file."""

    body_bytes: int = 1 << 20
    rows: int = 10_000


@dataclass(frozen=True)
class Refused:
    """A version that was not taken because it failed verification."""

    version: str
    reason: str


@dataclass
class Tally:
    """What was answered since the last `take`: requests by (version, status), and their time."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: float = 0.0

    def take(self) -> Tally:
        taken = Tally(self.requests, self.seconds)
        self.requests, self.seconds = Counter(), 0.0
        return taken


@dataclass
class _Waiting:
    """A request whose rows wait for the forward of this tick."""

    rows: list[Row]
    answer: asyncio.Future[bytes]


class Api:
    """The ASGI application of one model. `swap` puts another version behind it at any time."""

    def __init__(self, name: str, limits: Limits | None = None):
        self.name, self.limits = name, limits or Limits()
        self.served: Served | None = None
        self.refused: Refused | None = None
        self.closing = False
        self.tally = Tally()
        self._pages: dict[str, bytes] = {}
        self._waiting: list[_Waiting] = []
        self._id_prefix, self._ids = os.urandom(4).hex(), 0
        self._gets = {
            "/": self._root,
            "/docs": self._docs,
            "/openapi.json": self._openapi,
            "/health/live": self._live,
            "/health/ready": self._ready,
            "/-/healthz": self._ready,  # where KubeRay looks
        }
        self._predicts = {"/predict", f"/v1/models/{name}/predict"}

    def swap(self, served: Served) -> None:
        """Answer with `served` from now on; requests under way end with the version before."""
        pages = {
            "/openapi.json": orjson.dumps(openapi.document(served)),
            "/docs": page.html(served).encode(),
        }
        self.served, self._pages, self.refused = served, pages, None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await _lifespan(receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1003})
        started, served = time.perf_counter(), self.served
        headers = dict(scope["headers"])
        request_id = self._request_id(headers)
        try:
            status, kind, body, more = await self._routed(scope, headers, receive, served)
        except Problem as problem:
            status, kind, more = problem.status, problems.CONTENT_TYPE, problem.headers
            body = problem.document(request_id.decode())
        except Exception as error:
            _log_failure(request_id, error)
            status, kind, more = 500, problems.CONTENT_TYPE, ()
            body = problems.internal().document(request_id.decode())
        if self.closing:
            more = (*more, (b"connection", b"close"))
        await _answer(send, status, (*_head(kind, body, request_id), *more), body, receive)
        self.tally.requests[served.version if served else "none", status] += 1
        self.tally.seconds += time.perf_counter() - started

    def _request_id(self, headers: dict[bytes, bytes]) -> bytes:
        """The client's own id if it is a plain one, else a new one."""
        given = headers.get(b"x-request-id")
        if given is not None and _ID_PATTERN.fullmatch(given):
            return given
        self._ids += 1
        return f"{self._id_prefix}-{self._ids:x}".encode()

    async def _routed(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, served: Served | None
    ) -> tuple[int, bytes, bytes, Headers]:
        path, method = scope["path"], scope["method"]
        if path in self._predicts:
            if method != "POST":
                raise problems.method_not_allowed("POST")
            return 200, _JSON, await self._predict(headers, receive, served), ()
        if (get := self._gets.get(path)) is None:
            raise problems.not_found()
        if method not in ("GET", "HEAD"):
            raise problems.method_not_allowed("GET, HEAD")
        return get(served)

    # --- what is served by GET ---

    def _root(self, served: Served | None) -> tuple[int, bytes, bytes, Headers]:
        document = {
            "model": self.name,
            "version": served.version if served else None,
            "predict": f"/v1/models/{self.name}/predict",
            "docs": "/docs",
            "openapi": "/openapi.json",
            "health": ["/health/live", "/health/ready"],
        }
        return 200, _JSON, orjson.dumps(document), ()

    def _docs(self, served: Served | None) -> tuple[int, bytes, bytes, Headers]:
        if served is None:
            raise problems.not_ready()
        policy = b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
        guard = ((b"content-security-policy", policy + b" connect-src 'self'"),)
        return 200, b"text/html; charset=utf-8", self._pages["/docs"], guard

    def _openapi(self, served: Served | None) -> tuple[int, bytes, bytes, Headers]:
        if served is None:
            raise problems.not_ready()
        return 200, _JSON, self._pages["/openapi.json"], ()

    def _live(self, served: Served | None) -> tuple[int, bytes, bytes, Headers]:
        return 200, _JSON, b'{"status":"live"}', ()

    def _ready(self, served: Served | None) -> tuple[int, bytes, bytes, Headers]:
        if served is None:
            raise problems.not_ready()
        document: dict[str, Any] = {"status": "ready", "model": self.name}
        document["version"] = served.version
        if refused := self.refused:
            document["refused"] = {"version": refused.version, "reason": refused.reason}
        return 200, _JSON, orjson.dumps(document), ()

    # --- predictions ---

    async def _predict(
        self, headers: dict[bytes, bytes], receive: Receive, served: Served | None
    ) -> bytes:
        if served is None:
            raise problems.not_ready()
        _check_media_type(headers)
        body = await self._body(headers, receive)
        rows = rows_of(body, self.limits.rows)
        if len(rows) > LARGE_ROWS:
            return await self._beside(served, rows)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(rows, loop.create_future())
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            loop.call_soon(self._tick)
        return await waiting.answer

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        limit = self.limits.body_bytes
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit:
            raise problems.too_large(limit)
        body: bytes = b""
        try:
            async with asyncio.timeout(READ_S):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise problems.too_slow(READ_S)  # nobody reads it: the client is gone
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise problems.too_large(limit)
                    if not message.get("more_body", False):
                        return body
        except TimeoutError:
            raise problems.too_slow(READ_S) from None

    async def _beside(self, served: Served, rows: list[Row]) -> bytes:
        """A large request, computed in a thread: ONNX Runtime and Arrow let go of the lock."""

        def compute() -> tuple[bytes, Any]:
            predictions = served.predict(rows)
            return served.answer(predictions, 0, len(rows)), predictions

        answer, predictions = await asyncio.to_thread(compute)
        asyncio.get_running_loop().call_soon(_count, served, predictions)
        return answer

    def _tick(self) -> None:
        """One forward for all requests of this tick of the event loop."""
        waiting, self._waiting = self._waiting, []
        served = self.served
        assert served is not None  # a request waits only when a version is there
        alive = [w for w in waiting if not w.answer.done()]
        try:
            self._answer_together(served, alive)
        except Exception:  # one of them is wrong: each by itself, so that only that one hears it
            for one in alive:
                self._answer_alone(served, one)

    def _answer_together(self, served: Served, waiting: list[_Waiting]) -> None:
        rows = [row for one in waiting for row in one.rows]
        predictions, start = served.predict(rows), 0
        answers = []
        for one in waiting:
            stop = start + len(one.rows)
            answers.append(served.answer(predictions, start, stop))
            start = stop
        for one, answer in zip(waiting, answers, strict=True):
            one.answer.set_result(answer)
        # after the tasks that send the answers, which the results above have put in the queue
        asyncio.get_running_loop().call_soon(_count, served, predictions)

    def _answer_alone(self, served: Served, one: _Waiting) -> None:
        try:
            self._answer_together(served, [one])
        except Exception as error:
            one.answer.set_exception(error)


async def _answer(send: Send, status: int, headers: Headers, body: bytes, receive: Receive) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if status not in (413, 408):
        return await send({"type": "http.response.body", "body": body})
    # The client may still be sending: a connection cut now would hide the answer from it.
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await _discard(receive)
    await send({"type": "http.response.body", "body": b""})


def _check_media_type(headers: dict[bytes, bytes]) -> None:
    given = headers.get(b"content-type", _JSON)
    if given != _JSON:
        kind, _, options = given.lower().partition(b";")
        charset = options.partition(b"charset=")[2].strip(b'" ')
        if kind.strip() != _JSON or charset not in (b"", b"utf-8", b"utf8"):
            raise problems.media_type()
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise problems.media_type()


def _head(kind: bytes, body: bytes, request_id: bytes) -> Headers:
    return (
        (b"content-type", kind),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id),
        (b"x-content-type-options", b"nosniff"),
    )


def _count(served: Served, predictions: Any) -> None:
    """Monitoring must never cost an answer: what it raises is logged."""
    if served.count is None:
        return
    try:
        served.count(predictions)
    except Exception as error:
        _log_failure(b"counting", error)


def _log_failure(request_id: bytes, error: Exception) -> None:
    """Where it happened, without the error's text: it could hold values of the request."""
    places = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s: %s\n%s", request_id.decode(), type(error).__name__, places)


async def _discard(receive: Receive) -> None:
    """Read on for a moment and forget it."""
    size, more = 0, True
    try:
        async with asyncio.timeout(_DISCARD_S):
            while more and size < _DISCARD_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                more = message["type"] == "http.request" and message.get("more_body", False)
    except TimeoutError:
        return


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
