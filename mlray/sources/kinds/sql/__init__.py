"""SQL databases, read in ranges by several tasks: PostgreSQL, SQLite, all that SQLAlchemy knows.

All tasks read one state. PostgreSQL shares a snapshot, which the driver keeps open while the
dataset lives; of SQLite a file that changed meanwhile is refused; elsewhere ranges are counted
beforehand, and a range that gives other than so many rows is refused.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa

from mlray.config.fields import duration_s
from mlray.config.rows import SqlSource
from mlray.errors import InputError
from mlray.sources import resolve
from mlray.sources.kinds.sql import postgres, sqlite
from mlray.sources.kinds.sql.others import Other
from mlray.sources.kinds.sql.session import Database, Plan
from mlray.sources.opened import Opened, SourceFile
from mlray.sources.reading import Piece, opened
from mlray.sources.types import arrow_type, declared_table

_ROW_BYTES = 100
"""What a row is taken to weigh where the database does not say."""


def open_source(name: str, source: SqlSource, folder: str) -> Opened:
    """Open a table or a query; its schema is settled and its ranges are counted.

    Raises:
        InputError: the database cannot be reached or refuses, there is no such table or column,
            there are no rows, or a query takes longer than `timeout`.
    """
    database = _database(name, source, folder)
    plan = database.plan(source)
    if all(r.rows == 0 for r in plan.ranges):
        raise InputError(
            f"source `{name}` has no rows",
            value=_place(database, source),
            do="check where it reads",
        )
    types = {f.name: f.type for f in plan.selected.schema}
    schema = pa.schema(types | {n: arrow_type(t) for n, t in source.types.items() if n in types})
    pieces = list(_pieces(name, database, source, plan, schema))
    evidence = database.evidence(source, plan.state)
    file = SourceFile(_place(database, source), 0, evidence)
    return opened(name, schema, (file,), pieces, kind="SQL", task_bytes=1)


def files(name: str, source: SqlSource, folder: str) -> tuple[SourceFile, ...]:
    """The table or query, with evidence of what it holds; see `Database.evidence`."""
    database = _database(name, source, folder)
    return (SourceFile(_place(database, source), 0, database.evidence(source)),)


def _pieces(
    name: str, database: Database, source: SqlSource, plan: Plan, schema: pa.Schema
) -> Iterator[Piece]:
    """One for each range: a task and a connection of its own."""
    first = 0
    all_rows = sum(r.rows or 0 for r in plan.ranges)
    row_bytes = max(_ROW_BYTES, plan.size_bytes // max(1, all_rows))
    for one in plan.ranges:
        if one.rows == 0:
            continue
        sql = plan.selected.sql(one.condition)
        read = partial(_read, name, database, plan.state, sql, schema)
        size = (one.rows or 0) * row_bytes
        yield Piece(read, _place(database, source), first, one.rows, size)
        first += one.rows or 0


def _read(
    name: str, database: Database, state: Any, sql: str, schema: pa.Schema
) -> Iterator[pa.Table]:
    """The rows of one range. Runs in a Ray worker."""
    with database.stream(state, sql) as batches:
        for batch in batches:
            yield declared_table(batch.rename_columns(schema.names), name, schema)


def _place(database: Database, source: SqlSource) -> str:
    """Address of the rows, without credentials."""
    if source.table:
        return f"{database.where}/{source.table}"
    return f"{database.where}/query-{hashlib.sha256(str(source.query).encode()).hexdigest()[:12]}"


def _database(name: str, source: SqlSource, folder: str) -> Database:
    url, timeout_s = source.url.get_secret_value(), duration_s(source.timeout)
    if url.startswith(postgres.SCHEMES):
        _require(name, "adbc_driver_postgresql")
        return postgres.Postgres(name, source.url, timeout_s)
    if url.startswith(sqlite.SCHEME):
        _require(name, "adbc_driver_sqlite")
        path = url.removeprefix(sqlite.SCHEME).partition("?")[0]
        file = os.path.join(folder, os.path.expanduser(path))
        return sqlite.Sqlite(name, resolve.find(file, ())[0].address, timeout_s)
    if "://" not in url:
        raise InputError(
            f"sources.{name}.url is no address",
            allowed="postgresql://user:password@host/db, sqlite:///file.db, or a SQLAlchemy URL",
            do="check it, and the environment variable or file that it comes from",
        )
    _require(name, "sqlalchemy")
    return Other(name, source.url, timeout_s)


def _require(name: str, library: str) -> None:
    if importlib.util.find_spec(library) is None:
        raise InputError(
            f"source `{name}` needs a library that is not installed",
            value=library,
            do="pip install 'mlray[sql]'",
        )
