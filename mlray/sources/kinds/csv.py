"""CSV files: types are settled once over all files, then every block is read with them.

A line that does not fit its header, or a value that does not convert to its column's type, is an
error that names the row, or with `unreadable: quarantine` is set aside with its text. Text that is
not of the file's encoding always is an error: then no value of the file can be trusted.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import StringIO
from itertools import product
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.types as pt

from mlray.config.rows import Source
from mlray.errors import InputError
from mlray.sources.kinds.text import (
    COMPRESSED,
    RANGE_BYTES,
    Text,
    codec,
    cut_up,
    opened_text,
    ranges,
    reading,
    refuse_encoding,
    text_of,
)
from mlray.sources.opened import Opened, SourceFile, did_you_mean, require_columns
from mlray.sources.reading import Aside, Piece, marked, opened, visible, with_unreadable
from mlray.sources.resolve import Place, files_of, find
from mlray.sources.types import arrow_type, convert_options, parsed, settled, unify

_PLAIN = (".csv", ".tsv")
ENDINGS = (*_PLAIN, *(f"{plain}.{end}" for plain, end in product(_PLAIN, COMPRESSED)))
_WHOLE_BYTES = 64 << 20
"""So many bytes over all files are looked at to infer types; of more, each file's head is."""
_HEAD_BYTES = 1 << 20
_READ_BYTES = 8 << 20


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
    aside: bool
    """Whether unreadable rows are set aside; else they are errors."""
    secret: frozenset[str]
    """Columns whose values stand in no error."""


@dataclass(frozen=True)
class _Seen:
    """What a look into one file gave."""

    place: Place
    text: Text
    schema: pa.Schema
    rows: int
    """Rows that were looked at."""


def open_source(name: str, source: Source, folder: str) -> Opened:
    """Open CSV files as one source.

    Raises:
        InputError: a file is missing, empty, lacks a column, or cannot be parsed.
    """
    places = find(source.path or [], ENDINGS)
    seen = _look(name, source, places)
    layout = _layout(name, source, seen)
    shown = files_of(places)
    return opened(
        name,
        layout.schema,
        shown,
        [_piece(layout, one, one.text) for one in seen],
        kind="CSV",
        task_bytes=RANGE_BYTES,
        finer=lambda: _finer(layout, seen),
    )


def files(name: str, source: Source, folder: str) -> tuple[SourceFile, ...]:
    """The files, without a look inside."""
    return files_of(find(source.path or [], ENDINGS))


def _finer(layout: Layout, seen: Sequence[_Seen]) -> list[Piece]:
    return cut_up(seen, lambda one: ranges(one.text, layout.delimiter), partial(_piece, layout))


def _piece(layout: Layout, one: _Seen, text: Text) -> Piece:
    read = partial(_read, layout, text, tuple(one.schema.names))
    size = text.size_bytes or max(1, one.place.size_bytes)
    return Piece(read, text.address, text.first, text.rows, size)


def _look(name: str, source: Source, places: Sequence[Place]) -> list[_Seen]:
    whole = sum(map(_text_bytes, places)) <= _WHOLE_BYTES
    look = partial(_look_into, name, source, whole)
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(look, places))
    if not any(s.rows for s in seen):
        raise InputError(
            f"source `{name}` has no rows",
            value=[p.address for p in places],
            do="check the path; a file must hold a header line and at least one row that fits it",
        )
    return seen


def _text_bytes(place: Place) -> int:
    """Bytes of text in a place; what is in a compressed file is guessed, rather too high."""
    return place.size_bytes * (8 if codec(place.address) else 1)


def _look_into(name: str, source: Source, whole: bool, place: Place) -> _Seen:
    text = text_of(name, place, source.encoding)
    options = convert_options(source.missing)
    parse = _parse(
        source.delimiter, handler=_passed_over if source.unreadable == "quarantine" else None
    )
    try:
        with reading(name, place.address, text.encoding), opened_text(text) as stream:
            if whole:
                found = pacsv.read_csv(stream, None, parse, options)
            else:
                step = pacsv.ReadOptions(block_size=_HEAD_BYTES, use_threads=False)
                reader = pacsv.open_csv(stream, step, parse, options)
                found = next(iter(reader), None) or reader.schema.empty_table()
    except pa.ArrowInvalid as error:
        _explain(name, text, error, secret=frozenset(source.pii), header=True)
    _check_header(name, text, found.schema)
    return _Seen(place, text, found.schema, found.num_rows)


