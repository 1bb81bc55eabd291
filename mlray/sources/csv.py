"""CSV files: types are settled once over all files, then every block is read with them."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.types as pt

from mlray.config.rows import Source
from mlray.errors import InputError
from mlray.sources.opened import Opened, SourceFile, did_you_mean, require_columns
from mlray.sources.reading import Piece, opened
from mlray.sources.resolve import Place, find, is_local, located, open_binary
from mlray.sources.types import arrow_type, unify

ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.bz2", ".csv.zst", ".csv.lz4")
_WHOLE_BYTES = 64 << 20
"""So many bytes over all files are looked at to infer types; of more, each file's head is."""
_HEAD_BYTES = 1 << 20
_TASK_BYTES = 32 << 20
"""A reading task takes about so many bytes: of one large file, or of several small ones."""
_READ_BYTES = 8 << 20
_CODECS = {"gz": "gzip", "bz2": "bz2", "zst": "zstd", "lz4": "lz4"}


@dataclass(frozen=True)
class Layout:
    """How the text of a source's files is to be understood; travels to the reading tasks."""

    source: str
    delimiter: str
    missing: tuple[str, ...]
    schema: pa.Schema
    """What comes out."""
    read_types: pa.Schema
    """What Arrow parses: `schema`, but ns where a file has more than six digits of a second."""


@dataclass(frozen=True)
class Part:
    """A file, or a range of its bytes that holds whole lines (without the header)."""

    address: str
    size_bytes: int
    quoted: bool = True
    """Whether a quoted value may hold a line break; False only where no quote was found."""
    start: int = 0
    end: int | None = None
    names: tuple[str, ...] | None = None
    """Column names of a range; None: the file's own header gives them."""
    first: int = 0
    """Number of its first row in the file."""


@dataclass(frozen=True)
class _Seen:
    """What a look into one file gave."""

    place: Place
    schema: pa.Schema
    rows: int
    """Rows that were looked at."""
    quoted: bool
    """Whether there may be a quote in the file."""


def open_source(name: str, source: Source, folder: str) -> Opened:
    """Open CSV files as one source.

    Raises:
        InputError: a file is missing, empty, lacks a column, or cannot be parsed.
    """
    places = find(source.path or [], ENDINGS)
    seen = _look(name, source, places)
    layout = _layout(name, source, seen)
    shown = tuple({p.file.path: p.file for p in places}.values())
    pieces = [
        Piece(partial(_read, layout, part), part.address, part.first, size_bytes=part.size_bytes)
        for one in seen
        for part in _ranges(one)
    ]
    return opened(name, layout.schema, shown, pieces, kind="CSV")


def files(name: str, source: Source, folder: str) -> tuple[SourceFile, ...]:
    """The files, without a look inside."""
    return tuple({p.file.path: p.file for p in find(source.path or [], ENDINGS)}.values())


def _look(name: str, source: Source, places: Sequence[Place]) -> list[_Seen]:
    whole = sum(map(_text_bytes, places)) <= _WHOLE_BYTES
    look = partial(_look_into, name, source, whole)
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(look, places))
    if not any(s.rows for s in seen):
        raise InputError(
            f"source `{name}` has no rows",
            value=[p.address for p in places],
            do="check the path; a file must hold a header line and at least one row",
        )
    return seen


def _text_bytes(place: Place) -> int:
    """Bytes of text in a place; what is in a compressed file is guessed, rather too high."""
    return place.size_bytes * (8 if _codec(place.address) else 1)


def _look_into(name: str, source: Source, whole: bool, place: Place) -> _Seen:
    options, quoted = _convert(source.missing), True
    try:
        with _text(place.address) as stream:
            if whole:
                text = stream.read_buffer() if hasattr(stream, "read_buffer") else stream.read()
                quoted = memoryview(text).tobytes().find(b'"') >= 0
                found = pacsv.read_csv(
                    pa.BufferReader(text), None, _parse(source.delimiter, quoted), options
                )
            else:
                step = pacsv.ReadOptions(block_size=_HEAD_BYTES, use_threads=False)
                reader = pacsv.open_csv(stream, step, _parse(source.delimiter), options)
                found = next(iter(reader), None) or reader.schema.empty_table()
    except pa.ArrowInvalid as error:
        _explain(name, place.address, error)
    _check_header(name, place.address, found.schema)
    return _Seen(place, found.schema, found.num_rows, quoted)


