"""A fingerprint of what rows hold: cheap, mergeable, and the same in whatever order they come.

Every row becomes one 64-bit number; the fingerprint is the sum of these numbers and the sum of
their squares, both modulo 2^64, with the number of rows. Sums do not depend on order, files or
blocks, and count how often a row occurs. A cell's number is its value's bits, folded and multiplied
by an odd key that follows from the column's name and kind (multiply-shift hashing: Dietzfelbinger
et al., A reliable randomized algorithm for the closest-pair problem, J. Algorithms 25, 1997); cells
add up to a row, which splitmix64 mixes. A changed value stays unseen by chance about once in 2^64,
once in 2^33 at worst (signs of two numbers of one row flipped). The keys are known, so it guards
against accidents and carelessness, not against somebody who constructs rows to collide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mlray.sources.hashing import Hashes, mix

_ROWS_AT_ONCE = 1 << 15
"""So that what is in between stays in the processor's cache."""
_LONG_BYTES = 512
"""Longer texts are hashed one by one with BLAKE2b, which is faster for them."""
_HALF, _GOLDEN = np.uint64(32), np.uint64(0x9E3779B97F4A7C15)
_STEP = np.uint64(0xFF51AFD7ED558CCD)
_NAN = np.float64("nan").view(np.uint64)
_KEEP = np.array([0, *(2 ** (8 * n) - 1 for n in range(1, 9))], np.uint64)
"""Masks of the first n bytes of a little-endian word."""
_MODULUS = 1 << 64


@dataclass(frozen=True)
class Content:
    """The fingerprint of some rows.

    >>> import pyarrow as pa
    >>> rows = pa.table({"a": [1.0, -0.0, None], "b": ["x", "", None]})
    >>> whole = Content.of(rows)
    >>> whole == Content.of(rows.slice(1)) + Content.of(rows.slice(0, 1))
    True
    >>> whole == Content.of(rows.rename_columns(["a", "c"]))
    False
    """

    rows: int
    total: int
    """Sum of the rows' numbers, modulo 2^64."""
    squares: int
    """Sum of their squares, modulo 2^64."""
    columns: str
    """Hash of the columns' names and kinds."""

    @classmethod
    def of(cls, table: pa.Table) -> Content:
        """The fingerprint of a table.

        Widths do not count (int8 and int64, float and double, string and large_string and a
        dictionary of strings are one kind); names, kinds, nulls, NaN and the sign of zero do.
        The order of columns does not.
        """
        total = squares = 0
        for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
            rows = mix(_row_numbers(batch))
            total += int(rows.sum(dtype=np.uint64))
            squares += int((rows * rows).sum(dtype=np.uint64))
        return cls(table.num_rows, total % _MODULUS, squares % _MODULUS, _columns(table.schema))

    @classmethod
    def from_text(cls, text: str) -> Content:
        rows, total, squares, columns = text.split("-")
        return cls(int(rows), int(total, 16), int(squares, 16), columns)

    @property
    def text(self) -> str:
        """All of it in one word, which `from_text` reads: `rows-total-squares-columns`."""
        return f"{self.rows}-{self.total:016x}-{self.squares:016x}-{self.columns}"

    def __add__(self, other: Content) -> Content:
        """The fingerprint of the rows of both.

        Raises:
            ValueError: their columns are not the same.
        """
        if self.columns != other.columns:
            raise ValueError("fingerprints of tables with different columns do not add up")
        return Content(
            self.rows + other.rows,
            (self.total + other.total) % _MODULUS,
            (self.squares + other.squares) % _MODULUS,
            self.columns,
        )


def merged(parts: Iterable[Content]) -> Content | None:
    """The fingerprint of all parts' rows; None if there are no parts."""
    whole: Content | None = None
    for part in parts:
        whole = part if whole is None else whole + part
    return whole


def _columns(schema: pa.Schema) -> str:
    told = sorted(f"{field.name}\0{_kind(field.type)}" for field in schema)
    return hashlib.sha256("\1".join(told).encode()).hexdigest()[:16]


