"""Hashes of rows: the same for the same values in every process, version and block.

Built on splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA
2014). Text is hashed as the sum of one mixed number for each (position, byte), so a whole column
is a few NumPy passes over its bytes. Not for secrets: anyone can make two texts collide.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

Hashes = npt.NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MISSING = np.uint64(0x5BF03635F0A31E29)
_ROWS_AT_ONCE = 1 << 14
_TABLE_PLACES = 1 << 10


def hash_rows(table: pa.Table, columns: Sequence[str], seed: int = 0) -> Hashes:
    """One 64-bit hash per row over `columns`; a missing value counts as a value of its own.

    >>> table = pa.table({"a": ["x", "y", "x"], "b": [1, 1, 1]})
    >>> first, second, third = hash_rows(table, ["a", "b"]).tolist()
    >>> first == third, first == second
    (True, False)
    """
    total = np.full(table.num_rows, mix(np.array([seed], np.int64).view(np.uint64))[0])
    for name in columns:
        total = mix(total * _GOLDEN + _hash_column(table.column(name)))
    return total


def uniform(hashes: Hashes) -> npt.NDArray[np.float64]:
    """Hashes as numbers in [0, 1)."""
    return np.asarray((hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def mix(x: Hashes) -> Hashes:
    """splitmix64's finaliser: every input bit moves every output bit."""
    x = (x + _GOLDEN) & np.uint64(0xFFFFFFFFFFFFFFFF)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _hash_column(column: pa.ChunkedArray) -> Hashes:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    if pt.is_dictionary(array.type):
        array = array.dictionary_decode()
    missing = array.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
    return np.where(missing, _MISSING, _hash_values(array))


def _hash_values(array: pa.Array) -> Hashes:
    kind = array.type
    if pt.is_boolean(kind) or pt.is_integer(kind) or pt.is_date32(kind) or pt.is_time32(kind):
        whole = array.cast(pa.int32()) if pt.is_date32(kind) or pt.is_time32(kind) else array
        numbers = whole.cast(pa.int64(), safe=False).fill_null(0).to_numpy(zero_copy_only=False)
        return mix(numbers.view(np.uint64))
    if pt.is_floating(kind):
        numbers = array.cast(pa.float64()).fill_null(0).to_numpy(zero_copy_only=False) + 0.0
        return mix(numbers.view(np.uint64))  # + 0.0 makes -0.0 and 0.0 one value
    if pt.is_timestamp(kind):
        instants = array.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(pa.int64())
        return mix(instants.fill_null(0).to_numpy(zero_copy_only=False).view(np.uint64))
    if pt.is_null(kind):
        return np.zeros(len(array), np.uint64)
    return _hash_bytes(_as_binary(array))


def _as_binary(array: pa.Array) -> pa.Array:
    """Values without a hash of their own are hashed as their text."""
    kind = array.type
    if pt.is_nested(kind):
        array = pa.array([None if v is None else str(v) for v in array.to_pylist()], pa.string())
    elif pt.is_fixed_size_binary(kind):
        array = array.cast(pa.binary())
    elif not (pt.is_string(kind) or pt.is_large_string(kind) or pt.is_binary(kind)):
        array = array.cast(pa.string())
    return pc.fill_null(array.cast(pa.large_binary()), b"")


def _hash_bytes(array: pa.Array) -> Hashes:
    """Some rows at a time, so that what is in between stays in the processor's cache."""
    if len(array) == 0:
        return np.empty(0, np.uint64)
    _, offset_buffer, data = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    values = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    longest = int(np.diff(offsets).max())
    places = np.arange(min(longest, _TABLE_PLACES) * 256, dtype=np.uint64)
    table = mix(places) if longest <= _TABLE_PLACES else None
    steps = range(0, len(array), _ROWS_AT_ONCE)
    return np.concatenate(
        [_hash_texts(values, offsets[i : i + _ROWS_AT_ONCE + 1], table) for i in steps]
    )


def _hash_texts(
    values: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], table: Hashes | None
) -> Hashes:
    """Sums of one mixed number for each (position, byte); `table` holds those numbers."""
    lengths = np.diff(offsets)
    first, last = int(offsets[0]), int(offsets[-1])
    place = np.arange(first, last) - np.repeat(offsets[:-1], lengths)
    pairs = (place << 8) | values[first:last]
    mixed = mix(pairs.view(np.uint64)) if table is None else table[pairs]
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])
    sums = running[offsets[1:] - first] - running[offsets[:-1] - first]
    return mix(sums + lengths.astype(np.uint64) * _GOLDEN)