def _check_header(name: str, address: str, schema: pa.Schema) -> None:
    repeated = sorted({n for n in schema.names if schema.names.count(n) > 1})
    if repeated:
        raise InputError(
            f"{address} (source `{name}`) names columns twice in its header",
            value=repeated,
            do="give every column a name of its own",
        )
    unreadable = [f.name for f in schema if pt.is_binary(f.type)]
    if unreadable:
        raise InputError(
            f"{address} (source `{name}`) holds text that is not UTF-8, in column",
            value=unreadable,
            do="save the file as UTF-8",
        )


def _layout(name: str, source: Source, seen: Sequence[_Seen]) -> Layout:
    names = _common_columns(name, source, seen)
    require_columns(source.types, pa.schema([(n, pa.null()) for n in names]), f"source `{name}`")
    declared = {n: arrow_type(t) for n, t in source.types.items()}
    found = {n: [s.schema.field(n).type for s in seen] for n in names}
    final = {n: declared.get(n) or _settled(unify(found[n])) for n in names}
    read = {n: _parsed_as(final[n], found[n], n in declared) for n in names}
    return Layout(name, source.delimiter, tuple(source.missing), pa.schema(final), pa.schema(read))


def _common_columns(name: str, source: Source, seen: Sequence[_Seen]) -> list[str]:
    """The columns to read; a file without one of them is an error that names both."""
    first = source.columns or seen[0].schema.names
    every = source.columns or list(dict.fromkeys(n for s in seen for n in s.schema.names))
    for one in seen:
        lacking = [c for c in every if c not in one.schema.names]
        if not lacking:
            continue
        others = next((o for o in seen if lacking[0] in o.schema.names), None)
        if others is None:
            raise InputError(
                f"{one.place.address} (source `{name}`) has no column",
                value=lacking,
                do=did_you_mean(lacking[0], one.schema.names),
            )
        raise InputError(
            f"{one.place.address} (source `{name}`) lacks columns that other files have",
            value=lacking,
            allowed=f"{others.place.address} has: {', '.join(others.schema.names)}",
            do="mend the file, or name the columns to read in `columns`",
        )
    return list(first)


def _settled(kind: pa.DataType) -> pa.DataType:
    """A column without any value is text: whatever comes later converts to that."""
    return pa.string() if pt.is_null(kind) else kind


def _parsed_as(final: pa.DataType, found: list[pa.DataType], declared: bool) -> pa.DataType:
    if (
        pt.is_timestamp(final)
        and not declared
        and any(pt.is_timestamp(f) and f.unit == "ns" for f in found)
    ):
        return pa.timestamp("ns", tz=final.tz)
    return final


