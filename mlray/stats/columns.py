"""One Arrow column in, one `ColumnProfile` out: vectorised, by the distinct values of the column.

Each column is first reduced to its distinct values with their counts (bins for integers in a small
range, a sort for other numbers, Arrow's hash table for strings); all else is computed from those.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlray.stats.distinct import DistinctSketch, hash_numbers, hash_strings
from mlray.stats.frequent import SIZE, FrequentValues, Value
from mlray.stats.profile import ColumnProfile
from mlray.stats.sketch import Floats, Ints, QuantileSketch

Numbers = npt.NDArray[Any]

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_SMALL_RANGE = 1 << 16


def profile_column(name: str, column: pa.ChunkedArray) -> ColumnProfile:
    """Summary of one column (N,)."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_boolean(kind):
        return _boolean(name, column)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _time(name, column)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _numeric(name, column)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view":
        return _string(name, column)
    return ColumnProfile(name, str(kind), "other", len(column), column.null_count)


def _boolean(name: str, column: pa.ChunkedArray) -> ColumnProfile:
    present = len(column) - column.null_count
    true = int(pc.sum(column).as_py() or 0)
    counts = np.array([present - true, true])
    values = np.array([0.0, 1.0])[counts > 0]
    top = FrequentValues.of((bool(v), int(c)) for v, c in enumerate(counts) if c)
    start = ColumnProfile(name, "bool", "boolean", len(column), column.null_count)
    return _with_numbers(start, values, values, counts[counts > 0], top)


def _time(name: str, column: pa.ChunkedArray) -> ColumnProfile:
    start = ColumnProfile(name, str(column.type), "time", len(column), column.null_count)
    if pa.types.is_date32(column.type):
        ticks, per_second = column.cast(pa.int32()), 1 / 86400
    elif pa.types.is_date64(column.type):
        ticks, per_second = column.cast(pa.int64()), 1e3
    else:
        ticks, per_second = column.cast(pa.int64()), _PER_SECOND[column.type.unit]
    values, counts = _distinct(ticks.drop_null().to_numpy())
    if not len(values):
        return start
    seconds, counts = _added_up(values / per_second, counts)
    return _with_numbers(start, seconds, seconds, counts, _most_frequent(seconds, counts))


def _numeric(name: str, column: pa.ChunkedArray) -> ColumnProfile:
    label, rows, nulls = str(column.type), len(column), column.null_count
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    numbers = column.drop_null().to_numpy()
    nan = nonfinite = 0
    if numbers.dtype.kind == "f":
        numbers = numbers.astype(np.float32) if numbers.dtype == np.float16 else numbers
        finite = np.isfinite(numbers)
        if not finite.all():
            nan = int(np.isnan(numbers).sum())
            nonfinite = len(numbers) - int(finite.sum()) - nan
            numbers = numbers[finite]
    values, counts = _distinct(numbers)
    start = ColumnProfile(name, label, "numeric", rows, nulls + nan, nonfinite)
    floats = values.astype(np.float64) + 0.0
    return _with_numbers(start, values, floats, counts, _most_frequent(values, counts))


def _string(name: str, column: pa.ChunkedArray) -> ColumnProfile:
    pairs = column.drop_null().value_counts()
    values, counts = pairs.field("values").cast(pa.large_string()), pairs.field("counts").to_numpy()
    start = ColumnProfile(name, str(column.type), "string", len(column), column.null_count)
    if not len(values):
        return start
    ends = pc.min_max(values).as_py()
    lengths = pc.utf8_length(values).to_numpy()
    return ColumnProfile(
        **_shape(start),
        minimum=ends["min"],
        maximum=ends["max"],
        mean_length=float(lengths @ counts / counts.sum()),
        max_length=int(lengths.max()),
        frequent=_most_frequent(values, counts),
        hashes=DistinctSketch.of(hash_strings(values)),
    )


