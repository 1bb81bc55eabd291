"""Parquet files, read by Ray Data's own reader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlray.config.sections import Source
from mlray.errors import InputError
from mlray.sources.opened import Opened, did_you_mean, require_columns
from mlray.sources.resolve import Place, filesystem, find, is_local, located, open_binary
from mlray.sources.types import arrow_type, declared_table

ENDINGS = (".parquet", ".pq")
_BLOCK_BYTES = 8 << 20
"""A local reading task takes about so many bytes."""


def open_source(name: str, source: Source, folder: str) -> Opened:
    """Open Parquet files as one source.

    Raises:
        InputError: a file is missing or damaged, or its columns are not those of the first file.
    """
    places = find(source.path or [], ENDINGS)
    footers = [_footer(name, p) for p in places]
    stored = _common_schema(name, source, places, [schema for schema, _ in footers])
    schema = _declared(name, source, stored)
    if not any(rows for _, rows in footers):
        raise InputError(f"source `{name}` has no rows", value=[p.address for p in places])
    return Opened(
        schema=schema,
        files=tuple({p.file.path: p.file for p in places}.values()),
        dataset=lambda: _dataset(name, places, stored, schema),
        table=lambda: pa.concat_tables(_tables(name, places, schema)),
        head=lambda rows: _head(name, places, schema, rows),
    )


def _footer(name: str, place: Place) -> tuple[pa.Schema, int]:
    try:
        with open_binary(place.address) as file:
            footer = pq.ParquetFile(file)
            return footer.schema_arrow.remove_metadata(), footer.metadata.num_rows
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


def _dataset(name: str, places: Sequence[Place], stored: pa.Schema, schema: pa.Schema) -> Any:
    import ray.data

    paths, arrow_fs = _for_ray(places)
    local = all(is_local(p.address) for p in places)
    total = sum(p.size_bytes for p in places)
    with _reader_of_many_footers(not local):
        rows = ray.data.read_parquet(
            paths,
            filesystem=arrow_fs,
            schema=stored if len(places) > 1 else None,
            file_extensions=None,
            override_num_blocks=max(1, -(-total // _BLOCK_BYTES)) if local else None,
        )
    rows = rows.select_columns(list(schema.names))  # pushed down into the read
    if stored.equals(schema) and len(places) == 1:
        return rows
    return rows.map_batches(
        declared_table,
        batch_format="pyarrow",
        batch_size=None,
        zero_copy_batch=True,
        fn_kwargs={"name": name, "schema": schema},
    )


def _for_ray(places: Sequence[Place]) -> tuple[list[str], Any]:
    """Paths and filesystem in the form that Ray's reader takes."""
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    if all(is_local(p.address) for p in places):
        return [located(p.address) for p in places], None
    opened = [filesystem(p.address) for p in places]
    if len({str(fs.to_json()) for fs, _ in opened}) > 1:
        raise InputError(
            "these Parquet files lie on different filesystems or in different archives",
            value=[p.address for p in places],
            do="unpack the archives into one folder",
        )
    return [inner for _, inner in opened], PyFileSystem(FSSpecHandler(opened[0][0]))


@contextmanager
def _reader_of_many_footers(wanted: bool) -> Iterator[None]:
    """Ray's second reader starts 32 actors that fetch footers: worth it on object stores only."""
    from ray.data import DataContext

    context = DataContext.get_current()
    before = context.use_datasource_v2
    context.use_datasource_v2 = wanted
    try:
        yield
    finally:
        context.use_datasource_v2 = before


def _tables(name: str, places: Sequence[Place], schema: pa.Schema) -> Iterator[pa.Table]:
    for place in places:
        with open_binary(place.address) as file:
            yield declared_table(pq.read_table(file, columns=list(schema.names)), name, schema)


def _head(name: str, places: Sequence[Place], schema: pa.Schema, rows: int) -> pa.Table:
    taken = schema.empty_table()
    for place in places:
        with open_binary(place.address) as file:
            batches = pq.ParquetFile(file).iter_batches(rows, columns=list(schema.names))
            first = next(batches, None)
        if first is not None:
            piece = declared_table(pa.Table.from_batches([first]), name, schema)
            taken = pa.concat_tables([taken, piece])
        if taken.num_rows >= rows:
            break
    return taken.slice(0, rows)
