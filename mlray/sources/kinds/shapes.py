"""Nested objects as flat columns: what fields they have, of what types, and back again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from mlray.sources.types import unify

_INT64 = 1 << 63


@dataclass(frozen=True)
class Leaf:
    """A field of objects that is no object itself."""

    path: tuple[str, ...]
    kind: pa.DataType

    @property
    def name(self) -> str:
        """The name of its column."""
        return ".".join(self.path)


def leaves(shape: pa.StructType, path: tuple[str, ...] = ()) -> list[Leaf]:
    """The fields of objects, nested ones too, in order.

    >>> [leaf.name for leaf in leaves(pa.struct({"a": pa.struct({"b": pa.int64()}), "c": "bool"}))]
    ['a.b', 'c']
    """
    found = []
    for each in shape:
        here = (*path, each.name)
        found += leaves(each.type, here) if pt.is_struct(each.type) else [Leaf(here, each.type)]
    return found


def read_schema(wanted: Sequence[Leaf]) -> pa.Schema:
    """The nested schema that holds just these leaves."""
    tops = dict.fromkeys(leaf.path[0] for leaf in wanted)
    fields = []
    for top in tops:
        inside = [leaf for leaf in wanted if leaf.path[0] == top]
        if len(inside[0].path) == 1:
            fields.append(pa.field(top, inside[0].kind))
        else:
            nested = read_schema([Leaf(leaf.path[1:], leaf.kind) for leaf in inside])
            fields.append(pa.field(top, pa.struct(list(nested))))
    return pa.schema(fields)


def shape_of(objects: Iterable[dict[str, Any]]) -> pa.StructType:
    """One type for objects whose fields may be of several types.

    >>> shape_of([{"a": 1, "b": {"c": True}}, {"a": 1.5, "b": None}, {"a": None, "d": "x"}])
    StructType(struct<a: double, b: struct<c: bool>, d: string>)
    >>> shape_of([{"a": 1}, {"a": {"b": 1}}])
    StructType(struct<a: string>)
    """
    shape = _Shape()
    for each in objects:
        shape.add(each)
    kind = shape.kind()
    return kind if pt.is_struct(kind) else pa.struct([])


@dataclass
class _Shape:
    """What values were seen at one place."""

    scalars: set[type] = field(default_factory=set)
    fields: dict[str, _Shape] | None = None
    items: _Shape | None = None

    def add(self, value: Any) -> None:
        if isinstance(value, dict):
            if self.fields is None:
                self.fields = {}
            for key, held in value.items():
                self.fields.setdefault(key, _Shape()).add(held)
        elif isinstance(value, list):
            self.items = self.items or _Shape()
            for held in value:
                self.items.add(held)
        elif isinstance(value, int) and not -_INT64 <= value < _INT64:
            self.scalars.add(str)  # only text keeps all its digits
        elif value is not None:
            self.scalars.add(type(value))

    def kind(self) -> pa.DataType:
        kinds = [_SCALARS[each] for each in self.scalars]
        if self.fields is not None:
            kinds.append(pa.struct([(n, s.kind()) for n, s in self.fields.items()]))
        if self.items is not None:
            kinds.append(pa.list_(self.items.kind()))
        return unify(kinds)


_SCALARS = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
