"""A table of a database: all parts in one transaction over one connection."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.types as pt
from pydantic import SecretStr

from mlray import secrets, storage
from mlray.config.sections import Prediction
from mlray.errors import ConfigError, InputError
from mlray.sinks.sink import BATCH, Parts, write_parquet
from mlray.sources.kinds.sql.ranges import literal, quoted
from mlray.sources.kinds.sql.troubles import said_to_writer

_BATCH_ROWS = 10_000


@dataclass(frozen=True)
class SqlSink:
    """A table that is made if it is not there. Other connections see all new rows or none."""

    url: SecretStr
    table: str
    mode: str

    ending = ".parquet"

    @classmethod
    def of(cls, section: Prediction, folder: str) -> SqlSink:
        if section.url is None or section.table is None:
            raise ConfigError(
                "prediction.kind is sql", do="set prediction.url and prediction.table"
            )
        url = section.url.get_secret_value()
        if url.startswith("sqlite:///"):
            import os

            url = f"sqlite:///{os.path.join(folder, url.removeprefix('sqlite:///'))}"
        library = _library(url)
        if importlib.util.find_spec(library) is None:
            raise InputError(
                "writing to this database needs a library that is not installed",
                value=library,
                do="pip install 'mlray[sql]'",
            )
        return cls(SecretStr(url), section.table, section.mode)

    @property
    def where(self) -> str:
        return f"{secrets.without_credentials(self.url.get_secret_value())}/{self.table}"

    def staging(self, home: str, batch: str) -> str:
        return storage.join(home, "predictions", f".{batch}.tmp")

    def check(self) -> None:
        with self._connected() as database:
            if self.mode == "error" and database.rows(self.table):
                raise InputError(
                    "the table holds rows already",
                    value=self.where,
                    do="set prediction.mode to append or replace, or name another table",
                )

    def write_part(self, table: pa.Table, file: str) -> None:
        write_parquet(table, file)

    def publish(self, parts: Parts) -> None:
        with self._connected() as database:
            there = database.rows(self.table) is not None
            if there and self.mode == "replace":
                database.run(f"delete from {database.name(self.table)}")
            elif there and self.mode == "append":
                batch = f"{database.column(BATCH)} = {literal(parts.batch)}"
                database.run(f"delete from {database.name(self.table)} where {batch}")
            database.insert(self.table, parts.reader(flat=True), new=not there)
            database.commit()

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """A transaction that is rolled back unless it is committed; errors without secrets."""
        url = self.url.get_secret_value()
        kind = _Alchemy if _library(url) == "sqlalchemy" else _Adbc
        with said_to_writer(self.where, url), kind.connected(url) as database:
            yield database


def _library(url: str) -> str:
    if url.startswith(("postgresql://", "postgres://")):
        return "adbc_driver_postgresql"
    return "adbc_driver_sqlite" if url.startswith("sqlite:///") else "sqlalchemy"


class _Adbc:
    """PostgreSQL (COPY) and SQLite."""

    def __init__(self, connection: Any):
        self._connection = connection

    @classmethod
    @contextmanager
    def connected(cls, url: str) -> Iterator[_Adbc]:
        import importlib

        driver = importlib.import_module(f"{_library(url)}.dbapi")
        with driver.connect(url.removeprefix("sqlite:///")) as connection:
            yield cls(connection)  # what is not committed is rolled back at its end

    def column(self, name: str) -> str:
        return quoted(name)

    def name(self, table: str) -> str:
        return ".".join(quoted(part) for part in table.split(".", 1))

    def run(self, sql: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)

    def rows(self, table: str) -> bool | None:
        """Whether a table holds rows; None if it is not there."""
        from adbc_driver_manager import Error

        try:
            with self._connection.cursor() as cursor:
                cursor.execute(f"select 1 from {self.name(table)} limit 1")
                return cursor.fetchone() is not None
        except Error as error:
            if "does not exist" not in str(error) and "no such table" not in str(error):
                raise
            self._connection.rollback()
            return None

    def insert(self, table: str, rows: pa.RecordBatchReader, *, new: bool) -> None:
        schema, _, name = table.rpartition(".")
        mode = "create" if new else "append"
        with self._connection.cursor() as cursor:
            cursor.adbc_ingest(name, rows, mode=mode, db_schema_name=schema or None)

    def commit(self) -> None:
        self._connection.commit()


class _Alchemy:
    """Every other database."""

    def __init__(self, connection: Any):
        self._connection = connection

    @classmethod
    @contextmanager
    def connected(cls, url: str) -> Iterator[_Alchemy]:
        import sqlalchemy

        engine = sqlalchemy.create_engine(url, hide_parameters=True)
        try:
            with engine.connect() as connection:
                yield cls(connection)
        finally:
            engine.dispose()

    def column(self, name: str) -> str:
        return str(self._connection.dialect.identifier_preparer.quote(name))

    def name(self, table: str) -> str:
        return ".".join(self.column(part) for part in table.split(".", 1))

    def run(self, sql: str) -> None:
        self._connection.exec_driver_sql(sql)

    def rows(self, table: str) -> bool | None:
        """Whether a table holds rows; None if it is not there."""
        import sqlalchemy

        schema, _, name = table.rpartition(".")
        if not sqlalchemy.inspect(self._connection).has_table(name, schema or None):
            return None
        count = self._connection.exec_driver_sql(f"select count(*) from {self.name(table)}")
        return bool(count.scalar())

    def insert(self, table: str, rows: pa.RecordBatchReader, *, new: bool) -> None:
        import sqlalchemy

        schema, _, name = table.rpartition(".")
        columns = [sqlalchemy.Column(f.name, _alchemy_type(f.type)) for f in rows.schema]
        made = sqlalchemy.Table(name, sqlalchemy.MetaData(), *columns, schema=schema or None)
        if new:
            made.create(self._connection)
        for batch in rows:
            for start in range(0, len(batch), _BATCH_ROWS):
                self._connection.execute(made.insert(), batch.slice(start, _BATCH_ROWS).to_pylist())

    def commit(self) -> None:
        self._connection.commit()


def _alchemy_type(kind: pa.DataType) -> Any:
    import sqlalchemy

    if pt.is_boolean(kind):
        return sqlalchemy.Boolean()
    if pt.is_integer(kind):
        return sqlalchemy.BigInteger()
    if pt.is_floating(kind):
        return sqlalchemy.Double()
    if pt.is_timestamp(kind):
        return sqlalchemy.DateTime(timezone=kind.tz is not None)
    if pt.is_date(kind):
        return sqlalchemy.Date()
    return sqlalchemy.LargeBinary() if pt.is_binary(kind) else sqlalchemy.Text()
