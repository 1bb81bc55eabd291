"""Request rows, strictly: every column there, no other, every value of its type.

Errors name columns and kinds, never values: a request may hold what must not stand in a log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import cache
from math import isfinite
from typing import Any

import pyarrow as pa

from mlray.errors import InputError
from mlray.models.columns import moment_us

Columns = dict[str, list[Any]]

_NONE = type(None)
_NAME_CHARS = 60


class RequestSchema:
    """What a request row must be; checks lists of records or columns of lists."""

    def __init__(self, schema: pa.Schema):
        self.schema = schema
        self._names = frozenset(schema.names)
        self._fields = [(f.name, f.type, *_allowed(f.type)) for f in schema]

    def columns(self, records: Sequence[Mapping[str, Any]]) -> Columns:
        """Records as checked columns, in the schema's order; times as microseconds (see `times`).

        Raises:
            InputError: naming fields that are missing, not known or of the wrong type.
        """
        if not isinstance(records, (list, tuple)):
            raise InputError("rows must be a list of objects")
        names = self._names
        for number, record in enumerate(records):
            if not isinstance(record, dict):
                raise InputError(f"row {number} is not an object of column names and values")
            if record.keys() != names:
                self._refuse_names(set(record), number)
        return self._checked({n: [record[n] for record in records] for n in self.schema.names})

    def from_columns(self, columns: Mapping[str, Sequence[Any]]) -> Columns:
        """The same from one list of values per column, all of the same length."""
        if not isinstance(columns, dict):
            raise InputError("columns must be an object of column names and lists of values")
        if columns.keys() != self._names:
            self._refuse_names(set(columns), None)
        if wrong := [n for n, v in columns.items() if not isinstance(v, (list, tuple))]:
            raise InputError("columns must hold lists of values", value=wrong)
        if len({len(v) for v in columns.values()}) > 1:
            raise InputError("columns are not equally long", value=[*columns])
        return self._checked({n: list(columns[n]) for n in self.schema.names})

    def table(self, columns: Columns) -> pa.Table:
        """Checked columns as an Arrow table of exactly the schema's types."""
        arrays = [as_array(columns[f.name], f.type) for f in self.schema]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def _checked(self, columns: Columns) -> Columns:
        problems = []
        for name, kind, types, wanted in self._fields:
            values = columns[name]
            found = set(map(type, values))
            if not found <= types:
                given = sorted(_kind_name(t) for t in found - types)
                problems.append(f"{_short(name)}: {wanted} is needed, {' and '.join(given)} given")
            elif pa.types.is_temporal(kind):
                columns[name] = times = [_time(v, kind) for v in values]
                if "" in times:
                    problems.append(f"{_short(name)}: {wanted} is needed, another text given")
            elif int in found or float in found:
                problems += _number_problem(name, values, kind, wanted)
        if problems:
            raise InputError("request values do not fit their columns", value=problems)
        return columns

    def _refuse_names(self, given: set[Any], row: int | None) -> None:
        where = "the request" if row is None else f"row {row}"
        if missing := [n for n in self.schema.names if n not in given]:
            raise InputError(
                f"{where} lacks columns",
                value=missing,
                allowed=", ".join(self.schema.names),
                do="send null for a value that is not known",
            )
        extra = sorted(_short(str(n)) for n in given - self._names)
        raise InputError(
            f"{where} has columns that the model does not know",
            value=extra,
            allowed=", ".join(self.schema.names),
        )


def _allowed(kind: pa.DataType) -> tuple[frozenset[type], str]:
    """Python types that a column takes, and how to say so."""
    if pa.types.is_boolean(kind):
        return frozenset({bool, _NONE}), "true or false"
    if pa.types.is_integer(kind):
        return frozenset({int, float, _NONE}), "a whole number"
    if pa.types.is_floating(kind):
        return frozenset({int, float, _NONE}), "a finite number"
    if pa.types.is_date(kind):
        return frozenset({str, date, datetime, _NONE}), "a date as ISO 8601 text"
    if pa.types.is_timestamp(kind):
        return frozenset({str, date, datetime, _NONE}), "a time as ISO 8601 text"
    return frozenset({str, _NONE}), "text"


def _kind_name(kind: type) -> str:
    known = {bool: "a boolean", int: "a number", float: "a number", str: "text", _NONE: "null"}
    return known.get(kind, "a list" if kind is list else "an object")


def _number_problem(name: str, values: list[Any], kind: pa.DataType, wanted: str) -> list[str]:
    """At most one complaint: not finite, not whole, or out of the type's range."""
    known = [v for v in values if v is not None]
    problem = ""
    try:
        if not all(map(isfinite, known)):
            problem = "NaN or infinity"
        elif pa.types.is_integer(kind):
            low, high = _range(kind)
            if any(int(v) != v for v in known):
                problem = "a fraction"
            elif min(known) < low or max(known) > high:
                problem = f"a number out of the range of {kind}"
    except OverflowError:  # a Python integer past the largest double
        problem = "a number out of range"
    return [f"{_short(name)}: {wanted} is needed, {problem} given"] if problem else []


@cache
def _range(kind: pa.DataType) -> tuple[int, int]:
    bits = kind.bit_width
    if pa.types.is_unsigned_integer(kind):
        return 0, int(2**bits - 1)
    return -int(2 ** (bits - 1)), int(2 ** (bits - 1) - 1)


def _time(value: Any, kind: pa.DataType) -> int | str | None:
    """Microseconds, None, or "" for what is no time."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        return moment_us(moment, kind)
    except (ValueError, OverflowError):
        return ""


def as_array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Checked values, times as microseconds, as an Arrow array of a request column's type."""
    if pa.types.is_date(kind):
        micros = pa.array(values, pa.int64()).cast(pa.timestamp("us"))
        return micros.cast(kind, safe=False)
    if pa.types.is_timestamp(kind):
        return _moments(values, kind)
    return pa.array(values, kind)


def _moments(values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        # to a coarser unit fractions of it are dropped; to nanoseconds the year 2262 is the end
        micros = pa.array(values, pa.int64()).cast(pa.timestamp("us", kind.tz))
        return micros.cast(kind, safe=kind.unit == "ns")
    except pa.ArrowInvalid:
        raise InputError("a time is out of range", allowed=f"{kind}") from None


def _short(name: str) -> str:
    return name if len(name) <= _NAME_CHARS else name[:_NAME_CHARS] + "..."
