"""Delta Lake tables, at one version: the library reads the log, pyarrow the files it names.

Deletion vectors, partition columns, columns added later and column mapping by name are honoured;
a table that needs more of its reader is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from mlray.config.rows import LakeSource
from mlray.errors import InputError
from mlray.sources.kinds import lake
from mlray.sources.opened import Opened, SourceFile
from mlray.sources.reading import POSITION, Piece, opened
from mlray.sources.types import declared_table

_SPLIT_BYTES = 16 << 20
"""A larger file is read row group by row group."""
_BATCH_ROWS = 1 << 17
_READABLE = {
    *("deletionVectors", "columnMapping", "timestampNtz", "typeWidening", "typeWidening-preview"),
    *("v2Checkpoint", "vacuumProtocolCheck"),
}
"""Reader features that are honoured here, or that do not change how rows are read."""


def open_source(name: str, source: LakeSource, folder: str) -> Opened:
    """Open a Delta table at the version that the project names, by default the newest.

    Raises:
        InputError: there is no such table or version, it cannot be reached, it needs what this
            reader cannot do, or it has no rows.
    """
    with lake.explained(name, source):
        table = _table(name, source)
        _refuse_unreadable(name, source, table)
        stored = pa.schema(table.schema().to_arrow())
        schema = lake.declared(name, source, stored)
        pieces = _pieces(name, source, table, schema)
        if not pieces:
            raise InputError(
                f"source `{name}` has no rows", value=f"{source.where}, version {table.version()}"
            )
        files = (_shown(source, table),)
    return opened(name, schema, files, pieces, kind="Delta", task_bytes=lake.task_bytes(pieces))


def files(name: str, source: LakeSource, folder: str) -> tuple[SourceFile, ...]:
    """The table and its version; only its log is read."""
    with lake.explained(name, source):
        return (_shown(source, _table(name, source)),)


def pinned(source: LakeSource, files: Sequence[SourceFile]) -> LakeSource:
    """The source at the version that `files` found."""
    found = re.match(r"version (\d+)", files[0].modified)
    return source.model_copy(update={"version": int(found[1])}) if found else source


def _shown(source: LakeSource, table: Any) -> SourceFile:
    sizes = pa.table(table.get_add_actions())["size_bytes"].to_pylist()
    # A table made anew at the same place starts at version 0 again, under another id.
    said = f"version {table.version()} of {table.metadata().id}"
    return SourceFile(str(source.path), sum(sizes), said)


def _table(name: str, source: LakeSource) -> Any:
    """The table, loaded at one version."""
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError
    except ImportError:
        raise lake.missing_library("delta") from None
    if not source.path:
        raise InputError(f"sources.{name} has no path", do="set `path` to the table's folder")
    wanted = lake.version_or_time(name, source)
    try:
        table = DeltaTable(source.path, storage_options=lake.revealed(source.options))
    except TableNotFoundError:
        raise InputError(
            f"source `{name}` is not a Delta table",
            value=source.path,
            do="check the path; it must be the folder that holds `_delta_log`",
        ) from None
    if wanted is not None:
        _travel(name, source, table, wanted)
    return table


def _travel(name: str, source: LakeSource, table: Any, wanted: int | datetime) -> None:
    from deltalake.exceptions import DeltaError

    newest = table.version()
    try:
        if isinstance(wanted, int) and not 0 <= wanted <= newest:
            raise DeltaError("no such version")
        table.load_as_version(wanted)
    except DeltaError:
        raise InputError(
            f"source `{name}` has no such version, or no longer has it",
            value=source.version,
            allowed=f"up to {newest}, as far back as its log is kept",
        ) from None
    if isinstance(wanted, datetime):
        # The library gives the oldest version for a time before it.
        told_ms = [entry["timestamp"] for entry in table.history(limit=1) if "timestamp" in entry]
        made = datetime.fromtimestamp(told_ms[0] / 1000, UTC) if told_ms else wanted
        if made > wanted:
            raise InputError(
                f"source `{name}` had no version at this time",
                value=source.version,
                allowed=f"from {made.isoformat(timespec='seconds')} on",
            )


def _refuse_unreadable(name: str, source: LakeSource, table: Any) -> None:
    needed = set(table.protocol().reader_features or []) - _READABLE
    mode = _mapping(table)
    nested = [f.name for f in pa.schema(table.schema().to_arrow()) if pt.is_nested(f.type)]
    nested = [n for n in nested if source.columns is None or n in source.columns]
    what = (
        f"features {', '.join(sorted(needed))}"
        if needed
        else f"column mapping by {mode}"
        if mode not in ("none", "name")
        else f"column mapping of nested columns ({', '.join(nested)})"
        if mode == "name" and nested
        else ""
    )
    if what:
        raise InputError(
            f"source `{name}` is a Delta table that mlray cannot read rightly: it uses {what}",
            value=source.path,
            do="read other `columns`, or write a copy of the table without it",
        )


def _mapping(table: Any) -> str:
    return str(table.metadata().configuration.get("delta.columnMapping.mode") or "none")


@dataclass(frozen=True)
class _File:
    """A data file, and how its rows become the table's. Travels to the task that reads it."""

    table_uri: str
    options: dict[str, str]
    path: str
    stored: dict[str, str]
    """Column of the table: its name in the file."""
    constant: dict[str, Any]
    """Values of partition columns."""
    kept: npt.NDArray[np.bool_] | None
    """False for rows that a deletion vector takes out; rows beyond its end are kept."""
    version: int

    @property
    def address(self) -> str:
        return f"{self.table_uri}{self.path}".removeprefix("file://")

    def open(self) -> pq.ParquetFile:
        from deltalake.fs import DeltaStorageHandler
        from pyarrow.fs import PyFileSystem

        try:
            store = PyFileSystem(DeltaStorageHandler(self.table_uri, self.options))
            return pq.ParquetFile(
                store.open_input_file(self.path), coerce_int96_timestamp_unit="us"
            )
        except FileNotFoundError:
            raise InputError(
                f"a data file of version {self.version} is gone, probably removed by VACUUM",
                value=self.address,
                do="read a newer `version`",
            ) from None
        except pa.ArrowInvalid as error:
            raise InputError(
                f"a data file of the Delta table is damaged ({error})", value=self.address
            ) from None

    def rows(self, first: int, rows: int) -> int:
        """How many of `rows` rows from `first` on are in the table."""
        gone = 0 if self.kept is None else int((~self.kept[first : first + rows]).sum())
        return rows - gone


