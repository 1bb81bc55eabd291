"""SQLite through ADBC. Its columns hold values of any type, so all are looked at beforehand."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mlray import storage
from mlray.config.rows import SqlSource
from mlray.errors import InputError
from mlray.sources import resolve
from mlray.sources.kinds.sql.ranges import Range, cuts_for, quoted, subquery, tasks_for
from mlray.sources.kinds.sql.session import Plan, Selected, chosen, counted, no_table
from mlray.sources.kinds.sql.troubles import Clock, complaint, missing_table, too_slow

SCHEME = "sqlite:///"
_SAMPLE_ROWS = 30_000
_BATCH_ROWS = 65_536
_STORED = ("integer", "real", "text", "blob")
_EXAMPLES = {pa.int64(): "0", pa.float64(): "0.5", pa.string(): "''", pa.binary(): "x'00'"}
_State = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Sqlite:
    """A database file."""

    name: str
    path: str
    timeout_s: float

    @property
    def where(self) -> str:
        return f"{SCHEME}{self.path}"

    def plan(self, source: SqlSource) -> Plan:
        state = self._state()
        relation = _relation(source)
        with self.session() as session:
            selected, rows = session.selected(source, relation)
            tasks = tasks_for(rows, source.tasks)
            column = source.partition or session.row_id(source)
            if column:
                bounds = session.bounds(relation, column, tasks, rows)
                ranges = counted(session, relation, quoted(column), bounds, tasks)
            else:
                ranges = [Range("", rows)]
        return Plan(selected, ranges, state, os.path.getsize(self.path))

    def evidence(self, source: SqlSource, state: _State | None = None) -> str:
        with self.session() as session:
            session.names(source, _relation(source))
        file = resolve.find(self.path, ())[0].file
        log = f"{self.path}-wal"
        written = os.path.exists(log) and os.path.getsize(log) > 0
        return f"{file.modified}+{storage.sha256(log)}" if written else file.modified

    def _state(self) -> _State:
        """Size and time of the file, and of the log of what was written last."""
        files = [self.path, f"{self.path}-wal"]
        found = [os.stat(f) for f in files if os.path.exists(f)]
        return tuple((s.st_size, s.st_mtime_ns) for s in found if s.st_size)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A connection that only reads."""
        with self.explained(sqlite3.Error), closing(sqlite3.connect(*_read_only(self.path))) as one:
            yield Session(self, one)

    @contextmanager
    def stream(self, state: _State, sql: str) -> Iterator[Iterator[pa.Table]]:
        """Rows in batches; all of the state that was planned on, or an error."""
        from adbc_driver_manager import Error
        from adbc_driver_sqlite import StatementOptions, dbapi

        limits = {StatementOptions.BATCH_ROWS.value: str(_BATCH_ROWS)}
        self._refuse_other(state)
        with (
            self.explained(Error, OSError, pa.ArrowException),
            dbapi.connect(_address(self.path)) as connection,
            connection.cursor(adbc_stmt_kwargs=limits) as cursor,
        ):
            cursor.execute(sql)
            yield self._batches(cursor)
        self._refuse_other(state)

    def _batches(self, cursor: Any) -> Iterator[pa.Table]:
        # The driver cannot be interrupted; what runs too long is found out between batches.
        clock = Clock(self.timeout_s, lambda: None, self._too_slow)
        with clock.running():
            reader = cursor.fetch_record_batch()
        first = 1  # the row of examples, which gives the columns their types
        while True:
            with clock.running():
                batch = next(iter(reader), None)
            if batch is None:
                return
            yield pa.Table.from_batches([batch.slice(first)])
            first = 0

    def _refuse_other(self, state: _State) -> None:
        if self._state() != state:
            raise InputError(
                f"{self.where} (source `{self.name}`) was changed while it was read",
                do="run again when nothing writes to it, or read a copy",
            )

    def _too_slow(self) -> InputError:
        return too_slow(self.name, self.where, self.timeout_s)

    @contextmanager
    def explained(self, *kinds: type[Exception]) -> Iterator[None]:
        """Raise what SQLite says in our words."""
        try:
            yield
        except kinds as error:
            raise complaint(self.name, self.where, str(error), ()) from None


