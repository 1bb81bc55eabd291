"""SQL against real databases: every row once, of one state, and a clear word for every trouble."""

from __future__ import annotations

import gc
import pickle
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mlray.config.rows import SqlSource
from mlray.errors import ConfigError, InputError
from mlray.sources import find, kinds, open_rows, sample
from mlray.sources.kinds.sql import open_source

ROWS = 240_000
SECRETS = ("s3cr3t", "p@ss", "p%40ss")


@pytest.fixture(scope="module")
def server(postgres_server):
    postgres_server.run(
        "drop table if exists trips, small, kinds_of_values",
        "drop type if exists mood",
        f"""create table trips as select g as id, (g * 7919 % 1000)::int as k,
        round((g % 977)::numeric / 7, 2) as price, 'name-' || g % 5000 as name, g % 3 = 0 as late,
        case when g % 11 = 0 then null else timestamp '2024-01-01' + g * interval '1 min' end as at,
        case when g % 100 = 0 then null when g % 10 = 0 then g else 5 end as skewed
        from generate_series(1, {ROWS}) g""",
        "create table small (id int, y int)",
        "insert into small select g, g % 2 from generate_series(1, 1000) g",
        "analyze",
    )
    return postgres_server


@pytest.fixture
def opened(server, tmp_path):
    """Opens a PostgreSQL source."""

    def make(**fields):
        given = {"kind": "sql", "url": server.url(), **fields}
        return open_source("rows", SqlSource.model_validate(given), str(tmp_path))

    return make


def failed(opened, **fields) -> str:
    """What is said about a source that cannot be read; never with a secret."""
    with pytest.raises(InputError) as caught:
        opened(**fields).table()
    return told(caught.value)


def told(error: InputError) -> str:
    text = str(error) + repr(error) + str(pickle.loads(pickle.dumps(error)))
    assert not any(secret in text for secret in SECRETS)
    return str(error)


def sorted_rows(table: pa.Table) -> pa.Table:
    return table.sort_by("id").combine_chunks()


@pytest.mark.parametrize("extra", [{}, {"partition": "id"}, {"partition": "at", "tasks": 3}])
def test_a_table_of_postgresql_equals_the_same_rows_from_parquet(
    server, project, tmp_path, ray_cluster, collect, extra
):
    rows = open_rows(project(rows={"kind": "sql", "url": server.url(), "table": "trips", **extra}))
    assert reading_tasks(rows.dataset) >= 2
    table = collect(rows.dataset)
    assert table.schema.equals(rows.schema)
    pq.write_table(made_here(), tmp_path / "trips.parquet")
    files = open_rows(project(rows={"path": "trips.parquet"}))
    assert sorted_rows(table).equals(sorted_rows(collect(files.dataset)))


def reading_tasks(dataset) -> int:
    source = dataset
    operator = source._logical_plan.dag
    while operator.input_dependencies:
        operator = operator.input_dependencies[0]
    return len(operator.datasource.get_read_tasks(1))


def made_here() -> pa.Table:
    """The rows of `trips`."""
    g = np.arange(1, ROWS + 1)
    at = np.datetime64("2024-01-01", "us") + g * np.timedelta64(60, "s")
    return pa.table(
        {
            "id": pa.array(g, pa.int32()),
            "k": pa.array(g * 7919 % 1000, pa.int32()),
            "price": np.round(g % 977 / 7, 2),
            "name": [f"name-{n % 5000}" for n in g],
            "late": g % 3 == 0,
            "at": pa.array(at, pa.timestamp("us"), mask=g % 11 == 0),
            "skewed": pa.array(np.where(g % 10 == 0, g, 5), pa.int32(), mask=g % 100 == 0),
        }
    )


def test_ranges_hold_every_row_once_and_are_balanced_also_over_a_skewed_column(opened, server):
    for column, most in [("id", 0.3), ("skewed", 0.95), ("name", 0.3), ("price", 0.3)]:
        pieces = pieces_of(opened(table="trips", partition=column, tasks=5))
        rows = [piece.rows for piece in pieces]
        assert sum(rows) == ROWS
        assert max(rows) <= most * ROWS
        ids = pa.concat_tables(t for piece in pieces for t in piece.read())["id"]
        assert ids.length() == ROWS
        assert pc.count_distinct(ids).as_py() == ROWS


def pieces_of(opened) -> list:
    """The pieces that a source is read in."""
    return opened.dataset.__closure__[
        opened.dataset.__code__.co_freevars.index("pieces")
    ].cell_contents