def _passed_over(row: Any) -> str:
    return "skip"


def _check_header(name: str, text: Text, schema: pa.Schema) -> None:
    repeated = sorted({n for n in schema.names if schema.names.count(n) > 1})
    if repeated:
        raise InputError(
            f"{text.address} (source `{name}`) names columns twice in its header",
            value=repeated,
            do="give every column a name of its own",
        )
    if any(pt.is_binary(f.type) for f in schema):
        refuse_encoding(name, text.address, text.encoding)


def _layout(name: str, source: Source, seen: Sequence[_Seen]) -> Layout:
    names = _common_columns(name, source, seen)
    require_columns(source.types, pa.schema([(n, pa.null()) for n in names]), f"source `{name}`")
    declared = {n: arrow_type(t) for n, t in source.types.items()}
    found = {n: [s.schema.field(n).type for s in seen] for n in names}
    final = {n: declared.get(n) or settled(unify(found[n])) for n in names}
    read = {n: _parsed_as(final[n], found[n], n in declared) for n in names}
    return Layout(
        name,
        source.delimiter,
        tuple(source.missing),
        pa.schema(final),
        pa.schema(read),
        source.unreadable == "quarantine",
        frozenset(source.pii),
    )


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


def _parsed_as(final: pa.DataType, found: list[pa.DataType], declared: bool) -> pa.DataType:
    if (
        pt.is_timestamp(final)
        and not declared
        and any(pt.is_timestamp(f) and f.unit == "ns" for f in found)
    ):
        return pa.timestamp("ns", tz=final.tz)
    return final


def _read(layout: Layout, text: Text, names: tuple[str, ...]) -> Iterator[pa.Table]:
    """The rows of a text, in order, as tables of `layout.schema`. Runs in a Ray worker.

    Args:
        layout: of the source.
        text: a file, or a range of its rows.
        names: of all columns of the file.
    """
    given = 0
    try:
        for table in _quick(layout, text, names):
            given += table.num_rows
            yield table
    except pa.ArrowInvalid as error:
        if not layout.aside:
            _explain(layout.source, text, error, names, layout.secret, header=text.end is None)
    else:
        return
    for table in _careful(layout, text, names):  # the same rows, with the bad ones set aside
        passed = min(given, table.num_rows)
        given -= passed
        if passed < table.num_rows:
            yield table.slice(passed)


def _quick(layout: Layout, text: Text, names: tuple[str, ...]) -> Iterator[pa.Table]:
    """All rows, if all values convert."""
    aside = _Lines(text.end is None)
    parse = _parse(layout.delimiter, text.quoted, aside if layout.aside else None)
    convert = convert_options(layout.missing, layout.read_types, layout.schema.names)
    first = 0
    for table in _tables(layout.source, text, names, parse, convert):
        placed, aside.rows = with_unreadable(_cast(table, layout.schema), first, aside.rows)
        first += placed.num_rows
        yield placed
    if aside.rows:
        yield with_unreadable(layout.schema.empty_table(), first, aside.rows, last=True)[0]


def _careful(layout: Layout, text: Text, names: tuple[str, ...]) -> Iterator[pa.Table]:
    """All rows; those with a value that does not convert are unreadable."""
    lines = _Lines(text.end is None)
    every = pa.schema([(n, pa.string()) for n in names])
    convert = pacsv.ConvertOptions(column_types=every, strings_can_be_null=False)
    parse = _parse(layout.delimiter, text.quoted, lines)
    first = 0
    for texts in _tables(layout.source, text, names, parse, convert):
        placed, lines.rows = with_unreadable(texts, first, lines.rows)
        first += placed.num_rows
        yield _converted(layout, placed)
    if lines.rows:
        yield with_unreadable(layout.schema.empty_table(), first, lines.rows, last=True)[0]


def _converted(layout: Layout, texts: pa.Table) -> pa.Table:
    columns, reasons = {}, {}
    for column in layout.read_types:
        columns[column.name], bad = parsed(texts[column.name], column.type, layout.missing)
        for row in np.flatnonzero(bad):
            value = _shown(texts[column.name][row].as_py(), column.name, layout.secret)
            reasons[int(row)] = f"column `{column.name}`: {value} is not {column.type}"
    table, raw = _cast(pa.table(columns), layout.schema), visible(texts)
    for hidden in texts.column_names[raw.num_columns :]:
        table = table.append_column(hidden, texts[hidden])
    return marked(
        table, {i: (why, _line(raw.slice(i, 1), layout.delimiter)) for i, why in reasons.items()}
    )


