"""HTTP APIs that answer in JSON, page by page.

The first pages are read when a source is opened: they settle the columns, and tell how many rows
there are where the API says so. Then every task asks for pages of its own.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from mlray.config.rows import RestSource
from mlray.errors import InputError
from mlray.sources.kinds.paging import Page, Walk, digest, pages_of
from mlray.sources.kinds.records import Fields, as_json, refuse, set_aside
from mlray.sources.kinds.web import Client
from mlray.sources.opened import Opened, SourceFile
from mlray.sources.reading import ORIGIN, POSITION, Piece, marked, opened

_SAMPLE_ROWS = 200
_SAMPLE_PAGES = 3
_SAMPLE_WALKS = 3
"""Of so many values of `each` the first pages are looked at."""


@dataclass(frozen=True)
class _Task:
    """Some walks, one after another. Travels to the task that reads them."""

    name: str
    source: RestSource
    fields: Fields
    walks: tuple[Walk, ...]
    lane: int
    lanes: int

    def __call__(self) -> Iterator[pa.Table]:
        """One table a page. Runs in a Ray worker."""
        client = Client(self.name, self.source, self.lane, self.lanes)
        for walk in self.walks:
            for page in pages_of(client, walk):
                if page.rows:
                    yield self._table(page)

    def _table(self, page: Page) -> pa.Table:
        table, misfits = self.fields.table(page.rows)
        if misfits and self.source.unreadable == "stop":
            row = min(misfits)
            raise refuse(self.name, f"{page.shown}, row {row}", misfits[row])
        table = marked(table, set_aside(misfits, lambda row: as_json(page.rows[row])))
        origin = pa.DictionaryArray.from_arrays(np.zeros(len(table), np.int32), [page.shown])
        table = table.append_column(ORIGIN, origin)
        return table.append_column(POSITION, pa.array(np.arange(len(table))))


def open_source(name: str, source: RestSource, folder: str) -> Opened:
    """Open an API as a source.

    Raises:
        InputError: it does not answer, refuses us, or does not answer as declared.
    """
    client = Client(name, source)
    walks = [Walk(fixed) for fixed in _each(source)]
    began = time.monotonic()
    sample = [p for w in walks[:_SAMPLE_WALKS] for p in _first_pages(client, w)]
    rows = [row for page in sample for row in page.rows]
    if not rows and len(walks) <= _SAMPLE_WALKS:
        raise InputError(
            f"source `{name}` has no rows", value=sample[0].shown, do="check `url`, `parameters`"
        )
    fields = Fields.settled(name, source, rows)
    if len(walks) == 1:
        walks = _stretches(source, sample[0])
    answer_s = (time.monotonic() - began) / len(sample)
    groups = _grouped(walks, _lanes(source, len(walks), answer_s))
    pieces = [
        Piece(
            _Task(name, source, fields, group, lane, len(groups)),
            source.where,
            rows=sum(w.rows or 0 for w in group) if group[0].pages else None,
        )
        for lane, group in enumerate(groups)
    ]
    shown = files(name, source, folder)
    whole = opened(name, fields.schema, shown, pieces, kind="REST")
    return replace(whole, head=_Head(fields, rows, whole))


def files(name: str, source: RestSource, folder: str) -> tuple[SourceFile, ...]:
    """What stands for the rows: the server's ETag of a single answer.

    Nothing cheap tells whether pages have changed, so those count as new every time.
    """
    found = None
    if source.pages is None and not source.each:
        found = Client(name, source).etag(source.url, source.parameters)
    read_at = datetime.now(UTC).isoformat(timespec="seconds")
    return (SourceFile(source.where, 0, found or f"read {read_at} {uuid.uuid4().hex[:8]}"),)


@dataclass(frozen=True)
class _Head:
    """The first rows, of the pages that were read anyway if those are enough."""

    fields: Fields
    rows: Sequence[Any]
    whole: Opened

    def __call__(self, rows: int) -> pa.Table:
        if len(self.rows) < rows:
            return self.whole.head(rows)
        table, misfits = self.fields.table(self.rows[: rows + _SAMPLE_ROWS])
        readable = pa.array([n not in misfits for n in range(len(table))])
        return table.filter(readable).slice(0, rows)


# --- which pages there are ----------------------------------------------------------------------


def _each(source: RestSource) -> list[dict[str, Any]]:
    if not source.each:
        return [{}]
    ((parameter, values),) = source.each.items()
    return [{parameter: value} for value in values]


def _first_pages(client: Client, walk: Walk) -> Iterator[Page]:
    """Pages until there are enough rows to see what they hold."""
    rows = 0
    for page in islice(pages_of(client, walk), _SAMPLE_PAGES):
        rows += len(page.rows)
        yield page
        if rows >= _SAMPLE_ROWS:
            return


def _stretches(source: RestSource, first: Page) -> list[Walk]:
    """The one sequence, cut in stretches for several tasks if its number of rows is known."""
    size, total = len(first.rows), first.total
    if source.pages is None or source.pages.by in ("cursor", "link") or not total or not size:
        return [Walk({})]
    pages = math.ceil(total / size)
    step = math.ceil(pages / min(pages, source.tasks))
    return [
        Walk(
            {},
            number,
            min(step, pages - number),
            size,
            min(step * size, total - number * size),
            frozenset([digest(first.rows)]) if number else frozenset(),
        )
        for number in range(0, pages, step)
    ]


def _lanes(source: RestSource, walks: int, answer_s: float) -> int:
    """How many tasks: as many as may ask at once, and no more than `rate` can keep busy.

    Little's law: requests under way = requests per second x seconds that each takes.
    """
    wanted = min(walks, source.tasks)
    if source.rate is None:
        return wanted
    return min(wanted, 1 + math.ceil(source.rate * answer_s))


def _grouped(walks: Sequence[Walk], lanes: int) -> list[tuple[Walk, ...]]:
    """Neighbours together, in order, in so many groups of nearly one size."""
    cuts = [len(walks) * lane // lanes for lane in range(lanes + 1)]
    return [tuple(walks[a:b]) for a, b in pairwise(cuts)]
