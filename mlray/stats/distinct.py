"""How many different values a column holds, from the smallest hashes of its values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlray.stats.sketch import packed, unpacked

Hashes = npt.NDArray[np.uint64]

SIZE = 2048
"""Hashes kept: distinct is exact below it; above it the standard error is 1/sqrt(2046) = 2.2 %."""
_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True, eq=False)
class DistinctSketch:
    """The `SIZE` smallest 64-bit hashes: exact under `SIZE` values, then an estimate.

    D = (k - 1) / U_k, U_k the k-th smallest hash as a share of 2^64. Merging keeps the smallest of
    both, so any order of merges gives the same sketch.

    Source: Bar-Yossef et al. (2002), "Counting distinct elements in a data stream"; the unbiased
    form by Beyer et al. (2007), "On synopses for distinct-value estimation".

    >>> DistinctSketch.of(hash_numbers(np.arange(7.0))).count
    7
    >>> sketch = DistinctSketch.of(hash_numbers(np.arange(100_000.0)))
    >>> sketch.is_exact, abs(sketch.count / 100_000 - 1) < 0.07
    (False, True)
    """

    hashes: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))

    @classmethod
    def of(cls, hashes: Hashes) -> DistinctSketch:
        """Of the hashes of distinct values."""
        if len(hashes) > 2 * SIZE:
            hashes = np.partition(hashes, SIZE)[: SIZE + 1]
        return cls(np.unique(hashes)[:SIZE])

    @property
    def is_exact(self) -> bool:
        return len(self.hashes) < SIZE

    @property
    def count(self) -> int:
        if self.is_exact:
            return len(self.hashes)
        return round((SIZE - 1) / (float(self.hashes[-1]) / 2.0**64))

    @classmethod
    def merged(cls, parts: Sequence[DistinctSketch]) -> DistinctSketch:
        """The sketch of the values of all."""
        ordered = np.sort(np.concatenate([part.hashes for part in parts]))
        fresh = np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]
        return cls(ordered[fresh][:SIZE])

    def to_json(self) -> str:
        return packed(self.hashes)

    @classmethod
    def from_json(cls, text: str) -> DistinctSketch:
        return cls(unpacked(text, "<u8"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DistinctSketch) and np.array_equal(self.hashes, other.hashes)

    def __hash__(self) -> int:
        return hash(self.hashes.tobytes())


def hash_numbers(values: npt.NDArray[np.generic]) -> Hashes:
    """64-bit hashes of numbers (N,); 5 and 5.0 hash alike, so columns of both types can merge."""
    floats = values.astype(np.float64) + 0.0  # -0.0 is 0.0
    bits = floats.view(np.uint64)
    if values.dtype.kind in "iu" and len(values) and np.abs(floats).max() > 2.0**53:
        # A double cannot tell large integers apart: hash their own bits.
        bits = np.where(np.abs(floats) > 2.0**53, values.astype(np.uint64), bits)
    return _mixed(bits)


def hash_strings(values: pa.Array) -> Hashes:
    """64-bit hashes of the UTF-8 bytes of a large_string array (N,) without nulls.

    mix(length + sum of (byte + 1) * r(place in the string)) modulo 2^64, with r = mix(place):
    multilinear hashing, Lemire and Kaser (2014), "Strongly universal string hashing is fast".
    """
    _, offsets_buffer, data_buffer = values.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[values.offset :][: len(values) + 1]
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer else np.empty(0, np.uint8)
    hashes = np.diff(offsets).astype(np.uint64)
    start = 0
    while start < len(values):
        stop = int(np.searchsorted(offsets, offsets[start] + _CHUNK_BYTES, side="right"))
        stop = min(max(stop - 1, start + 1), len(values))
        hashes[start:stop] += _weighted_bytes(data, offsets[start : stop + 1])
        start = stop
    return _mixed(hashes)


def _weighted_bytes(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Hashes:
    lengths = np.diff(offsets)
    some = lengths > 0  # reduceat gives an element, not zero, for an empty stretch
    sums = np.zeros(len(lengths), np.uint64)
    if some.any():
        places = np.arange(offsets[-1] - offsets[0]) - np.repeat(offsets[:-1] - offsets[0], lengths)
        factors = _mixed(np.arange(1, lengths.max() + 1, dtype=np.uint64))
        terms = (data[offsets[0] : offsets[-1]].astype(np.uint64) + np.uint64(1)) * factors[places]
        sums[some] = np.add.reduceat(terms, (offsets[:-1] - offsets[0])[some])
    return sums


def _mixed(bits: Hashes) -> Hashes:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014): every bit in reaches every bit out."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