def _line(row: pa.Table, delimiter: str) -> bytes:
    """A row as it stood in its file, but for quotes that it did not need."""
    line = StringIO()
    writer = csv.writer(line, delimiter=delimiter, lineterminator="")
    writer.writerow(column[0].as_py() for column in row.columns)
    return line.getvalue().encode()


def _shown(value: str, column: str, secret: Collection[str]) -> str:
    return "***" if column in secret else f"`{value}`"


@dataclass
class _Lines:
    """Takes the lines that Arrow cannot split into as many values as there are columns."""

    header: bool
    """Whether the first row that Arrow counts is the header."""
    rows: Sequence[Aside] = ()

    def __call__(self, row: pacsv.InvalidRow) -> str:
        place = row.number - 1 - self.header
        reason = f"{row.actual_columns} values where {row.expected_columns} belong"
        self.rows = [*self.rows, Aside(place, reason, row.text.encode())]
        return "skip"


def _tables(
    name: str,
    text: Text,
    names: tuple[str, ...],
    parse: pacsv.ParseOptions,
    convert: pacsv.ConvertOptions,
) -> Iterator[pa.Table]:
    step = pacsv.ReadOptions(
        block_size=_READ_BYTES,
        use_threads=False,  # else Arrow does not know the numbers of rows
        column_names=None if text.end is None else names,
    )
    with reading(name, text.address, text.encoding), opened_text(text) as stream:
        for batch in pacsv.open_csv(stream, step, parse, convert):
            yield pa.Table.from_batches([batch])


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    if table.schema.equals(schema):
        return table
    # Nanoseconds become microseconds: what is cut off is below what a column of ours can hold.
    return table.cast(schema, safe=False)


def _parse(
    delimiter: str, quoted: bool = True, handler: Callable[[Any], str] | None = None
) -> pacsv.ParseOptions:
    return pacsv.ParseOptions(
        delimiter=delimiter, newlines_in_values=quoted, invalid_row_handler=handler
    )


_BAD_VALUE = re.compile(
    r"In CSV column #(\d+):(?: Row #(\d+):)? CSV conversion error to ([^:]+): (.*)", re.S
)
_BAD_LINE = re.compile(r"CSV parse error:(?: Row #(\d+):)? (Expected \d+ columns, got \d+)", re.S)


def _explain(
    source: str,
    text: Text,
    error: Exception,
    names: Sequence[str] = (),
    secret: Collection[str] = (),
    *,
    header: bool,
) -> NoReturn:
    """Raise what Arrow said in the words of the project file.

    Args:
        source: its name.
        text: that was read.
        error: of Arrow, who counts rows of the text from 1.
        names: of all columns of the file.
        secret: columns whose values must not be told.
        header: whether the first row that Arrow counted is the header.
    """
    said = str(error)
    where = f"{text.address} (source `{source}`)"
    if "UTF8" in said or "\N{REPLACEMENT CHARACTER}" in said:
        refuse_encoding(source, text.address, text.encoding)
    if match := _BAD_VALUE.search(said):
        index, row, kind, what = match.groups()
        column = names[int(index)] if int(index) < len(names) else f"number {int(index) + 1}"
        value = re.search(r"'(.*)'", what, re.S)
        raise InputError(
            f"{where}: a value of column `{column}` is not {kind}{_row(row, text, header)}",
            value="***" if column in secret else value[1] if value else what,
            do=f"mend the file, add the text to `missing`, set `types: {{{column}: string}}`, or "
            "`unreadable: quarantine` to set such rows aside",
        ) from None
    if match := _BAD_LINE.search(said):
        raise InputError(
            f"{where}: a line has too many or too few values{_row(match[1], text, header)}",
            value=match[2],
            do="mend the line, quote values that hold the delimiter, set `delimiter`, or "
            "`unreadable: quarantine` to set such lines aside",
        ) from None
    if "Empty CSV file" in said:
        raise InputError(f"{where} is empty", do="a CSV file starts with a header line") from None
    told = "" if secret else f" ({said})"
    raise InputError(f"{where} cannot be read as CSV{told}") from None


def _row(number: str | None, text: Text, header: bool) -> str:
    """The place of a row, counted from 1 below the header of its file."""
    if number is None:
        return ""
    return f" in row {int(number) - header + text.first:,} below the header"
