"""JSON from an HTTP API: paced, tried again where that may help, and told clearly where not."""

from __future__ import annotations

import math
import random
import re
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urljoin, urlsplit, urlunsplit

from mlray.config.fields import duration_s
from mlray.config.rows import RestSource, address_shown
from mlray.errors import ConfigError, InputError

SHOWN_CHARS = 80
"""So many characters of an answer stand in a message."""
_AGAIN = {408, 425, 429}
_REDIRECTS = {301, 302, 303, 307, 308}
_MOST_REDIRECTS = 5
_FIRST_WAIT_S, _LONGEST_BACK_OFF_S = 0.5, 60.0
_LONGEST_ASKED_S = 300.0
"""An API that asks us to wait longer is not waited for."""
_CHUNK_BYTES = 1 << 16
_SECRET_CHARS = 4
"""Shorter values are replaced nowhere: they occur by chance."""


@dataclass(frozen=True)
class Answer:
    """A whole answer in JSON."""

    value: Any
    link: str | None
    """Address of the next page in the `Link` header."""
    etag: str | None


@dataclass(frozen=True)
class _Failed:
    """A request that may go better when it is tried again."""

    reason: str
    seen: str | None = None
    """The first characters of the answer."""
    wait_s: float | None = None
    """As the server asked."""
    do: str = "see whether the API is well, and run again; or raise `retries` or `timeout`"


