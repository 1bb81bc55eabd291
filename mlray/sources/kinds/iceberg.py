"""Apache Iceberg tables, at one snapshot: each planned file is read by the library itself, so that
delete files and schema evolution count as the table's format says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

import pyarrow as pa

from mlray.config.rows import LakeSource
from mlray.errors import InputError
from mlray.sources.kinds import lake
from mlray.sources.opened import Opened, SourceFile
from mlray.sources.reading import Piece, opened
from mlray.sources.types import declared_table


def open_source(name: str, source: LakeSource, folder: str) -> Opened:
    """Open an Iceberg table at the snapshot that the project names, by default the newest.

    Raises:
        InputError: there is no such table, snapshot or catalog, it cannot be reached, it has no
            rows, or it holds delete files that the library cannot apply.
    """
    with lake.explained(name, source):
        table = _table(name, source)
        snapshot = _snapshot(name, source, table)
        scan = _scan(table, snapshot.snapshot_id, None)
        schema = lake.declared(name, source, _arrow(scan.projection()))
        tasks = sorted(_planned(name, source, scan), key=lambda task: str(task.file.file_path))
    if not any(task.file.record_count for task in tasks):
        raise InputError(f"source `{name}` has no rows", value=source.where)
    properties = {k: str(v) for k, v in table.io.properties.items()}
    place = _Place(table.metadata_location, tuple(properties.items()), snapshot.snapshot_id)
    pieces = [
        Piece(
            partial(_read, name, place, task, schema),
            task.file.file_path.removeprefix("file://"),
            rows=None if task.delete_files else task.file.record_count,
            size_bytes=max(1, task.file.file_size_in_bytes),
        )
        for task in tasks
        if task.file.record_count
    ]
    shown = (_shown(source, snapshot),)
    return opened(name, schema, shown, pieces, kind="Iceberg", task_bytes=lake.task_bytes(pieces))


def files(name: str, source: LakeSource, folder: str) -> tuple[SourceFile, ...]:
    """The table and its snapshot; only its metadata is read."""
    with lake.explained(name, source):
        table = _table(name, source)
        return (_shown(source, _snapshot(name, source, table)),)


def pinned(source: LakeSource, files: Sequence[SourceFile]) -> LakeSource:
    """The source at the snapshot that `files` found."""
    found = re.match(r"snapshot (\d+)", files[0].modified)
    return source.model_copy(update={"version": int(found[1])}) if found else source


def _shown(source: LakeSource, snapshot: Any) -> SourceFile:
    told = snapshot.summary.additional_properties if snapshot.summary else {}
    size_bytes = int(told.get("total-files-size") or 0)
    return SourceFile(source.where, size_bytes, f"snapshot {snapshot.snapshot_id}")


@dataclass(frozen=True)
class _Place:
    """What a worker needs to open the table; hashable, to be a key of its cache."""

    metadata: str
    properties: tuple[tuple[str, str], ...] = field(repr=False)
    snapshot_id: int


def _table(name: str, source: LakeSource) -> Any:
    try:
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError, NotInstalledError
    except ImportError:
        raise lake.missing_library("iceberg") from None
    if (source.path is None) == (source.table is None):
        raise InputError(
            f"sources.{name} needs one of `path` and `table`",
            do="set `table: namespace.table` and `catalog`, or the `path` of a metadata file",
        )
    try:
        return _from_catalog(source) if source.table else _from_metadata(name, source)
    except (NoSuchTableError, NoSuchNamespaceError):
        raise InputError(
            f"the catalog of source `{name}` has no such table",
            value=source.table,
            do="check `table`: namespace.table, as the catalog lists it",
        ) from None
    except NotInstalledError as error:
        raise InputError(
            f"the catalog of source `{name}` needs a library that is not installed ({error})",
            do="install it",
        ) from None


def _from_catalog(source: LakeSource) -> Any:
    from pyiceberg.catalog import load_catalog

    properties = {**lake.revealed(source.options), **lake.revealed(source.catalog)}
    catalog = load_catalog(properties.pop("name", "default"), **properties)
    return catalog.load_table(str(source.table))


def _from_metadata(name: str, source: LakeSource) -> Any:
    from pyiceberg.table import StaticTable

    try:
        return StaticTable.from_metadata(str(source.path), lake.revealed(source.options))
    except FileNotFoundError:
        raise InputError(
            f"source `{name}` is not the metadata file of an Iceberg table",
            value=source.path,
            do="name a file TABLE/metadata/....metadata.json, or a folder with a version hint",
        ) from None


def _snapshot(name: str, source: LakeSource, table: Any) -> Any:
    wanted = lake.version_or_time(name, source)
    if wanted is None:
        found = table.current_snapshot()
    elif isinstance(wanted, datetime):
        found = table.snapshot_as_of_timestamp(int(wanted.timestamp() * 1000))
    else:
        found = table.snapshot_by_id(wanted)
    if found is not None:
        return found
    known = [str(s.snapshot_id) for s in reversed(table.snapshots())]
    if not known:
        raise InputError(f"source `{name}` has no rows", value=f"{source.where}: no snapshot yet")
    raise InputError(
        f"source `{name}` has no such snapshot, or it has expired",
        value=source.version,
        allowed=", ".join(known[:5]),
    )


def _scan(table: Any, snapshot_id: int, columns: Sequence[str] | None) -> Any:
    chosen = ("*",) if columns is None else tuple(columns)
    return table.scan(snapshot_id=snapshot_id, selected_fields=chosen)


def _planned(name: str, source: LakeSource, scan: Any) -> list[Any]:
    try:
        return list(scan.plan_files())
    except (NotImplementedError, ValueError) as error:
        raise InputError(
            f"source `{name}` is an Iceberg table that mlray cannot read rightly ({error})",
            value=source.where,
            do="compact the table, so that its deletes are applied",
        ) from None


def _arrow(schema: Any) -> pa.Schema:
    """The schema in Arrow's types, with plain in place of large ones."""
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    narrow = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}
    found = schema_to_pyarrow(schema, include_field_ids=False).remove_metadata()
    return pa.schema([pa.field(f.name, narrow.get(f.type, f.type)) for f in found])


def _read(name: str, place: _Place, task: Any, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of one planned file. Runs in a Ray worker."""
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.io.pyarrow import ArrowScan

    table = _static(place)
    wanted = _scan(table, place.snapshot_id, schema.names).projection()
    reader = ArrowScan(table.metadata, table.io, wanted, AlwaysTrue())
    try:
        for batch in reader.to_record_batches([task]):
            yield declared_table(pa.Table.from_batches([batch]), name, schema)
    except FileNotFoundError:
        raise InputError(
            f"a data file of the snapshot of source `{name}` is gone",
            value=task.file.file_path,
            do="read a newer snapshot",
        ) from None


@lru_cache(8)
def _static(place: _Place) -> Any:
    """The table from its metadata file, which never changes: once in each worker."""
    from pyiceberg.table import StaticTable

    return StaticTable.from_metadata(place.metadata, dict(place.properties))
