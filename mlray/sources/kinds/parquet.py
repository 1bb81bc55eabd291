"""Parquet files, read by row groups.

Folders named `year=2013` give a column `year`. Columns of extension types are read as what they are
stored as: no code that a schema names is run, and nothing is unpickled. Files must have the same
columns, unless `columns` names those to read; numbers of other width become one type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from mlray.config.rows import Source
from mlray.errors import InputError
from mlray.sources.kinds.text import reading
from mlray.sources.opened import Opened, SourceFile, did_you_mean, require_columns
from mlray.sources.reading import Piece, opened
from mlray.sources.resolve import Place, files_of, find, open_binary
from mlray.sources.types import arrow_type, declared_table, inferred

ENDINGS = (".parquet", ".pq")
_TASK_BYTES = 8 << 20
"""A reading task takes about so many bytes."""
_BATCH_ROWS = 1 << 17
_PARTITION = re.compile(r"([^/=]+)=([^/]*)")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def open_source(name: str, source: Source, folder: str) -> Opened:
    """Open Parquet files as one source.

    Raises:
        InputError: a file is missing or damaged, or its columns are not those of the other files.
    """
    places = find(source.path or [], ENDINGS)
    with ThreadPoolExecutor(8) as pool:
        footers = list(pool.map(partial(footer, name), places))
    constants = _constants(name, places, [schema for schema, _ in footers])
    schemas = [
        pa.schema([*schema, *(pa.field(n, v.type) for n, v in held.items())])
        for (schema, _), held in zip(footers, constants, strict=True)
    ]
    schema = _declared(name, source, _common_schema(name, source, places, schemas))
    if not any(rows for _, counts in footers for rows, _ in counts):
        raise InputError(f"source `{name}` has no rows", value=[p.address for p in places])
    pieces = [
        piece
        for place, held, (_, counts) in zip(places, constants, footers, strict=True)
        for piece in _row_groups(
            partial(_read, name, place.address, held, schema, frozenset(source.pii)), place, counts
        )
    ]
    shown = files_of(places)
    return opened(name, schema, shown, pieces, kind="Parquet", task_bytes=_TASK_BYTES)


def _row_groups(
    read: partial[Iterator[pa.Table]], place: Place, counts: Sequence[tuple[int, int]]
) -> Iterator[Piece]:
    """A piece for each row group of a file.

    Ray's own reader reads a file of several row groups in one task, and does not say which row of
    the file a row was.
    """
    first = 0
    for number, (rows, size_bytes) in enumerate(counts):
        if rows:
            yield Piece(partial(read, number), place.address, first, rows, size_bytes)
        first += rows


def _read(
    name: str,
    address: str,
    constants: dict[str, pa.Scalar],
    schema: pa.Schema,
    secret: frozenset[str],
    group: int,
) -> Iterator[pa.Table]:
    """The rows of one row group. Runs in a Ray worker."""
    stored = [n for n in schema.names if n not in constants]
    with _damage_told(name, address), open_binary(address) as file:
        for batch in pq.ParquetFile(file).iter_batches(
            _BATCH_ROWS, row_groups=[group], columns=stored
        ):
            table = pa.Table.from_batches([batch])
            for column in constants.keys() & set(schema.names):
                held = constants[column]
                table = table.append_column(column, pa.repeat(held, batch.num_rows))
            yield declared_table(table, name, schema, secret)


def files(name: str, source: Source, folder: str) -> tuple[SourceFile, ...]:
    """The files, without a look inside."""
    return files_of(find(source.path or [], ENDINGS))


def footer(name: str, place: Place) -> tuple[pa.Schema, list[tuple[int, int]]]:
    """The file's schema, and rows and compressed bytes of each row group."""
    with _damage_told(name, place.address), open_binary(place.address) as file:
        found = pq.ParquetFile(file)
        groups = [found.metadata.row_group(i) for i in range(found.num_row_groups)]
        sizes = [(g.num_rows, max(1, g.total_byte_size)) for g in groups]
        schema = found.schema_arrow
    if len(set(schema.names)) < len(schema.names):
        twice = sorted({n for n in schema.names if schema.names.count(n) > 1})
        raise InputError(f"{place.address} (source `{name}`) names columns twice", value=twice)
    return pa.schema([(f.name, _plain(f.type)) for f in schema]), sizes


