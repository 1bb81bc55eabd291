"""Files of text: compressed, in any encoding, and cut where a row surely ends."""

from __future__ import annotations

import codecs
import mmap
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlray.errors import InputError
from mlray.sources.reading import Piece
from mlray.sources.resolve import Place, is_local, located, open_binary

Seen = TypeVar("Seen")
"""What a kind knows of a file after a look inside."""
COMPRESSED = ("gz", "bz2", "zst", "lz4")
RANGE_BYTES = 16 << 20
"""A reading task takes about so many bytes of a large file."""
_CODECS = dict(zip(COMPRESSED, ("gzip", "bz2", "zstd", "lz4"), strict=True))
_SCAN_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_NEWLINE, _RETURN, _QUOTE = b'\n\r"'


@dataclass(frozen=True)
class Text:
    """The text of a file, or a range of its bytes that holds whole rows; travels to tasks."""

    address: str
    encoding: str
    start: int = 0
    end: int | None = None
    first: int = 0
    """Number of its first row in the file."""
    rows: int | None = None
    """Rows of a range."""
    quoted: bool = True
    """Whether a quoted value may hold a line break."""

    @property
    def size_bytes(self) -> int:
        """Of a range; 0 for a whole file."""
        return 0 if self.end is None else self.end - self.start


def codec(address: str) -> str | None:
    """The compression that the ending of an address shows, in Arrow's words.

    >>> codec("a.csv.gz"), codec("zip://b.json.zst::c.zip"), codec("d.csv")
    ('gzip', 'zstd', None)
    """
    return _CODECS.get(address.partition("::")[0].rpartition(".")[2].lower())


def text_of(name: str, place: Place, encodings: str | Sequence[str]) -> Text:
    """The text of a place, its encoding settled.

    A byte order mark says the encoding. Else the first of several `encodings` is taken that can
    decode the whole file; one alone is believed.

    Raises:
        InputError: an encoding is not known, or none fits; the place of the first bad byte is
            named.
    """
    known = [encodings] if isinstance(encodings, str) else list(encodings)
    for each in known:
        _known_encoding(name, each)
    with reading(name, place.address), _raw(place.address) as stream:
        start = stream.read(4)
    marked = next((e for mark, e in _MARKS.items() if start.startswith(mark)), None)
    if marked:
        return Text(place.address, marked)
    misfits = {}
    for each in known:
        misfit = _misfit(name, place.address, each) if len(known) > 1 else None
        if misfit is None:
            return Text(place.address, "utf-8" if each.lower() in ("utf8", "utf-8-sig") else each)
        misfits[each] = misfit
    raise InputError(
        f"{place.address} (source `{name}`) is in none of the encodings",
        value=[f"{e}: {m}" for e, m in misfits.items()],
        do="add the file's encoding to `encoding`, e.g. latin-1, cp1252, utf-16",
    )


@contextmanager
def opened_text(text: Text) -> Iterator[Any]:
    """UTF-8 bytes of a text as an Arrow input stream."""
    if text.end is not None:
        data = _range_of(text)
        utf8 = data if text.encoding == "utf-8" else data.decode(text.encoding).encode()
        yield pa.BufferReader(utf8)
        return
    with _raw(text.address) as stream:
        plain = text.encoding == "utf-8"
        yield stream if plain else pa.transcoding_input_stream(stream, text.encoding, "utf-8")


@contextmanager
def reading(name: str, address: str, encoding: str = "utf-8") -> Iterator[None]:
    """Says in words what can go wrong with the bytes of a file.

    Args:
        name: of the source.
        address: of the file.
        encoding: that its text is read in.
    """
    where = f"{address} (source `{name}`)"
    try:
        yield
    except UnicodeError:
        refuse_encoding(name, address, encoding)
    except FileNotFoundError:
        raise InputError(f"{where} is not there any more", do="run again") from None
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(
            f"{where} cannot be read to its end ({error})",
            do="fetch the file again: it was cut off, damaged, or may not be read",
        ) from None


def refuse_encoding(name: str, address: str, encoding: str) -> NoReturn:
    """Raise with the place of the first byte that is not in the encoding."""
    raise InputError(
        f"{address} (source `{name}`) holds text that is not {encoding.upper()}",
        value=_misfit(name, address, encoding) or "a value",
        do="save the file in that encoding, or set `encoding`, e.g. cp1252, or [utf-8, cp1252] to "
        "take for each file the first that fits",
    )


