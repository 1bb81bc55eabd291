"""SQLite, and databases through SQLAlchemy: the same shapes, on real files."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlray.config.rows import SqlSource
from mlray.errors import InputError
from mlray.sources import find, open_rows
from mlray.sources.kinds.sql import open_source

ROWS = 210_000


def shop() -> pa.Table:
    g = np.arange(1, ROWS + 1)
    return pa.table(
        {
            "id": g,
            "price": pa.array(np.round(g % 977 / 7, 2), mask=g % 13 == 0),
            "name": [f"name {n % 5000}" for n in g],
            "seen": pa.array(g % 10, mask=g < 100_000),
        }
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("shop") / "shop.db"
    rows = shop().to_pydict()
    connection = sqlite3.connect(path)
    connection.execute("create table trips (id integer, price real, name text, seen integer)")
    connection.executemany(
        "insert into trips values (?, ?, ?, ?)", zip(*rows.values(), strict=True)
    )
    connection.execute("create table named (key text primary key, y int) without rowid")
    connection.execute("insert into named values ('a', 1), ('b', 2)")
    connection.commit()
    connection.close()
    return path


@pytest.fixture
def opened(file):
    """Opens a source of the file; the relative address starts in its folder."""

    def make(url="sqlite:///shop.db", **fields):
        given = {"kind": "sql", "url": url, **fields}
        return open_source("rows", SqlSource.model_validate(given), str(file.parent))

    return make


@pytest.fixture
def values(tmp_path):
    """A source over one column `x` of such values, and `id`."""

    def make(*given, **fields):
        connection = sqlite3.connect(tmp_path / "v.db")
        connection.execute("drop table if exists v")
        connection.execute("create table v (id integer, x)")
        connection.executemany("insert into v values (?, ?)", enumerate(given))
        connection.commit()
        connection.close()
        section = {"kind": "sql", "url": "sqlite:///v.db", "table": "v", **fields}
        return open_source("rows", SqlSource.model_validate(section), str(tmp_path)).table()["x"]

    return make


def failed(opened, **fields) -> str:
    with pytest.raises(InputError) as caught:
        opened(**fields).table()
    return str(caught.value)


@pytest.mark.parametrize("extra", [{}, {"partition": "price"}, {"partition": "name", "tasks": 3}])
def test_a_table_of_sqlite_equals_the_same_rows_from_parquet(
    file, project, tmp_path, ray_cluster, collect, extra
):
    source = {"kind": "sql", "url": f"sqlite:///{file}", "table": "trips", **extra}
    rows = open_rows(project(rows=source))
    assert rows.dataset._logical_plan.dag is not None
    table = collect(rows.dataset)
    assert table.schema.equals(rows.schema)
    pq.write_table(shop(), tmp_path / "shop.parquet")
    expected = collect(open_rows(project(rows={"path": "shop.parquet"})).dataset)
    assert table.sort_by("id").combine_chunks().equals(expected.sort_by("id").combine_chunks())


def test_row_ids_are_read_in_ranges_and_in_order_without_a_partition(opened):
    source = opened(table="trips")
    at = source.dataset.__code__.co_freevars.index("pieces")
    pieces = source.dataset.__closure__[at].cell_contents
    assert len(pieces) == 5
    assert sum(piece.rows for piece in pieces) == ROWS
    assert source.table()["id"].to_pylist() == list(range(1, ROWS + 1))


def test_a_table_without_row_ids_and_a_query_are_read_whole(opened):
    assert opened(table="named").table().to_pydict() == {"key": ["a", "b"], "y": [1, 2]}
    few = opened(query="select id * 2 as twice from trips where id < 4;").table()
    assert few["twice"].to_pylist() == [2, 4, 6]


def test_a_column_whose_values_change_type_gets_the_one_type_that_holds_them(values):
    missing = [None] * 70_000
    assert values(1, 2).type == pa.int64()
    assert values(*missing, 0.5, 3).to_pylist()[-2:] == [0.5, 3.0]
    mixed = values(*missing, 1, 2.5, "three")
    assert mixed.type == pa.string()
    assert mixed.to_pylist()[-3:] == ["1", "2.5", "three"]
    assert values("a", b"\xff").to_pylist() == [b"a", b"\xff"]
    assert values(None, None).type == pa.string()


def test_declared_types_are_cast_to_and_what_does_not_fit_is_told(values):
    assert values("1", 2, types={"x": "int64"}).to_pylist() == [1, 2]
    at = values("2024-01-02 03:04:05", None, types={"x": "timestamp[us]"})
    assert at.to_pylist()[0].isoformat() == "2024-01-02T03:04:05"
    with pytest.raises(InputError, match=r"`x`.*three"):
        values(1, "three", types={"x": "int64"})


def test_troubles_are_one_clear_error_each(opened, tmp_path, file):
    assert "did you mean" in failed(opened, url="sqlite:///shop.bd", table="trips")
    assert "no table: trip\n  Do: did you mean `trips`?" in failed(opened, table="trip")
    assert "did you mean `price`?" in failed(opened, table="trips", columns=["pric"])
    assert "has no such column" in failed(opened, query="select pric from trips")
    assert "does not understand the query" in failed(opened, query="selec 1")
    assert "has no rows" in failed(opened, query="select * from trips where id < 0")
    (tmp_path / "no.db").write_text("this is not a database" * 100)
    assert "is no sound SQLite file" in failed(
        opened, url=f"sqlite:///{tmp_path}/no.db", table="trips"
    )


def test_a_slow_query_is_cut_off(opened):
    endless = (
        "with recursive c(x) as (select 1 union all select x + 1 from c limit 100000000) "
        "select max(x) as x from c"
    )
    assert "was cut off after 0.5 s" in failed(opened, query=endless, timeout="0.5s")


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "v.db"
    connection = sqlite3.connect(path)
    connection.execute("create table v (x)")
    connection.execute("insert into v values (1)")
    connection.commit()
    section = SqlSource(kind="sql", url="sqlite:///v.db", table="v")
    source = open_source("rows", section, str(tmp_path))
    connection.execute("insert into v values (2)")
    connection.commit()
    with pytest.raises(InputError, match="was changed while it was read"):
        source.table()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_the_fingerprint_follows_what_is_written(project, tmp_path, mode):
    connection = sqlite3.connect(tmp_path / "v.db")
    connection.execute(f"pragma journal_mode = {mode}")
    connection.execute("create table v (y)")
    connection.execute("insert into v values (1)")
    connection.commit()
    made = project(rows={"kind": "sql", "url": "sqlite:///v.db", "table": "v"})
    first = find(made).fingerprint
    assert find(made).fingerprint == first
    connection.execute("insert into v values (2)")
    connection.commit()
    assert find(made).fingerprint != first
    assert open_source("rows", made.sources.rows, str(tmp_path)).table().num_rows == 2


@pytest.mark.parametrize("partition", [None, "id", "price"])
def test_sqlalchemy_reads_the_same_rows(opened, file, partition):
    url = f"sqlite+pysqlite:///{file}"
    table = opened(url=url, table="trips", partition=partition).table()
    assert (
        table.sort_by("id")
        .combine_chunks()
        .equals(shop().cast(table.schema).sort_by("id").combine_chunks())
    )


def test_sqlalchemy_on_postgresql_gives_the_same_types_and_hides_the_password(postgres_server):
    url = postgres_server.url().replace("postgresql:", "postgresql+psycopg:")
    postgres_server.run(
        "drop table if exists typed",
        """create table typed as select g as id, g / 4.0 as price, now() as at, g % 2 = 0 as even,
        date '2024-01-01' + g as day, '{"a": 1}'::jsonb as doc, 'ä' || g as name
        from generate_series(1, 60000) g""",
    )

    def of(given, **fields):
        section = SqlSource(kind="sql", url=given, **{"table": "typed"} | fields)
        return open_source("rows", section, ".")

    there = of(url, partition="day", tasks=3).table().sort_by("id")
    direct = of(postgres_server.url(), types={"id": "int64"}).table().sort_by("id")
    doc = there.schema.get_field_index("doc")
    assert there.drop_columns(["doc"]).equals(direct.drop_columns(["doc"]))
    assert there.column(doc)[0].as_py() == '{"a": 1}'
    for fields, expected in [
        ({"table": "type"}, "did you mean `typed`?"),
        ({"given": url.replace("s3cr3t", "other")}, "refused the login"),
        ({"given": url.replace("psycopg", "nodriver")}, "no driver for"),
        (
            {"given": url, "timeout": "0.5s", "table": None, "query": "select pg_sleep(5)::text a"},
            "was cut off after 0.5 s",
        ),
    ]:
        with pytest.raises(InputError) as caught:
            of(**{"given": url} | fields).table()
        assert expected in str(caught.value)
        assert "p@ss" not in str(caught.value)
        assert "p%40ss" not in str(caught.value)


def test_a_range_that_changed_since_it_was_counted_is_refused(opened, tmp_path):
    path = tmp_path / "v.db"
    connection = sqlite3.connect(path)
    connection.execute("create table v (x)")
    connection.executemany("insert into v values (?)", [(i,) for i in range(100)])
    connection.commit()
    source = opened(url=f"sqlite+pysqlite:///{path}", table="v", partition="x", tasks=2)
    connection.execute("delete from v where x = 90")
    connection.commit()
    with pytest.raises(InputError, match=r"gave \d+ of the \d+ rows"):
        source.table()


def test_a_missing_library_is_named_with_its_extra(opened, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'mlray[sql]'" in failed(opened, table="trips")
