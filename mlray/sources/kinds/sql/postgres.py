"""PostgreSQL through ADBC: Arrow straight out of COPY, all tasks in one exported snapshot."""

from __future__ import annotations

import json
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.types as pt
from pydantic import SecretStr

from mlray import secrets
from mlray.config.rows import SqlSource
from mlray.errors import InputError
from mlray.sources.kinds.sql.ranges import Range, cuts_for, literal, quoted, subquery, tasks_for
from mlray.sources.kinds.sql.session import Plan, Selected, chosen, counted, no_table
from mlray.sources.kinds.sql.troubles import Clock, complaint, missing_table, too_slow
from mlray.sources.types import arrow_type

SCHEMES = ("postgresql://", "postgres://")
_SAMPLE_ROWS = 30_000
_HASHED_BYTES = 8 << 30
"""Of a larger table the server's log position stands for its state: any write changes it."""
_PLAIN = ("int2", "int4", "int8", "float4", "float8", "bool", "text", "varchar", "bpchar", "bytea")
_TIMES = ("date", "timestamp", "timestamptz")


class Snapshot:
    """One state of the database that many connections read.

    In the driver it holds the transaction that exported it, and with it the state, for as long as
    the dataset lives; a worker's copy only names it.
    """

    def __init__(self, number: str | None, session: Session | None = None):
        self.number = number
        if session is not None:
            weakref.finalize(self, session.close)

    def __reduce__(self) -> tuple[Any, ...]:
        return Snapshot, (self.number,)


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server."""

    name: str
    url: SecretStr
    timeout_s: float

    @property
    def where(self) -> str:
        return secrets.without_credentials(self.url.get_secret_value())

    def plan(self, source: SqlSource) -> Plan:
        session = Session(self)
        snapshot = Snapshot(session.exported(), session)
        relation = _relation(source)
        selected = session.selected(source, relation)
        size_bytes = 0
        if source.partition:
            tasks = tasks_for(session.estimate(relation), source.tasks)
            bounds = session.bounds(relation, source.partition, tasks)
            ranges = counted(session, relation, quoted(source.partition), bounds, tasks)
        elif source.table and (about := session.heap(source.table)):
            ranges = session.page_ranges(about, relation, source.tasks)
            size_bytes = about.size_bytes
        else:
            ranges = [Range("", None)]
        return Plan(selected, ranges, snapshot, size_bytes)

    def evidence(self, source: SqlSource, state: Snapshot | None = None) -> str:
        with Session(self, state.number if state else None).closing() as session:
            if source.table:
                session.selected(source, _relation(source))
                if about := session.heap(source.table):
                    return session.heap_evidence(source.table, about)
            try:
                return session.content_hash(_relation(source))
            except InputError:  # it takes too long: read it, for nothing says that it is unchanged
                return f"read:{uuid.uuid4().hex}"

    @contextmanager
    def stream(self, state: Snapshot, sql: str) -> Iterator[Iterator[pa.Table]]:
        with Session(self, state.number).closing() as session:
            yield session.stream(sql)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Raise what the driver says in our words, without secrets."""
        from adbc_driver_manager import Error

        try:
            yield
        except (Error, OSError, pa.ArrowException) as error:
            hidden = secrets.of_address(self.url.get_secret_value())
            raise complaint(self.name, self.where, str(error), hidden) from None


@dataclass(frozen=True)
class Heap:
    """A table with pages of its own."""

    oid: int
    pages: int
    size_bytes: int
    rows: int
    """Estimated."""
    tid_ranges: bool
    """Whether the server finds a range of pages without reading the others (version 14)."""


