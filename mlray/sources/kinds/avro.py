"""Values in Avro: their schema as Arrow's, and bytes to records."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mlray.errors import InputError
from mlray.sources.kinds.records import Misfit, as_json

_FRAME_BYTES = 5
"""Confluent's framing: a zero byte, then the schema's id as four bytes."""
_PLAIN = {
    "boolean": pa.bool_(),
    "int": pa.int64(),
    "long": pa.int64(),
    "float": pa.float64(),
    "double": pa.float64(),
    "string": pa.string(),
    "enum": pa.string(),
    "bytes": pa.binary(),
    "fixed": pa.binary(),
    "null": pa.string(),
}
_LOGICAL = {
    "date": pa.date32(),
    "timestamp-millis": pa.timestamp("us", tz="UTC"),
    "timestamp-micros": pa.timestamp("us", tz="UTC"),
    "local-timestamp-millis": pa.timestamp("us"),
    "local-timestamp-micros": pa.timestamp("us"),
    "time-millis": pa.string(),
    "time-micros": pa.string(),
    "uuid": pa.string(),
}


@dataclass(frozen=True)
class AvroValues:
    """How the values of a topic are decoded. Travels to reading tasks."""

    schema: Any
    """The writer's, parsed."""
    framed: bool
    identifier: int | None = None
    """With `framed`: the only schema id that is read; values of another schema would be decoded
    to wrong ones."""

    @classmethod
    def load(cls, name: str, path: str | None, framed: bool) -> AvroValues:
        """The schema in a file.

        Raises:
            InputError: fastavro is not installed, or the file is not there or no record's schema.
        """
        try:
            from fastavro import schema
        except ImportError:
            raise InputError(
                f"source `{name}` needs fastavro", do="pip install 'mlray[kafka]'"
            ) from None
        if path is None:
            raise InputError(
                f"source `{name}` reads Avro without a schema",
                do="set `avro_schema` to the file (.avsc) that the values were written with",
            )
        try:
            parsed = schema.load_schema(path)
        except Exception as error:  # fastavro has no base class; JSON and file errors pass through
            raise InputError(
                f"source `{name}`: this is no Avro schema ({type(error).__name__}: {error})",
                value=path,
                do="check `avro_schema`",
            ) from None
        if not isinstance(parsed, dict) or parsed.get("type") != "record":
            raise InputError(f"source `{name}`: this Avro schema is not a record's", value=path)
        return cls(parsed, framed)

    def arrow(self) -> pa.Schema:
        """The columns that its records have, nested records flattened.

        A list, a map, a union of several types and a record inside itself are one column, of JSON
        text; a decimal keeps its digits.
        """
        return pa.schema([(".".join(path), _arrow(kind)) for path, kind in _leaves(self.schema)])

    def decoder(self) -> Callable[[bytes], Any]:
        """What makes a record, or a `Misfit`, of a value."""
        from fastavro import schemaless_reader

        whole = [path for path, kind in _leaves(self.schema) if _arrow(kind) == pa.string()]

        def decode(value: bytes) -> Any:
            start = _FRAME_BYTES if self.framed else 0
            if self.framed and (wrong := self._wrong_frame(value)):
                return wrong
            stream = io.BytesIO(value)
            stream.seek(start)
            try:
                record = schemaless_reader(stream, self.schema)
            except Exception as error:  # broken bytes end in errors of many kinds
                return Misfit(f"the message is not Avro of this schema ({type(error).__name__})")
            if stream.tell() != len(value):
                return Misfit("the message is not Avro of this schema (bytes are left over)")
            return _with_texts(record, whole)

        return decode

    def _wrong_frame(self, value: bytes) -> Misfit | None:
        found = schema_id(value)
        if found is None:
            return Misfit("the message does not start with Confluent's framing (0 and a schema id)")
        if self.identifier is not None and found != self.identifier:
            return Misfit(f"the message was written with schema {found}, not {self.identifier}")
        return None


def schema_id(value: bytes) -> int | None:
    """The id of the schema in Confluent's framing; None without one.

    >>> schema_id(bytes([0, 0, 0, 1, 2, 99])), schema_id(b"{}")
    (258, None)
    """
    if len(value) < _FRAME_BYTES or value[0] != 0:
        return None
    return int.from_bytes(value[1:_FRAME_BYTES], "big")


def _with_texts(record: Any, whole: Sequence[tuple[str, ...]]) -> Any:
    """The record with maps, and whatever else is no nested record of it, as JSON text."""
    for *before, last in whole:
        holder = record
        for step in before:
            holder = holder.get(step) if holder else None
        if holder and isinstance(holder[last], dict):
            holder[last] = as_json(holder[last]).decode()
    return record


def _leaves(
    record: Any, before: tuple[str, ...] = (), named: Mapping[str, Any] | None = None
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Where a record's values lie, and of what types; fields of nested records are its own."""
    known = {**(named or {}), record["name"]: _ITSELF}
    for field in record["fields"]:
        kind, path = _single(field["type"], known), (*before, field["name"])
        if isinstance(kind, dict) and kind.get("type") == "record":
            yield from _leaves(kind, path, known)
            known[kind["name"]] = kind
        else:
            yield path, kind


_ITSELF = {"type": "record inside itself"}


def _single(kind: Any, known: dict[str, Any]) -> Any:
    """A type, or the one type beside null of a union."""
    if isinstance(kind, list):
        others = [k for k in kind if k != "null"]
        return _single(others[0], known) if len(others) == 1 else {"type": "union"}
    if isinstance(kind, str):
        return known.get(kind, kind)
    if isinstance(kind.get("type"), (dict, list)):
        return _single(kind["type"], known)
    if "name" in kind and kind["type"] != "record":
        known[kind["name"]] = kind
    return kind


def _arrow(kind: Any) -> pa.DataType:
    if isinstance(kind, str):
        return _PLAIN.get(kind, pa.string())
    logical = kind.get("logicalType")
    if logical == "decimal":
        return pa.decimal128(kind["precision"], kind.get("scale", 0))
    return _LOGICAL.get(logical) or _PLAIN.get(kind["type"], pa.string())
