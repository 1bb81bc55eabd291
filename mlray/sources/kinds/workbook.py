"""What Excel's cells mean, and what is in them besides values.

Readers of values pass over merged cells, errors and formulas that never ran, and give nothing in
their place, so these are looked up in the sheet's XML (ECMA-376, part 1, 18.3.1).
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mlray.sources.types import inferred

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_CELL = re.compile(rb'<(?:\w+:)?c\b[^>]*?\br="([A-Z]+)(\d+)"[^>/]*>(.*?)</(?:\w+:)?c>', re.S)
_ERROR = re.compile(
    rb'<(?:\w+:)?c\b(?=[^>]*\bt="e")[^>]*?\br="([A-Z]+\d+)"[^>]*>(.*?)</(?:\w+:)?c>', re.S
)
_NEVER_RUN = re.compile(
    rb'<(?:\w+:)?c\b(?![^>]*\bt="str")[^>]*?\br="([A-Z]+\d+)"[^>/]*>'
    rb"<(?:\w+:)?f(?:[^>]*/>|[^>]*>[^<]*</(?:\w+:)?f>)(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v></(?:\w+:)?v>)?"
    rb"</(?:\w+:)?c>"
)
_MERGED = re.compile(rb'<(?:\w+:)?mergeCell\b[^>]*\bref="([A-Z]+\d+(?::[A-Z]+\d+)?)"')
_MOST_EXACT = 2**53
_DAY_US = 86_400_000_000
_FIRST_YEAR = 1900
_VALUE = re.compile(rb"<(?:\w+:)?v>([^<]*)<")
_REFERENCE = re.compile(r"([A-Z]+)(\d+)")


@dataclass(frozen=True)
class Odd:
    """A cell, or several merged ones, that is no plain value."""

    cell: str
    """Its name, e.g. B7, or B7:C9."""
    what: str
    first_row: int
    """Counted from 1."""
    last_row: int
    first_column: int
    """Counted from 0."""
    last_column: int


def odd_cells(file: IO[bytes] | str, sheet: str) -> tuple[int, list[Odd]]:
    """The first row that holds a value, from 1, and all odd cells of a sheet.

    Args:
        file: an .xlsx file.
        sheet: its name.
    """
    with zipfile.ZipFile(file) as book:
        xml = book.read(_part_of(book, sheet))
    # Searching for plain bytes first is many times faster, and most sheets hold none of these.
    found = []
    if b"mergeCell" in xml:
        found += [_odd(cell, "merged cells") for cell in _each(_MERGED, xml)]
    if b't="e"' in xml:
        for match in _ERROR.finditer(xml):
            value = _VALUE.search(match[2])
            found.append(_odd(match[1].decode(), value[1].decode() if value else "an error"))
    if b"<f" in xml or b":f" in xml:
        never = "a formula that was never calculated"
        found += [_odd(cell, never) for cell in _each(_NEVER_RUN, xml)]
    first = next((int(m[2]) for m in _CELL.finditer(xml) if m[3]), 1)
    return first, sorted(found, key=lambda odd: (odd.first_row, odd.first_column))


def column_name(index: int) -> str:
    """Letters of a column that is counted from 0.

    >>> column_name(0), column_name(25), column_name(26), column_name(701), column_name(702)
    ('A', 'Z', 'AA', 'ZZ', 'AAA')
    """
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def meant(column: pa.ChunkedArray, numeric: bool, missing: Sequence[str]) -> pa.ChunkedArray:
    """A column of what Excel knows as what was meant.

    Args:
        column: as it was read.
        numeric: whether its texts but the missing ones are numbers or times.
        missing: texts that stand for a missing value.

    >>> meant(pa.chunked_array([[1.0, 2.0]]), False, []).type
    DataType(int64)
    """
    kind = column.type
    if pt.is_string(kind) or pt.is_large_string(kind):
        texts = column.cast(pa.string())
        gone = pc.is_in(texts, pa.array(missing, pa.string()))
        texts = pc.if_else(gone, pa.scalar(None, pa.string()), texts)
        if texts.null_count == len(texts):
            return pa.chunked_array([pa.nulls(len(texts))])
        column = inferred(texts) if numeric else texts
        kind = column.type
    if pt.is_floating(kind):
        return _whole(column.cast(pa.float64()))
    if pt.is_timestamp(kind):
        return _days(column.cast(pa.timestamp("us"), safe=False))
    if pt.is_duration(kind):
        return pc.divide(column.cast(pa.duration("ms")).cast(pa.int64()).cast(pa.float64()), 1000.0)
    return column


def _whole(numbers: pa.ChunkedArray) -> pa.ChunkedArray:
    exact = pc.less_equal(pc.abs(numbers), float(_MOST_EXACT))
    whole = pc.and_(pc.equal(pc.floor(numbers), numbers), exact)
    return numbers.cast(pa.int64()) if pc.all(whole).as_py() else numbers


def _days(times: pa.ChunkedArray) -> pa.ChunkedArray:
    if pc.all(pc.less(pc.year(times), _FIRST_YEAR)).as_py():  # of day: Excel's day 0 is in 1899
        return pc.strftime(times.cast(pa.timestamp("s"), safe=False), "%H:%M:%S")
    into = times.cast(pa.int64()).drop_null().to_numpy() % _DAY_US
    return times.cast(pa.date32()) if not into.any() else times


def _each(pattern: re.Pattern[bytes], xml: bytes) -> Iterator[str]:
    return (match[1].decode() for match in pattern.finditer(xml))


def _odd(cell: str, what: str) -> Odd:
    places = [_place(part) for part in cell.split(":")]
    (first_row, first_column), (last_row, last_column) = places[0], places[-1]
    return Odd(cell, what, first_row, last_row, first_column, last_column)


def _place(cell: str) -> tuple[int, int]:
    """Row from 1 and column from 0.

    >>> _place("A1"), _place("AB12")
    ((1, 0), (12, 27))
    """
    match = _REFERENCE.fullmatch(cell)
    if match is None:
        raise ValueError(f"{cell} is no cell")
    column = 0
    for letter in match[1]:
        column = column * 26 + ord(letter) - ord("A") + 1
    return int(match[2]), column - 1


def _part_of(book: zipfile.ZipFile, sheet: str) -> str:
    """The file inside of the archive that a sheet is."""
    root = ElementTree.fromstring(book.read("xl/workbook.xml"))
    links = ElementTree.fromstring(book.read("xl/_rels/workbook.xml.rels"))
    targets = {link.get("Id"): str(link.get("Target")) for link in links}
    ids = {each.get("name"): each.get(_RELATION) for each in root.iter(f"{_MAIN}sheet")}
    target = targets[ids[sheet]]
    return target[1:] if target.startswith("/") else posixpath.normpath(f"xl/{target}")