def _with_numbers(
    start: ColumnProfile, values: Numbers, floats: Floats, counts: Ints, top: FrequentValues
) -> ColumnProfile:
    """`start` with everything that follows from its distinct `values`, ascending, and counts."""
    if not len(values):
        return start
    mean, m2 = _moments(floats, counts)
    return ColumnProfile(
        **_shape(start),
        minimum=float(floats[0]),
        maximum=float(floats[-1]),
        mean=mean,
        m2=m2,
        frequent=top,
        hashes=DistinctSketch.of(hash_numbers(values)),
        ranks=QuantileSketch.of(*_added_up(floats, counts)),
    )


def _shape(start: ColumnProfile) -> dict[str, Any]:
    names = ("name", "type", "kind", "rows", "missing", "nonfinite")
    return {name: getattr(start, name) for name in names}


def _added_up(floats: Floats, counts: Ints) -> tuple[Floats, Ints]:
    """Large integers and nanoseconds can fall on the same double: add up their counts."""
    starts = np.flatnonzero(np.append(True, floats[1:] != floats[:-1]))
    if len(starts) == len(floats):
        return floats, counts
    return floats[starts], np.add.reduceat(counts, starts)


def _distinct(numbers: Numbers) -> tuple[Numbers, Ints]:
    """Distinct values, ascending, and how often each occurs."""
    if not len(numbers):
        return numbers, np.empty(0, np.int64)
    if numbers.dtype.kind in "iu":
        low, high = int(numbers.min()), int(numbers.max())
        if high - low < max(_SMALL_RANGE, len(numbers)) and high < 2**62:
            counts = np.bincount(numbers.astype(np.int64) - low)
            held = np.flatnonzero(counts)
            return held + low, counts[held]
    ordered = np.sort(numbers)
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    return ordered[starts], np.diff(starts, append=len(ordered))


def _most_frequent(values: Numbers | pa.Array, counts: Ints) -> FrequentValues:
    """Of distinct values: only those that can be kept become Python objects."""
    beyond = 0
    if len(counts) > SIZE:
        ranked = np.argpartition(counts, len(counts) - SIZE - 1)
        beyond = int(counts[ranked[len(counts) - SIZE - 1]])
        chosen = np.flatnonzero((counts >= beyond) & (counts > 1))
        if len(chosen) > SIZE:
            chosen = _without_late_ties(values, counts, chosen, beyond)
        values, counts = values.take(chosen), counts[chosen]
    names: list[Value] = [
        value + 0 if isinstance(value, float) else value for value in values.tolist()
    ]
    return FrequentValues.of(zip(names, counts.tolist(), strict=True), beyond)


def _without_late_ties(values: Numbers | pa.Array, counts: Ints, chosen: Ints, beyond: int) -> Ints:
    """Of values tied for the last places the smallest stay, whatever their order in the table."""
    sure, tied = chosen[counts[chosen] > beyond], chosen[counts[chosen] == beyond]
    candidates = values.take(tied)
    order = (
        pc.sort_indices(candidates).to_numpy()
        if isinstance(candidates, (pa.Array, pa.ChunkedArray))
        else np.argsort(candidates, kind="stable")
    )
    return np.concatenate([sure, tied[order[: SIZE - len(sure)]]])


def _moments(values: Floats, counts: Ints) -> tuple[float, float]:
    """Mean and sum of squared differences; scaled first, for values near the largest double."""
    largest = max(abs(float(values[0])), abs(float(values[-1])))
    scale = largest if largest > 1e100 else 1.0
    small = values / scale if scale != 1.0 else values
    # Sums and not `@`: NumPy adds pairwise, and BLAS would wake threads for a vector.
    mean = float(np.clip(np.sum(small * counts) / counts.sum(), small[0], small[-1]))
    m2 = float(np.sum(np.square(small - mean) * counts))
    return mean * scale, min(m2 * scale * scale, sys.float_info.max)
