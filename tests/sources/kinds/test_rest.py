"""HTTP APIs: paging, throttling, failures, and what is said about them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlray.config import Project
from mlray.errors import ConfigError, InputError
from mlray.sources import open_rows, sample
from mlray.sources.kinds import files, open_source
from mlray.sources.reading import ORIGIN, POSITION, RAW, UNREADABLE, visible
from tests.services.api import Api, Reply, Request, api, by_cursor, by_link, by_offset, by_page

ROWS = [{"id": i, "place": {"land": "NL", "x": i / 4}, "y": "ab"[i % 2]} for i in range(25)]
FLAT = [{"id": i, "place.land": "NL", "place.x": i / 4, "y": "ab"[i % 2]} for i in range(25)]
SECRET = "s3cr3t-token"
PAGED = {"by": "page", "total": "total"}


@pytest.fixture
def served() -> Iterator[Api]:
    with api(by_page(ROWS, 10)) as server:
        yield server


@pytest.fixture
def read(project: Callable[..., Project], served: Api) -> Callable[..., list[dict[str, Any]]]:
    """All rows of the API in this process; keyword arguments are fields of the source."""

    def rows(**fields: Any) -> list[dict[str, Any]]:
        given = {"kind": "rest", "url": f"{served.url}/rows", "retries": 2, "timeout": "2s"}
        described = project(rows={**given, **fields})
        table = open_source("rows", described.sources.rows, described.folder).table()
        return list(table.to_pylist())

    return rows


def refused(read: Callable[..., Any], **fields: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(token=SECRET, **fields)
    text = str(caught.value)
    assert SECRET not in text
    assert caught.value.do
    return text


@pytest.mark.parametrize(
    ("answer", "fields"),
    [
        (by_page(ROWS, 10), {"records": "data.items", "pages": {"by": "page"}}),
        (by_page(ROWS, 10), {"records": "data.items", "pages": PAGED}),
        (by_page(ROWS, 10, 0), {"records": "data.items", "pages": {**PAGED, "start": 0}}),
        (by_offset(ROWS, 7), {"pages": {"by": "offset", "size": 100,
                                        "size_parameter": "limit"}}),
        (by_cursor(ROWS, 10), {"records": "rows", "pages": {"by": "cursor", "next": "meta.next"}}),
        (by_cursor(ROWS, 10), {"records": "rows", "pages": {"by": "cursor", "next": "meta.next",
                                                            "total": "meta.count"}}),
        (by_link(ROWS, 10), {"pages": {"by": "link"}}),
        (by_offset(ROWS, 100), {}),
    ],
    ids=["page", "page of a total", "page from 0", "offset", "cursor", "cursor of a total", "link",
         "one answer"],
)  # fmt: skip
def test_every_way_of_paging_gives_all_rows_once(read, served, answer, fields):
    served.answer = answer
    assert read(**fields) == FLAT


def test_pages_past_the_end_may_be_not_there(read, served):
    inner = by_page(ROWS, 10)
    served.answer = lambda a: inner(a) if int(a.query["page"]) < 4 else Reply({}, 404)
    assert read(records="data.items", pages={"by": "page"}) == FLAT


def test_a_next_address_in_the_answer_is_followed(read, served):
    def answer(asked: Request) -> Reply:
        start = int(asked.query.get("from", 0))
        after = f"{served.url}/more?from={start + 10}" if start < 20 else None
        return Reply({"rows": ROWS[start : start + 10], "links": {"next": after}})

    served.answer = answer
    assert read(records="rows", pages={"by": "link", "next": "links.next"}) == FLAT


def test_one_parameter_with_many_values_is_a_sequence_of_pages_each(read, served):
    def answer(asked: Request) -> Reply:
        of_land = [{"id": i, "land": asked.query["land"]} for i in range(15)]
        return by_page(of_land, 10)(asked)

    served.answer = answer
    rows = read(records="data.items", pages=PAGED, each={"land": ["NL", "BE", "LU"]})
    assert [r["land"] for r in rows] == ["NL"] * 15 + ["BE"] * 15 + ["LU"] * 15


def test_rows_know_their_page_and_secrets_are_sent_and_not_shown(
    project, served, ray_cluster, collect
):
    served.answer = by_page([*ROWS[:12], "no object", *ROWS[13:]], 10)
    described = project(
        rows={"kind": "rest", "url": f"{served.url}/rows?key={SECRET}", "records": "data.items",
              "pages": PAGED, "token": SECRET, "headers": {"X-Key": SECRET},
              "unreadable": "quarantine"}
    )  # fmt: skip
    rows = open_rows(described, traced=True)
    table = collect(rows.dataset)
    assert Counter(table[ORIGIN].to_pylist()) == {
        f"{served.url}/rows?page=1": 10,
        f"{served.url}/rows?page=2": 10,
        f"{served.url}/rows?page=3": 5,
    }
    assert sorted(table[POSITION].to_pylist()[:10]) == list(range(10))
    (aside,) = table.filter(table[UNREADABLE].is_valid()).to_pylist()
    assert aside[RAW] == b'"no object"'
    assert aside[UNREADABLE] == "the record is not a JSON object"
    assert (aside[ORIGIN], aside[POSITION]) == (f"{served.url}/rows?page=2", 2)
    asked = served.requests[0]
    assert asked.headers["Authorization"] == f"Bearer {SECRET}"
    assert (asked.headers["X-Key"], asked.query["key"]) == (SECRET, SECRET)
    assert SECRET not in str(table.to_pydict())
    assert SECRET not in str(rows.inputs)


def test_200k_rows_in_parallel_tasks_equal_the_same_rows_from_parquet(
    project, served, tmp_path, ray_cluster, collect
):
    count, size = 200_000, 10_000
    rows = [
        {"id": i, "at": f"2024-01-01T00:00:{i % 60:02d}Z", "v": i / 8, "y": "ab"[i % 2]}
        for i in range(count)
    ]
    table = pa.Table.from_pylist(rows)
    table = table.set_column(1, "at", table["at"].cast(pa.timestamp("us", tz="UTC")))
    pq.write_table(table, tmp_path / "same.parquet")
    pages, busy, together = by_page(rows, size), threading.Semaphore(0), threading.Event()
    asked_for: list[Request] = []

    def answer(asked: Request) -> Reply:
        """The first request settles the schema; the second waits for a third."""
        asked_for.append(asked)
        if len(asked_for) == 2 and busy.acquire(timeout=90):
            together.set()
        elif len(asked_for) == 3:
            busy.release()
        return pages(asked)

    served.answer = answer
    described = project(
        rows={"kind": "rest", "url": served.url, "records": "data.items", "pages": PAGED,
              "timeout": "2m"}
    )  # fmt: skip
    read = collect(open_rows(described).dataset)
    same = collect(open_rows(project(rows={"path": "same.parquet"})).dataset)
    assert visible(read).equals(visible(same))
    assert len(served.requests) == count // size + 1
    assert together.is_set(), "several tasks ask at the same time"


def test_the_rate_holds_over_all_tasks(project, served, ray_cluster, collect):
    rate = 20
    described = project(
        rows={"kind": "rest", "url": served.url, "records": "data.items", "pages": PAGED,
              "rate": rate, "tasks": 4}
    )  # fmt: skip
    inner = by_page([{"id": i} for i in range(160)], 5)

    def slow(asked: Request) -> Reply:
        threading.Event().wait(0.1)
        return inner(asked)

    served.answer = slow
    assert collect(open_rows(described).dataset).num_rows == 160
    times = sorted(r.at for r in served.requests)
    assert len(times) > 32
    # A request starts at the start of a slot; scheduling may delay it by some of the slot.
    for start in times:
        assert sum(start <= t < start + 1 for t in times) <= rate + 1


# --- failures that pass -------------------------------------------------------------------------


def test_throttling_errors_and_cut_answers_are_tried_again(read, served):
    inner = by_page(ROWS, 5)
    failures = {
        1: Reply({}, 429, {"Retry-After": "0"}),
        3: Reply({}, 503, {"Retry-After": "Thu, 01 Jan 2015 00:00:00 GMT"}),
        5: None,
        7: Reply(b"x" * 1000, cut=500),
        9: Reply({}, 500),
        11: Reply(b'{"data": {"items": [{"id": 1'),
    }
    served.answer = lambda a: failures[a.number] if a.number in failures else inner(a)
    assert read(records="data.items", pages={"by": "page"}) == FLAT


def test_retry_after_is_waited_for(read, served):
    inner = by_offset(ROWS, 100)
    served.answer = lambda a: inner(a) if a.number else Reply({}, 429, {"Retry-After": "1"})
    assert read() == FLAT
    first, second = served.requests[:2]
    assert 1.0 <= second.at - first.at < 2.0


# --- failures that stay -------------------------------------------------------------------------


def test_429_for_ever_ends_with_what_to_do(read, served):
    served.answer = lambda a: Reply({"error": f"slow down {SECRET}"}, 429, {"Retry-After": "0"})
    text = refused(read)
    assert "answered 429 Too Many Requests (tried 3 times)" in text
    assert "set `rate` below the API's limit" in text
    assert len(served.requests) == 3


def test_an_api_that_asks_to_wait_for_an_hour_is_not_waited_for(read, served):
    served.answer = lambda a: Reply({}, 429, {"Retry-After": "3600"})
    assert "asks to wait 3,600 s (tried 1 time)" in refused(read)


def test_html_is_shown_by_its_start(read, served):
    page = f"<!doctype html><title>Log in</title>{SECRET}{'x' * 500}".encode()
    served.answer = lambda a: Reply(page, headers={"Content-Type": "text/html"})
    text = refused(read)
    assert "answered HTML, not JSON: <!doctype html><title>Log in</title>***xxx" in text
    assert len(text) < 500
    assert len(served.requests) == 1


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply({}, 401), "refused us: 401 Unauthorized"),
        (Reply({}, 403), "refused us: 403 Forbidden"),
        (Reply({}, 404), "is not there: 404 Not Found"),
        (Reply({"detail": "no such filter"}, 400), 'answered 400 Bad Request: {"detail": "no such'),
        (Reply(b"x" * 90, cut=50), "cut the answer off (tried 3 times)"),
        (Reply(b'{"a": '), "answered broken JSON (line 1 column 7 (char 6), 6 bytes)"),
        (None, "cut the answer off (tried 3 times)"),
        (Reply({}, 302, {"Location": "http://elsewhere.invalid/x?k=1"}), "another host"),
        (Reply({"items": []}), "is not a list of rows"),
        (Reply([]), "has no rows"),
        (Reply(["a", "b"]), "gave no record that is a JSON object"),
    ],
)
def test_what_does_not_pass_is_one_clear_error(read, served, reply, said):
    served.answer = lambda a: reply
    text = refused(read)
    assert said in text
    assert "source `rows`" in text


def test_a_wrong_path_of_records_names_what_is_there(read, served):
    text = refused(read, records="data.itms")
    assert "has no list of rows at `data.itms`" in text
    served.answer = by_cursor(ROWS, 5)
    assert "set `records: rows`?" in refused(read)


def test_a_server_that_drips_or_is_not_there_times_out(read, served):
    served.answer = lambda a: threading.Event().wait(0.6) and None
    text = refused(read, timeout="0.3s", retries=1)
    assert "did not answer within 0.3s (tried 2 times)" in text
    assert "cannot be reached" in refused(read, url="http://127.0.0.1:9/x", retries=0)


def test_pages_that_go_round_in_a_loop_are_found(read, served):
    by = {"by": "cursor", "next": "next"}
    served.answer = lambda a: Reply({"rows": [{"id": a.number}], "next": "always-this"})
    assert "names a next page that was read already" in refused(read, records="rows", pages=by)
    served.answer = lambda a: Reply(ROWS[:5])
    text = refused(read, pages={"by": "page"})
    assert "?page=2 (source `rows`) has the same rows as a page before it" in text
    served.answer = lambda a: Reply({"data": {"items": ROWS[:5]}, "total": 25})
    assert "go round in a loop" in refused(read, records="data.items", pages=PAGED)


def test_a_next_page_on_another_host_gets_none_of_our_secrets(read, served):
    served.answer = lambda a: Reply({"rows": ROWS[:3], "next": "http://elsewhere.invalid/?a=b"})
    text = refused(read, records="rows", pages={"by": "link", "next": "next"})
    assert "another host" in text
    assert "http://elsewhere.invalid/" in text


def test_a_short_read_is_refused_and_rows_that_came_since_are_left(read, served):
    full = by_page(ROWS, 10)

    def short(asked: Request) -> Reply:
        reply = full(asked)
        if asked.query["page"] == "2":
            reply.body["data"]["items"].pop()
        return reply

    served.answer = short
    text = refused(read, records="data.items", pages=PAGED)
    assert "?page=2 (source `rows`) has 9 rows in place of 10" in text

    served.requests.clear()
    grown = by_page([*ROWS, {"id": 25}], 10)
    served.answer = lambda a: grown(a) if a.number else full(a)
    assert read(records="data.items", pages=PAGED) == FLAT


def test_a_value_that_does_not_fit_names_page_and_field(read, served):
    served.answer = by_page([*ROWS[:24], {"id": "x24"}], 10)
    fields = {"records": "data.items", "pages": {**PAGED, "size": 10}}
    served.answer = by_page([{"id": i} for i in range(250)] + [{"id": "late"}], 100)
    text = refused(read, **fields)
    assert "?page=3, row 50: field `id` holds text where int64 is expected: 'late'" in text
    assert read(**fields, types={"id": "string"})[-1] == {"id": "late"}
    assert len(read(**fields, unreadable="quarantine")) == 250


def test_a_new_field_is_told_unless_the_columns_are_chosen(read, served):
    served.answer = by_page([{"id": i} for i in range(250)] + [{"id": 250, "new": 1}], 100)
    fields = {"records": "data.items", "pages": PAGED}
    assert "field `new` is not among the columns" in refused(read, **fields)
    assert read(**fields, columns=["id"])[-1] == {"id": 250}
    assert read(**fields, types={"new": "int64"})[-1] == {"id": 250, "new": 1}


def test_a_column_that_no_record_has_is_named(read):
    text = refused(read, records="data.items", pages=PAGED, columns=["id", "place.lnd"])
    assert "did you mean `place.land`?" in text


def test_what_stands_for_an_api_never_says_unchanged_wrongly(project, served):
    served.answer = lambda a: Reply(ROWS, headers={"ETag": '"v1"'})
    one = project(rows={"kind": "rest", "url": f"{served.url}/rows"})
    assert [f.modified for f in files("rows", one.sources.rows, "")] == ['"v1"']
    paged = project(rows={"kind": "rest", "url": f"{served.url}/rows", "pages": {"by": "page"}})
    first, second = (files("rows", paged.sources.rows, "")[0].modified for _ in range(2))
    assert first != second


def test_paging_that_cannot_be_is_refused_with_its_place(project):
    with pytest.raises(ConfigError, match=r"project.yaml:\d+:\d+.*`by: cursor` needs `next`"):
        project(rows={"kind": "rest", "url": "http://x", "pages": {"by": "cursor"}})
    with pytest.raises(ConfigError, match=r"sources\.rows\.each"):
        project(rows={"kind": "rest", "url": "http://x", "each": {"a": [1], "b": [2]}})
    with pytest.raises(ConfigError, match=r"sources\.rows\.url"):
        project(rows={"kind": "rest", "url": "rows/x"})


def test_the_first_rows_are_those_that_were_looked_at(project, served):
    described = project(
        rows={"kind": "rest", "url": served.url, "records": "data.items", "pages": PAGED}
    )
    assert sample(described, 5)["id"].to_pylist() == [0, 1, 2, 3, 4]
