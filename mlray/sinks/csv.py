"""One CSV file with a header; lists are JSON texts."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv as pacsv

from mlray.sinks.files import LocalFile
from mlray.sinks.sink import Parts, flattened

_HEADER = ".header"


@dataclass(frozen=True)
class CsvSink(LocalFile):
    """Parts without a header are put behind one."""

    ending = ".csv"

    def write_part(self, table: pa.Table, file: str) -> None:
        flat = flattened(table)
        pacsv.write_csv(flat, file, pacsv.WriteOptions(include_header=False))
        pacsv.write_csv(flat.slice(0, 0), file + _HEADER)

    def publish(self, parts: Parts) -> None:
        with open(parts.files[0] + _HEADER, "rb") as file:
            head = file.read()
        self.joined(parts.files, parts.folder, head)
