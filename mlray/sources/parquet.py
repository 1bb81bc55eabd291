"""Parquet files, read by row groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from mlray.config.rows import Source
from mlray.errors import InputError
from mlray.sources.opened import Opened, SourceFile, did_you_mean, require_columns
from mlray.sources.reading import Piece, opened
from mlray.sources.resolve import Place, find, open_binary
from mlray.sources.types import arrow_type, declared_table

ENDINGS = (".parquet", ".pq")
_TASK_BYTES = 8 << 20
"""A reading task takes about so many bytes."""
_BATCH_ROWS = 1 << 17


def open_source(name: str, source: Source, folder: str) -> Opened:
    """Open Parquet files as one source.

    Raises:
        InputError: a file is missing or damaged, or its columns are not those of the first file.
    """
    places = find(source.path or [], ENDINGS)
    footers = [_footer(name, p) for p in places]
    stored = _common_schema(name, source, places, [schema for schema, _ in footers])
    schema = _declared(name, source, stored)
    if not any(rows for _, counts in footers for rows, _ in counts):
        raise InputError(f"source `{name}` has no rows", value=[p.address for p in places])
    pieces = [
        piece
        for place, (_, counts) in zip(places, footers, strict=True)
        for piece in _row_groups(name, place, counts, schema)
    ]
    shown = tuple({p.file.path: p.file for p in places}.values())
    return opened(name, schema, shown, pieces, kind="Parquet", task_bytes=_TASK_BYTES)


def _row_groups(
    name: str, place: Place, counts: Sequence[tuple[int, int]], schema: pa.Schema
) -> Iterator[Piece]:
    """A piece for each row group of a file.

    Ray's own reader reads a file of several row groups in one task, and does not say which row of
    the file a row was.
    """
    first = 0
    for number, (rows, size_bytes) in enumerate(counts):
        if rows:
            read = partial(_read, name, place.address, number, schema)
            yield Piece(read, place.file.path, first, rows, size_bytes)
        first += rows


def _read(name: str, address: str, group: int, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of one row group. Runs in a Ray worker."""
    with open_binary(address) as file:
        for batch in pq.ParquetFile(file).iter_batches(
            _BATCH_ROWS, row_groups=[group], columns=list(schema.names)
        ):
            yield declared_table(pa.Table.from_batches([batch]), name, schema)


def files(name: str, source: Source, folder: str) -> tuple[SourceFile, ...]:
    """The files, without a look inside."""
    return tuple({p.file.path: p.file for p in find(source.path or [], ENDINGS)}.values())


def _footer(name: str, place: Place) -> tuple[pa.Schema, list[tuple[int, int]]]:
    """The file's schema, and rows and compressed bytes of each row group."""
    try:
        with open_binary(place.address) as file:
            footer = pq.ParquetFile(file)
            groups = [footer.metadata.row_group(i) for i in range(footer.num_row_groups)]
            sizes = [(g.num_rows, max(1, g.total_byte_size)) for g in groups]
            return footer.schema_arrow.remove_metadata(), sizes
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"source `{name}` cannot be read as Parquet ({error})", value=place.address
        ) from error


def _common_schema(
    name: str, source: Source, places: Sequence[Place], schemas: Sequence[pa.Schema]
) -> pa.Schema:
    wanted = source.columns or schemas[0].names
    for place, schema in zip(places, schemas, strict=True):
        lacking = [c for c in wanted if c not in schema.names]
        if lacking:
            raise InputError(
                f"{place.address} (source `{name}`) has no column",
                value=lacking,
                do=did_you_mean(lacking[0], schema.names),
            )
    try:
        every = pa.unify_schemas(
            [pa.schema([s.field(c) for c in wanted]) for s in schemas],
            promote_options="permissive",
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(
            f"the files of source `{name}` disagree about a column's type ({error})",
            do="write them with one type",
        ) from error
    return every


def _declared(name: str, source: Source, stored: pa.Schema) -> pa.Schema:
    require_columns(source.types, stored, f"source `{name}`")
    kinds = {f.name: f.type for f in stored}
    kinds |= {n: arrow_type(t) for n, t in source.types.items()}
    empty = {n: pa.string() if pa.types.is_null(k) else k for n, k in kinds.items()}
    return pa.schema(empty)
