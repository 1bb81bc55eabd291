"""Column types: the words of the project file, and one type for a column of many files."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.types as pt

from mlray.errors import ConfigError, InputError

_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns)(?:,\s*(?:tz=)?([\w/+:-]+))?\]")
_WORDS = "int64, float64, string, bool, date32, timestamp[us], timestamp[us, UTC]"


def arrow_type(text: str) -> pa.DataType:
    """The Arrow type that `text` names.

    >>> arrow_type("timestamp[us, UTC]"), arrow_type("float64")
    (TimestampType(timestamp[us, tz=UTC]), DataType(double))
    """
    if match := _TIMESTAMP.fullmatch(text.strip()):
        return pa.timestamp(match[1], tz=match[2])
    try:
        return pa.type_for_alias(text.strip())
    except ValueError:
        raise ConfigError("unknown column type", value=text, allowed=_WORDS) from None


def unify(types: Iterable[pa.DataType]) -> pa.DataType:
    """The one type that holds values of all `types`; text where nothing narrower does.

    >>> unify([pa.int64(), pa.float64()]), unify([pa.int64(), pa.string()])
    (DataType(double), DataType(string))
    >>> unify([pa.null(), pa.date32(), pa.timestamp("s")])
    TimestampType(timestamp[us])
    """
    kinds = list(dict.fromkeys(_plain(t) for t in types if not pt.is_null(t)))
    if not kinds:
        return pa.null()
    if len(kinds) == 1:
        return kinds[0]
    if all(pt.is_integer(t) for t in kinds):
        return pa.int64()
    if all(pt.is_integer(t) or pt.is_floating(t) for t in kinds):
        return pa.float64()
    if all(pt.is_date32(t) or t == pa.timestamp("us") for t in kinds):
        return pa.timestamp("us")
    return pa.string()


def _plain(kind: pa.DataType) -> pa.DataType:
    """Types that differ only in how they are stored become one; clock times stay text."""
    if pt.is_timestamp(kind):
        return pa.timestamp("us", tz=kind.tz)
    if pt.is_dictionary(kind):
        return _plain(kind.value_type)
    if pt.is_large_string(kind) or pt.is_string_view(kind) or pt.is_time(kind):
        return pa.string()
    return kind


def declared_table(table: pa.Table, name: str, schema: pa.Schema) -> pa.Table:
    """The columns of `schema` with its types; `InputError` for a value that does not convert."""
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"a value of source `{name}` does not convert to its declared type ({error})",
            do="change `types` of this source",
        ) from None


def epoch_us(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times or dates as microseconds since 1970 (UTC), int64; finer parts are cut off."""
    zone = getattr(column.type, "tz", None)
    return column.cast(pa.timestamp("us", tz=zone), safe=False).cast(pa.int64())


def is_time(kind: pa.DataType) -> bool:
    """Whether values of this type are points in time."""
    return bool(pt.is_timestamp(kind) or pt.is_date(kind))