def _ranges(seen: _Seen) -> list[Part]:
    """A file is split only if it holds no quote: then every line break ends a row.

    A quoted value may hold line breaks, and where quotes stand inside plain values their number
    proves nothing, so a large file with any quote is read by one task from its start.
    """
    place = seen.place
    whole = Part(place.address, place.size_bytes, seen.quoted)
    plain_text = is_local(place.address) and place.address.lower().endswith((".csv", ".tsv"))
    if not plain_text or place.size_bytes <= _TASK_BYTES:
        return [whole]
    with (
        open(located(place.address), "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
    ):
        if text.find(b'"') >= 0:
            return [whole]
        cuts = _line_starts(text)
        rows = [0, *accumulate(text[a:b].count(b"\n") for a, b in pairwise(cuts))]
    names = tuple(seen.schema.names)
    return [
        Part(place.address, b - a, False, a, b, names, first)
        for (a, b), first in zip(pairwise(cuts), rows, strict=False)
    ]


def _line_starts(text: mmap.mmap) -> list[int]:
    """Offsets of lines about `_TASK_BYTES` apart, from the first line after the header."""
    cuts = [text.find(b"\n") + 1]
    while 0 < cuts[-1] < len(text):
        after = text.find(b"\n", cuts[-1] + _TASK_BYTES) + 1
        cuts.append(after or len(text))
    return cuts


def _read(layout: Layout, part: Part) -> Iterator[pa.Table]:
    """The rows of a part, in order, as tables of `layout.schema`. Runs in a Ray worker."""
    try:
        with _text(part.address, part.start, part.end) as stream:
            reader = pacsv.open_csv(
                stream,
                pacsv.ReadOptions(
                    block_size=_READ_BYTES, use_threads=False, column_names=part.names
                ),
                _parse(layout.delimiter, part.quoted),
                _convert(layout.missing, layout.read_types),
            )
            for batch in reader:
                yield _cast(pa.Table.from_batches([batch]), layout.schema)
    except pa.ArrowInvalid as error:
        names = part.names or _header(part.address, layout.delimiter)
        _explain(layout.source, part.address, error, names)


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    if table.schema.equals(schema):
        return table
    # Nanoseconds become microseconds: what is cut off is below what a column of ours can hold.
    return table.cast(schema, safe=False)


@contextmanager
def _text(address: str, start: int = 0, end: int | None = None) -> Iterator[Any]:
    """The (decompressed) bytes of a place as an Arrow stream."""
    if end is not None:
        with open(located(address), "rb") as file:
            file.seek(start)
            yield pa.BufferReader(file.read(end - start))
        return
    with open_binary(address) as file:
        yield pa.input_stream(file, compression=_codec(address))


def _codec(address: str) -> str | None:
    return _CODECS.get(address.partition("::")[0].rpartition(".")[2].lower())


def _header(address: str, delimiter: str) -> list[str]:
    with _text(address) as stream:
        step = pacsv.ReadOptions(block_size=_HEAD_BYTES, use_threads=False)
        names: list[str] = pacsv.open_csv(stream, step, _parse(delimiter)).schema.names
    return names


def _parse(delimiter: str, quoted: bool = True) -> pacsv.ParseOptions:
    return pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=quoted)


def _convert(missing: Sequence[str], schema: pa.Schema | None = None) -> pacsv.ConvertOptions:
    return pacsv.ConvertOptions(
        column_types=schema,
        include_columns=schema.names if schema is not None else None,
        null_values=list(missing),
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
        timestamp_parsers=[pacsv.ISO8601],
    )


_BAD_VALUE = re.compile(
    r"In CSV column #(\d+):(?: Row #(\d+):)? CSV conversion error to ([^:]+): (.*)", re.S
)
_BAD_LINE = re.compile(r"CSV parse error:(?: Row #(\d+):)? (Expected \d+ columns, got \d+)", re.S)


def _explain(source: str, address: str, error: Exception, names: Sequence[str] = ()) -> NoReturn:
    """Raise what Arrow said in the words of the project file."""
    text = str(error)
    where = f"{address} (source `{source}`)"
    if match := _BAD_VALUE.search(text):
        index, row, kind, what = match.groups()
        column = names[int(index)] if int(index) < len(names) else f"number {int(index) + 1}"
        value = re.search(r"'(.*)'", what, re.S)
        raise InputError(
            f"{where}: a value of column `{column}` is not {kind}"
            + (f" (line {row} of what this task read)" if row else ""),
            value=value[1] if value else what,
            do=f"mend the file, add the text to `missing`, or set `types: {{{column}: string}}`",
        ) from None
    if match := _BAD_LINE.search(text):
        raise InputError(
            f"{where}: a line has too many or too few values",
            value=f"{match[2]}" + (f" in row {match[1]}" if match[1] else ""),
            do="mend the line, quote values that hold the delimiter, or set `delimiter`",
        ) from None
    if "Empty CSV file" in text:
        raise InputError(f"{where} is empty", do="a CSV file starts with a header line") from None
    raise InputError(f"{where} cannot be read as CSV ({text})") from error
