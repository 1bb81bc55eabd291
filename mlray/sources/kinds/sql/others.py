"""Any other database through SQLAlchemy: rows over its driver, types from the first of them."""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydantic import SecretStr

from mlray import secrets
from mlray.config.rows import SqlSource
from mlray.errors import InputError
from mlray.sources.kinds.sql.ranges import Range, cuts_for, subquery, tasks_for
from mlray.sources.kinds.sql.session import Plan, Selected, chosen, counted, no_table
from mlray.sources.kinds.sql.troubles import Clock, complaint, missing_table, too_slow

_HEAD_ROWS = 10_000
_BATCH_ROWS = 10_000


@dataclass(frozen=True)
class Other:
    """A database that SQLAlchemy knows.

    Nothing keeps one state for all tasks here: ranges are counted beforehand, and a range that
    gives more or fewer rows is refused.
    """

    name: str
    url: SecretStr
    timeout_s: float

    @property
    def where(self) -> str:
        return secrets.without_credentials(self.url.get_secret_value())

    def plan(self, source: SqlSource) -> Plan:
        with self.session() as session:
            relation = session.relation(source)
            selected = session.selected(source, relation)
            if source.partition is None:
                return Plan(selected, [Range("", None)], selected.schema)
            column = session.quoted(source.partition)
            low, high, rows = session.fetch(
                f"select min({column}), max({column}), count(*) from {relation}"
            )[0]
            tasks = tasks_for(int(rows), source.tasks)
            bounds = [session.literal(cut) for cut in evenly(low, high, cuts_for(tasks))]
            ranges = counted(session, relation, column, bounds, tasks)
        return Plan(selected, ranges, selected.schema)

    def evidence(self, source: SqlSource, state: pa.Schema | None = None) -> str:
        with self.session() as session:
            session.names(source, session.relation(source))
        return f"read:{uuid.uuid4().hex}"

    @contextmanager
    def stream(self, state: pa.Schema, sql: str) -> Iterator[Iterator[pa.Table]]:
        with self.session() as session:
            yield session.stream(sql, state)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A connection whose transaction is rolled back at the end."""
        import sqlalchemy

        with self.explained():
            engine = sqlalchemy.create_engine(self.url.get_secret_value(), hide_parameters=True)
            try:
                with engine.connect() as connection:
                    yield Session(self, engine, connection)
            finally:
                engine.dispose()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Raise what the driver says in our words, without secrets."""
        from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

        try:
            yield
        except (NoSuchModuleError, ImportError) as error:
            raise InputError(
                f"no driver for {self.where} (source `{self.name}`) is installed ({error})",
                do="install the driver that the scheme of `url` names",
            ) from None
        except SQLAlchemyError as error:
            hidden = secrets.of_address(self.url.get_secret_value())
            raise complaint(self.name, self.where, str(error), hidden) from None