def _row_numbers(batch: pa.RecordBatch) -> Hashes:
    """One number a row (N,): the sum of its cells'."""
    rows = np.zeros(batch.num_rows, np.uint64)
    spare = np.empty_like(rows), np.empty_like(rows)
    for field, array in zip(batch.schema, batch.columns, strict=True):
        key, missing = _keys(f"{field.name}\0{_kind(field.type)}")
        if pt.is_dictionary(array.type) and array.dictionary.null_count:
            array = array.dictionary_decode()
        cells = _cells(_values(array), key, spare)
        if array.null_count:
            np.copyto(cells, missing, where=_missing(array))
        np.add(rows, cells, out=rows)
    return rows


@cache
def _keys(column: str) -> tuple[np.uint64, np.uint64]:
    """An odd factor for a column's values, and what a missing one counts."""
    digest = hashlib.sha256(column.encode()).digest()
    factor, missing = np.frombuffer(digest[:16], "<u8")
    return np.uint64(factor | np.uint64(1)), np.uint64(missing)


def _cells(values: Hashes, key: np.uint64, spare: tuple[Hashes, Hashes]) -> Hashes:
    """The cells' numbers. Without the first fold a flipped sign would reach the top bit only, and
    two of them in a row would cancel out; without the second, sums would be linear in the values.
    """
    cells, high = spare
    np.right_shift(values, _HALF, out=cells)
    np.bitwise_xor(cells, values, out=cells)
    np.multiply(cells, key, out=cells)
    np.right_shift(cells, _HALF, out=high)
    return np.bitwise_xor(cells, high, out=cells)


def _kind(kind: pa.DataType) -> str:
    """What of a type counts: not how it is stored."""
    if pt.is_dictionary(kind):
        return _kind(kind.value_type)
    if kind == pa.uint64():
        return "unsigned"
    for word, is_so in _KINDS.items():
        if is_so(kind):
            return word
    return str(kind)


_KINDS: dict[str, Any] = {
    "bool": pt.is_boolean,
    "int": pt.is_integer,
    "float": pt.is_floating,
    "text": lambda t: pt.is_string(t) or pt.is_large_string(t) or pt.is_string_view(t),
    "bytes": lambda t: pt.is_binary(t) or pt.is_large_binary(t) or pt.is_binary_view(t),
}


def _missing(array: pa.Array) -> npt.NDArray[np.bool_]:
    bits = array.buffers()[0]
    if bits is None:
        return np.asarray(array.is_null().to_numpy(zero_copy_only=False))
    first, spare = divmod(array.offset, 8)
    held = np.frombuffer(bits, np.uint8, offset=first)
    valid = np.unpackbits(held, count=spare + len(array), bitorder="little")[spare:]
    return np.equal(valid, 0)


