"""Which rows repeat a key, over a whole dataset.

Keys are parted by their hash over Ray tasks; each part finds repeats by comparing the keys
themselves. The first row in source order is not a repeat. Rows with a missing key are not judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlray.sources.hashing import hash_rows

_PARTITION_ROWS = 2_000_000


def mark(dataset: Any, unique: Mapping[str, tuple[str, ...]]) -> Any:
    """Add one boolean column for each key, true from the second row with that key on.

    The dataset is executed and held in Ray's object store (which spills to disk).

    Args:
        dataset: ray.data.Dataset of Arrow blocks.
        unique: name of the column to add -> columns of the key. Nothing happens if it is empty.
    """
    import ray
    import ray.data

    if not unique:
        return dataset
    dataset.context.execution_options.preserve_order = True
    held = dataset.materialize()
    blocks = held.to_arrow_refs()
    marks = [_repeats(blocks, columns, held.count()) for columns in unique.values()]
    add = ray.remote(num_cpus=1)(_add_marks)
    marked = [
        add.remote(block, list(unique), *of_block)
        for block, *of_block in zip(blocks, *marks, strict=True)
    ]
    result = ray.data.from_arrow_refs(marked)
    result.context.execution_options.preserve_order = True
    result.context.raise_original_map_exception = True
    return result


def _repeats(blocks: list[Any], columns: tuple[str, ...], rows: int) -> list[Any]:
    """For each block a reference to its boolean marks (n,). Runs in the driver."""
    import ray

    partitions = max(1, -(-rows // _PARTITION_ROWS))
    scatter = ray.remote(num_cpus=1, num_returns=partitions)(_scatter)
    gather = ray.remote(num_cpus=1, num_returns=len(blocks))(_gather)
    collect = ray.remote(num_cpus=1)(_collect)
    sent = [scatter.remote(block, columns, partitions) for block in blocks]
    rows_of = [[s] if partitions == 1 else s for s in sent]
    found = [gather.remote(*[r[p] for r in rows_of]) for p in range(partitions)]
    found = [[f] if len(blocks) == 1 else f for f in found]
    return [
        collect.remote(block, *[f[number] for f in found]) for number, block in enumerate(blocks)
    ]


def _scatter(block: pa.Table, columns: tuple[str, ...], partitions: int) -> Any:
    """Keys of a block with their row numbers, parted by the hash of the key. Runs in a task."""
    keys = block.select(list(columns)).append_column("__row", pa.array(np.arange(block.num_rows)))
    keys = keys.filter(pc.invert(_any_missing(keys)))  # `__row` is never missing
    home = hash_rows(keys, columns) % np.uint64(partitions)
    parts = [keys.filter(pa.array(home == p)) for p in range(partitions)]
    return parts[0] if partitions == 1 else parts


def _gather(*pieces: pa.Table) -> Any:
    """Row numbers of repeats in each block, from the keys of one partition. Runs in a task."""
    import polars as pl

    sizes = [piece.num_rows for piece in pieces]
    keys = pa.concat_tables(pieces, promote_options="permissive")
    names = [n for n in keys.column_names if n != "__row"]
    first = pl.DataFrame(keys.select(names)).select(pl.struct(names).is_first_distinct())
    repeated = ~first.to_series().to_numpy()
    rows = keys.column("__row").to_numpy()
    ends = np.cumsum(sizes)[:-1]
    found = [
        r[again] for r, again in zip(np.split(rows, ends), np.split(repeated, ends), strict=True)
    ]
    return found[0] if len(pieces) == 1 else found


def _collect(block: pa.Table, *rows: Any) -> Any:
    marks = np.zeros(block.num_rows, bool)
    for each in rows:
        marks[each] = True
    return marks


def _add_marks(block: pa.Table, names: list[str], *marks: Any) -> pa.Table:
    for name, mark in zip(names, marks, strict=True):
        block = block.append_column(name, pa.array(mark))
    return block


def _any_missing(table: pa.Table) -> pa.ChunkedArray:
    missing = pc.is_null(table.column(0), nan_is_null=True)
    for column in table.columns[1:]:
        missing = pc.or_(missing, pc.is_null(column, nan_is_null=True))
    return missing
