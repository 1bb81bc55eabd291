"""From pieces to rows: every row has its place, readable or not."""

from __future__ import annotations

from functools import partial

import pyarrow as pa
import pytest

from mlray.errors import InputError
from mlray.sources import reading
from mlray.sources.reading import Aside, Piece, marked, opened, with_unreadable

SCHEMA = pa.schema({"a": pa.int64(), "l": pa.list_(pa.int64())})


def table(*values: int) -> pa.Table:
    return pa.table({"a": list(values), "l": [[v] for v in values]}, schema=SCHEMA)


def aside(*places: int) -> list[Aside]:
    return [Aside(place, "why", b"%d" % place) for place in places]


def piece(*tables: pa.Table, origin: str = "o", rows: int | None = None, size: int = 0) -> Piece:
    return Piece(partial(iter, tables), origin, rows=rows, size_bytes=size)


def test_unreadable_rows_stand_between_the_readable_ones():
    placed, after = with_unreadable(table(11, 13), 10, aside(10, 12, 14, 15))
    assert placed["a"].to_pylist() == [None, 11, None, 13]
    assert placed[reading.RAW].to_pylist() == [b"10", None, b"12", None]
    assert placed["l"].to_pylist() == [None, [11], None, [13]]
    assert [row.position for row in after] == [14, 15]
    rest, none = with_unreadable(SCHEMA.empty_table(), 14, after, last=True)
    assert rest[reading.RAW].to_pylist() == [b"14", b"15"]
    assert not none


def test_a_table_without_unreadable_rows_stays_as_it_is():
    given = table(1, 2)
    assert with_unreadable(given, 0, aside(2))[0] is given
    assert marked(given, {}) is given


def test_marked_rows_lose_their_values_and_others_keep_their_reasons():
    placed, _ = with_unreadable(table(0, 2), 0, aside(1))
    both = marked(placed, {2: ("misfit", b"raw")})
    assert both["a"].to_pylist() == [0, None, None]
    assert both[reading.UNREADABLE].to_pylist() == [None, "why", "misfit"]
    assert both[reading.RAW].to_pylist() == [None, b"1", b"raw"]


def test_small_neighbours_share_a_task_and_pieces_of_unknown_size_do_not():
    sizes = [1, 1, 1, 0, 0, 1, 9, 1]
    tasks = reading._tasks([piece(origin=str(i), size=size) for i, size in enumerate(sizes)], 3)
    assert [[p.origin for p in t] for t in tasks] == [
        ["0", "1", "2"],
        ["3"],
        ["4"],
        ["5"],
        ["6"],
        ["7"],
    ]


def test_a_short_read_is_refused(ray_cluster, collect):
    short = opened("rows", SCHEMA, (), [piece(table(1), rows=2)], kind="test")
    with pytest.raises(InputError, match="gave 1 of the 2 rows of o"):
        short.table()
    with pytest.raises(InputError, match="gave 1 of the 2 rows of o"):
        collect(short.dataset())


def test_finer_pieces_are_cut_when_all_is_read_and_not_for_the_head(ray_cluster, collect):
    calls = []

    def finer() -> list[Piece]:
        calls.append(1)
        return [piece(table(1)), piece(table(2))]

    source = opened("rows", SCHEMA, (), [piece(table(1), table(2))], kind="test", finer=finer)
    assert source.head(1)["a"].to_pylist() == [1]
    assert source.table()["a"].to_pylist() == [1, 2]
    assert not calls
    assert collect(source.dataset(traced=True))["a"].to_pylist() == [1, 2]
    assert collect(source.dataset())["a"].to_pylist() == [1, 2]
    assert calls == [1]