@dataclass
class Client:
    """Sends the requests of one task.

    `rate` holds over all tasks without their talking to each other: the wall clock is cut into
    slots of 1/rate seconds, of which every `lanes`-th belongs to this lane, and a request starts
    at the start of a slot of its lane.
    """

    name: str
    """Of the source."""
    source: RestSource
    lane: int = 0
    lanes: int = 1
    _last_slot: int = field(default=-1, repr=False)
    _pool: Any = field(default=None, repr=False)

    def get(
        self, address: str, query: Mapping[str, Any], shown: str, *, end_ok: bool = False
    ) -> Answer | None:
        """The answer to a GET request; None for 404 if `end_ok`.

        Args:
            address: may have a query of its own, which `query` adds to.
            query: parameters.
            shown: the address as messages name it.
            end_ok: whether 404 only means that there are no more pages.

        Raises:
            InputError: the API refuses, is not there, does not answer in JSON, or failed
                `retries` times after the first.
        """
        url, attempt = with_query(address, query), 0
        while isinstance(outcome := self._once(url, shown, end_ok), _Failed):
            failed, attempt = outcome, attempt + 1
            if attempt > self.source.retries or (failed.wait_s or 0) > _LONGEST_ASKED_S:
                break
            time.sleep(_pause_s(attempt, failed.wait_s))
        else:
            return outcome
        tried = f"{failed.reason} (tried {attempt} time{'s' if attempt > 1 else ''})"
        raise self._error(shown, tried, failed.seen, failed.do)

    def _once(self, url: str, shown: str, end_ok: bool) -> Answer | _Failed | None:
        from urllib3 import exceptions

        deadline = time.monotonic() + duration_s(self.source.timeout)
        try:
            for _ in range(_MOST_REDIRECTS):
                self._await_turn()
                response = self._open().request(
                    "GET",
                    url,
                    headers=_headers(self.source),
                    preload_content=False,
                    redirect=False,
                    retries=False,
                )
                body = _body(response, deadline)
                if response.status not in _REDIRECTS:
                    return self._judged(response, body, shown, end_ok)
                url = self._redirected(url, response.headers.get("Location", ""), shown)
        except exceptions.NewConnectionError as error:  # first: urllib3 calls it a timeout too
            return _Failed("cannot be reached", self._clean(str(error)))
        except (exceptions.TimeoutError, TimeoutError):
            return _Failed(f"did not answer within {self.source.timeout}")
        except exceptions.LocationValueError:
            raise ConfigError(f"sources.{self.name}.url is no address", value=shown) from None
        except exceptions.SSLError as error:
            raise self._error(shown, "is not trusted", str(error), "check `url`") from None
        except exceptions.ProtocolError as error:
            return _Failed("cut the answer off", type(error).__name__)
        except exceptions.HTTPError as error:
            return _Failed("cannot be read", self._clean(str(error)))
        raise self._error(shown, "sends us on again and again", None, "check `url`")

    def _judged(
        self, response: Any, body: bytes, shown: str, end_ok: bool
    ) -> Answer | _Failed | None:
        status = int(response.status)
        seen = self._clean(_start(body))
        if status in _AGAIN or status >= 500:
            asked = _asked_s(response.headers.get("Retry-After"))
            wait = f" and asks to wait {asked:,.0f} s" if asked else ""
            what = f"answered {_worded(response)}{wait}"
            return _Failed(what, seen, asked, _SLOWER if status == 429 else _Failed.do)
        if status == 404 and end_ok:
            return None
        if status != 200:
            what, do = _REFUSALS.get(status, ("answered", "check `url` and `parameters`"))
            raise self._error(shown, f"{what} {_worded(response)}", seen, do)
        return self._parsed(response, body, shown, seen)

    def _parsed(self, response: Any, body: bytes, shown: str, seen: str) -> Answer | _Failed:
        import orjson

        text = body.removeprefix(b"\xef\xbb\xbf")
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            if "html" in response.headers.get("Content-Type", "") or text.lstrip()[:1] == b"<":
                raise self._error(
                    shown,
                    "answered HTML, not JSON",
                    seen,
                    "check `url`: this may be a page for people or for logging in; set `token` or"
                    " `headers` if the API wants them",
                ) from None
            where = re.sub(r".*: (line \d+)", r"\1", str(error))
            return _Failed(f"answered broken JSON ({where}, {len(body):,} bytes)", seen)
        return Answer(value, _next_link(response), response.headers.get("ETag"))

    def etag(self, address: str, query: Mapping[str, Any]) -> str | None:
        """What the server calls the present content; None if it does not say."""
        from urllib3 import exceptions

        try:
            self._await_turn()
            response = self._open().request(
                "HEAD", with_query(address, query), headers=_headers(self.source), retries=False
            )
        except exceptions.HTTPError:
            return None  # reading tells what is wrong, and tries again
        found = response.headers.get("ETag") if response.status == 200 else None
        return None if found is None else str(found)

    def _redirected(self, url: str, to: str, shown: str) -> str:
        target = urljoin(url, to)
        if not same_host(url, target):
            raise self._error(
                shown,
                "sends us on to another host, which our secrets are not for",
                address_shown(target),
                "set `url` to that address if you trust it",
            )
        return target

    def _await_turn(self) -> None:
        if self.source.rate is None:
            return
        now = time.time()
        slot = next_slot(now, self.source.rate, self.lane, self.lanes, self._last_slot)
        self._last_slot = slot
        time.sleep(max(0.0, slot / self.source.rate - now))

    def _open(self) -> Any:
        if self._pool is None:
            import urllib3

            timeout = urllib3.Timeout(total=duration_s(self.source.timeout))
            parts = urlsplit(self.source.url)
            proxy = urllib.request.getproxies().get(parts.scheme)
            if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
                self._pool = urllib3.ProxyManager(proxy, timeout=timeout)
            else:
                self._pool = urllib3.PoolManager(timeout=timeout)
        return self._pool

    def _clean(self, text: str) -> str:
        return without_secrets(text, self.source)[:SHOWN_CHARS]

    def _error(self, shown: str, what: str, seen: str | None, do: str) -> InputError:
        who = f"{shown} (source `{self.name}`)"
        return InputError(f"{who} {what}", value=seen and self._clean(seen), do=do)


_SLOWER = "set `rate` below the API's limit, or raise `retries`"
_NO_ENTRY = (
    "refused us:",
    "check `token` or `headers`: is the secret right, still valid, and allowed to read this?",
)
_NOT_THERE = ("is not there:", "check `url`")
_REFUSALS = {401: _NO_ENTRY, 403: _NO_ENTRY, 404: _NOT_THERE, 410: _NOT_THERE}