def _values(array: pa.Array) -> Hashes:
    """64 bits for each value (N,); anything where it is missing."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _values(array.storage)
    if pt.is_dictionary(kind):
        codes = pc.fill_null(array.indices, 0).to_numpy(zero_copy_only=False)
        known = _with_missing(array.dictionary)
        return known[codes] if len(known) else np.zeros(len(array), np.uint64)
    if pt.is_floating(kind):
        return _of_floats(_plain_numbers(array, pa.float64()))
    if pt.is_boolean(kind) or pt.is_integer(kind):
        return _plain_numbers(array, pa.uint64() if kind == pa.uint64() else pa.int64())
    if pt.is_temporal(kind) and kind.bit_width in (32, 64):
        whole = pa.int32() if kind.bit_width == 32 else pa.int64()
        return _plain_numbers(array.view(whole), pa.int64())
    if pt.is_decimal(kind) or pt.is_fixed_size_binary(kind):
        return _of_fixed(array)
    if pt.is_null(kind):
        return np.zeros(len(array), np.uint64)
    return _of_nested(array) if pt.is_nested(kind) else _of_bytes(array)


def _with_missing(array: pa.Array) -> Hashes:
    """Values of a part of a cell: a missing one counts as a value of its own."""
    values = _values(array)
    return np.where(_missing(array), _GOLDEN, values) if array.null_count else values


def _plain_numbers(array: pa.Array, wide: pa.DataType) -> Hashes:
    """The bits of numbers. A missing one keeps what lies under it, which is replaced later."""
    array = array if array.type == wide else array.cast(wide, safe=False)
    data = array.buffers()[1]
    if data is None:
        return np.zeros(len(array), np.uint64)
    return np.frombuffer(data, np.uint64, len(array), 8 * array.offset)


def _of_floats(bits: Hashes) -> Hashes:
    """NaN is one value, whatever its bits; 0.0 and -0.0 are two."""
    numbers = bits.view(np.float64)
    with np.errstate(all="ignore"):
        if not np.isnan(numbers.sum()):  # one pass, without an array of its own
            return bits
    return np.where(np.isnan(numbers), _NAN, bits)


def _of_nested(array: pa.Array) -> Hashes:
    if pt.is_struct(array.type):
        parts = (_named(f.name, array.field(i)) for i, f in enumerate(array.type))
        return mix(np.sum([*parts, np.zeros(len(array), np.uint64)], axis=0, dtype=np.uint64))
    if pt.is_fixed_size_list(array.type):
        array = array.cast(pa.large_list(array.type.value_type))
    if pt.is_list(array.type) or pt.is_large_list(array.type):
        offsets = array.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
        inner = _with_missing(array.values.slice(offsets[0], offsets[-1] - offsets[0]))
        lengths = np.diff(offsets)
        places = np.arange(len(inner)) - np.repeat(offsets[:-1] - offsets[0], lengths)
        mixed = mix(inner + places.view(np.uint64) * _GOLDEN)
        running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])
        sums = running[offsets[1:] - offsets[0]] - running[offsets[:-1] - offsets[0]]
        return mix(sums + lengths.view(np.uint64) * _GOLDEN)
    return _of_bytes(pa.array([None if v is None else repr(v) for v in array.to_pylist()], "utf8"))


def _named(name: str, array: pa.Array) -> Hashes:
    return mix(_with_missing(array) * _keys(name)[0])


def _of_fixed(array: pa.Array) -> Hashes:
    width = array.type.byte_width
    ends = np.arange(array.offset, array.offset + len(array) + 1, dtype=np.int64) * width
    data = array.buffers()[1]
    return _of_texts(np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8), ends)


def _of_bytes(array: pa.Array) -> Hashes:
    if pt.is_string_view(array.type):
        array = array.cast(pa.large_string())
    wide = array.cast(pa.large_binary())
    _, offsets, data = wide.buffers()
    if offsets is None or not len(wide):
        return np.zeros(len(wide), np.uint64)
    ends = np.frombuffer(offsets, np.int64, len(wide) + 1, 8 * wide.offset)
    return _of_texts(np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8), ends)


def _of_texts(data: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> Hashes:
    """Texts between `ends` (N + 1,), eight bytes of all of them at a time."""
    lengths = np.diff(ends)
    found = lengths.view(np.uint64) * _GOLDEN
    for row in np.flatnonzero(lengths > _LONG_BYTES):
        text = hashlib.blake2b(data[ends[row] : ends[row + 1]].tobytes(), digest_size=8).digest()
        found[row] = np.frombuffer(text, "<u8")[0]
    held = np.concatenate([data[ends[0] : ends[-1]], np.zeros(8, np.uint8)])
    words = np.ndarray((len(held) - 7,), "<u8", held.data, strides=(1,))  # one at every byte
    rows = np.flatnonzero((lengths > 0) & (lengths <= _LONG_BYTES))
    places, left = ends[rows] - ends[0], lengths[rows]
    while len(rows):
        word = words[places] & _KEEP[np.minimum(left, 8)]
        some = (found[rows] ^ word) * _STEP
        found[rows] = some ^ (some >> _HALF)
        more = left > 8
        rows, places, left = rows[more], places[more] + 8, left[more] - 8
    return found
