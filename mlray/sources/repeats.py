"""Which rows repeat a key, over a whole dataset of files, without holding its rows.

Each file has its rows' keys beside it as sorted 64-bit hashes: 8 bytes a row. Hashes that occur
twice are found range by range, so that memory stays bounded for any number of rows; only rows with
such a hash are looked at again, by their actual keys. The first row in source order is no repeat.
Rows with a missing key are not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]

_RANGE_ROWS = 8_000_000
"""So many rows' hashes and keys are held at once, about."""
_SEED = 0x6D6C726179


def hash_keys(keys: pa.Table) -> Hashes:
    """One 64-bit hash per row: the same for equal keys in every process of a run.

    Polars' hash, which may change with its version: never kept beyond a run. `sources.hashing` has
    the one that lasts.
    """
    import polars as pl

    if keys.num_rows == 0:
        return np.empty(0, np.uint64)
    frame = pl.DataFrame(keys.select(range(keys.num_columns)).cast(_plain(keys.schema)))
    return np.asarray(frame.hash_rows(_SEED).to_numpy())


def write_hashes(file: str, table: pa.Table, columns: Sequence[str]) -> None:
    """The sorted hashes of a table's keys, for `repeated_rows`."""
    keys = table.select(list(columns))
    missing = _any_missing(keys)
    hashes = hash_keys(keys if missing is None else keys.filter(pa.array(~missing)))
    np.save(file, np.sort(hashes))


def ranges(rows: int) -> list[tuple[int, int]]:
    """Ranges [low, high) of hashes that are looked at one by one.

    >>> len(ranges(1000)), len(ranges(100_000_000))
    (1, 13)
    """
    parts = max(1, -(-rows // _RANGE_ROWS))
    edges = [(part << 64) // parts for part in range(parts + 1)]
    return list(pairwise(edges))


def repeated_rows(
    files: Sequence[str],
    read: Callable[[int], pa.Table],
    bounds: tuple[int, int] = (0, 1 << 64),
) -> dict[int, Rows]:
    """Rows that repeat a key of an earlier row.

    Args:
        files: of `write_hashes`, in source order.
        read: gives the keys of file number i again, in the order of its rows.
        bounds: only keys whose hash is in [low, high).

    Returns:
        Number of a file -> numbers of its rows, ascending; files without repeats left out.
    """
    held = [_in_range(np.load(file, mmap_mode="r"), bounds) for file in files]
    twice = _occurring_twice(held)
    if not len(twice):
        return {}
    suspects = [number for number, hashes in enumerate(held) if _shares(hashes, twice)]
    found = [_candidates(number, read(number), twice) for number in suspects]
    return _by_file(pa.concat_tables(found, promote_options="permissive"))


def repeated_in(keys: pa.Table) -> npt.NDArray[np.bool_]:
    """Which rows (N,) of one table repeat a key of an earlier row."""
    missing = _any_missing(keys)
    judged = keys if missing is None else keys.filter(pa.array(~missing))
    repeats = np.zeros(keys.num_rows, bool)
    repeats[slice(None) if missing is None else ~missing] = ~_first_of_each(judged)
    return repeats


def _in_range(hashes: Hashes, bounds: tuple[int, int]) -> Hashes:
    low = int(np.searchsorted(hashes, np.uint64(bounds[0])))
    last = np.uint64(min(bounds[1], (1 << 64)) - 1)
    return hashes[low : int(np.searchsorted(hashes, last, side="right"))]


def _occurring_twice(parts: Iterable[Hashes]) -> Hashes:
    ordered = np.sort(np.concatenate([np.empty(0, np.uint64), *parts]))
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def _shares(hashes: Hashes, twice: Hashes) -> bool:
    """Whether one of `twice` is among the sorted `hashes`."""
    if not len(hashes):
        return False
    places = np.minimum(np.searchsorted(hashes, twice), len(hashes) - 1)
    return bool((hashes[places] == twice).any())


def _candidates(number: int, keys: pa.Table, twice: Hashes) -> pa.Table:
    """Keys whose hash occurs twice, with the number of their file and row."""
    missing = _any_missing(keys)
    suspect = np.isin(hash_keys(keys), twice)
    rows = np.flatnonzero(suspect if missing is None else suspect & ~missing)
    chosen = keys.take(pa.array(rows))
    chosen = chosen.append_column("__file", pa.array(np.full(len(rows), number, np.int64)))
    return chosen.append_column("__row", pa.array(rows))


def _by_file(candidates: pa.Table) -> dict[int, Rows]:
    keys = candidates.drop_columns(["__file", "__row"])
    repeats = candidates.filter(pa.array(~_first_of_each(keys)))
    numbers, rows = repeats["__file"].to_numpy(), repeats["__row"].to_numpy()
    return {int(n): np.sort(rows[numbers == n]) for n in np.unique(numbers)}


def _first_of_each(keys: pa.Table) -> npt.NDArray[np.bool_]:
    import polars as pl

    if not keys.num_rows:
        return np.zeros(0, bool)
    frame = pl.DataFrame(keys.cast(_plain(keys.schema)))
    first = frame.select(pl.struct(pl.all()).is_first_distinct())
    return np.asarray(first.to_series().to_numpy())


def _plain(schema: pa.Schema) -> pa.Schema:
    """Dictionaries become their values: their codes differ from block to block."""
    fields = [
        pa.field(f.name, f.type.value_type if pt.is_dictionary(f.type) else f.type) for f in schema
    ]
    return pa.schema(fields)


def _any_missing(table: pa.Table) -> npt.NDArray[np.bool_] | None:
    """Rows with a missing value; None if there are none."""
    missing: Any = None
    for column in table.columns:
        if column.null_count or pt.is_floating(column.type):
            null = pc.is_null(column, nan_is_null=True).to_numpy()
            missing = null if missing is None else missing | null
    return missing if missing is not None and missing.any() else None
