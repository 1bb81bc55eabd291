"""One block of rows as rules look at it: what several rules ask of a column is worked out once.

Most columns of most blocks break nothing. So each question has a cheap answer first (Arrow's count
of nulls, the least and greatest number, the distinct texts), and no row is marked until a rule is
known to be broken.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

Mask = npt.NDArray[np.bool_]
"""Rows (N,) that break a rule."""
Judge = Callable[[pa.Array], Mask]
"""Values (n,) -> which of them break a rule; never a missing one."""

_LOOK_AT = 1024
_NUMBERS: dict[str, Any] = {
    "halffloat": np.float16,
    "float": np.float32,
    "double": np.float64,
    "date32[day]": np.int32,
    "date64[ms]": np.int64,
    **{f"{sign}int{bits}": np.dtype(f"{sign}int{bits}") for sign in ("", "u")
       for bits in (8, 16, 32, 64)},
}  # fmt: skip


class Values:
    """One column of a block."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        array = _one_array(column)
        self.array = array.dictionary_decode() if _is_odd(array) else array

    def __len__(self) -> int:
        return len(self.array)

    @cached_property
    def type(self) -> pa.DataType:
        kind = self.array.type
        return kind.value_type if pt.is_dictionary(kind) else kind

    @cached_property
    def numbers(self) -> npt.NDArray[Any] | None:
        """Numbers, or ticks of times, as they lie in memory, without a copy: where a value is
        null, anything. None for other types."""
        array = self.array.cast(pa.float64()) if pt.is_decimal(self.array.type) else self.array
        kind = array.type
        held = np.int64 if pt.is_timestamp(kind) else _NUMBERS.get(str(kind))
        if held is None or len(array) == 0:
            return None
        whole: Any = np.frombuffer(array.buffers()[1], np.dtype(held), array.offset + len(array))
        return np.asarray(whole[array.offset :])

    @cached_property
    def ends(self) -> tuple[Any, Any]:
        """Least and greatest of `numbers`, whatever lies at nulls included; NaN if one is NaN."""
        assert self.numbers is not None
        return self.numbers.min(), self.numbers.max()

    @cached_property
    def valid(self) -> Mask | None:
        """Which values are not null; None if all are."""
        if self.array.null_count == 0:
            return None
        return np.asarray(self.array.is_valid().to_numpy(zero_copy_only=False))

    @cached_property
    def missing(self) -> Mask | None:
        """Which values are null or NaN; None if none is."""
        nan = self._not_a_number()
        if self.valid is None:
            return nan
        return np.asarray(~self.valid if nan is None else ~self.valid | nan)

    def _not_a_number(self) -> Mask | None:
        numbers = self.numbers
        if numbers is None or numbers.dtype.kind != "f" or not np.isnan(self.ends[0]):
            return None
        return np.asarray(np.isnan(numbers))

    def marked(self, judge: Judge) -> Mask | None:
        """Rows whose value the judge finds broken; None if there is none. Of texts that repeat,
        only the distinct ones are judged, and rows are looked up only for those that are bad."""
        if self._distinct is None:
            bad = judge(self.array)
            return bad if bad.any() else None
        bad = judge(self._distinct)
        if not bad.any():
            return None
        wrong = self._distinct.filter(pa.array(bad))
        return np.asarray(pc.is_in(self.array, value_set=wrong).to_numpy(zero_copy_only=False))

    @cached_property
    def _distinct(self) -> pa.Array | None:
        """Distinct texts; None where it does not pay, since nearly every value is another one."""
        array = self.array
        if pt.is_dictionary(array.type):
            return pc.unique(array).dictionary_decode()
        if not is_text(array.type):
            return None
        head = array[:_LOOK_AT]
        if len(array) > _LOOK_AT and pc.count_distinct(head).as_py() > _LOOK_AT // 2:
            return None
        return pc.unique(array)


class Block:
    """The rows of a block, without hidden columns."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._values: dict[str, Values] = {}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def values(self, column: str) -> Values:
        if column not in self._values:
            self._values[column] = Values(self.table.column(column))
        return self._values[column]


def rows_where(table: pa.Table, mask: Mask) -> pa.Table:
    """The rows of a mask. Column by column, since a table's own filter first makes a list of row
    numbers, where nearly all rows are kept in long runs."""
    chosen = pa.array(mask)
    columns = [pc.filter(c.chunk(0) if c.num_chunks == 1 else c, chosen) for c in table.columns]
    return pa.Table.from_arrays(columns, schema=table.schema)


def _is_odd(array: pa.Array) -> bool:
    """A dictionary of anything but texts."""
    return pt.is_dictionary(array.type) and not is_text(array.type.value_type)


def is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    """Without a copy if the column is one chunk already, as blocks mostly are."""
    if column.num_chunks == 1:
        return column.chunk(0)
    array = column.combine_chunks()
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