class Session:
    """One connection."""

    def __init__(self, database: Other, engine: Any, connection: Any):
        self._database, self._engine = database, engine
        limit = database.timeout_s
        self._clock = Clock(
            limit, self._cancel, lambda: too_slow(database.name, database.where, limit)
        )
        self._connection = connection.execution_options(no_parameters=True)
        for statement in _READ_ONLY.get(engine.dialect.name, ()):
            self._connection.exec_driver_sql(statement)

    def _cancel(self) -> None:
        """End the query that runs, where the driver can."""
        driver = self._connection.connection.dbapi_connection
        for way in ("cancel", "interrupt"):
            if hasattr(driver, way):
                getattr(driver, way)()

    def relation(self, source: SqlSource) -> str:
        if not source.table:
            return subquery(str(source.query))
        return ".".join(self.quoted(part) for part in source.table.split(".", 1))

    def quoted(self, name: str) -> str:
        return str(self._engine.dialect.identifier_preparer.quote(name))

    def literal(self, value: Any) -> str:
        """A value in the database's own words."""
        import sqlalchemy

        words = sqlalchemy.literal(value).compile(
            dialect=self._engine.dialect, compile_kwargs={"literal_binds": True}
        )
        return str(words)

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of an answer."""
        with self._clock.running():
            return [tuple(row) for row in self._connection.exec_driver_sql(sql)]

    def names(self, source: SqlSource, relation: str) -> list[str]:
        """Columns to read.

        Raises:
            InputError: there is no such table or column.
        """
        try:
            with self._clock.running():
                found = self._connection.exec_driver_sql(f"select * from {relation} where 1 = 0")
        except Exception as error:
            if not source.table or not missing_table(str(error)):
                raise
            raise self._no_table(source.table) from None
        return chosen(self._database.name, source, list(found.keys()))

    def _no_table(self, table: str) -> InputError:
        import sqlalchemy

        self._connection.rollback()
        schema = table.partition(".")[0] if "." in table else None
        look = sqlalchemy.inspect(self._engine)
        known = [*look.get_table_names(schema), *look.get_view_names(schema)]
        return no_table(self._database.name, self._database.where, table, known)

    def selected(self, source: SqlSource, relation: str) -> Selected:
        """Columns with the types that their first values have."""
        names = self.names(source, relation)
        expressions = {self.quoted(n): self.quoted(n) for n in names}
        bare = Selected(relation, expressions, pa.schema([]))
        head = self._connection.execution_options(stream_results=True).exec_driver_sql(bare.sql())
        with self._clock.running():
            rows = head.fetchmany(_HEAD_ROWS)
        head.close()
        types = {n: inferred([row[i] for row in rows]) for i, n in enumerate(names)}
        return Selected(relation, expressions, pa.schema(types))

    def stream(self, sql: str, schema: pa.Schema) -> Iterator[pa.Table]:
        """Rows in batches of `schema`."""
        options = {"stream_results": True, "max_row_buffer": _BATCH_ROWS}
        with self._clock.running():
            found = self._connection.execution_options(**options).exec_driver_sql(sql)
        while True:
            with self._clock.running():
                rows = found.fetchmany(_BATCH_ROWS)
            if not rows:
                return
            columns = zip(*rows, strict=True)
            arrays = [self._array(f, c) for f, c in zip(schema, columns, strict=True)]
            yield pa.Table.from_arrays(arrays, schema=schema)

    def _array(self, field: pa.Field, values: Sequence[Any]) -> pa.Array:
        try:
            return pa.array([converted(v, field.type) for v in values], field.type)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise InputError(
                f"column `{field.name}` of source `{self._database.name}` began with values of "
                f"type {field.type}, and then has others ({error})",
                do="cast it to one type in `query`",
            ) from None


_READ_ONLY = {
    "postgresql": ("set transaction isolation level repeatable read read only",),
    "mysql": ("set session transaction read only", "start transaction read only"),
    "mariadb": ("set session transaction read only", "start transaction read only"),
    "sqlite": ("pragma query_only = on",),
}


def evenly(low: Any, high: Any, number: int) -> list[Any]:
    """So many values between two others, at equal distances.

    >>> evenly(0, 10, 3), evenly(1, 1, 3), evenly(None, None, 3)
    ([2, 5, 7], [], [])
    >>> evenly(datetime.date(2024, 1, 1), datetime.date(2024, 1, 5), 1)
    [datetime.date(2024, 1, 3)]
    """
    if low is None or low == high:
        return []
    if isinstance(low, decimal.Decimal):
        low, high = float(low), float(high)
    try:
        width = high - low
        cuts = [
            low + (width * i // (number + 1) if isinstance(low, int) else width * i / (number + 1))
            for i in range(1, number + 1)
        ]
    except TypeError:
        raise InputError(
            "a `partition` column holds numbers, dates or times, not", value=type(low).__name__
        ) from None
    return [cut for cut in dict.fromkeys(cuts) if low < cut]


def inferred(values: Sequence[Any]) -> pa.DataType:
    """The type of a column by its values; text where nothing narrower holds them.

    >>> inferred([1, None, decimal.Decimal("1.5")]), inferred([None]), inferred([1, "a"])
    (DataType(double), DataType(string), DataType(string))
    """
    kinds = {_kind(v) for v in values if v is not None}
    if kinds == {pa.int64(), pa.float64()}:
        return pa.float64()
    return kinds.pop() if len(kinds) == 1 else pa.string()


def _kind(value: Any) -> pa.DataType:
    if isinstance(value, datetime.datetime):
        return pa.timestamp("us", tz="UTC" if value.tzinfo else None)
    for python, arrow in _KINDS.items():
        if isinstance(value, python):
            return arrow
    return pa.string()


_KINDS: dict[Any, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    (float, decimal.Decimal): pa.float64(),
    datetime.date: pa.date32(),
    (bytes, bytearray, memoryview): pa.binary(),
}


def converted(value: Any, kind: pa.DataType) -> Any:
    """A value as Arrow takes it for a type; what has no type of its own becomes text."""
    if value is None:
        return None
    if kind == pa.float64():
        return float(value)
    if kind == pa.binary():
        return bytes(value)
    if kind != pa.string() or isinstance(value, str):
        return value
    return json.dumps(value, default=str) if isinstance(value, (dict, list)) else str(value)
