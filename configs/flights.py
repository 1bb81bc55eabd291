"""The flights project's own steps: plain functions on Arrow tables."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

LATE_MIN = 15
NOTICE_H = 2
TAXI_MIN = 30
"""Minutes on the ground that `air_time` leaves out (a round figure, for `arrived_at` only)."""

_KNOWN_TOO_LATE = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")
_REPLACED = (
    *("sched_dep_time", "sched_arr_time", "time_hour", "hour", "minute"),
    *("year", "month", "day", "planes_year", "flight", "observed_at"),
)
"""Columns that the features stand for, or that only name a row; a request need not have the latter.
"""


def departures(table: pa.Table) -> pa.Table:
    """Adds the label and its times, and drops all that is known only after the decision.

    Cancelled and diverted flights have no arrival, so they have no label: they are left out, and
    the model answers for flights that do fly.
    """
    table = table.filter(pc.is_valid(table["arr_delay"]))
    scheduled_at = pc.add(_microseconds(table["time_hour"]), _minutes(table["minute"]))
    in_the_air = pc.add(pc.fill_null(table["air_time"], 0), TAXI_MIN)
    arrived_at = pc.add(scheduled_at, _minutes(pc.add(table["dep_delay"], in_the_air)))
    notice = pa.scalar(NOTICE_H * 3600 * 10**6, pa.duration("us"))
    return (
        table.append_column("late", pc.greater_equal(table["arr_delay"], LATE_MIN))
        .append_column("decided_at", pc.subtract(scheduled_at, notice))
        .append_column("arrived_at", arrived_at)
        .drop_columns(list(_KNOWN_TOO_LATE))
    )


def observations(table: pa.Table) -> pa.Table:
    """Hourly weather; an observation of an hour is known when that hour is over."""
    known_at = pc.add(_microseconds(table["time_hour"]), _minutes(pa.scalar(60)))
    names = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip"]
    kept = table.select(["origin", *names, "pressure", "visib"])
    return kept.append_column("observed_at", known_at)


def features(table: pa.Table) -> pa.Table:
    """What the network sees, row by row: in training and for every request."""
    departs_min = _minute_of_day(table["sched_dep_time"])
    arrives_min = _minute_of_day(table["sched_arr_time"])
    local = pc.cast(_microseconds(table["time_hour"]), pa.timestamp("us", "America/New_York"))
    day = pc.day_of_week(local)
    made = (
        table.append_column("departs_min", departs_min)
        .append_column("arrives_min", arrives_min)
        .append_column("clock_span_min", pc.subtract(arrives_min, departs_min))
        .append_column("weekday", pc.cast(day, pa.string()))
        .append_column("is_weekend", pc.greater_equal(day, 5))
        .append_column("plane_age", pc.subtract(2013, table["planes_year"]))
        .append_column("route", pc.binary_join_element_wise(table["origin"], table["dest"], "-"))
    )
    return made.select([name for name in made.column_names if name not in _REPLACED])


def _microseconds(times: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(times, pa.timestamp("us", "UTC"))


def _minutes(values: object) -> object:
    return pc.cast(pc.multiply(pc.cast(values, pa.int64()), 60 * 10**6), pa.duration("us"))


def _minute_of_day(clock: pa.ChunkedArray) -> pa.ChunkedArray:
    """Minutes since midnight of a time written as 1745."""
    hours = pc.divide(clock, 100)
    return pc.add(pc.multiply(hours, 60), pc.subtract(clock, pc.multiply(hours, 100)))