@contextmanager
def _damage_told(name: str, address: str) -> Iterator[None]:
    try:
        with reading(name, address):
            yield
    except (pa.ArrowException, ValueError, IndexError) as error:
        # An extension type that is registered in this process may refuse its metadata.
        raise InputError(
            f"{address} (source `{name}`) cannot be read as Parquet ({error})",
            do="fetch or write the file again: it is damaged, or holds a type that is not safe",
        ) from None


def _plain(kind: pa.DataType) -> pa.DataType:
    """What values are stored as: without extension types, dictionaries and sizes of offsets."""
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type)
    if pt.is_dictionary(kind):
        return _plain(kind.value_type)
    if pt.is_large_string(kind) or pt.is_string_view(kind):
        return pa.string()
    if pt.is_struct(kind):
        return pa.struct([(f.name, _plain(f.type)) for f in kind])
    if pt.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pt.is_large_list(kind):
        return pa.large_list(_plain(kind.value_type))
    return kind


def _constants(
    name: str, places: Sequence[Place], schemas: Sequence[pa.Schema]
) -> list[dict[str, pa.Scalar]]:
    """Columns that the folders of each file name, of one type over all files."""
    named = [dict(_PARTITION.findall(p.address.rpartition("/")[0])) for p in places]
    constants: list[dict[str, pa.Scalar]] = [{} for _ in places]
    for column in dict.fromkeys(c for held in named for c in held):
        if any(column in schema.names for schema in schemas):
            continue  # the files say it themselves
        lacking = next(
            (p for p, held in zip(places, named, strict=True) if column not in held), None
        )
        if lacking is not None:
            raise InputError(
                f"{lacking.address} (source `{name}`) lies in no folder",
                value=f"{column}=...",
                do="move it to where the other files are",
            )
        texts = [unquote(held[column]) for held in named]
        known = [None if text == _NO_VALUE else text for text in texts]
        values = inferred(pa.chunked_array([known], pa.string()))
        for held, value in zip(constants, values, strict=True):
            held[column] = value
    return constants


def _common_schema(
    name: str, source: Source, places: Sequence[Place], schemas: Sequence[pa.Schema]
) -> pa.Schema:
    wanted = source.columns or list(dict.fromkeys(n for schema in schemas for n in schema.names))
    for place, schema in zip(places, schemas, strict=True):
        lacking = [c for c in wanted if c not in schema.names]
        if not lacking:
            continue
        other = next(
            (p for p, s in zip(places, schemas, strict=True) if lacking[0] in s.names), None
        )
        if other is None:
            raise InputError(
                f"{place.address} (source `{name}`) has no column",
                value=lacking,
                do=did_you_mean(lacking[0], schema.names),
            )
        raise InputError(
            f"{place.address} (source `{name}`) has no column",
            value=lacking,
            allowed=f"{other.address} has it; this file has: {', '.join(schema.names)}",
            do="write the files with the same columns, or name the columns to read in `columns`",
        )
    return pa.schema([_common_field(name, c, places, schemas) for c in wanted])


def _common_field(
    name: str, column: str, places: Sequence[Place], schemas: Sequence[pa.Schema]
) -> pa.Field:
    first = pa.schema([schemas[0].field(column).with_nullable(True)])
    together = first
    for place, schema in zip(places, schemas, strict=True):
        field = schema.field(column).with_nullable(True)
        try:
            together = pa.unify_schemas(
                [together, pa.schema([field])], promote_options="permissive"
            )
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            raise InputError(
                f"the files of source `{name}` disagree about a column's type",
                value=f"`{column}` is {together.field(0).type} in {places[0].address}, "
                f"{field.type} in {place.address}",
                do="write them with one type, or read them as two sources",
            ) from None
    return together.field(0)


def _declared(name: str, source: Source, stored: pa.Schema) -> pa.Schema:
    require_columns(source.types, stored, f"source `{name}`")
    kinds = {f.name: f.type for f in stored}
    kinds |= {n: arrow_type(t) for n, t in source.types.items()}
    empty = {n: pa.string() if pa.types.is_null(k) else k for n, k in kinds.items()}
    return pa.schema(empty)