def cut_up(
    seen: Sequence[Seen], cut: Callable[[Seen], list[Text]], piece: Callable[[Seen, Text], Piece]
) -> list[Piece]:
    """Pieces of several files, each cut as `cut` says; files are looked through side by side."""
    with ThreadPoolExecutor(4) as pool:
        texts = pool.map(cut, seen)
        return [piece(one, text) for one, some in zip(seen, texts, strict=True) for text in some]


def ranges(text: Text, delimiter: str | None) -> list[Text]:
    """A large file cut into ranges of whole rows, or `[text]` where that is not surely right.

    Only a local file without compression is cut, in an encoding where a byte that looks like a
    line break or a quote is one.

    Args:
        text: a whole file.
        delimiter: between quoted values, whose first row is a header that belongs to no range;
            None where every line break ends a row and the first row is one like all others.
    """
    local = is_local(text.address) and not codec(text.address)
    if not local or not _keeps_ascii(text.encoding):
        return [text]
    path = located(text.address)
    if os.path.getsize(path) <= RANGE_BYTES:
        return [text]
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        data = np.frombuffer(mapped, np.uint8)
        try:
            cutter = _cut(data, delimiter)
        finally:
            del data  # else the map cannot be closed
    if cutter is None:
        return [text]
    firsts = [0, *accumulate(cutter.rows)]
    return [
        Text(text.address, text.encoding, start, end, firsts[i], cutter.rows[i], cutter.quotes > 0)
        for i, (start, end) in enumerate(pairwise(cutter.cuts))
    ]


