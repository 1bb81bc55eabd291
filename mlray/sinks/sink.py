"""What the kinds of sinks share: tasks write parts of their own, and one step makes all visible."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

BATCH = "batch"
"""Column that names rows, their content and the version that scored them: the same batch written
again takes the place of the first, so that a run that was killed can simply be run again."""


@dataclass(frozen=True)
class Parts:
    """What tasks have written, not visible yet."""

    batch: str
    """Name of the batch."""
    folder: str
    """Where the parts lie."""
    names: tuple[str, ...]
    """Their files, in the order of the rows."""

    @property
    def files(self) -> list[str]:
        """Full paths."""
        return [os.path.join(self.folder, name) for name in self.names]

    def reader(self, *, flat: bool = False) -> pa.RecordBatchReader:
        """The rows of Parquet parts as a stream.

        Args:
            flat: lists become JSON texts, for stores that hold single values only.
        """
        schema = pq.read_schema(self.files[0]).remove_metadata()
        if flat:
            schema = flattened(schema.empty_table()).schema
        return pa.RecordBatchReader.from_batches(schema, self._batches(flat))

    def _batches(self, flat: bool) -> Iterator[pa.RecordBatch]:
        for file in self.files:
            for batch in pq.ParquetFile(file).iter_batches():
                table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
                yield from (flattened(table) if flat else table).to_batches()


class Sink(Protocol):
    """A place that predictions are written to. Travels to the tasks that write."""

    ending: str
    """Of a part's file."""

    @property
    def where(self) -> str:
        """The place in words, without secrets."""

    def staging(self, home: str, batch: str) -> str:
        """Folder for parts, on a disk that all nodes see."""

    def check(self) -> None:
        """Refuse before anything is scored. Runs in the driver.

        Raises:
            InputError: rows are there already and `mode` is error, or it cannot be reached.
        """

    def write_part(self, table: pa.Table, file: str) -> None:
        """Write one part. Runs in a Ray worker."""

    def publish(self, parts: Parts) -> None:
        """Make all parts visible, in one step as far as the place has one. Runs in the driver."""


def write_parquet(table: pa.Table, file: str) -> None:
    """A part as Parquet."""
    pq.write_table(table, file, compression="zstd", compression_level=1)


def flattened(table: pa.Table) -> pa.Table:
    """Lists as JSON texts, and dictionaries as their values.

    >>> flattened(pa.table({"score": pa.array([[0.5, 0.25], None])}))["score"].to_pylist()
    ['[0.5, 0.25]', None]
    """
    for i, field in enumerate(table.schema):
        column = table.column(i)
        if pt.is_nested(field.type):
            values = [None if v is None else json.dumps(v, default=str) for v in column.to_pylist()]
            table = table.set_column(i, field.name, pa.array(values, pa.string()))
        elif pt.is_dictionary(field.type):
            table = table.set_column(i, field.name, column.cast(field.type.value_type))
    return table