def test_all_tasks_read_the_state_that_was_there_when_the_source_was_opened(opened, server):
    before = opened(table="small", partition="id", tasks=3)
    server.run(
        "delete from small where id > 990",
        "insert into small values (5000, 1), (null, 1)",
        "update small set y = 7 where id = 3",
    )
    table = before.table()
    assert sorted(table["id"].to_pylist()) == list(range(1, 1001))
    assert set(table["y"].to_pylist()) == {0, 1}
    after = opened(table="small", partition="id", tasks=3).table()
    assert after.num_rows == 992
    assert after["id"].null_count == 1


def test_the_snapshot_ends_with_the_dataset(opened, server):
    def held() -> int:
        time.sleep(0.3)
        state = "select count(*) from pg_stat_activity where state = 'idle in transaction'"
        return server.run(state)[0][0]

    gc.collect()
    before = held()
    source = opened(table="small")
    assert held() == before + 1
    del source
    assert held() == before


def test_types_are_settled_beforehand(opened, server):
    server.run(
        "create type mood as enum ('sad', 'ok')",
        """create table kinds_of_values (n numeric(20, 2), big numeric(19), u uuid, j jsonb, m mood,
        a int[], na numeric[], t time, i interval, tz timestamptz, d date, ip inet, cash money,
        bytes bytea, nothing text)""",
        """insert into kinds_of_values values (1.5, 1234567890123456789, 
        'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": 1}', 'ok', '{1,2}', '{1.5,null}',
        '03:04:05', '1 day', '2024-01-02 03:04:05+02', '2024-01-02', '10.0.0.1', 12.5, '\\x00ff',
        null), (null, 1, null, null, null, null, null, null, null, 'infinity', 'infinity', null,
        null, null, null)""",
    )
    table = opened(table="kinds_of_values", types={"big": "int64"}).table()
    assert table["n"].to_pylist() == [1.5, None]
    assert table["big"].to_pylist() == [1234567890123456789, 1]
    first = {n: table[n][0].as_py() for n in table.column_names}
    assert first["u"] == "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
    assert (first["j"], first["m"], first["a"], first["na"]) == (
        '{"a": 1}',
        "ok",
        [1, 2],
        [1.5, None],
    )
    assert (first["t"], first["i"], first["ip"], first["cash"]) == (
        "03:04:05",
        "1 day",
        "10.0.0.1/32",
        12.5,
    )
    assert table.schema.field("tz").type == pa.timestamp("us", tz="UTC")
    assert first["tz"].isoformat() == "2024-01-02T01:04:05+00:00"
    assert table["tz"][1].as_py() is table["d"][1].as_py() is None
    assert first["bytes"] == b"\x00\xff"
    assert table.schema.field("nothing").type == pa.string()


def test_declared_types_are_cast_to_and_a_value_that_does_not_fit_is_told(opened):
    types = {"id": "float64", "name": "string", "price": "string"}
    table = opened(table="trips", types=types, columns=["id", "price"], tasks=1).head(1)
    assert table.schema.types == [pa.float64(), pa.string()]
    assert "is not int64" in failed(opened, table="trips", types={"name": "int64"})


def test_a_query_is_read_and_its_columns_are_checked(opened):
    query = "select id, price * 2 as twice from trips where k < 10 order by id; "
    table = opened(query=query, partition="id", tasks=4).table()
    assert table.num_rows == ROWS // 100
    assert table.column_names == ["id", "twice"]
    twice = failed(opened, query="select id, id from trips")
    assert "two columns of one name: id" in twice


def test_troubles_with_the_server_are_one_clear_error_each(opened, server):
    assert "refused the login" in failed(opened, url=server.url(password="s3cr3t"), table="trips")
    assert "refused the login" in failed(opened, url=server.url(user="bob"), table="trips")
    assert "has no such database" in failed(opened, url=server.url(db="shop"), table="trips")
    dead = server.url().replace(str(server.port), "9")
    assert "cannot be reached" in failed(opened, url=dead, table="trips")
    unquoted = server.url(password="s3cr3t/p@ss")
    assert "@ is %40" in failed(opened, url=unquoted, table="trips")
    assert "is no address" in failed(opened, url="s3cr3t", table="trips")


def test_troubles_with_the_query_are_one_clear_error_each(opened):
    assert "no table: trip\n  Do: did you mean `trips`?" in failed(opened, table="trip")
    assert "did you mean `price`?" in failed(opened, table="trips", columns=["pric"])
    assert "did you mean `id`?" in failed(opened, table="trips", partition="idd")
    assert "has no such column" in failed(opened, query="select pric from trips")
    assert "has no such table" in failed(opened, query="select * from trip")
    assert "does not understand the query" in failed(opened, query="selec * from trips")
    assert "has no rows" in failed(opened, query="select * from trips where id < 0", partition="id")
    writes = "with gone as (delete from small returning *) select * from gone"
    assert "is only read from" in failed(opened, query=writes)


