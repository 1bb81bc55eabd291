"""Left joins of small tables to the rows: rows in = rows out, in the same order.

The right table is read once, checked, and handed to the workers through Ray's object store. For
each block Polars finds the number of the matching right row from the keys alone; the right columns
are then taken by that number, so the left columns are never copied or changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from mlray.config.fields import duration_s
from mlray.config.rows import AnySource, Join
from mlray.errors import EXAMPLES, ConfigError, InputError
from mlray.sources.opened import refuse_large, require_columns
from mlray.sources.types import epoch_us, is_time, unify

T = TypeVar("T")

_ROW, _MATCH, _TIME = "__row", "__match", "__time"


@dataclass(frozen=True)
class PreparedJoin:
    """A join whose right table is read, checked and ready; plain data but for `right`."""

    name: str
    keys: tuple[str, ...]
    key_types: tuple[pa.DataType, ...]
    """Types in which both sides' keys are compared."""
    as_of: str | None
    tolerance_us: int | None
    taken: tuple[str, ...]
    """Right columns that are added ..."""
    names: tuple[str, ...]
    """... and what they are called in the rows."""
    added: pa.Schema
    right: Callable[[], RightTable] = field(repr=False)
    """Gives the right table in the process that asks."""

    def schema(self, left: pa.Schema) -> pa.Schema:
        return pa.schema([*left, *self.added])

    def apply(self, left: pa.Table) -> pa.Table:
        """`left` with the right columns added."""
        right = self.right()
        match = _match(self, left, right)
        for name, column in zip(self.names, self.taken, strict=True):
            left = left.append_column(name, right.table.column(column).take(match))
        return left


@dataclass(frozen=True)
class RightTable:
    """The right rows, and their keys in the types of the comparison (rows with all keys only)."""

    table: pa.Table
    keys: pa.Table
    """Key columns, `__match` (row number in `table`) and, for `as_of`, `__time` in us."""


def prepare(join: Join, source: AnySource, table: pa.Table, left: pa.Schema) -> PreparedJoin:
    """Check a join and get its right table ready.

    Args:
        join: what the project file says.
        source: the other source.
        table: all of its rows, transformed.
        left: schema of the rows so far.

    Raises:
        InputError: a key or time column is missing on a side, types do not meet, a key of a plain
            join occurs twice, or the table is too large to be handed to every worker.
    """
    name, keys, others = join.with_, tuple(join.keys), tuple(join.keys.values())
    require_columns(keys, left, f"`rows`, joined with `{name}`,")
    require_columns(others, table.schema, f"source `{name}`")
    refuse_large(name, table.nbytes)
    time = _time_column(join, source, table.schema, left)
    pairs = join.keys.items()
    kinds = tuple(unify([left.field(k).type, table.schema.field(o).type]) for k, o in pairs)
    right = RightTable(table.combine_chunks(), _right_keys(join, table, kinds, time))
    taken = tuple(c for c in table.column_names if c not in others)
    names = _names(join, taken, left)
    added = [
        table.schema.field(c).with_name(n).with_nullable(True)
        for c, n in zip(taken, names, strict=True)
    ]
    tolerance = round(duration_s(join.tolerance) * 1e6) if join.tolerance else None
    return PreparedJoin(
        name, keys, kinds, join.as_of, tolerance, taken, names, pa.schema(added), lambda: right
    )


def check_declared(joins: list[Join], tables: Mapping[str, AnySource]) -> None:
    """`ConfigError` for a join that cannot be, whatever the files hold."""
    for join in joins:
        others = [n for n in tables if n != "rows"]
        if join.with_ not in others:
            raise ConfigError(
                "sources.join names a source that is not declared",
                value=join.with_,
                allowed=", ".join(others) or "declare it under `sources`",
            )
        if join.as_of and not tables[join.with_].time:
            raise ConfigError(
                f"sources.join with `{join.with_}` is as_of, but that source declares no time",
                do=f"set sources.{join.with_}.time to the column that says when a row became known",
            )
        if join.tolerance and not join.as_of:
            raise ConfigError(
                f"sources.join with `{join.with_}` has a tolerance but no `as_of`",
                do="name the time column of `rows` in `as_of`",
            )


def _time_column(join: Join, source: AnySource, right: pa.Schema, left: pa.Schema) -> str | None:
    if join.as_of is None:
        return None
    time = str(source.time)
    require_columns([join.as_of], left, f"`rows`, joined as_of with `{join.with_}`,")
    require_columns([time], right, f"source `{join.with_}`")
    kinds = {
        f"rows.{join.as_of}": left.field(join.as_of).type,
        f"{join.with_}.{time}": right.field(time).type,
    }
    for column, kind in kinds.items():
        if not is_time(kind):
            raise InputError(
                f"a join as_of needs times, but {column} is",
                value=str(kind),
                do="declare it in `types`, e.g. timestamp[us, UTC]",
            )
    zones = [getattr(kind, "tz", None) is not None for kind in kinds.values()]
    if zones[0] != zones[1]:
        raise InputError(
            "a join as_of compares a time in a zone with one without",
            value=[f"{c}: {k}" for c, k in kinds.items()],
            do="declare both in `types`, e.g. timestamp[us, UTC]",
        )
    return time


