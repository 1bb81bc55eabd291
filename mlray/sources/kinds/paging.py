"""Page after page of an HTTP API: what to ask for next, and whether what came can be true."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin

from mlray.config.rows import Pages, RestSource
from mlray.errors import InputError
from mlray.sources.kinds.records import as_json
from mlray.sources.kinds.web import (
    SHOWN_CHARS,
    Answer,
    Client,
    same_host,
    with_query,
    without_secrets,
)
from mlray.sources.opened import did_you_mean


@dataclass(frozen=True)
class Place:
    """A page, by what is asked for."""

    number: int
    """From 0, in its sequence."""
    query: Mapping[str, Any]
    address: str | None = None
    """Where the page lies, if an answer said so."""


@dataclass(frozen=True)
class Walk:
    """Pages one after another: a whole sequence, or a stretch of one whose length is known."""

    fixed: Mapping[str, Any]
    """Parameters of all its pages."""
    first: int = 0
    pages: int | None = None
    """So many pages, of `size` rows each and of `rows` together; None: until there are no more."""
    size: int = 0
    rows: int | None = None
    seen: frozenset[bytes] = frozenset()
    """Digests of pages that must not come again."""


@dataclass(frozen=True)
class Page:
    """The rows of one answer."""

    rows: list[Any]
    shown: str
    """Its address without secrets."""
    total: int | None
    """Rows in all, if the answer says so."""


def pages_of(client: Client, walk: Walk) -> Iterator[Page]:
    """The pages of a walk, in order.

    Raises:
        InputError: a page came again, is shorter than it must be, or there are not as many rows as
            the API said.
    """
    source = client.source
    numbered = source.pages is not None and source.pages.by in ("page", "offset")
    place: Place | None = first_place(source.pages, walk)
    seen, asked, total, count = set(walk.seen), set[Any](), walk.rows, 0
    while place is not None:
        shown = _shown(source, walk, place)
        answer = _asked(client, place, shown, end_ok=numbered and count > 0)
        if answer is None:
            break
        page = Page(_records(client, answer.value, shown), shown, _total(client, answer, shown))
        _refuse_again(client, page, seen)
        if walk.pages is not None:
            page = _exact(client, walk, place.number, page)
        total = page.total if total is None else total
        count += len(page.rows)
        yield page
        if numbered and (not page.rows or (total is not None and count >= total)):
            break
        place = following(client, walk, place, answer, count, shown)
        _refuse_same(client, place, shown, asked)
    if total is not None and count < total:
        raise _short(client, walk, count, total)


def _asked(client: Client, place: Place, shown: str, *, end_ok: bool) -> Answer | None:
    if place.address is not None:  # it holds all parameters already
        return client.get(place.address, {}, shown)
    query = {**client.source.parameters, **place.query}
    return client.get(client.source.url, query, shown, end_ok=end_ok)


def first_place(pages: Pages | None, walk: Walk) -> Place:
    """Where a walk begins."""
    query = dict(walk.fixed)
    if pages is None:
        return Place(0, query)
    if pages.size_parameter and pages.size:
        query[pages.size_parameter] = pages.size
    if pages.by in ("page", "offset"):
        query[_parameter(pages)] = _number(pages, walk.first, walk.first * walk.size)
    return Place(walk.first, query)


def following(
    client: Client, walk: Walk, place: Place, answer: Answer, count: int, shown: str
) -> Place | None:
    """The page after one; None if there is none.

    Args:
        client: of the walk.
        walk: it belongs to.
        place: of the page that was read last.
        answer: what came from there.
        count: rows of the walk so far.
        shown: the page, for messages.
    """
    pages, number = client.source.pages, place.number + 1
    if pages is None:
        return None
    if pages.by in ("page", "offset"):
        row = walk.first * walk.size + count
        return Place(number, {**place.query, _parameter(pages): _number(pages, number, row)})
    found = _looked_up(answer.value, pages.next) if pages.next else None
    if pages.by == "cursor":
        if found in (None, "", False):
            return None
        return Place(number, {**place.query, _parameter(pages): found})
    found = found or (answer.link if not pages.next else None)
    if not found:
        return None
    address = urljoin(place.address or client.source.url, str(found))
    if not same_host(client.source.url, address):
        raise InputError(
            f"{shown} (source `{client.name}`) names a next page on another host, which our"
            " secrets are not for",
            value=without_secrets(address.partition("?")[0], client.source),
            do="set `url` to that host if you trust it",
        )
    return Place(number, {}, address)


def _parameter(pages: Pages) -> str:
    return pages.parameter or pages.by


def _number(pages: Pages, page: int, row: int) -> int:
    if pages.by == "page":
        return page + (1 if pages.start is None else pages.start)
    return row + (pages.start or 0)


def _shown(source: RestSource, walk: Walk, place: Place) -> str:
    """Address of a page: with what we count ourselves, without what anybody else put in it."""
    pages = source.pages
    if pages is None:
        return with_query(source.where, walk.fixed)
    if pages.by in ("page", "offset"):
        query = {**walk.fixed, _parameter(pages): place.query[_parameter(pages)]}
        return with_query(source.where, query)
    return f"{with_query(source.where, walk.fixed)}#page={place.number + 1}"


# --- what an answer holds -----------------------------------------------------------------------

_ABSENT = object()


def _looked_up(value: Any, path: str | None) -> Any:
    """The value at dotted keys; None if it is not there."""
    found = _at(value, path)
    return None if found is _ABSENT else found


def _at(value: Any, path: str | None) -> Any:
    for key in path.split(".") if path else ():
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return _ABSENT
    return value


def _records(client: Client, value: Any, shown: str) -> list[Any]:
    path = client.source.records
    found = _at(value, path)
    if isinstance(found, list):
        return found
    who = f"{shown} (source `{client.name}`)"
    what = f"has no list of rows at `{path}`" if path else "is not a list of rows"
    top = list(value) if isinstance(value, dict) else []
    lists = [key for key in top if isinstance(value[key], list)]
    near = f"set `records: {lists[0]}`?" if lists else did_you_mean(path or "", top) if top else ""
    raise InputError(
        f"{who} {what}",
        value=without_secrets(as_json(value).decode(), client.source)[:SHOWN_CHARS],
        do=f"set `records` to where the rows lie; {near}",
    )


def _total(client: Client, answer: Answer, shown: str) -> int | None:
    path = client.source.pages.total if client.source.pages else None
    if path is None:
        return None
    found = _looked_up(answer.value, path)
    if isinstance(found, (int, str)) and str(found).isdigit():
        return int(found)
    raise InputError(
        f"{shown} (source `{client.name}`) says no number of rows at `{path}`",
        value=without_secrets(str(found), client.source)[:SHOWN_CHARS],
        do="correct `pages.total`, or leave it out",
    )


def digest(rows: Sequence[Any]) -> bytes:
    """What tells the rows of one page from those of another."""
    return hashlib.blake2b(as_json(rows), digest_size=16).digest()


def _refuse_again(client: Client, page: Page, seen: set[bytes]) -> None:
    """`InputError` for a page of the same rows as one before it."""
    if not page.rows:
        return
    found = digest(page.rows)
    if found in seen:
        parameter = _parameter(client.source.pages) if client.source.pages else ""
        raise InputError(
            f"{page.shown} (source `{client.name}`) has the same rows as a page before it:"
            " the pages go round in a loop",
            do=f"check `pages`: does the API know the parameter `{parameter}`?",
        )
    seen.add(found)


def _refuse_same(client: Client, place: Place | None, shown: str, asked: set[Any]) -> None:
    """`InputError` for a next page that was asked for already."""
    if place is None:
        return
    key = (place.address, tuple(map(str, place.query.items())))
    if key in asked:
        raise InputError(
            f"{shown} (source `{client.name}`) names a next page that was read already:"
            " the pages go round in a loop",
            do="check `pages.next`; else the API is broken",
        )
    asked.add(key)


def _exact(client: Client, walk: Walk, number: int, page: Page) -> Page:
    """The page with the rows that it must have: what came to the last one since is not taken."""
    left = (walk.rows or 0) - (number - walk.first) * walk.size
    wanted = min(walk.size, left)
    last = left <= walk.size
    if len(page.rows) < wanted or (len(page.rows) > wanted and not last):
        raise InputError(
            f"{page.shown} (source `{client.name}`) has {len(page.rows):,} rows in place of"
            f" {wanted:,}",
            do="its rows changed while they were read: run again; if it stays so, leave"
            " `pages.total` out",
        )
    return replace(page, rows=page.rows[:wanted])


def _short(client: Client, walk: Walk, count: int, total: int) -> InputError:
    where = with_query(client.source.where, walk.fixed)
    return InputError(
        f"{where} (source `{client.name}`) gave {count:,} of the {total:,} rows that it has",
        do="run again; if it stays so, check `pages` and `pages.total`",
    )