def test_a_source_without_rows_is_refused(server, project):
    empty = {"kind": "sql", "url": server.url(), "query": "select * from trips where id < 0"}
    with pytest.raises(InputError, match="source `rows` has no rows"):
        sample(project(rows=empty))


def test_a_query_that_times_out_half_way_is_cut_off(opened):
    slow = "select id, pg_sleep(case when id > 20000 then 0.01 else 0 end)::text as y from trips"
    started = time.monotonic()
    message = failed(opened, query=slow, timeout="1.5s")
    assert "was cut off after 1.5 s in the middle of a query" in message
    assert time.monotonic() - started < 15


def test_time_in_which_rows_wait_to_be_taken_does_not_count(opened):
    (piece,) = pieces_of(opened(query="select * from trips", timeout="1s"))
    rows = 0
    for table in piece.read():
        time.sleep(0.6 if rows < 200_000 else 0)
        rows += table.num_rows
    assert rows == ROWS


def test_a_database_restarted_during_the_read_is_one_clear_error(
    server, project, ray_cluster, collect
):
    server.run(
        "create sequence slow",
        """create function slowly(i int) returns int language plpgsql as $$ begin
        if (select last_value from slow) > 1 and i > 5000 then perform pg_sleep(0.01); end if;
        return i; end $$""",
        "create view slow_trips as select slowly(id) as id, k from trips where id <= 20000",
    )
    slow = {"kind": "sql", "url": server.url(), "table": "slow_trips", "partition": "k", "tasks": 2}
    rows = open_rows(project(rows=slow))
    server.run("select setval('slow', 2)")  # a sequence is not part of the snapshot
    restart = threading.Thread(target=restarted_when_read, args=[server])
    restart.start()
    with pytest.raises(InputError, match=r"ended the connection|no longer has the state") as caught:
        collect(rows.dataset)
    restart.join()
    told(caught.value)


def restarted_when_read(server) -> None:
    reads = "select count(*) from pg_stat_activity where state = 'active' and query ~ '^COPY'"
    deadline = time.monotonic() + 20
    while server.run(reads) == [(0,)] and time.monotonic() < deadline:
        time.sleep(0.05)
    server.stop()
    server.start()


def evidence(project, server, **fields) -> str:
    made = project(rows={"kind": "sql", "url": server.url(), **fields})
    return find(made).fingerprint


@pytest.mark.parametrize(
    "fields", [{"table": "watched"}, {"query": "select * from watched"}, {"table": "seen"}]
)
def test_evidence_changes_with_every_change_of_rows_and_with_nothing_else(project, server, fields):
    server.run(
        "drop table if exists watched cascade",
        "create table watched as select g as id, g % 7 as y from generate_series(1, 500) g",
        "create view seen as select id, y from watched",
    )
    first = evidence(project, server, **fields)
    assert evidence(project, server, **fields) == first
    server.run("analyze watched", "select count(*) from watched", "select pg_stat_reset()")
    assert evidence(project, server, **fields) == first
    last = first
    for change in [
        "update watched set y = y + 1 where id = 3",
        "insert into watched values (501, 0)",
        "delete from watched where id = 501",
        "delete from watched where id = 1",
        "insert into watched values (1, 1)",
    ]:
        server.run(change)
        now = evidence(project, server, **fields)
        assert now != last
        last = now
    server.run("alter table watched add column z int default 5")
    assert (evidence(project, server, **fields) != last) == (fields != {"table": "seen"})


def test_secrets_show_nowhere(server, project, tmp_path):
    made = project(rows={"kind": "sql", "url": server.url(), "table": "trips"})
    kept = [
        str(made),
        repr(made),
        made.model_dump_json(),
        str(made.document),
        str(find(made)),
        repr(kinds.open_source("rows", made.sources.rows, str(tmp_path))),
        made.sources.rows.where,
    ]
    assert not any(secret in text for text in kept for secret in SECRETS)


def test_a_source_names_a_table_or_a_query(project, server):
    for fields in ({}, {"table": "a", "query": "select 1"}, {"query": "select 1", "tasks": 3}):
        with pytest.raises(ConfigError, match=r"table.*query") as caught:
            project(rows={"kind": "sql", "url": server.url(), **fields})
        assert not any(secret in str(caught.value) for secret in SECRETS)
