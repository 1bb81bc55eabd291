"""Expressions over columns: a small language for the project file, computed by Arrow.

Written like Python, read by Python's parser, never run by Python: only what stands in `LANGUAGE`
exists. Types are checked before any row is read. Each row's value depends on that row alone, so
training, batches and requests get the same bits.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import pyarrow as pa

from mlray.errors import ConfigError, InputError, MlrayError
from mlray.expressions.binding import bind, check_calls, columns_of
from mlray.expressions.bound import FLOAT, Bound, converted, inner, inner_type
from mlray.expressions.language import LANGUAGE
from mlray.expressions.parsing import Mistake, parse, place_of

__all__ = ["LANGUAGE", "Expression", "compile_expression"]

_SHOWN = 80


@lru_cache(maxsize=1024)
def compile_expression(text: str, place: str = "") -> Expression:
    """An expression, parsed and checked; types are checked when a schema is known.

    >>> speed = compile_expression("distance / air_time * 60")
    >>> sorted(speed.columns)
    ['air_time', 'distance']
    >>> speed.evaluate(pa.table({"distance": [100, 100], "air_time": [60, 0]})).to_pylist()
    [100.0, None]

    Args:
        text: the expression; see `LANGUAGE`.
        place: where it stands in the project file, for messages: `sources.derive.speed`.

    Raises:
        ConfigError: it is none; the message has the place, the character and what is allowed.
    """
    try:
        tree = parse(text)
        check_calls(tree)
        return Expression(text, place, columns_of(tree), tree)
    except Mistake as mistake:
        raise _error(text, place, mistake) from None


@dataclass(frozen=True)
class Expression:
    """A compiled expression. Pickles as its text."""

    text: str
    place: str
    columns: frozenset[str]
    """Columns that it reads."""
    _tree: ast.expr = field(repr=False, compare=False)

    def type(self, schema: pa.Schema) -> pa.DataType:
        """Type of its values for columns of these types.

        Raises:
            InputError: a column is not there.
            ConfigError: types do not fit.
        """
        return self._bound(schema).kind

    def evaluate(self, table: pa.Table) -> pa.Array:
        """Its value for each row: an array of N values of `type(table.schema)`.

        Raises:
            InputError: a column is not there, or a text would be too long.
            ConfigError: types do not fit.
        """
        bound = self._bound(table.schema)
        columns = {name: inner(_whole(table.column(name))) for name in self._names}
        try:
            value = bound.run(columns)
        except InputError as error:
            raise InputError(
                f"{_shown(self.text, self.place)} {error.what}",
                value=error.value,
                allowed=error.allowed,
            ) from None
        return pa.repeat(value, table.num_rows) if isinstance(value, pa.Scalar) else value

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(sorted(self.columns))

    @cached_property
    def _known(self) -> dict[tuple[pa.DataType | None, ...], Bound]:
        return {}

    def _bound(self, schema: pa.Schema) -> Bound:
        kinds = tuple(_type_in(schema, name) for name in self._names)
        known = self._known.get(kinds)
        if known is None:
            known = self._known[kinds] = self._made(schema)
        return known

    def _made(self, schema: pa.Schema) -> Bound:
        types = {each.name: inner_type(each.type) for each in schema}
        try:
            made = bind(self._tree, types)
        except Mistake as mistake:
            raise _error(self.text, self.place, mistake) from None
        # Nothing but missing values still needs a type.
        return converted(made, FLOAT) if pa.types.is_null(made.kind) else made

    def __reduce__(self) -> tuple[Any, ...]:
        return compile_expression, (self.text, self.place)


def _type_in(schema: pa.Schema, name: str) -> pa.DataType | None:
    index = schema.get_field_index(name)
    return schema.field(index).type if index >= 0 else None


def _whole(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _error(text: str, place: str, mistake: Mistake) -> MlrayError:
    kind = InputError if mistake.unknown_column else ConfigError
    return kind(
        f"{_shown(text, place)} {mistake.what} (at character {place_of(text, mistake.at)})",
        allowed=mistake.allowed,
        do=mistake.do,
    )


def _shown(text: str, place: str) -> str:
    """
    >>> _shown("a / b", "sources.derive.speed")
    'sources.derive.speed: `a / b`:'
    """
    short = " ".join(text.split())
    short = short if len(short) <= _SHOWN else f"{short[:_SHOWN]}..."
    return f"{place}: `{short}`:" if place else f"`{short}`:"
