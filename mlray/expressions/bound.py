"""Typed parts of an expression: how values meet in one type, and what is refused before any row.

The language has whole numbers (int64), fractions (float64), truth values, texts, dates and times
(microseconds, with or without a zone). Columns of other types are converted on the way in.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mlray.expressions import kernels
from mlray.expressions.kernels import Value
from mlray.expressions.parsing import Mistake

Columns = Mapping[str, pa.Array]
INT, FLOAT, TEXT, BOOL = pa.int64(), pa.float64(), pa.string(), pa.bool_()
DATE, TIME = pa.date32(), pa.timestamp("us")


@dataclass(frozen=True)
class Bound:
    """A part of an expression that knows its type and can be run on columns."""

    kind: pa.DataType
    run: Callable[[Columns], Value]
    at: ast.AST
    value: pa.Scalar | None = None
    """The value of a part without columns."""


def constant(value: pa.Scalar, at: ast.AST) -> Bound:
    return Bound(value.type, lambda _: value, at, value)


def applied(kernel: Callable[..., Value], kind: pa.DataType, at: ast.AST, *of: Bound) -> Bound:
    """A kernel on parts; what has no columns is computed at once."""
    if all(part.value is not None for part in of):
        try:
            return constant(kernel(*(part.value for part in of)).cast(kind), at)
        except pa.ArrowInvalid as error:
            raise Mistake(f"cannot be ({error})", at) from None
    runs = [part.run for part in of]
    if len(runs) == 1:
        only = runs[0]
        return Bound(kind, lambda columns: kernel(only(columns)), at)
    return Bound(kind, lambda columns: kernel(*[run(columns) for run in runs]), at)


# --- types --------------------------------------------------------------------------------------


def inner_type(kind: pa.DataType) -> pa.DataType:
    """The type of the language that a column's values are computed in.

    >>> inner_type(pa.int8()), inner_type(pa.dictionary(pa.int32(), pa.string()))
    (DataType(int64), DataType(string))
    """
    if pt.is_dictionary(kind):
        return inner_type(kind.value_type)
    if pt.is_integer(kind):
        return INT
    if pt.is_floating(kind) or pt.is_decimal(kind):
        return FLOAT
    if pt.is_large_string(kind) or pt.is_string_view(kind):
        return TEXT
    if pt.is_timestamp(kind):
        return pa.timestamp("us", tz=kind.tz)
    return DATE if pt.is_date(kind) else kind


def inner(column: pa.Array) -> pa.Array:
    """A column's values in the type of the language."""
    kind = inner_type(column.type)
    if column.type == kind:
        return column
    if pt.is_dictionary(column.type):
        return inner(column.dictionary_decode())
    if pt.is_uint64(column.type):  # what does not fit is missing
        column = pc.if_else(
            pc.less(column, pa.scalar(2**63, column.type)), column, pa.scalar(None, column.type)
        )
    return column.cast(kind, safe=False)


def called(kind: pa.DataType) -> str:
    """A type in words."""
    names = {INT: "a whole number", FLOAT: "a fraction", TEXT: "a text", BOOL: "true or false"}
    if kind in names:
        return names[kind]
    if is_zoned(kind):
        return f"a time in zone {kind.tz}"
    known = {DATE: "a date", TIME: "a time without a zone", pa.null(): "nothing but missing values"}
    return known.get(kind, f"of type {kind}")


def is_number(kind: pa.DataType) -> bool:
    return kind in (INT, FLOAT)


def is_time(kind: pa.DataType) -> bool:
    return bool(kind == DATE or pt.is_timestamp(kind))


def is_zoned(kind: pa.DataType) -> bool:
    return bool(pt.is_timestamp(kind) and kind.tz is not None)


