"""A real HTTP API for tests: it pages, throttles and fails as real ones do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Request:
    """What the server was asked, and when (seconds since 1970)."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    at: float
    number: int
    """How many requests there were before, over all paths."""


@dataclass
class Reply:
    """What it answers; `cut` leaves out so many bytes of the end of the body."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0


@dataclass
class Api:
    """A running server; `answer` may be replaced at any time."""

    url: str
    answer: Callable[[Request], Reply | None]
    """None: the connection is closed without a word."""
    requests: list[Request] = field(default_factory=list)


@contextmanager
def api(answer: Callable[[Request], Reply | None]) -> Iterator[Api]:
    """A server on a free port of this machine, in threads of this process."""
    served = Api("", answer)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            with lock:
                number = len(served.requests)
                asked = Request(parts.path, query, dict(self.headers), time.time(), number)
                served.requests.append(asked)
            reply = served.answer(asked)
            if reply is None:
                self.close_connection = True
                return
            self._send(reply)

        def do_HEAD(self) -> None:
            self.do_GET()

        def _send(self, reply: Reply) -> None:
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            kinds = {"Content-Type": "application/json", "Content-Length": str(len(body))}
            for name, value in {**kinds, **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) - reply.cut])
            self.close_connection = self.close_connection or reply.cut > 0

        def log_message(self, *details: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *details: Any) -> None:
            """A client that went away is no matter."""

    server = Server(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def by_page(rows: Sequence[Any], size: int, first: int = 1) -> Callable[[Request], Reply]:
    """`?page=N` of `size` rows, as {"data": {"items": [...]}, "total": ...}."""

    def answer(asked: Request) -> Reply:
        start = (int(asked.query.get("page", first)) - first) * size
        return Reply({"data": {"items": rows[start : start + size]}, "total": len(rows)})

    return answer


def by_offset(rows: Sequence[Any], size: int) -> Callable[[Request], Reply]:
    """`?offset=N&limit=M`, never more than `size` rows, as a bare list."""

    def answer(asked: Request) -> Reply:
        start, wanted = int(asked.query.get("offset", 0)), int(asked.query.get("limit", size))
        return Reply(rows[start : start + min(size, wanted)])

    return answer


def by_cursor(rows: Sequence[Any], size: int) -> Callable[[Request], Reply]:
    """`?cursor=cN`; the next one stands in `meta.next` and is null at the end."""

    def answer(asked: Request) -> Reply:
        start = int(asked.query.get("cursor", "c0")[1:])
        after = start + size
        follows = f"c{after}" if after < len(rows) else None
        return Reply({"rows": rows[start:after], "meta": {"next": follows, "count": len(rows)}})

    return answer


def by_link(rows: Sequence[Any], size: int) -> Callable[[Request], Reply]:
    """A `Link` header names the next page, by a relative address."""

    def answer(asked: Request) -> Reply:
        start = int(asked.query.get("from", 0))
        after = start + size
        link = {"Link": f'<?from={after}&key=hidden>; rel="next", </x>; rel="last"'}
        return Reply(rows[start:after], headers=link if after < len(rows) else {})

    return answer
