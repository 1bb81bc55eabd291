"""Single columns become numbers: Arrow -> float64, category codes, calendar features.

These functions know nothing of encoders; both ways into the encoder (tables and request records)
end here, so that there is one meaning of a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlray.errors import InputError
from mlray.models.inputs import MISSING, UNSEEN

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]

CALENDAR = {"hour": (12.0, 7.0), "weekday": (3.0, 2.0), "yearday": (183.0, 106.0)}
"""Calendar features by name, with the centre and scale they are encoded with."""

_DAY_S = 86400.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def arrow_type(text: str) -> pa.DataType:
    """The Arrow type that `str(type)` gave; types that no model reads become strings.

    >>> arrow_type("timestamp[us, tz=UTC]"), arrow_type("decimal128(9, 2)"), arrow_type("int64")
    (TimestampType(timestamp[us, tz=UTC]), DataType(double), DataType(int64))
    """
    if match := re.fullmatch(r"timestamp\[(\w+), tz=(.+)\]", text):
        return pa.timestamp(match[1], match[2])
    if text.startswith("decimal"):
        return pa.float64()
    try:
        return pa.type_for_alias(text)
    except ValueError:
        return pa.string()


def is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def as_floats(column: pa.ChunkedArray) -> Floats:
    """Values as float64, shape (N,), NaN where there is none; texts that are no number count so."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array([_number(v) for v in column.to_pylist()], dtype=np.float64)
    if is_time(kind):
        return seconds(column)
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    # safe=False: an int64 above 2**53 is rounded to the nearest float64, as in any request
    floats = column.cast(pa.float64(), safe=False)
    return np.asarray(floats.to_numpy(zero_copy_only=False), dtype=np.float64)


def _number(text: str | None) -> float:
    try:
        return float("nan") if text is None else float(text)
    except ValueError:
        return float("nan")


def seconds(column: pa.ChunkedArray) -> Floats:
    """Wall-clock seconds since 1970-01-01 in the column's own time zone; NaN where missing."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        column = pc.local_timestamp(column)
    if not is_time(kind):
        return np.array([_text_seconds(v) for v in column.to_pylist()], dtype=np.float64)
    values = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    return np.asarray(values.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64) / 1e6


def _text_seconds(text: object) -> float:
    try:
        return moment_us(datetime.fromisoformat(str(text)), pa.timestamp("us", "UTC")) / 1e6
    except ValueError:
        return float("nan")


def moment_us(moment: datetime | date, kind: pa.DataType) -> int:
    """Microseconds since 1970-01-01 as a column of this type stores them.

    With a zone: of the instant, a moment without an offset being UTC. Without one: of the wall
    clock that the moment shows; `ValueError` for a moment with an offset, whose meaning would be
    a guess.

    >>> moment_us(date(1970, 1, 2), pa.timestamp("us"))
    86400000000
    """
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    zoned = pa.types.is_timestamp(kind) and kind.tz is not None
    if moment.tzinfo is not None and not zoned:
        raise ValueError("the column has no time zone")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def calendar(values: Floats, part: str) -> Floats:
    """A calendar feature of wall-clock seconds: hour (0 to 24, with minutes), weekday, yearday.

    >>> calendar(np.array([0.0, 5400.0, np.nan]), "hour").tolist()
    [0.0, 1.5, nan]
    >>> calendar(np.array([0.0]), "weekday").tolist()  # 1970-01-01 was a Thursday
    [3.0]
    """
    days = np.floor(values / _DAY_S)
    if part == "hour":
        return np.asarray((values - days * _DAY_S) / 3600.0, dtype=np.float64)
    if part == "weekday":
        return np.asarray((days + 3.0) % 7.0, dtype=np.float64)
    finite = np.isfinite(days)
    dates = np.where(finite, days, 0).astype("int64").astype("datetime64[D]")
    passed = (dates - dates.astype("datetime64[Y]").astype("datetime64[D]")).astype("float64")
    return np.where(finite, passed + 1.0, np.nan)


def category_key(value: Any) -> str:
    """The text by which a category value is known, the same for a table and for a request.

    >>> category_key(True), category_key(7), category_key(7.0), category_key("UA")
    ('true', '7', '7', 'UA')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def as_codes(column: pa.ChunkedArray, codes: Mapping[str, int]) -> Codes:
    """Category codes, shape (N,): each distinct value is looked up once."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    whole = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(whole, pa.ChunkedArray):  # combine_chunks of an empty column
        return np.zeros(len(whole), dtype=np.int32)
    values = whole.dictionary.to_pylist()
    table = np.array([code_of(v, codes) for v in values] + [MISSING], dtype=np.int32)
    # the null slot is the last entry of the table
    indices = whole.indices.cast(pa.int64()).fill_null(len(values)).to_numpy(zero_copy_only=False)
    return np.asarray(table[indices], dtype=np.int32)


def code_of(value: Any, codes: Mapping[str, int]) -> int:
    """The code of one value; NaN counts as missing, as None does."""
    if value is None or value != value:
        return MISSING
    return codes.get(category_key(value), UNSEEN)


def column_of(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column by name, or `InputError` with what is there."""
    if name not in table.column_names:
        raise InputError(
            "a column is missing", value=name, allowed=", ".join(table.column_names[:20])
        )
    return table.column(name)
