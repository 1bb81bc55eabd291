"""Steps on the columns of a request, held as lists.

The same `Steps` run, on a table of just the columns that they read; all others go into the encoder
as they came, which is several times as fast for a single row as a table of everything.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.types as pt

from mlray.models.requests import Columns, as_array
from mlray.sources.steps import Steps


class ListSteps:
    """Steps for request columns.

    Args:
        steps: without a function.
        schema: of a request.
        wanted: columns that the encoder reads.
    """

    def __init__(self, steps: Steps, schema: pa.Schema, wanted: Iterable[str]):
        made = {*steps.derive, *steps.cast, *steps.rename.values()}
        self._made = [name for name in wanted if name in made]
        self._steps = steps.until(self._made)
        needed = steps.needs(self._made)
        self._read = pa.schema([each for each in schema if each.name in needed])

    def __call__(self, columns: Columns) -> Columns:
        """The columns with those that the steps make.

        Args:
            columns: checked, times as microseconds (see `RequestSchema.columns`).

        Raises:
            InputError: as `Steps.rowwise`.
        """
        if not self._made:
            return columns
        arrays = [as_array(columns[each.name], each.type) for each in self._read]
        table = self._steps.rowwise(pa.Table.from_arrays(arrays, schema=self._read))
        return {**columns, **{name: _as_list(table.column(name)) for name in self._made}}


def _as_list(column: pa.ChunkedArray) -> list[object]:
    """Values as a request has them: times as microseconds."""
    if pt.is_temporal(column.type):
        zone = getattr(column.type, "tz", None)
        column = column.cast(pa.timestamp("us", tz=zone), safe=False).cast(pa.int64())
    values: list[object] = column.to_pylist()
    return values