class Session:
    """One connection in a read-only transaction that sees one state."""

    def __init__(self, database: Postgres, snapshot: str | None = None):
        from adbc_driver_postgresql import dbapi

        self._database = database
        limit = database.timeout_s
        with database.explained():
            self._connection = dbapi.connect(_with_defaults(database.url), autocommit=True)
        self._clock = Clock(
            limit,
            self._connection.adbc_cancel,
            lambda: too_slow(database.name, database.where, limit),
        )
        self.run("begin isolation level repeatable read read only")
        if snapshot is not None:
            self.run(f"set transaction snapshot {literal(snapshot)}")
        # Rows come in the order of the table: from its start, by one process.
        self.run("set local synchronize_seqscans = off")
        if snapshot is not None:
            self.run("set local max_parallel_workers_per_gather = 0")
        self.run("set local idle_in_transaction_session_timeout = 0")

    def close(self) -> None:
        """End the transaction and the connection."""
        self._connection.close()

    @contextmanager
    def closing(self) -> Iterator[Session]:
        """This session, closed at the end of the block."""
        try:
            yield self
        finally:
            self.close()

    def run(self, sql: str) -> None:
        """A statement without an answer."""
        with self._database.explained(), self._connection.cursor() as cursor:
            cursor.execute(sql)

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of an answer."""
        options = {"adbc.postgresql.use_copy": "false"}  # EXPLAIN cannot be copied
        with (
            self._database.explained(),
            self._clock.running(),
            self._connection.cursor(adbc_stmt_kwargs=options) as cursor,
        ):
            cursor.execute(sql)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

    def stream(self, sql: str) -> Iterator[pa.Table]:
        """Rows in batches, as the server sends them."""
        with self._connection.cursor() as cursor:
            with self._database.explained(), self._clock.running():
                cursor.execute(sql)
                reader = cursor.fetch_record_batch()
            while True:
                with self._database.explained(), self._clock.running():
                    batch = next(iter(reader), None)
                if batch is None:
                    return
                yield pa.Table.from_batches([batch])

    def exported(self) -> str | None:
        """The name of this transaction's state for other connections; None if the server cannot
        share it (databases that only speak PostgreSQL's language)."""
        from adbc_driver_manager import Error

        try:
            with self._connection.cursor() as cursor:
                cursor.execute("select pg_export_snapshot()")
                return str(cursor.fetchone()[0])
        except Error:
            self.run("rollback")
            self.run("begin isolation level repeatable read read only")
            return None

    def selected(self, source: SqlSource, relation: str) -> Selected:
        """Columns with types that Arrow and a network know; others are converted by the server."""
        try:
            found = self._schema(f"select * from {relation} limit 0")
        except InputError as error:
            if source.table and missing_table(str(error)):
                raise no_table(
                    self._database.name, self._database.where, source.table, self._tables()
                ) from None
            raise
        names = chosen(self._database.name, source, found.names)
        declared = {n: arrow_type(t) for n, t in source.types.items()}
        expressions = {n: _expression(found.field(n), declared.get(n)) for n in names}
        named = {quoted(n): sql for n, sql in expressions.items()}
        bare = Selected(relation, named, found)
        return Selected(relation, named, self._schema(bare.sql() + " limit 0").remove_metadata())

    def _schema(self, sql: str) -> pa.Schema:
        with (
            self._connection.cursor() as cursor,
            self._database.explained(),
            self._clock.running(),
        ):
            cursor.execute(sql)
            schema: pa.Schema = cursor.fetch_record_batch().schema
            return schema

    def _tables(self) -> list[str]:
        self.run("rollback")  # the failed query ended the transaction
        found = self.fetch(
            "select case when table_schema = any(current_schemas(false)) then table_name "
            "else table_schema || '.' || table_name end from information_schema.tables "
            "where table_schema not in ('pg_catalog', 'information_schema') order by 1"
        )
        return [row[0] for row in found]

    def estimate(self, relation: str) -> int:
        """About how many rows there are, as the planner thinks; nothing is read."""
        plan = self.fetch(f"explain (format json) select * from {relation}")[0][0]
        return int(json.loads(plan)[0]["Plan"]["Plan Rows"])

    def bounds(self, relation: str, column: str, tasks: int) -> list[str]:
        """Quantiles of a random sample of a column, as literals."""
        cuts = cuts_for(tasks)
        if not cuts:
            return []
        shares = ", ".join(str(i / (cuts + 1)) for i in range(1, cuts + 1))
        rate = min(1.0, _SAMPLE_ROWS / max(1, self.estimate(relation)))
        found = self.fetch(
            f"select (percentile_disc(array[{shares}]::float8[]) within group (order by c) "
            f"filter (where random() <= {rate}))::text[] "
            f"from (select {quoted(column)} as c from {relation}) s"
        )[0][0]
        return [literal(value) for value in dict.fromkeys(found or [])]

    def heap(self, table: str) -> Heap | None:
        """What is known of a plain table; None for views, foreign and partitioned tables."""
        found = self.fetch(
            "select oid::int8, relkind::text, pg_relation_size(oid) / "
            "current_setting('block_size')::int8, pg_table_size(oid), reltuples::float8, "
            "current_setting('server_version_num')::int8 "
            f"from pg_class where oid = to_regclass({literal(_quoted_table(table))})"
        )
        if not found or found[0][1] not in ("r", "m"):
            return None
        oid, _, pages, size_bytes, rows, version = found[0]
        # Before the first ANALYZE the estimate is -1: a page holds some 50 rows.
        rows = int(rows) if rows >= 0 else pages * 50
        return Heap(oid, pages, size_bytes, rows, version >= 140_000)

    def page_ranges(self, about: Heap, relation: str, wanted: int | None) -> list[Range]:
        """Ranges of a table's pages, whose rows are counted in the state that is read."""
        tasks = min(tasks_for(about.rows, wanted), max(1, about.pages))
        if not about.tid_ranges:
            tasks = 1
        cuts = [f"'({about.pages * i // tasks},0)'::tid" for i in range(1, tasks)]
        above = ["", *(f"ctid >= {cut}" for cut in cuts)]
        below = [*(f"ctid < {cut}" for cut in cuts), ""]
        conditions = [" and ".join(filter(None, ends)) for ends in zip(above, below, strict=True)]
        counts = [
            int(self.fetch(f"select count(*) from {relation}{' where ' * bool(c)}{c}")[0][0])
            for c in conditions
        ]
        kept = [Range(c, n) for c, n in zip(conditions, counts, strict=True) if n]
        return kept or [Range("", 0)]

    def heap_evidence(self, table: str, about: Heap) -> str:
        """A hash of which versions of rows a table holds.

        Every insert, update and delete changes the pairs of place and transaction (ctid, xmin),
        wherever statistics lag behind or were reset. The server's identity and timeline are part
        of it: another server may count the same transactions.
        """
        versions = self.fetch(
            "select (select string_agg(attnum || attname || atttypid || "
            "coalesce(attmissingval::text, ''), ',' order by attnum) from pg_attribute "
            f"where attrelid = {about.oid} and attnum > 0 and not attisdropped), "
            "(select system_identifier::text from pg_control_system()), "
            "case when pg_is_in_recovery() then pg_last_wal_replay_lsn() "
            "else pg_current_wal_lsn() end::text, "
            "(select timeline_id::text from pg_control_checkpoint()), "
            f"(select oid::text || relfilenode from pg_class where oid = {about.oid})"
        )[0]
        columns, server, position, timeline, file = versions
        if about.size_bytes > _HASHED_BYTES:
            return f"log:{server}-{timeline}-{position}"
        found = self.fetch(
            "select count(*), sum(hashtextextended(tableoid::text || ctid || xmin, 0))::text "
            f"from {_quoted_table(table)}"
        )[0]
        return "versions:" + _digest(columns, server, timeline, file, *found)

    def content_hash(self, relation: str) -> str:
        """A hash of all rows, in no order, made by the server."""
        found = self.fetch(
            f"select count(*), sum(hashtextextended(q::text, 0))::text from (select * from "
            f"{relation}) q"
        )[0]
        return "content:" + _digest(*found)


def _digest(*parts: Any) -> str:
    import hashlib

    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _with_defaults(url: SecretStr) -> str:
    """The address for libpq, which else waits for a lost host without end."""
    text = url.get_secret_value()
    for option in ("connect_timeout=15", "application_name=mlray"):
        if option.partition("=")[0] not in text:
            text += ("&" if "?" in text.rpartition("@")[2] else "?") + option
    return text


def _relation(source: SqlSource) -> str:
    return _quoted_table(source.table) if source.table else subquery(str(source.query))


def _quoted_table(table: str) -> str:
    return ".".join(quoted(part) for part in table.split(".", 1))


def _expression(field: pa.Field, declared: pa.DataType | None) -> str:
    """SQL that gives a column in a type that Arrow knows as one.

    `ADBC` hands on other types as raw bytes, and infinite times as numbers that mean nothing.
    """
    kind = (field.metadata or {}).get(b"POSTGRESQL:type", b"").decode()
    column = quoted(field.name)
    if kind in _PLAIN:
        return column
    if kind in _TIMES:
        return f"case when isfinite({column}) then {column} end"
    if kind == "oid":
        return f"{column}::int8"
    if kind in ("numeric", "money"):
        return _number(f"{column}::numeric" if kind == "money" else column, declared)
    if kind.removeprefix("_") in _PLAIN and kind.startswith("_"):
        return column
    if kind.startswith("_"):
        return f"{column}::{'float8' if kind == '_numeric' else 'text'}[]"
    return f"{column}::text"


def _number(column: str, declared: pa.DataType | None) -> str:
    """An exact number: float64, or text where that would lose what `types` asks for."""
    if declared is not None and pt.is_integer(declared):
        return f"trim_scale({column})::text"
    return f"{column}::text" if declared == pa.string() else f"{column}::float8"