class Session:
    """One connection for small questions."""

    def __init__(self, database: Sqlite, connection: sqlite3.Connection):
        self._database, self._connection = database, connection
        self._clock = Clock(database.timeout_s, connection.interrupt, database._too_slow)

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of an answer."""
        with self._clock.running():
            return self._connection.execute(sql).fetchall()

    def names(self, source: SqlSource, relation: str) -> list[str]:
        """Columns to read.

        Raises:
            InputError: there is no such table or column.
        """
        try:
            cursor = self._connection.execute(f"select * from {relation} limit 0")
        except sqlite3.OperationalError as error:
            if source.table and missing_table(str(error)):
                found = self.fetch("select name from sqlite_master where type in ('table', 'view')")
                known = [row[0] for row in found]
                where = self._database.where
                raise no_table(self._database.name, where, source.table, known) from None
            raise
        return chosen(self._database.name, source, [c[0] for c in cursor.description])

    def selected(self, source: SqlSource, relation: str) -> tuple[Selected, int]:
        """Columns with one type each, and the number of rows; every value's type is looked at."""
        names = self.names(source, relation)
        kinds = [f"total(typeof({quoted(n)}) = '{kind}')" for n in names for kind in _STORED]
        rows, *counts = self.fetch(f"select count(*), {', '.join(kinds)} from {relation}")[0]
        by_name = {n: counts[i * 4 : i * 4 + 4] for i, n in enumerate(names)}
        types = {n: settled(found) for n, found in by_name.items()}
        expressions = {quoted(n): _expression(quoted(n), kind) for n, kind in types.items()}
        return _Typed(relation, expressions, pa.schema(types)), int(rows)

    def row_id(self, source: SqlSource) -> str | None:
        """The row number that plain tables have beside their columns."""
        if not source.table:
            return None
        listed = "select 1 from sqlite_master where type = 'table' and lower(name) = lower(?)"
        if not self._connection.execute(listed, [source.table]).fetchone():
            return None
        try:
            self._connection.execute(f"select rowid from {quoted(source.table)} limit 0")
        except sqlite3.OperationalError:  # made WITHOUT ROWID
            return None
        return "rowid"

    def bounds(self, relation: str, column: str, tasks: int, rows: int) -> list[str]:
        """Quantiles of a random sample of a column, as literals."""
        one_of = max(1, rows // _SAMPLE_ROWS)
        name = quoted(column)
        found = self.fetch(
            f"select quote(c) from (select {name} as c from {relation} where {name} is not null "
            f"and random() % {one_of} = 0) order by c"
        )
        cuts = cuts_for(tasks) if found else 0
        at = [len(found) * i // (cuts + 1) for i in range(1, cuts + 1)]
        return list(dict.fromkeys(found[i][0] for i in at))


@dataclass(frozen=True)
class _Typed(Selected):
    """A SELECT that starts with a row of examples: the driver takes types from what comes first,
    and gives up on a column that begins with missing values."""

    def sql(self, condition: str = "") -> str:
        names = zip(self.expressions, self.schema, strict=True)
        examples = ", ".join(f"{_EXAMPLES[f.type]} as {name}" for name, f in names)
        return f"select {examples} union all {super().sql(condition)}"


def settled(counts: Sequence[float]) -> pa.DataType:
    """The one type for values of which so many are integer, real, text and blob.

    >>> settled([5, 0, 0, 0]), settled([5, 1, 0, 0]), settled([5, 0, 1, 0]), settled([0, 0, 0, 0])
    (DataType(int64), DataType(double), DataType(string), DataType(string))
    """
    integer, real, text, blob = counts
    if blob:
        return pa.binary()
    if text or not (integer or real):
        return pa.string()
    return pa.float64() if real else pa.int64()


def _expression(column: str, kind: pa.DataType) -> str:
    if kind == pa.int64():
        return column
    words = {pa.float64(): "real", pa.string(): "text", pa.binary(): "blob"}
    return f"cast({column} as {words[kind]})"


def _relation(source: SqlSource) -> str:
    return quoted(source.table) if source.table else subquery(str(source.query))


def _address(path: str) -> str:
    from urllib.parse import quote

    return f"file:{quote(path)}?mode=ro"


def _read_only(path: str) -> tuple[Any, ...]:
    """Arguments of `sqlite3.connect`: address, seconds to wait for a writer, ..., as an address."""
    return _address(path), 30.0, 0, None, True, sqlite3.Connection, 128, True