def next_slot(now: float, rate: float, lane: int, lanes: int, last: int) -> int:
    """Number of the first slot of a lane that has not begun, and is behind the last one used.

    A slot k begins at k / rate seconds since 1970 and belongs to lane k % lanes.

    >>> next_slot(10.01, rate=2, lane=1, lanes=2, last=-1)
    21
    >>> next_slot(10.01, rate=2, lane=1, lanes=2, last=21)
    23
    """
    first = max(math.ceil(now * rate), last + 1)
    return first + (lane - first) % lanes


def with_query(address: str, query: Mapping[str, Any]) -> str:
    """An address with more query parameters; one that it has already is replaced.

    >>> with_query("http://host/rows?page=1&key=a", {"page": 2, "all": True, "none": None})
    'http://host/rows?key=a&page=2&all=true'
    """
    parts = urlsplit(address)
    kept = [(k, v) for k, v in parse_qsl(parts.query, True) if k not in query]
    added = [(k, one) for k, v in query.items() for one in _texts(v)]
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, urlencode(kept + added), ""))


def same_host(one: str, other: str) -> bool:
    """Whether secrets for `one` may be sent to `other`: the same host, and not less protected."""
    a, b = urlsplit(one), urlsplit(other)
    plain = a.scheme == "https" and b.scheme != "https"
    return a.hostname == b.hostname and not plain and b.scheme in ("http", "https")


def without_secrets(text: str, source: RestSource) -> str:
    """A text without the values that the project file sends along."""
    parts = urlsplit(source.url)
    values = [v.get_secret_value() for v in source.headers.values()]
    values += [source.token.get_secret_value()] if source.token else []
    values += [unquote(parts.password or "")] + [v for _, v in parse_qsl(parts.query)]
    values += [one for v in source.parameters.values() for one in _texts(v)]
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SECRET_CHARS:
            text = text.replace(value, "***")
    return text


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return [text for one in value for text in _texts(one)]
    return [str(value).lower() if isinstance(value, bool) else str(value)]


def _headers(source: RestSource) -> dict[str, str]:
    import urllib3

    given = {name: value.get_secret_value() for name, value in source.headers.items()}
    parts = urlsplit(source.url)
    if source.token:
        given["Authorization"] = f"Bearer {source.token.get_secret_value()}"
    elif parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        given |= urllib3.make_headers(basic_auth=pair)
    common = {"Accept": "application/json", "Accept-Encoding": "gzip, deflate"}
    return {**common, "User-Agent": "mlray", **given}


def _body(response: Any, deadline: float) -> bytes:
    chunks = []
    for chunk in response.stream(_CHUNK_BYTES, decode_content=True):
        chunks.append(chunk)
        if time.monotonic() > deadline:  # a server that sends a byte now and then
            response.close()
            raise TimeoutError
    return b"".join(chunks)


def _start(body: bytes) -> str:
    return " ".join(body[: 4 * SHOWN_CHARS].decode("utf-8", "replace").split())


def _worded(response: Any) -> str:
    return f"{response.status} {response.reason or ''}".strip()


def _next_link(response: Any) -> str | None:
    """Address with rel="next" in the `Link` header (RFC 8288)."""
    for part in re.split(r",\s*(?=<)", response.headers.get("Link", "")):
        match = re.match(r"<([^>]*)>(.*)", part)
        if match and re.search(r';\s*rel="?(?:[^"]*\s)?next\b', match[2]):
            return match[1]
    return None


def _asked_s(header: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for: a number, or a date.

    >>> _asked_s("7"), _asked_s(None), _asked_s("Thu, 01 Jan 1970 00:00:00 GMT")
    (7.0, None, 0.0)
    """
    if header is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", header.strip()):
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def _pause_s(attempt: int, asked_s: float | None) -> float:
    """Exponential back-off, half of it by chance so that tasks do not come back all at once."""
    longest = min(_LONGEST_BACK_OFF_S, _FIRST_WAIT_S * 2 ** (attempt - 1))
    pause = longest / 2 + random.uniform(0, longest / 2)
    return pause if asked_s is None else asked_s + random.uniform(0, _FIRST_WAIT_S / 2)
