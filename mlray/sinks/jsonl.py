"""One file of JSON lines."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa

from mlray.sinks.files import LocalFile
from mlray.sinks.sink import Parts


@dataclass(frozen=True)
class JsonLinesSink(LocalFile):
    """A line for each row; times as ISO 8601, bytes as base64, NaN as null."""

    ending = ".jsonl"

    def write_part(self, table: pa.Table, file: str) -> None:
        with open(file, "wb") as out:
            for batch in table.to_batches(max_chunksize=10_000):
                rows = batch.to_pylist()
                out.writelines(orjson.dumps(row, _plain, orjson.OPT_APPEND_NEWLINE) for row in rows)

    def publish(self, parts: Parts) -> None:
        self.joined(parts.files, parts.folder)


def _plain(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