@dataclass
class _Cutter:
    """Takes the ends of rows block by block, and keeps the offsets of ranges."""

    header: bool
    """Whether the first row belongs to no range (CSV)."""
    cuts: list[int] = field(default_factory=list)
    """Where ranges start, and the end of the last; none until the header is passed."""
    rows: list[int] = field(default_factory=list)
    quotes: int = 0
    _pending: int = 0
    _last: int = 0

    def add(self, data: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> None:
        full = (_full if self.header else _not_blank)(data, self._last, ends)
        self._last = int(ends[-1]) if len(ends) else self._last
        if not self.cuts and full.any():
            header = int(np.argmax(full))
            self.cuts = [int(ends[header])]
            ends, full = ends[header + 1 :], full[header + 1 :]
        while self.cuts and (cut := int(np.searchsorted(ends, self.cuts[-1] + RANGE_BYTES))) < len(
            ends
        ):
            self._close(int(ends[cut]), int(full[: cut + 1].sum()))
            ends, full = ends[cut + 1 :], full[cut + 1 :]
        self._pending += int(full.sum())

    def finish(self, data: npt.NDArray[np.uint8]) -> None:
        if self._last < len(data):  # a last row without line break
            self.add(data, np.array([len(data)]))
        if self.cuts and self.cuts[-1] < len(data):
            self._close(len(data), 0)

    def _close(self, end: int, rows: int) -> None:
        self.cuts.append(end)
        self.rows.append(self._pending + rows)
        self._pending = 0


def _cut(data: npt.NDArray[np.uint8], delimiter: str | None) -> _Cutter | None:
    """Where to cut a file; None if nobody can be sure."""
    cutter = _Cutter(True) if delimiter is not None else _Cutter(False, [0])
    for start in range(0, len(data), _SCAN_BYTES):
        end = min(start + _SCAN_BYTES, len(data))
        block = _row_ends(data, start, end, delimiter, cutter.quotes)
        if block is None:
            return None
        cutter.add(data, block[0])
        cutter.quotes += block[1]
    if cutter.quotes % 2:
        return None
    cutter.finish(data)
    return cutter if cutter.rows else None


def _row_ends(
    data: npt.NDArray[np.uint8], start: int, end: int, delimiter: str | None, quotes: int
) -> tuple[npt.NDArray[np.int64], int] | None:
    """Offsets after the line breaks of a block that end rows, and the number of its quotes.

    With quotes, a line break ends a row if the number of quotes before it is even. That is proven,
    not guessed: a quote that opens a value must follow the delimiter, a line break or the quote
    that it doubles, and one that closes a value must be followed by such. Then, by induction from
    the file's start, this count and the parser's state are the same (RFC 4180). A file with any
    other quote, or with a lone carriage return, is not cut.
    """
    block = data[start:end]
    breaks = np.flatnonzero(block == _NEWLINE) + start
    if delimiter is None:
        return breaks + 1, 0
    returns = np.flatnonzero(block == _RETURN) + start
    if np.any(_at(data, returns + 1) != _NEWLINE):
        return None
    found = np.flatnonzero(block == _QUOTE) + start
    if not len(found):
        return (breaks + 1 if quotes % 2 == 0 else breaks[:0]), 0
    first = quotes % 2
    beside = np.zeros(256, bool)
    beside[[ord(delimiter), _NEWLINE, _RETURN, _QUOTE]] = True
    opening, closing = found[first::2], found[1 - first :: 2]
    marked = 3 if bytes(data[:3].tobytes()) == codecs.BOM_UTF8 else 0
    if not np.all(beside[_at(data, opening - 1)] | (opening == marked)):
        return None
    if not np.all(beside[_at(data, closing + 1)]):
        return None
    even = (np.searchsorted(found, breaks) + quotes) % 2 == 0
    return breaks[even] + 1, len(found)


def _at(data: npt.NDArray[np.uint8], places: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """The bytes at `places`; a line break where that is outside of the file."""
    inside = (places >= 0) & (places < len(data))
    taken = data[np.where(inside, places, 0)]
    return np.where(inside, taken, np.uint8(_NEWLINE))


def _full(
    data: npt.NDArray[np.uint8], last: int, ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Whether a row is more than a line break; parsers pass over empty lines.

    Args:
        data: the file.
        last: end of the row before the first.
        ends: of the rows.
    """
    starts = np.concatenate([[last], ends[:-1]]) if len(ends) else ends
    lengths = ends - starts
    first = _at(data, starts)
    empty = (lengths == 1) & (first == _NEWLINE)
    empty |= (lengths == 2) & (first == _RETURN)  # what follows it is a line break
    return np.asarray(~empty)


def _not_blank(
    data: npt.NDArray[np.uint8], last: int, ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """As `_full`, of JSON: lines of spaces are passed over too."""
    starts = np.concatenate([[last], ends[:-1]]) if len(ends) else ends
    full = np.ones(len(ends), bool)
    for i in np.flatnonzero(_at(data, starts) != ord("{")):
        full[i] = bool(data[starts[i] : ends[i]].tobytes().strip())
    return full


@contextmanager
def _raw(address: str) -> Iterator[Any]:
    if is_local(address):  # Arrow reads these without calling Python
        with pa.input_stream(located(address), compression=codec(address)) as stream:
            yield stream
        return
    with open_binary(address) as file:
        yield pa.input_stream(file, compression=codec(address))


def _range_of(text: Text) -> bytes:
    with open(located(text.address), "rb") as file:
        file.seek(text.start)
        data = file.read(text.size_bytes)
    if len(data) != text.size_bytes:
        raise EOFError(f"{text.size_bytes - len(data):,} bytes fewer than when it was opened")
    return data


def _misfit(name: str, address: str, encoding: str) -> str | None:
    """Where the first byte is that the encoding has no character for; None if all fit."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    offset = 0
    with reading(name, address), _raw(address) as stream:
        while True:
            chunk = stream.read(_CHUNK_BYTES)
            try:
                line += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeDecodeError as error:
                before = error.object[: error.start].decode(encoding, "replace").count("\n")
                at = offset + len(chunk) - len(error.object) + error.start
                byte = error.object[error.start]
                return f"byte 0x{byte:02x} at offset {at:,}, line {line + before:,}"
            offset += len(chunk)
            if not chunk:
                return None


def _known_encoding(name: str, encoding: str) -> None:
    try:
        "".encode(encoding)
    except LookupError:  # or one that is not of text, such as base64
        raise InputError(
            f"source `{name}` names an unknown encoding",
            value=encoding,
            allowed="utf-8, latin-1, cp1252, utf-16, shift_jis, ... as Python names them",
        ) from None


def _keeps_ascii(encoding: str) -> bool:
    """Whether an ASCII byte always is that character: UTF-8 and encodings of one byte each."""
    if encoding == "utf-8":
        return True
    ascii_bytes = bytes(range(128))
    every = bytes(range(256)).decode(encoding, "replace")
    return len(every) == 256 and every[:128].encode("ascii", "replace") == ascii_bytes
