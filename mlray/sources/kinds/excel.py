"""Excel workbooks: sheets as tables, their types settled once over all sheets and files.

Excel knows numbers, text, flags and times only: a column of whole numbers becomes int64, one whose
times all are midnight becomes dates, times of day become text, durations seconds, and a column of
mixed values text. Rows without any value are passed over. A sheet is read by one task: to read some
of its rows costs as much as to read all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any
from xml.etree import ElementTree

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mlray.config.rows import Source
from mlray.errors import InputError
from mlray.sources.kinds.text import reading
from mlray.sources.kinds.workbook import Odd, column_name, meant, odd_cells
from mlray.sources.opened import Opened, SourceFile, did_you_mean, require_columns
from mlray.sources.reading import POSITION, Piece, marked, opened
from mlray.sources.resolve import Place, files_of, find, is_local, located, open_binary
from mlray.sources.types import arrow_type, parsed, settled, unify

_OPEN_XML = (".xlsx", ".xlsm")
ENDINGS = (*_OPEN_XML, ".xlsb", ".xls", ".ods")
_UNNAMED = "__UNNAMED__"


@dataclass(frozen=True)
class Sheet:
    """One sheet of a file; travels to the reading task."""

    source: str
    address: str
    name: str
    header: int
    """Row of the column names, from 1."""
    missing: tuple[str, ...]

    @property
    def origin(self) -> str:
        """File and sheet."""
        return f"{self.address}#{self.name}"


@dataclass(frozen=True)
class Cells:
    """The rows of a sheet that hold any value."""

    table: pa.Table
    rows: np.ndarray[Any, np.dtype[np.int64]]
    """(N,) numbers of the rows below the header, from 0."""
    letters: tuple[int, ...]
    """Where each column stands, from 0."""
    header: int
    """Row of the column names, from 1."""
    odd: tuple[Odd, ...]
    """Cells below the header that are no plain values."""


def open_source(name: str, source: Source, folder: str) -> Opened:
    """Open sheets of Excel files as one source; every sheet is looked at whole.

    Raises:
        InputError: a file or sheet is missing or damaged, a header is wrong, or `fastexcel` is not
            installed.
    """
    places = find(source.path or [], ENDINGS)
    with ThreadPoolExecutor(2) as pool:
        seen = [one for some in pool.map(partial(_look_into, name, source), places) for one in some]
    schema = _schema(name, source, seen)
    quarantine, secret = source.unreadable == "quarantine", frozenset(source.pii)
    pieces = [
        Piece(partial(_read, sheet, schema, quarantine, secret), sheet.origin, size_bytes=size)
        for sheet, _, size in seen
    ]
    shown = files_of(places)
    return opened(name, schema, shown, pieces, kind="Excel", task_bytes=1 << 20)


def files(name: str, source: Source, folder: str) -> tuple[SourceFile, ...]:
    """The files, without a look inside."""
    return files_of(find(source.path or [], ENDINGS))


def _look_into(name: str, source: Source, place: Place) -> list[tuple[Sheet, pa.Schema, int]]:
    """Sheets of a file with their types and about their share of its bytes."""
    with reading(name, place.address):
        book = _book(name, place.address)
    names = _sheets(name, source, place.address, book.sheet_names)
    size = max(1, place.size_bytes // len(names))
    found = []
    for each in names:
        sheet = Sheet(name, place.address, each, source.header, tuple(source.missing))
        cells = _cells(sheet)
        if cells is not None:
            found.append((sheet, cells.table.schema, size * bool(cells.table.num_rows)))
    if not found:
        raise InputError(
            f"{place.address} (source `{name}`) has no sheet with values",
            value=names,
            do="name the sheets to read in `sheet`",
        )
    return found


def _sheets(name: str, source: Source, address: str, known: Sequence[str]) -> list[str]:
    if source.sheet is None:
        return list(known[:1])
    if source.sheet == "*":
        return list(known)
    wanted = [source.sheet] if isinstance(source.sheet, str) else source.sheet
    for each in wanted:
        if each not in known:
            raise InputError(
                f"{address} (source `{name}`) has no sheet",
                value=each,
                do=did_you_mean(each, known),
            )
    return list(wanted)


def _schema(name: str, source: Source, seen: Sequence[tuple[Sheet, pa.Schema, int]]) -> pa.Schema:
    if not any(size for _, _, size in seen):
        raise InputError(f"source `{name}` has no rows", value=[s.origin for s, _, _ in seen])
    every = dict.fromkeys(n for _, schema, _ in seen for n in schema.names)
    wanted = source.columns or list(every)
    for sheet, schema, _ in seen:
        lacking = [n for n in wanted if n not in schema.names]
        others = [s.origin for s, other, _ in seen if lacking and lacking[0] in other.names]
        if lacking:
            raise InputError(
                f"{sheet.origin} (source `{name}`) has no column",
                value=lacking,
                allowed=f"it has: {', '.join(schema.names)}",
                do=f"{others[0]} has it: name the sheets to read in `sheet`, or what all of them "
                "have in `columns`"
                if others
                else did_you_mean(lacking[0], schema.names),
            )
    known = pa.schema([(n, pa.null()) for n in wanted])
    require_columns(source.types, known, f"source `{name}`")
    declared = {n: arrow_type(t) for n, t in source.types.items()}
    found = {n: settled(unify(schema.field(n).type for _, schema, _ in seen)) for n in wanted}
    return pa.schema(found | declared)


def _read(
    sheet: Sheet, schema: pa.Schema, quarantine: bool, secret: frozenset[str]
) -> Iterator[pa.Table]:
    """The rows of a sheet. Runs in a Ray worker."""
    cells = _cells(sheet)
    if cells is None:
        raise InputError(f"{sheet.origin} (source `{sheet.source}`) is not there any more")
    places = dict(zip(cells.table.column_names, cells.letters, strict=True))
    bad = _odd_rows(cells, {places[n] for n in schema.names})
    columns = {}
    for field in schema:
        column, misfits = _as(cells.table[field.name], field.type, sheet.missing)
        for row in np.flatnonzero(misfits):
            value = "***" if field.name in secret else cells.table[field.name][int(row)].as_py()
            cell = f"{column_name(places[field.name])}{cells.header + 1 + cells.rows[row]}"
            bad.setdefault(int(row), f"cell {cell}: {value} is not {field.type}")
        columns[field.name] = column
    if bad and not quarantine:
        told = [bad[row] for row in sorted(bad)]
        raise InputError(
            f"{sheet.address} (source `{sheet.source}`), sheet `{sheet.name}`",
            value=told,
            do="mend the sheet, leave the column out of `columns`, or `unreadable: quarantine` to "
            "set such rows aside",
        )
    table = pa.table(columns, schema=schema).append_column(POSITION, pa.array(cells.rows))
    misfits = {row: (reason, _text(cells.table, row)) for row, reason in bad.items()}
    yield _with_position(marked(table, misfits), cells.rows)


def _with_position(table: pa.Table, rows: Any) -> pa.Table:
    """Unreadable rows have a place as well."""
    return table.set_column(table.column_names.index(POSITION), POSITION, pa.array(rows))


def _odd_rows(cells: Cells, columns: set[int]) -> dict[int, str]:
    """Why rows cannot be read, by their number in the table."""
    reasons: dict[int, str] = {}
    for odd in cells.odd:
        if columns.isdisjoint(range(odd.first_column, odd.last_column + 1)):
            continue
        below = cells.header + 1
        first, last = np.searchsorted(cells.rows, [odd.first_row - below, odd.last_row - below + 1])
        for row in range(int(first), int(last)):
            reasons.setdefault(row, f"cell {odd.cell}: {odd.what}")
    return reasons


def _text(table: pa.Table, row: int) -> bytes:
    return orjson.dumps(table.slice(row, 1).to_pylist()[0], default=str)


def _as(
    column: pa.ChunkedArray, kind: pa.DataType, missing: Sequence[str]
) -> tuple[pa.ChunkedArray, Any]:
    if column.type == kind or pt.is_null(column.type):
        return column.cast(kind), np.zeros(len(column), bool)
    if pt.is_string(kind):
        return column.cast(kind), np.zeros(len(column), bool)
    if pt.is_string(column.type):
        return parsed(column, kind, missing)
    try:
        return column.cast(kind), np.zeros(len(column), bool)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return parsed(column.cast(pa.string()), kind, missing)


def _cells(sheet: Sheet) -> Cells | None:
    """The rows of a sheet; None if it holds nothing at all."""
    with reading(sheet.source, sheet.address):
        book = _book(sheet.source, sheet.address)
        first, odd = _odd(sheet)
    header = max(sheet.header, first) if sheet.header == 1 else sheet.header
    loaded = _loaded(sheet, book, header)
    if not loaded.width:
        return None
    if header < first:
        raise _wrong_header(sheet, f"row {header} is empty; values start in row {first}")
    batch, errors = loaded.to_arrow_with_errors()
    table = pa.Table.from_batches([batch])
    letters = [info.absolute_index for info in loaded.available_columns()]
    if not sheet.address.lower().endswith(_OPEN_XML):
        odd = [_error_cell(error) for error in (errors.errors if errors else [])]
    _check_header(sheet, header, table, letters, odd)
    named = [i for i, n in enumerate(table.column_names) if not n.startswith(_UNNAMED)]
    table, letters = table.select(named), [letters[i] for i in named]
    below = [one for one in odd if one.last_row > header]
    rows = np.flatnonzero(_any_value(table, below, header))
    table = table.take(rows)
    numeric = _numbers_but_for_missing(sheet, book, header, table, rows)
    columns = [meant(table[n], n in numeric, sheet.missing) for n in table.column_names]
    typed = pa.table(columns, names=table.column_names)
    return Cells(typed, rows, tuple(letters), header, tuple(below))


def _any_value(table: pa.Table, odd: Sequence[Odd], header: int) -> Any:
    """Which rows hold a value, or what should be one."""
    held = np.zeros(table.num_rows, bool)
    for column in table.columns:
        held |= column.is_valid().to_numpy()
    for each in odd:
        if each.first_row == each.last_row and each.last_row - header - 1 < len(held):
            held[each.last_row - header - 1] = True
    return held


def _numbers_but_for_missing(
    sheet: Sheet, book: Any, header: int, table: pa.Table, rows: Any
) -> set[str]:
    """Text columns whose only cells of text are those that stand for a missing value.

    Read as times, Excel's numbers and times convert and its texts do not, even where a text looks
    like a number: so zip codes that were written as text stay text.
    """
    missing = pa.array(sheet.missing, pa.string())
    gone = {
        n: pc.is_in(table[n].cast(pa.string()), missing).to_numpy()
        for n in table.column_names
        if pt.is_string(table.schema.field(n).type)
        or pt.is_large_string(table.schema.field(n).type)
    }
    asked = [n for n, places in gone.items() if places.any()]
    if not asked:
        return set()
    again = _loaded(sheet, book, header, dict.fromkeys(asked, "datetime")).to_arrow()
    times = pa.Table.from_batches([again]).take(rows)
    return {
        n
        for n in asked
        if not (times[n].is_null().to_numpy() & table[n].is_valid().to_numpy() & ~gone[n]).any()
    }


def _check_header(
    sheet: Sheet, header: int, table: pa.Table, letters: Sequence[int], odd: Sequence[Odd]
) -> None:
    merged = [f"{o.cell}: {o.what}" for o in odd if o.first_row <= header <= o.last_row]
    if merged:
        raise _wrong_header(sheet, *merged)
    unnamed = [
        f"column {column_name(at)} has values and no name"
        for n, at in zip(table.column_names, letters, strict=True)
        if n.startswith(_UNNAMED) and table[n].null_count < table.num_rows
    ]
    if unnamed:
        raise _wrong_header(sheet, *unnamed)
    # fastexcel names the second `x` x_1, the third x_2.
    names = set(table.column_names)
    stems = {n.rpartition("_")[0] for n in names if n.rpartition("_")[2].isdigit()} & names
    if stems:
        above = _loaded(sheet, _book(sheet.source, sheet.address), None, rows=header).to_arrow()
        given = [str(column[-1]) for column in above.columns]
        if twice := sorted({n for n in given if n in stems and given.count(n) > 1}):
            raise _wrong_header(sheet, *(f"`{n}` names two columns" for n in twice))


def _wrong_header(sheet: Sheet, *what: str) -> InputError:
    return InputError(
        f"{sheet.address} (source `{sheet.source}`), sheet `{sheet.name}`: its header cannot be "
        "read",
        value=what,
        do="set `header` to the row that holds the column names, one in each cell",
    )


def _odd(sheet: Sheet) -> tuple[int, list[Odd]]:
    if not sheet.address.lower().endswith(_OPEN_XML):
        return 1, []
    try:
        if is_local(sheet.address):
            return odd_cells(located(sheet.address), sheet.name)
        with open_binary(sheet.address) as file:
            return odd_cells(BytesIO(file.read()), sheet.name)
    except (KeyError, ElementTree.ParseError) as error:
        raise _damaged(sheet.source, sheet.address, error) from None


def _error_cell(error: Any) -> Odd:
    row, column = error.position
    return Odd(f"{column_name(column)}{row + 1}", "an error", row + 1, row + 1, column, column)


def _loaded(
    sheet: Sheet,
    book: Any,
    header: int | None,
    types: Mapping[str, str] | None = None,
    rows: int | None = None,
) -> Any:
    logging.getLogger("fastexcel").setLevel(logging.ERROR)  # it warns of empty columns
    try:
        return book.load_sheet(
            sheet.name,
            header_row=None if header is None else header - 1,
            skip_rows=0 if header is None else None,
            n_rows=rows,
            schema_sample_rows=None,
            dtypes=dict(types) if types else None,
        )
    except Exception as error:
        raise _damaged(sheet.source, sheet.address, error) from None


def _book(name: str, address: str) -> Any:
    try:
        import fastexcel
    except ImportError:
        raise InputError(
            f"source `{name}` is an Excel file, which needs a library that is not installed",
            value="fastexcel",
            do="pip install 'mlray[excel]'",
        ) from None
    if is_local(address):
        with open(located(address), "rb"):  # so that a file that went away is told as such
            given: Any = located(address)
    else:
        with open_binary(address) as file:
            given = file.read()
    try:
        return fastexcel.read_excel(given)
    except fastexcel.FastExcelError as error:
        raise _damaged(name, address, error) from None


def _damaged(name: str, address: str, error: Exception) -> InputError:
    why = str(error).splitlines()[0]
    return InputError(
        f"{address} (source `{name}`) cannot be read as Excel ({why})",
        do="open it in Excel and save it again, without a password",
    )