def _pieces(name: str, source: LakeSource, table: Any, schema: pa.Schema) -> list[Piece]:
    # By name: the log's own order is not the same after a checkpoint.
    actions = sorted(_actions(table), key=lambda action: str(action["path"]))
    gone = _deletions(table)
    made = [_file(source, table, action, schema, gone) for action in actions]
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(_parts, made, actions))
    return [
        piece
        for file, groups in zip(made, parts, strict=True)
        for piece in _of_file(name, file, groups, schema)
    ]


def _actions(table: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pa.table(table.get_add_actions()).to_pylist()
    return found


def _deletions(table: Any) -> dict[str, npt.NDArray[np.bool_]]:
    """Address of a file: which of its rows are kept; only files with a deletion vector."""
    if "deletionVectors" not in (table.protocol().reader_features or []):
        return {}
    found = pa.table(table.deletion_vectors())
    return {
        str(path): np.asarray(kept.values, bool)
        for path, kept in zip(found["filepath"].to_pylist(), found["selection_vector"], strict=True)
    }


def _file(
    source: LakeSource,
    table: Any,
    action: dict[str, Any],
    schema: pa.Schema,
    gone: dict[str, npt.NDArray[np.bool_]],
) -> _File:
    mapped = _mapping(table) == "name"
    names = {
        field.name: field.metadata.get("delta.columnMapping.physicalName", field.name)
        if mapped
        else field.name
        for field in table.schema().fields
    }
    constant = action.get("partition") or {}
    return _File(
        table.table_uri,
        lake.revealed(source.options),
        unquote(action["path"]),
        {n: names[n] for n in schema.names if n not in constant},
        {n: constant[n] for n in schema.names if n in constant},
        gone.get(f"{table.table_uri}{action['path']}"),
        table.version(),
    )


def _parts(file: _File, action: dict[str, Any]) -> list[tuple[list[int] | None, int, int, int]]:
    """What is read in one piece: row groups (None for all), first row, rows, bytes."""
    rows, size_bytes = action.get("num_records"), action["size_bytes"]
    if rows is not None and size_bytes <= _SPLIT_BYTES:
        return [(None, 0, rows, size_bytes)]
    with file.open() as footer:
        groups = [footer.metadata.row_group(i) for i in range(footer.num_row_groups)]
    first = np.cumsum([0, *(group.num_rows for group in groups)]).tolist()
    return [
        ([number], first[number], group.num_rows, group.total_byte_size)
        for number, group in enumerate(groups)
    ]


def _of_file(
    name: str,
    file: _File,
    parts: Sequence[tuple[list[int] | None, int, int, int]],
    schema: pa.Schema,
) -> Iterator[Piece]:
    for groups, first, rows, size_bytes in parts:
        if left := file.rows(first, rows):
            read = partial(_read, name, file, groups, first, schema)
            yield Piece(read, file.address, first, left, max(1, size_bytes))


def _read(
    name: str, file: _File, groups: list[int] | None, first: int, schema: pa.Schema
) -> Iterator[pa.Table]:
    """The table's rows of some row groups. Runs in a Ray worker."""
    with file.open() as parquet:
        groups = list(range(parquet.num_row_groups)) if groups is None else groups
        there = set(parquet.schema_arrow.names)
        wanted = [n for n in file.stored.values() if n in there]
        for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=groups, columns=wanted):
            table = declared_table(_as_declared(file, batch, schema), name, schema)
            places = np.arange(first, first + batch.num_rows)
            first += batch.num_rows
            table = table.append_column(POSITION, pa.array(places))
            if file.kept is not None:
                kept = np.ones(len(places), bool)
                known = file.kept[places[0] : places[-1] + 1]
                kept[: len(known)] = known
                table = table.filter(pa.array(kept))
            yield table


def _as_declared(file: _File, batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    """The columns under the table's names; those of partitions, and those that are younger than
    the file (null)."""
    columns = []
    for field in schema:
        stored = file.stored.get(field.name)
        if stored is not None and stored in batch.schema.names:
            columns.append(batch.column(stored))
        else:
            value = pa.scalar(file.constant.get(field.name), field.type)
            columns.append(pa.repeat(value, batch.num_rows))
    return pa.Table.from_arrays(columns, names=schema.names)
