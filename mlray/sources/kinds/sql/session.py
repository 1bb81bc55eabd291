"""What the kinds of databases share: how one is talked to, and what is settled before a read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from mlray.config.rows import SqlSource
from mlray.errors import InputError
from mlray.sources.kinds.sql.ranges import Range, numbered, of_counts
from mlray.sources.opened import did_you_mean, require_columns


@dataclass(frozen=True)
class Selected:
    """Columns to read, each as SQL whose values are all of one type."""

    relation: str
    """A quoted table, or a query as a subquery."""
    expressions: Mapping[str, str]
    """Column: SQL."""
    schema: pa.Schema
    """What comes out of the database, before `types` are applied."""

    def sql(self, condition: str = "") -> str:
        """The SELECT of some rows, or of all."""
        named = ", ".join(f"{sql} as {name}" for name, sql in self.expressions.items())
        where = f" where {condition}" if condition else ""
        return f"select {named} from {self.relation}{where}"


@dataclass(frozen=True)
class Plan:
    """What is to be read."""

    selected: Selected
    ranges: Sequence[Range]
    state: Any
    """What readers need to see the state that was planned on; in the driver it keeps it open."""
    size_bytes: int = 0
    """About so many bytes, if the database knows."""


class Database(Protocol):
    """One kind of database. Travels to the tasks that read; its secrets show in no text of it."""

    @property
    def where(self) -> str:
        """Address without credentials."""

    def plan(self, source: SqlSource) -> Plan:
        """Columns, types and ranges. Runs in the driver."""

    def evidence(self, source: SqlSource, state: Any = None) -> str:
        """What changes when the rows do, of a plan's state or of now. Runs in the driver."""

    def stream(self, state: Any, sql: str) -> AbstractContextManager[Iterator[pa.Table]]:
        """Rows of `Selected.sql` in batches, of a plan's state. Runs in a Ray worker."""


class Session(Protocol):
    """A connection for small questions."""

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of an answer."""


def counted(
    session: Session, relation: str, column: str, bounds: Sequence[str], tasks: int
) -> list[Range]:
    """Balanced ranges of a column between bounds.

    Args:
        session: to count with, in the state that is read.
        relation: quoted.
        column: quoted.
        bounds: literals in ascending order.
        tasks: at most so many ranges.
    """
    if not bounds:
        return [Range("", int(session.fetch(f"select count(*) from {relation}")[0][0]))]
    part = numbered(column, bounds)
    found = session.fetch(
        f"select part, count(*) from (select {part} as part from {relation}) p group by part"
    )
    by_part = {int(number): int(rows) for number, rows in found}
    counts = [by_part.get(i, 0) for i in range(len(bounds) + 1)]
    return of_counts(column, bounds, counts, tasks)


def chosen(name: str, source: SqlSource, found: Sequence[str]) -> list[str]:
    """The columns to read of those that are there.

    Raises:
        InputError: one is missing, or two are called the same.
    """
    repeated = sorted({n for n in found if list(found).count(n) > 1})
    if repeated:
        raise InputError(
            f"the query of source `{name}` gives two columns of one name",
            value=repeated,
            do="name them apart with `as`",
        )
    schema = pa.schema([(n, pa.null()) for n in found])
    wanted = [*(source.columns or found), *([source.partition] if source.partition else [])]
    require_columns([*wanted, *source.types], schema, f"source `{name}`")
    return list(source.columns or found)


def no_table(name: str, where: str, table: str, known: Sequence[str]) -> InputError:
    """The error for a table that is not there; names the nearest."""
    return InputError(
        f"{where} (source `{name}`) has no table",
        value=table,
        do=did_you_mean(table, known) if known else "the database holds no table",
    )