def renamed(join: Join, columns: Mapping[str, T], left: pa.Schema) -> dict[str, T]:
    """What is known of the other source's columns, by their names in the rows; keys left out."""
    others = join.keys.values()
    return {_name(join, c, left): known for c, known in columns.items() if c not in others}


def _name(join: Join, column: str, left: pa.Schema) -> str:
    if join.prefix is not None:
        return f"{join.prefix}{column}"
    return f"{join.with_}_{column}" if column in left.names else column


def _names(join: Join, taken: tuple[str, ...], left: pa.Schema) -> tuple[str, ...]:
    names = tuple(_name(join, c, left) for c in taken)
    clash = sorted({n for n in names if n in left.names or names.count(n) > 1})
    if clash:
        raise InputError(
            f"the join with `{join.with_}` gives columns that are already there",
            value=clash,
            do="set another `prefix` on this join",
        )
    return names


def _right_keys(
    join: Join, table: pa.Table, kinds: tuple[pa.DataType, ...], time: str | None
) -> pa.Table:
    name, keys = join.with_, tuple(join.keys)
    columns = _key_columns(table, join.keys, kinds, f"source `{name}`")
    columns[_MATCH] = pa.array(range(table.num_rows), pa.int64())
    if time is not None:
        columns[_TIME] = epoch_us(table.column(time))
    complete = pa.table(columns).drop_null()
    if time is None:
        _refuse_repeated(name, complete, keys, tuple(join.keys.values()))
        return complete
    import polars as pl

    # Stable, so that of two rows with the same key and time the one read last stays.
    ordered = pl.DataFrame(complete).sort(_TIME, maintain_order=True)
    newest = ordered.unique([*keys, _TIME], keep="last", maintain_order=True)
    return newest.to_arrow(compat_level=pl.CompatLevel.oldest())


def _refuse_repeated(
    name: str, right: pa.Table, keys: tuple[str, ...], called: tuple[str, ...]
) -> None:
    counts = right.group_by(list(keys), use_threads=False).aggregate([([], "count_all")])
    repeated = counts.filter(pc.greater(counts["count_all"], 1))
    if repeated.num_rows:
        shown = repeated.slice(0, EXAMPLES).select(list(keys)).to_pylist()
        raise InputError(
            f"source `{name}` has {repeated.num_rows} keys that occur more than once "
            f"({', '.join(called)})",
            value=[", ".join(str(v) for v in row.values()) for row in shown],
            do=f"make them unique in sources.{name}.transform, add a column to `on`, "
            "or join `as_of` a time",
        )


def _key_columns(
    table: pa.Table, keys: Mapping[str, str], kinds: tuple[pa.DataType, ...], who: str
) -> dict[str, pa.ChunkedArray]:
    """Keys in the types of the comparison.

    Args:
        table: of either side.
        keys: what a key is called in `rows`, and in the table.
        kinds: types of the keys.
        who: the side, for messages.
    """
    columns = {}
    for (key, name), kind in zip(keys.items(), kinds, strict=True):
        try:
            columns[key] = table.column(name).cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(
                f"{who}: join key `{name}` does not convert to {kind} ({error})",
                do="declare the same type for it on both sides in `types`",
            ) from None
    return columns


def _match(join: PreparedJoin, left: pa.Table, right: RightTable) -> pa.Array:
    """Row number in the right table for each left row; null where there is none."""
    import polars as pl

    columns = _key_columns(left, {k: k for k in join.keys}, join.key_types, "`rows`")
    columns[_ROW] = pa.array(range(left.num_rows), pa.int64())
    if join.as_of is None:
        found = pl.DataFrame(pa.table(columns)).join(
            pl.DataFrame(right.keys), on=list(join.keys), how="left", maintain_order="left"
        )
        return _as_array(found, left.num_rows)
    columns[_TIME] = epoch_us(left.column(join.as_of))
    timed = pl.DataFrame(pa.table(columns).drop_null()).sort(_TIME)
    found = timed.join_asof(
        pl.DataFrame(right.keys).sort(_TIME),
        on=_TIME,
        by=list(join.keys),
        strategy="backward",
        tolerance=join.tolerance_us,
        check_sortedness=False,
    )
    every = pl.DataFrame({_ROW: range(left.num_rows)}, schema={_ROW: pl.Int64})
    return _as_array(
        every.join(found.select(_ROW, _MATCH), on=_ROW, how="left", maintain_order="left"),
        left.num_rows,
    )


def _as_array(found: Any, rows: int) -> pa.Array:
    match = found.get_column(_MATCH).to_arrow()
    if len(match) != rows:
        raise AssertionError(f"a left join of {rows} rows gave {len(match)}")
    return match