_FAMILIES: dict[str, tuple[Callable[[pa.DataType], bool], pa.DataType, str]] = {
    "number": (is_number, FLOAT, "a number"),
    "float": (is_number, FLOAT, "a number"),
    "text": (lambda kind: kind == TEXT, TEXT, "a text"),
    "bool": (lambda kind: kind == BOOL, BOOL, "true or false"),
    "time": (is_time, TIME, "a date or a time"),
    "instant": (is_time, TIME, "a date or a time"),
    "plain": (lambda kind: kind in (INT, FLOAT, TEXT, BOOL), TEXT, "a number, text or truth value"),
    "ordered": (lambda kind: kind in (INT, FLOAT, TEXT) or is_time(kind), FLOAT, "ordered values"),
    "any": (
        lambda kind: kind in (INT, FLOAT, TEXT, BOOL) or is_time(kind),
        FLOAT,
        "a number, text, truth value, date or time",
    ),
}
"""Which types belong to a family, which one stands for a value that is always missing, in words."""


def fit(part: Bound, family: str, who: str) -> Bound:
    """A part as its place needs it; `who` is the place in words.

    Raises:
        Mistake: it is of another type.
    """
    belongs, usual, words = _FAMILIES[family]
    if pt.is_null(part.kind):
        return converted(part, usual)
    if not belongs(part.kind):
        hint = "convert it: float(), int(), str(), bool(), date(), timestamp()"
        raise Mistake(f"{who} needs {words}, this is {called(part.kind)}", part.at, do=hint)
    if family == "float":
        return converted(part, FLOAT)
    return converted(part, TIME) if family == "instant" and part.kind == DATE else part


def literal(part: Bound, kind: pa.DataType, who: str) -> Any:
    """The value of a part that must be written out."""
    if part.value is None or part.kind != kind or not part.value.is_valid:
        words = "a text in quotes" if kind == TEXT else "a whole number"
        raise Mistake(f"{who} needs {words} written out here", part.at)
    return part.value.as_py()


def converted(part: Bound, kind: pa.DataType) -> Bound:
    if part.kind == kind:
        return part
    if part.kind == INT and kind == FLOAT:
        return applied(kernels.float_of_int, kind, part.at, part)
    return applied(partial(kernels.cast, kind=kind), kind, part.at, part)


def met(parts: Sequence[Bound], at: ast.AST) -> list[Bound]:
    """Parts in the one type in which they can be compared.

    Raises:
        Mistake: there is none.
    """
    kind: pa.DataType = pa.null()
    for part in sorted(parts, key=lambda p: p.value is not None):  # literals follow columns
        kind = _common(kind, part, at)
    return [_as(part, kind) for part in parts]


def _common(kind: pa.DataType, part: Bound, at: ast.AST) -> pa.DataType:
    other = part.kind
    if kind == other or pt.is_null(other):
        return kind
    if pt.is_null(kind):
        return other
    if is_number(kind) and is_number(other):
        return FLOAT
    if is_time(kind) and other == TEXT and part.value is not None:
        return _of_literal(part, kind).kind
    if {kind, other} == {DATE, TIME}:
        return TIME
    if is_zoned(kind) and is_zoned(other):
        return kind
    hint = "use timestamp() or date() on both" if is_time(kind) and is_time(other) else None
    raise Mistake(f"{called(kind)} and {called(other)} do not meet", at, do=hint)


def _as(part: Bound, kind: pa.DataType) -> Bound:
    if is_time(kind) and part.kind == TEXT:
        return converted(_of_literal(part, kind), kind)
    return converted(part, kind)


def _of_literal(part: Bound, kind: pa.DataType) -> Bound:
    """A text as date or time; without an offset it is by the clock of the other value's zone."""
    assert part.value is not None
    text = part.value.as_py()
    try:
        moment = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        raise Mistake(f"{text!r} is no date or time", part.at, allowed='"2013-09-01"') from None
    if kind == DATE and len(text) <= 10:
        return constant(pa.scalar(moment.date(), DATE), part.at)
    kind = TIME if kind == DATE else kind
    if moment.tzinfo is not None and not is_zoned(kind):
        raise Mistake("the other time has no zone, so this must have no offset", part.at)
    plain = pa.scalar(moment, TIME if moment.tzinfo is None else kind)
    if is_zoned(kind) and moment.tzinfo is None:
        plain = kernels.in_zone_of(plain, kind.tz)
    return constant(plain.cast(kind), part.at)
