"""Images of folders and archives, or held as bytes in a Parquet column, as rows of one shape.

Pixels are a fixed-size binary column in the order row, column, channel: a fixed-shape tensor or a
fixed-size list with a missing value cannot be read back from Parquet, and takes 6 times as long to
write and 60 times as long to read. `pixels` gives them as one array without a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from mlray.config.rows import ImagesSource
from mlray.errors import InputError
from mlray.sources import resolve
from mlray.sources.kinds import parquet
from mlray.sources.kinds.decoding import Pixels, UndecodableError, decode
from mlray.sources.kinds.gallery import Gallery, galleries
from mlray.sources.opened import Opened, SourceFile, require_columns
from mlray.sources.reading import POSITION, RAW, UNREADABLE, Piece, opened
from mlray.sources.types import arrow_type, declared_table

IMAGE, HEIGHT, WIDTH, FILE, LABEL = "image", "height", "width", "file", "label"
_PIECE_BYTES = 16 << 20
"""Decoded bytes of the images that one task takes at most."""
_PIECE_IMAGES = (16, 512)
_FEW_PIECES = 16
_TRIED = 20
_RAW_BYTES = 16 << 20
"""An unreadable image is kept whole up to this size."""

Encoded = tuple[str, bytes | None]
"""Name of an image and its bytes."""


def open_source(name: str, source: ImagesSource, folder: str) -> Opened:
    """Open images; only the first is decoded.

    Raises:
        InputError: there are none, the first cannot be decoded, or the column is not one of bytes.
    """
    _require_pillow()
    opening = _of_column if source.column else _of_files
    return opening(name, source)


def files(name: str, source: ImagesSource, folder: str) -> tuple[SourceFile, ...]:
    """Folders and archives with what changes when an image does."""
    if source.column:
        found = resolve.find(source.path, parquet.ENDINGS)
        return tuple({place.file.path: place.file for place in found}.values())
    return tuple(gallery.file for gallery in galleries(source.path))


def pixels(table: pa.Table | pa.RecordBatch) -> Pixels:
    """The images of a table that has no missing ones: (N, height, width, channels), uint8."""
    column = table.column(IMAGE)
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    width = array.type.byte_width
    flat = np.frombuffer(
        array.buffers()[1] or b"", np.uint8, len(array) * width, array.offset * width
    )
    if not len(array):
        return flat.reshape(0, 0, 0, 0)
    high, wide = table.column(HEIGHT)[0].as_py(), table.column(WIDTH)[0].as_py()
    return flat.reshape(len(array), high, wide, -1)


def _require_pillow() -> None:
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise InputError(
            "reading images needs a library that is not installed",
            do="pip install 'mlray[images]'",
        ) from None


# --- files --------------------------------------------------------------------------------------


def _of_files(name: str, source: ImagesSource) -> Opened:
    found = galleries(source.path)
    first = (item for gallery in found for item in gallery.read(gallery.members[:_TRIED]))
    size = source.size or _size_of_first(name, source, first)
    kinds = {**_image_kinds(source, size), FILE: pa.string()}
    if source.label == "folder":
        kinds[LABEL] = pa.string()
    schema = _declared(name, source, pa.schema(kinds))
    pieces = [p for gallery in found for p in _pieces(name, source, gallery, size, schema)]
    shown = tuple(gallery.file for gallery in found)
    return opened(name, schema, shown, pieces, kind="Images", task_bytes=1)


def _pieces(
    name: str, source: ImagesSource, gallery: Gallery, size: tuple[int, int], schema: pa.Schema
) -> Iterator[Piece]:
    members, each = gallery.members, _image_bytes(source, size)
    least, most = _PIECE_IMAGES
    count = min(most, max(least, -(-len(members) // _FEW_PIECES)), max(1, _PIECE_BYTES // each))
    if not gallery.parts:
        count = len(members)
    for first in range(0, len(members), count):
        some = members[first : first + count]
        read = partial(_read_files, name, source, gallery.alone(), some, size, schema)
        yield Piece(read, gallery.file.path, first, len(some), len(some) * each)


def _read_files(
    name: str,
    source: ImagesSource,
    gallery: Gallery,
    members: Sequence[Any],
    size: tuple[int, int],
    schema: pa.Schema,
) -> Iterator[pa.Table]:
    """The images of some members. Runs in a Ray worker."""
    items, seen = gallery.read(members), 0
    while some := list(islice(items, _batch(source, size))):
        table = _decoded(name, source, some, size)
        names = [item for item, _ in some]
        table = table.append_column(FILE, pa.array(names, pa.string()))
        table = table.append_column(LABEL, pa.array([_folder(n) for n in names], pa.string()))
        yield _as_declared(name, table, schema)
        seen += len(some)


def _folder(name: str) -> str | None:
    return PurePosixPath(name).parent.name or None


# --- a column of encoded images -----------------------------------------------------------------


def _of_column(name: str, source: ImagesSource) -> Opened:
    places = resolve.find(source.path, parquet.ENDINGS)
    footers = [parquet.footer(name, place) for place in places]
    stored = footers[0][0]
    require_columns([str(source.column)], stored, f"source `{name}`")
    kind = stored.field(source.column).type
    kind = kind.field("bytes").type if pt.is_struct(kind) and "bytes" in kind.names else kind
    if not (pt.is_binary(kind) or pt.is_large_binary(kind)):
        raise InputError(
            f"column `{source.column}` of source `{name}` does not hold encoded images",
            value=str(kind),
            allowed="binary, or a struct with `bytes`",
        )
    first = _column_items(source, places[0].address, 0)
    size = source.size or _size_of_first(name, source, (i for b in first for i in b[1]))
    others = [f for f in stored if f.name != source.column]
    taken = {IMAGE, HEIGHT, WIDTH} & {f.name for f in others}
    if taken:
        raise InputError(
            f"source `{name}` has columns of its own by the names of images", value=sorted(taken)
        )
    kinds = {**{f.name: f.type for f in others}, **_image_kinds(source, size)}
    schema = _declared(name, source, pa.schema(kinds))
    pieces = [
        Piece(
            partial(_read_column, name, source, place.address, number, size, schema),
            place.file.path,
            sum(counts[i][0] for i in range(number)),
            counts[number][0],
            counts[number][0] * _image_bytes(source, size),
        )
        for place, (_, counts) in zip(places, footers, strict=True)
        for number in range(len(counts))
        if counts[number][0]
    ]
    shown = resolve.files_of(places)
    return opened(name, schema, shown, pieces, kind="Images", task_bytes=1)


def _column_items(
    source: ImagesSource, address: str, group: int, rows: int = _TRIED
) -> Iterator[tuple[pa.Table, list[Encoded]]]:
    """Batches of a row group: its other columns, and the encoded images."""
    with resolve.open_binary(address) as file:
        for batch in pq.ParquetFile(file).iter_batches(rows, row_groups=[group]):
            table = pa.Table.from_batches([batch])
            held = table.column(str(source.column))
            if pt.is_struct(held.type):
                held = pa.chunked_array([c.field("bytes") for c in held.chunks], pa.binary())
            yield (
                table.drop_columns([str(source.column)]),
                [(f"an image in {address}", data) for data in held.to_pylist()],
            )


def _read_column(
    name: str,
    source: ImagesSource,
    address: str,
    group: int,
    size: tuple[int, int],
    schema: pa.Schema,
) -> Iterator[pa.Table]:
    """The images of one row group. Runs in a Ray worker."""
    for others, items in _column_items(source, address, group, _batch(source, size)):
        table = _decoded(name, source, items, size)
        for field, column in zip(others.schema, others.columns, strict=True):
            table = table.append_column(field, column)
        yield _as_declared(name, table, schema)


# --- what both share ----------------------------------------------------------------------------


def _size_of_first(name: str, source: ImagesSource, items: Iterator[Encoded]) -> tuple[int, int]:
    """Height and width of the first image that can be decoded."""
    why = "there is none"
    for item, data in islice(items, _TRIED):
        try:
            high, wide, _ = decode(data or b"", source.mode, None).shape
            return high, wide
        except UndecodableError as error:
            why = f"{item}: {error}"
            if source.unreadable == "stop":
                break
    raise InputError(f"source `{name}` has no image to begin with", value=why)


def _decoded(
    name: str, source: ImagesSource, items: Sequence[Encoded], size: tuple[int, int]
) -> pa.Table:
    """Image, height, width; and why an image could not be read, if that is to be carried on."""
    shape = (*size, 1 if source.mode == "L" else 3)
    held = np.zeros((len(items), *shape), np.uint8)
    reasons: list[str | None] = [None] * len(items)
    for number, (item, data) in enumerate(items):
        try:
            found = decode(data or b"", source.mode, source.size)
            if found.shape != shape:
                told = f"it is {found.shape[0]} x {found.shape[1]}, others {size[0]} x {size[1]}"
                raise UndecodableError(f"{told}; set `size` to scale all of them")
            held[number] = found
        except UndecodableError as error:
            reasons[number] = f"{item}: {error}"
            if source.unreadable == "stop":
                raise InputError(
                    f"an image of source `{name}` cannot be read",
                    value=reasons[number],
                    do="mend or remove it, or set `unreadable: quarantine`",
                ) from None
    return _table(held, reasons, items, size)


def _table(
    held: Pixels, reasons: Sequence[str | None], items: Sequence[Encoded], size: tuple[int, int]
) -> pa.Table:
    count, each = len(items), int(np.prod(held.shape[1:]))
    bad = np.array([reason is not None for reason in reasons], bool)
    valid = pa.py_buffer(np.packbits(~bad, bitorder="little").tobytes()) if bad.any() else None
    image = pa.Array.from_buffers(pa.binary(each), count, [valid, pa.py_buffer(held)])
    table = pa.table(
        {
            IMAGE: image,
            HEIGHT: pa.array(np.full(count, size[0], np.int32), mask=bad),
            WIDTH: pa.array(np.full(count, size[1], np.int32), mask=bad),
        }
    )
    if not bad.any():
        return table
    raw = [
        data if why is not None and len(data or b"") <= _RAW_BYTES else None
        for why, (_, data) in zip(reasons, items, strict=True)
    ]
    table = table.append_column(UNREADABLE, pa.array(reasons, pa.string()))
    return table.append_column(RAW, pa.array(raw, pa.binary()))


def _as_declared(name: str, table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Columns and types of the source; hidden ones stay, and unreadable rows have no values."""
    hidden = [n for n in (POSITION, UNREADABLE, RAW) if n in table.column_names]
    result = declared_table(table, name, schema)
    if UNREADABLE in hidden:
        good = table[UNREADABLE].is_null().combine_chunks()
        result = pa.Table.from_arrays(
            [_where(good, column) for column in result.columns], schema=schema
        )
    for column in hidden:
        result = result.append_column(column, table[column])
    return result


def _where(good: pa.Array, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with missing values where `good` is false."""
    import pyarrow.compute as pc

    places = pa.array(np.arange(len(good)), mask=~good.to_numpy(zero_copy_only=False))
    return pc.take(column, places)


def _image_kinds(source: ImagesSource, size: tuple[int, int]) -> dict[str, pa.DataType]:
    each = pa.binary(_image_bytes(source, size))
    return {IMAGE: each, HEIGHT: pa.int32(), WIDTH: pa.int32()}


def _image_bytes(source: ImagesSource, size: tuple[int, int]) -> int:
    return size[0] * size[1] * (1 if source.mode == "L" else 3)


def _batch(source: ImagesSource, size: tuple[int, int]) -> int:
    return max(1, min(_PIECE_IMAGES[1], _PIECE_BYTES // _image_bytes(source, size)))


def _declared(name: str, source: ImagesSource, there: pa.Schema) -> pa.Schema:
    require_columns([*(source.columns or []), *source.types], there, f"source `{name}`")
    kinds = {c: there.field(c).type for c in source.columns or there.names}
    return pa.schema(kinds | {n: arrow_type(t) for n, t in source.types.items() if n in kinds})
