"""Limits of a rule in the units of its column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlray.errors import ConfigError
from mlray.sources.types import is_time

_EPOCH = datetime(1970, 1, 1)
_TICKS_PER_S = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def bounds(
    place: str, column: str, limits: tuple[Any, Any], kind: pa.DataType
) -> tuple[int | float | None, int | float | None]:
    """Least and greatest number, or tick of a time, that a column of type `kind` may hold.

    None for a bound that is not there, or that no value of the type can break. A day as upper
    bound is allowed until its end; a time without a zone is in the column's.

    Raises:
        ConfigError: the type has no order, the limits are not of it, or lie the wrong way round.
    """
    number = pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind)
    if not number and not is_time(kind):
        raise ConfigError(
            f"{place}: range is for numbers and times, but `{column}` is", value=str(kind)
        )
    convert = _number if number else _tick
    try:
        low, high = convert(limits[0], kind, False), convert(limits[1], kind, True)
    except (ValueError, TypeError):
        raise ConfigError(
            f"{place}: the bounds of `{column}` are not {kind}", value=list(limits)
        ) from None
    if low is not None and high is not None and low > high:
        raise ConfigError(
            f"{place}: the lower bound of `{column}` is above the upper", value=list(limits)
        )
    return low, high


def allowed_values(place: str, column: str, allowed: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """The allowed values as an array of the column's type; `ConfigError` if they are not of it."""
    try:
        return pa.array(allowed).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        raise ConfigError(
            f"{place}: allowed values of `{column}` are not {kind}", value=list(allowed)
        ) from None


def _number(value: Any, kind: pa.DataType, is_high: bool) -> int | float | None:
    """Whole numbers for whole columns: comparing them copies nothing."""
    if value is None:
        return None
    bound = float(value)
    if math.isnan(bound):
        raise ValueError("not a number is no bound")
    if not pt.is_integer(kind):
        return None if bound == (math.inf if is_high else -math.inf) else bound
    info = np.iinfo(str(kind))
    if is_high:
        return None if bound >= info.max else max(math.floor(bound), info.min)
    return None if bound <= info.min else min(math.ceil(bound), info.max)


def _tick(value: Any, kind: pa.DataType, is_high: bool) -> int | None:
    if value is None:
        return None
    text = value.isoformat() if isinstance(value, date) else str(value).strip()
    moment = datetime.fromisoformat(text)
    if is_high and len(text) == 10:
        moment += timedelta(days=1, microseconds=-1)
    us = (_plain(moment, getattr(kind, "tz", None)) - _EPOCH) // timedelta(microseconds=1)
    if pt.is_date32(kind):
        return _part(us, 86_400 * 10**6, is_high)
    unit = "ms" if pt.is_date64(kind) else kind.unit
    if unit == "ns":
        return us * 1000 + (999 if is_high else 0)
    return _part(us, 10**6 // _TICKS_PER_S[unit], is_high)


def _part(us: int, length: int, is_high: bool) -> int:
    """Microseconds in longer ticks: the last one that began by then, or the first one after."""
    return us // length if is_high else -(-us // length)


def _plain(moment: datetime, zone: str | None) -> datetime:
    """The moment in UTC if the column has a zone, without it."""
    if zone is None:
        if moment.tzinfo is not None:
            raise ValueError("a bound in a zone for times without one")
        return moment
    aware = moment if moment.tzinfo else moment.replace(tzinfo=_zone(zone))
    return aware.astimezone(ZoneInfo("UTC")).replace(tzinfo=None)


def _zone(name: str) -> Any:
    """A named zone, or an offset such as +02:00."""
    if name[:1] in "+-":
        return datetime.fromisoformat(f"2000-01-01T00:00:00{name}").tzinfo
    return ZoneInfo(name)
