"""Quantiles of a stream in a few thousand numbers: mergeable, the error of ranks bounded."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

WIDTH = 1024
"""Values kept at the heaviest level; levels below keep 2/3 of the one above them."""
_LIMIT = 3 * WIDTH + 3 * 64  # sum of all levels, each rounded up and never under 2
_DOUBT = 1e-4


@dataclass(frozen=True, eq=False)
class QuantileSketch:
    """Sorted values, each standing for `weights` rows: a KLL sketch, kept as one weighted sample.

    Up to 3,264 distinct values it is exact. Past that, among the values whose weight has bit h
    set, neighbours are paired and one of each pair takes the 2^h rows of both. One such step moves
    the rank of any value by -2^h, 0 or 2^h rows, by a coin drawn from a hash of the values, so the
    same tables merged in the same order give the same sketch. `rank_error` follows from the steps.

    Source: Karnin, Lang, Liberty (2016), "Optimal quantile approximation in streams".

    >>> whole = np.arange(100_000.0)
    >>> parts = QuantileSketch.of(whole[:40_000]), QuantileSketch.of(whole[40_000:])
    >>> sketch = QuantileSketch.merged(parts)
    >>> abs(sketch.quantile(0.25) - 25_000) / 100_000 <= sketch.rank_error < 0.003
    True
    """

    values: Floats = field(default_factory=lambda: np.empty(0))
    weights: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    bound_rows: int = 0
    squares: float = 0.0

    @classmethod
    def of(cls, values: Floats, counts: Ints | None = None) -> QuantileSketch:
        """Of finite `values`, ascending and distinct, each seen `counts` times (once if None)."""
        weights = np.ones(len(values), np.int64) if counts is None else counts.astype(np.int64)
        return cls(np.asarray(values, np.float64), weights)._shrunk()

    @property
    def rows(self) -> int:
        return int(self.weights.sum())

    @property
    def rank_error(self) -> float:
        """How far a rank can be off, as a share of all rows; 0 while exact.

        The smaller of the hard bound, sum of 2^h over all steps, and Hoeffding's
        sqrt(2 ln(2/d) sum of 4^h), which holds for a value with probability 1 - d, d = 0.0001.
        """
        likely = math.sqrt(2 * math.log(2 / _DOUBT) * self.squares)
        return min(float(self.bound_rows), likely) / max(self.rows, 1)

    @classmethod
    def merged(cls, parts: Sequence[QuantileSketch]) -> QuantileSketch:
        """The sketch of the rows of all."""
        values = np.concatenate([part.values for part in parts])
        order = np.argsort(values, kind="stable")
        values, weights = values[order], np.concatenate([part.weights for part in parts])[order]
        starts = np.flatnonzero(np.append(True, values[1:] != values[:-1])[: len(values)])
        if len(starts) < len(values):
            values, weights = values[starts], np.add.reduceat(weights, starts)
        bound = sum(part.bound_rows for part in parts)
        return cls(values, weights, bound, sum(part.squares for part in parts))._shrunk()

    def quantile(self, q: float | Floats) -> Floats:
        """The smallest kept value with at least a share `q` of the rows at or below it."""
        reached = np.cumsum(self.weights)
        # Without the slack, 0.07 * 100 = 7.000000000000001 would ask for the eighth row.
        wanted = np.maximum(np.ceil(np.asarray(q) * self.rows * (1 - 4e-16)), 1)
        at = np.searchsorted(reached, wanted, side="left")
        return np.asarray(self.values[np.minimum(at, len(reached) - 1)])

    def cdf(self, x: float | Floats) -> Floats:
        """Share of rows at or below `x`."""
        reached = np.concatenate([[0], np.cumsum(self.weights)])
        return np.asarray(reached[np.searchsorted(self.values, x, side="right")] / reached[-1])

    def to_dict(self) -> dict[str, Any]:
        return {
            "values": packed(self.values),
            "weights": packed(self.weights),
            "bound_rows": self.bound_rows,
            "squares": self.squares,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> QuantileSketch:
        values, weights = unpacked(data["values"], "<f8"), unpacked(data["weights"], "<i8")
        return cls(values, weights, int(data["bound_rows"]), float(data["squares"]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QuantileSketch) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.rows, self.bound_rows))

    def _shrunk(self) -> QuantileSketch:
        values, weights = self.values, self.weights
        bound, squares = self.bound_rows, self.squares
        while len(values) > _LIMIT:
            level, pairs = _fullest(weights)
            kept = zlib.crc32(values[pairs[:, 0]].tobytes(), level) >> 7 & 1
            weights = weights.copy()
            weights[pairs[:, kept]] += 1 << level
            weights[pairs[:, 1 - kept]] -= 1 << level
            values, weights = values[weights > 0], weights[weights > 0]
            bound, squares = bound + (1 << level), squares + 4.0**level
        return QuantileSketch(values, weights, bound, squares)


def _fullest(weights: Ints) -> tuple[int, Ints]:
    """The lowest level that holds more than its share, and its (n, 2) pairs of neighbours."""
    top = int(weights.max()).bit_length() - 1
    for level in range(top + 1):
        held = np.flatnonzero(weights >> level & 1)
        if len(held) > max(2, math.ceil(WIDTH * (2 / 3) ** (top - level))):
            return level, held[: len(held) // 2 * 2].reshape(-1, 2)
    raise AssertionError(f"{len(weights)} values fit no level")  # the limit is the sum of levels


def packed(array: npt.NDArray[Any]) -> str:
    """An array's little-endian bytes as base64: JSON that keeps every bit and parses fast."""
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def unpacked(text: str, dtype: str) -> npt.NDArray[Any]:
    """The array that `packed` wrote."""
    return np.frombuffer(base64.b64decode(text), dtype).astype(np.dtype(dtype).newbyteorder("="))
