"""JSON lines, and documents with a list of records: nested objects become columns `a.b`.

Types are settled once over all files, from every value up to 64 MB and from samples all over larger
files: whole numbers and others become float64, ISO 8601 times timestamps, and what is of no one
type becomes text. Lists stay lists where their items are of one type, else they are JSON text.

Polars parses. Ray Data's readers are pandas' for lines and Arrow's for documents: each block keeps
its own types, no row knows its place, and Arrow's ends the whole process on a line `null` or on
deep lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mlray.config.rows import Source
from mlray.errors import InputError
from mlray.sources.kinds.lines import LINES, blocks, is_document, samples
from mlray.sources.kinds.shapes import Leaf, leaves, read_schema, shape_of
from mlray.sources.kinds.text import (
    COMPRESSED,
    RANGE_BYTES,
    Text,
    codec,
    cut_up,
    ranges,
    reading,
    refuse_encoding,
    text_of,
)
from mlray.sources.opened import Opened, SourceFile, require_columns
from mlray.sources.reading import UNREADABLE, Piece, marked, opened
from mlray.sources.resolve import Place, files_of, find
from mlray.sources.types import arrow_type, parsed, settled, time_type, unify

_PLAIN = (".json", *LINES)
ENDINGS = (*_PLAIN, *(f"{plain}.{end}" for plain, end in product(_PLAIN, COMPRESSED)))
_WHOLE_BYTES = 64 << 20
"""So many bytes over all files are looked at to infer types; of more, samples of each file are."""
_HALF_CHARACTER = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)
"""Half of a character outside of the basic plane, which Polars would read as another character."""


@dataclass(frozen=True)
class Layout:
    """How the files of a source are to be understood; travels to the reading tasks."""

    source: str
    leaves: tuple[Leaf, ...]
    """What is read, by the path in an object."""
    records: str | None
    aside: bool
    """Whether unreadable rows are set aside; else they are errors."""
    secret: frozenset[str]
    """Columns whose values stand in no error."""

    @property
    def schema(self) -> pa.Schema:
        """What comes out."""
        return pa.schema([(leaf.name, leaf.kind) for leaf in self.leaves])


@dataclass(frozen=True)
class _Seen:
    """What a look into one file gave."""

    place: Place
    text: Text
    document: bool
    shape: pa.StructType


def open_source(name: str, source: Source, folder: str) -> Opened:
    """Open JSON files as one source.

    Raises:
        InputError: a file is missing, empty, or not JSON, or a column is not there.
    """
    places = find(source.path or [], ENDINGS)
    whole = sum(p.size_bytes * (8 if codec(p.address) else 1) for p in places) <= _WHOLE_BYTES
    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(partial(_look_into, name, source, whole), places))
    layout = _layout(name, source, seen)
    shown = files_of(places)
    return opened(
        name,
        layout.schema,
        shown,
        [_piece(layout, one, one.text) for one in seen],
        kind="JSON",
        task_bytes=RANGE_BYTES,
        finer=lambda: _finer(layout, seen),
    )


def files(name: str, source: Source, folder: str) -> tuple[SourceFile, ...]:
    """The files, without a look inside."""
    return files_of(find(source.path or [], ENDINGS))


def _finer(layout: Layout, seen: Sequence[_Seen]) -> list[Piece]:
    def cut(one: _Seen) -> list[Text]:
        return [one.text] if one.document else ranges(one.text, None)

    return cut_up(seen, cut, partial(_piece, layout))


def _piece(layout: Layout, one: _Seen, text: Text) -> Piece:
    size = text.size_bytes or max(1, one.place.size_bytes)
    read = partial(_read, layout, text, one.document)
    return Piece(read, text.address, text.first, text.rows, size)


def _look_into(name: str, source: Source, whole: bool, place: Place) -> _Seen:
    text = text_of(name, place, source.encoding)
    with reading(name, place.address, text.encoding):
        document = is_document(text, source.records)
        every = blocks(text, document, source.records, name) if whole or document else samples(text)
        found = unify(_inferred(block) for block in every)
    shape = found if pt.is_struct(found) else pa.struct([])
    return _Seen(place, text, document, shape)


def _inferred(block: bytes) -> pa.DataType:
    """The type of the objects in a block; lines that are not objects are passed over."""
    import polars as pl

    try:
        _refuse_half_characters(block)
        frame = pl.read_ndjson(block, infer_schema_length=None).to_arrow()
        shape = unify([pa.struct(list(frame.schema))])
        found = _columns(frame, _texts(shape))
    except (pl.exceptions.PolarsError, pa.ArrowInvalid, UnicodeError):
        # A type that changes, or a bad line.
        objects = [value for line in block.split(b"\n") if isinstance(value := _loaded(line), dict)]
        shape = unify([shape_of(objects)])
        found = _parsed(b"\n".join(map(orjson.dumps, objects)), _texts(shape))
    times = {leaf.path: time_type(found[leaf.name]) for leaf in _texts(shape)}
    return pa.struct(
        list(read_schema([Leaf(f.path, times.get(f.path, f.kind)) for f in leaves(shape)]))
    )


def _texts(shape: pa.StructType) -> list[Leaf]:
    return [leaf for leaf in leaves(shape) if pt.is_string(leaf.kind)]


def _loaded(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def _layout(name: str, source: Source, seen: Sequence[_Seen]) -> Layout:
    shape = unify(one.shape for one in seen if one.shape.num_fields)
    if pt.is_null(shape):
        raise InputError(
            f"source `{name}` has no rows",
            value=[one.text.address for one in seen],
            do="check the path; rows are JSON objects, one a line or in a list, see `records`",
        )
    found = leaves(shape)
    names = [leaf.name for leaf in found]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise InputError(
            f"source `{name}` has two fields that make one column",
            value=twice,
            do="rename one: a nested field `b` of `a` becomes column `a.b`",
        )
    known = pa.schema([(n, pa.null()) for n in names])
    require_columns(source.columns or (), known, f"source `{name}`")
    require_columns(source.types, known, f"source `{name}`")
    declared = {n: arrow_type(t) for n, t in source.types.items()}
    kinds = {leaf.name: declared.get(leaf.name) or settled(leaf.kind) for leaf in found}
    paths = {leaf.name: leaf.path for leaf in found}
    return Layout(
        name,
        tuple(Leaf(paths[n], kinds[n]) for n in source.columns or names),
        source.records,
        source.unreadable == "quarantine",
        frozenset(source.pii),
    )


def _read(layout: Layout, text: Text, document: bool) -> Iterator[pa.Table]:
    """The rows of a text, in order, as tables of `layout.schema`. Runs in a Ray worker."""
    first = text.first
    with reading(layout.source, text.address, text.encoding):
        for block in blocks(text, document, layout.records, layout.source):
            table = _table(layout, block)
            if not layout.aside and UNREADABLE in table.column_names:
                _refuse(layout, text, table, first)
            first += table.num_rows
            yield table


def _refuse(layout: Layout, text: Text, table: pa.Table, first: int) -> None:
    reasons = table[UNREADABLE]
    row = int(np.flatnonzero(reasons.is_valid().to_numpy())[0])
    if reasons[row].as_py() == _NOT_UTF8:
        refuse_encoding(layout.source, text.address, text.encoding)
    raise InputError(
        f"{text.address} (source `{layout.source}`), row {first + row + 1:,}",
        value=reasons[row].as_py(),
        do="mend the file, set `types` of the column to string, or `unreadable: quarantine` to set "
        "such rows aside",
    )


def _table(layout: Layout, block: bytes) -> pa.Table:
    """The rows of a block; those that do not fit are unreadable."""
    import polars as pl

    bad: dict[int, str] = {}
    lines: list[bytes] = []
    try:
        texts = _parsed(block, layout.leaves)
    except (pl.exceptions.PolarsError, UnicodeError):
        lines = [line.rstrip(b"\r") for line in block.split(b"\n") if line.strip()]
        parts, bad = _halves(layout, lines, 0)
        texts = pa.concat_tables(parts)
    columns = {}
    for leaf in layout.leaves:
        column = texts[leaf.name]
        if column.type != leaf.kind:
            column, misfits = parsed(column, leaf.kind)
            for row in np.flatnonzero(misfits):
                value = _shown(texts[leaf.name][int(row)].as_py(), leaf.name, layout)
                bad.setdefault(int(row), f"column `{leaf.name}`: {value} is not {leaf.kind}")
        columns[leaf.name] = column
    if bad:
        lines = lines or [line.rstrip(b"\r") for line in block.split(b"\n") if line.strip()]
    table = pa.table(columns, schema=layout.schema)
    return marked(table, {row: (reason, lines[row]) for row, reason in bad.items()})


def _refuse_half_characters(block: bytes) -> None:
    if (b"\\ud" in block or b"\\uD" in block) and _HALF_CHARACTER.search(block):
        raise UnicodeError


def _parsed(block: bytes, wanted: Sequence[Leaf]) -> pa.Table:
    """The leaves of all lines; what is no number, flag or list of such is given as text."""
    import polars as pl

    _refuse_half_characters(block)
    asked = read_schema([Leaf(leaf.path, _read_as(leaf.kind)) for leaf in wanted])
    schema = pl.from_arrow(asked.empty_table()).schema
    return _columns(pl.read_ndjson(block, schema=schema).to_arrow(), wanted)


def _columns(frame: pa.Table, wanted: Sequence[Leaf]) -> pa.Table:
    """The leaves of nested columns, each a column with its flat name."""
    columns = []
    for leaf in wanted:
        top, *inner = leaf.path
        column = pc.struct_field(frame[top], inner) if inner else frame[top]
        columns.append(column.cast(_read_as(leaf.kind)))
    return pa.table(columns, names=[leaf.name for leaf in wanted])


def _read_as(kind: pa.DataType) -> pa.DataType:
    native = pt.is_int64(kind) or pt.is_float64(kind) or pt.is_boolean(kind) or pt.is_nested(kind)
    return kind if native else pa.string()


def _halves(
    layout: Layout, lines: list[bytes], first: int
) -> tuple[list[pa.Table], dict[int, str]]:
    """Halves are parsed where the whole cannot be, down to the lines that cannot."""
    import polars as pl

    try:
        return [_parsed(b"\n".join(lines), layout.leaves)], {}
    except (pl.exceptions.PolarsError, UnicodeError):
        if len(lines) == 1:
            kinds = pa.schema([(leaf.name, _read_as(leaf.kind)) for leaf in layout.leaves])
            empty = pa.table([pa.nulls(1, f.type) for f in kinds], schema=kinds)
            return [empty], {first: _reason(layout, lines[0])}
    middle = len(lines) // 2
    left, bad = _halves(layout, lines[:middle], first)
    right, more = _halves(layout, lines[middle:], first + middle)
    return left + right, bad | more


_NOT_UTF8 = "text that is not UTF-8"


def _reason(layout: Layout, line: bytes) -> str:
    """Why a line cannot be a row."""
    import polars as pl

    try:
        value = orjson.loads(line.decode())
    except UnicodeDecodeError:
        return _NOT_UTF8
    except orjson.JSONDecodeError as error:
        return f"not JSON ({error.msg} at character {error.pos + 1:,})"
    if not isinstance(value, dict):
        return f"not a JSON object but {type(value).__name__}"
    for leaf in layout.leaves:
        try:
            _parsed(line, [leaf])
        except pl.exceptions.PolarsError:
            held: Any = value
            for key in leaf.path:
                held = held.get(key) if isinstance(held, dict) else held
            shown = _shown(held, leaf.name, layout)
            return f"column `{leaf.name}`: {shown} is not {leaf.kind}"
    return "not JSON that can be read"


def _shown(value: object, column: str, layout: Layout) -> str:
    text = str(value)
    return "***" if column in layout.secret else f"`{text[:100]}{'...' if text[100:] else ''}`"
