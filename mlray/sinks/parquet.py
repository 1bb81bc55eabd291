"""A folder of Parquet files, one for each part."""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mlray.errors import InputError
from mlray.sinks.files import LocalPlace
from mlray.sinks.sink import Parts, write_parquet


@dataclass(frozen=True)
class ParquetSink(LocalPlace):
    """New files appear by renames: all at once in a new folder, one by one in one that is there."""

    ending = ".parquet"

    def check(self) -> None:
        if os.path.isfile(self.path):
            raise InputError("this is a file, not a folder", value=self.path)
        if self.mode == "error" and os.path.isdir(self.path) and os.listdir(self.path):
            raise InputError(
                "predictions are written to an empty folder, and this one is not",
                value=self.path,
                do="name another with --out, remove it, or set prediction.mode",
            )

    def write_part(self, table: pa.Table, file: str) -> None:
        write_parquet(table, file)

    def publish(self, parts: Parts) -> None:
        for number, file in enumerate(parts.files):
            os.replace(file, os.path.join(parts.folder, f"{parts.batch}-{number:06d}.parquet"))
        if self.mode == "append" and os.path.isdir(self.path):
            self._append(parts)
            return
        before = f"{parts.folder}.{uuid.uuid4().hex[:8]}"
        if os.path.exists(self.path):
            os.rename(self.path, before)
        os.rename(parts.folder, self.path)
        shutil.rmtree(before, ignore_errors=True)

    def _append(self, parts: Parts) -> None:
        """Files of the same batch, from a run that was killed here, make room."""
        for before in Path(self.path).glob(f"{parts.batch}-*.parquet"):
            before.unlink()
        for file in sorted(Path(parts.folder).glob(f"{parts.batch}-*.parquet")):
            file.rename(Path(self.path, file.name))
