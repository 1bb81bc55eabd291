"""What goes wrong with a request, as RFC 9457 problem documents.

A document names fields and limits, never a value of the request and never a line of our code.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from mlray.errors import EXAMPLES

CONTENT_TYPE = b"application/problem+json"
_NAME_CHARS = 120


class Problem(Exception):  # noqa: N818  (the RFC's word)
    """An answer that is not the one asked for.

    Args:
        status: HTTP status code, 4xx or 5xx.
        kind: short word that programs can rely on; becomes the document's `type`.
        title: what this kind of problem is, the same each time.
        detail: what was wrong this time and what to do.
        fields: names of the columns concerned; at most five are listed.
        headers: further headers, such as Allow.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        title: str,
        detail: str,
        fields: Sequence[str] = (),
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ):
        super().__init__(title)
        self.status, self.kind, self.title, self.detail = status, kind, title, detail
        self.fields, self.headers = fields, headers

    def document(self, request_id: str) -> bytes:
        """The problem document as JSON bytes."""
        document: dict[str, object] = {
            "type": f"urn:mlray:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.fields:
            document["fields"] = [shown(name) for name in self.fields[:EXAMPLES]]
        document["request_id"] = request_id
        return orjson.dumps(document)


def shown(name: object) -> str:
    """A field name fit for an answer: a hostile client may have sent a megabyte of it.

    >>> shown("distance"), len(shown("x" * 1000))
    ('distance', 120)
    """
    text = str(name)
    return text if len(text) <= _NAME_CHARS else text[: _NAME_CHARS - 3] + "..."


def named(names: Sequence[object]) -> str:
    """At most five names for a sentence.

    >>> named(["a", "b"]), named([str(n) for n in range(7)])
    ('`a`, `b`', '`0`, `1`, `2`, `3`, `4` and 2 more')
    """
    more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
    return ", ".join(f"`{shown(n)}`" for n in names[:EXAMPLES]) + more


def not_found() -> Problem:
    return Problem(
        404, "not-found", "No such address", "This path serves nothing; GET / lists what does."
    )


def method_not_allowed(allowed: str) -> Problem:
    return Problem(
        405,
        "method",
        "Method not allowed",
        f"This path answers {allowed}.",
        headers=((b"allow", allowed.encode()),),
    )


def too_large(limit_bytes: int) -> Problem:
    return Problem(
        413,
        "too-large",
        "Request too large",
        f"A body may have {limit_bytes} bytes; send fewer rows per request"
        " or raise serving.max_body_bytes.",
        headers=((b"connection", b"close"),),
    )


def too_many_rows(limit: int) -> Problem:
    return Problem(
        413,
        "too-many-rows",
        "Too many rows",
        f"A request may have {limit} rows; split it or raise serving.max_rows.",
    )


def too_slow(limit_s: float) -> Problem:
    return Problem(
        408,
        "too-slow",
        "Request body did not arrive",
        f"The whole body must arrive within {limit_s:g} s.",
        headers=((b"connection", b"close"),),
    )


def media_type() -> Problem:
    return Problem(
        415,
        "media-type",
        "Unsupported media type",
        "Send JSON in UTF-8, uncompressed, with the header `content-type: application/json`.",
    )


def broken_json(detail: str) -> Problem:
    return Problem(400, "json", "Body is not JSON", detail)


def schema(detail: str, fields: Sequence[str] = ()) -> Problem:
    return Problem(422, "schema", "Rows do not fit the model's schema", detail, fields)


def not_ready() -> Problem:
    return Problem(
        503,
        "not-ready",
        "No model is loaded yet",
        "Try again in a moment; GET /health/ready says when.",
        headers=((b"retry-after", b"1"),),
    )


def internal() -> Problem:
    return Problem(
        500,
        "internal",
        "The service failed on this request",
        "The service's log has more under this request_id.",
    )
