"""Counts of served rows per bin: cheap for the request, exact, and of bounded size.

Nothing is computed where traffic flows: a request appends its encoded rows to a queue, and every
1024 rows one vectorised pass adds them to integer counts. The same `count` makes a reference's
counts from training rows, so training and serving are cut by one piece of code.

A float32 finds its bin by a table over its upper 16 bits (sign, exponent, 7 bits of mantissa): one
look-up a value, about 4 ns, where a binary search costs 25 to 60 ns. Only a few of the 65,536 cells
of a feature have a cut inside; values of such a cell are settled by a binary search. Counts are
therefore exactly those of `searchsorted(edges, value, side="right")`, whatever the edges.

Legend: N rows, F numeric features, C categorical features, K classes, S slots of all features.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlray.errors import InputError
from mlray.stats.bins import FeatureBins, Reference

Floats = NDArray[np.float32]
Codes = NDArray[np.int32]
Integers = NDArray[np.int64]

BLOCK_ROWS = 1024
"""Rows that wait in memory before they are counted; no more than a block and a request wait."""

_CELLS = 1 << 16
_PASS_ROWS = 2048  # larger passes fall out of the processor's cache
_HIGH_HALF = slice(1, None, 2) if np.little_endian else slice(0, None, 2)
_FIRST_CLASS = 2  # codes 0 and 1 are "missing" and "unseen" in every category feature


def count(
    features: Sequence[FeatureBins], numeric: Floats, category: Codes, scores: Floats
) -> list[Integers]:
    """Rows per slot of every feature, in the order of `features`.

    `numeric` (N, F) and `category` (N, C) are encoded inputs, column by column the features of
    kind "numeric" and "category"; `scores` is (N,) or (N, K). The last feature is the prediction:
    of kind "score" for (N,), of kind "category" for (N, K), where the likeliest class is counted
    (class k in slot k + 2, so its labels are "missing", "unseen" and the classes in their order).
    NaN counts as missing, infinities as non-finite. Raises `InputError` if the shapes differ.

    >>> f = FeatureBins("x", "numeric", (0.0, 1.5), ("<0", "0-1.5", ">1.5", "missing", "inf"))
    >>> s = FeatureBins("score", "score", (0.5,), ("low", "high", "missing", "inf"))
    >>> x = np.array([[-1], [0], [1.5], [np.nan], [np.inf]], np.float32)
    >>> count([f, s], x, np.zeros((5, 0), np.int32), np.full(5, 0.5, np.float32))
    [array([1, 1, 1, 1, 1]), array([0, 5, 0, 0])]
    """
    slots = _Slots(features)
    slots.check(numeric, category, scores)
    return slots.split(slots.count(numeric, category, scores))


class Counts:
    """Rows per slot since the last `take`, for one writer and one thread that takes.

    Memory: 64 KiB a numeric feature for its table (128 KiB above 253 bins), 8 bytes a slot, and at
    most `BLOCK_ROWS` rows and one request that wait; it does not grow with traffic.
    """

    def __init__(self, reference: Reference) -> None:
        self._slots = _Slots(reference.features)
        self._waiting: deque[tuple[Floats, Codes, Floats]] = deque()
        self._added = 0  # written by the writer only
        self._drained = 0  # written under the lock only
        self._lock = threading.Lock()
        self._counts = self._slots.zeros()

    def add(self, numeric: Floats, category: Codes, scores: Floats) -> None:
        """Count the rows of a request; shapes as in `count`. The arrays must not change later.

        Appends without a lock; the request that fills a block pays for counting it.
        """
        self._slots.check(numeric, category, scores)
        self._waiting.append((numeric, category, scores))
        self._added += len(scores)
        if self._added - self._drained >= BLOCK_ROWS:
            with self._lock:
                self._drain()

    def take(self) -> list[Integers]:
        """Counts per feature since the last take, rows that wait included."""
        with self._lock:
            self._drain()
            taken, self._counts = self._counts, self._slots.zeros()
        return self._slots.split(taken)

    def _drain(self) -> None:
        """Count what waits. `popleft` and `append` are atomic, so no row is lost or seen twice."""
        rows = []
        for _ in range(len(self._waiting)):
            rows.append(self._waiting.popleft())
        if rows:
            numeric, category, scores = (np.concatenate(parts) for parts in zip(*rows, strict=True))
            self._counts += self._slots.count(numeric, category, scores)
            self._drained += len(scores)


class _Slots:
    """Where each feature's slots lie in one flat array of S counts, and how rows find them."""

    def __init__(self, features: Sequence[FeatureBins]) -> None:
        if not features:
            raise InputError("a reference without features", do="write the bundle again")
        sizes = np.array([len(f.labels) for f in features])
        starts = np.concatenate([[0], np.cumsum(sizes)])
        self._bounds, self._size = starts[1:-1], int(starts[-1])
        *inputs, prediction = range(len(features))
        numeric = [i for i in inputs if features[i].kind == "numeric"]
        category = [i for i in inputs if features[i].kind == "category"]
        self._numeric = _FloatTable([features[i].edges for i in numeric], starts[numeric])
        self._category = _CodeTable(sizes[category], starts[category])
        self._widths = (len(numeric), len(category))
        self._score, self._class = None, None
        if features[prediction].kind == "score":
            self._score = _FloatTable([features[prediction].edges], starts[[prediction]])
        else:
            self._class = _CodeTable(sizes[[prediction]], starts[[prediction]])

    def zeros(self) -> Integers:
        return np.zeros(self._size, np.int64)

    def split(self, counts: Integers) -> list[Integers]:
        return np.split(counts, self._bounds)

    def check(self, numeric: Floats, category: Codes, scores: Floats) -> None:
        """Refuse arrays that are not of these features; takes 0.3 us."""
        if (numeric.shape[1], category.shape[1]) == self._widths and (
            (scores.ndim == 1) == (self._class is None)
        ):
            return
        raise InputError(
            "rows do not fit the reference they are counted against",
            value=f"numeric {numeric.shape}, category {category.shape}, scores {scores.shape}",
            allowed=f"(N, {self._widths[0]}), (N, {self._widths[1]}), "
            + ("(N, K)" if self._score is None else "(N,)"),
            do="count with the reference of the bundle that encoded the rows",
        )

    def count(self, numeric: Floats, category: Codes, scores: Floats) -> Integers:
        counts = self.zeros()
        for start in range(0, len(scores), _PASS_ROWS):
            rows = slice(start, start + _PASS_ROWS)
            for slots in self._found(numeric[rows], category[rows], scores[rows]):
                counts += np.bincount(slots, minlength=self._size)
        return counts

    def _found(self, numeric: Floats, category: Codes, scores: Floats) -> list[NDArray[np.intp]]:
        """Flat slot numbers of all values of some rows, one array per kind of feature."""
        found = []
        if numeric.size:
            found.append(self._numeric(numeric))
        if category.size:
            found.append(self._category(category))
        if self._score is not None:
            found.append(self._score(scores[:, None]))
        if self._class is not None:
            likeliest = np.where(
                np.isnan(scores).any(axis=1), 0, scores.argmax(axis=1) + _FIRST_CLASS
            )
            found.append(self._class(likeliest[:, None]))
        return found


class _CodeTable:
    """Slots of category codes: code c is slot c, codes past the last slot share the last one."""

    def __init__(self, sizes: NDArray[np.intp], starts: NDArray[np.intp]) -> None:
        self._last, self._starts = sizes - 1, starts

    def __call__(self, codes: NDArray[np.integer]) -> NDArray[np.intp]:
        slots: NDArray[np.intp] = np.clip(codes, 0, self._last) + self._starts
        return slots.ravel()


class _FloatTable:
    """Slots of float32 columns: bin 0..B-1, then "missing", then "nonfinite"."""

    def __init__(self, edges: Sequence[Sequence[float]], starts: NDArray[np.intp]) -> None:
        cuts = [np.asarray(e, np.float32) for e in edges]
        self._columns = len(cuts)
        self._cell_starts = np.arange(self._columns) * _CELLS
        self._starts = starts
        self._bins = np.array([len(c) + 1 for c in cuts])
        narrow = max(self._bins, default=1) + 2 <= 0xFF
        self._type = np.dtype(np.uint8 if narrow else np.uint16)
        self._undecided = 0xFF if narrow else 0xFFFF
        cells = [self._cells(c) for c in cuts]
        self._table = np.concatenate(cells) if cells else np.empty(0, self._type)
        # All cuts of all columns as one ascending array of integers: column number, then value.
        keys = [_key(c) + _column(np.full(len(c), j)) for j, c in enumerate(cuts)]
        self._cuts = np.concatenate(keys) if keys else np.empty(0, np.uint64)
        self._cut_starts = np.cumsum(self._bins - 1) - (self._bins - 1)

    def __call__(self, values: Floats) -> NDArray[np.intp]:
        values = np.ascontiguousarray(values, np.float32)
        cells = np.add(values.view(np.uint16)[:, _HIGH_HALF], self._cell_starts, dtype=np.intp)
        local = self._table.take(cells)
        slots = np.add(local, self._starts, dtype=np.intp).ravel()
        undecided = np.flatnonzero(local == self._undecided)
        if len(undecided):
            slots[undecided] = self._searched(values.ravel()[undecided], undecided % self._columns)
        return slots

    def _cells(self, cuts: Floats) -> NDArray[np.unsignedinteger]:
        """The slot of every cell, or `undecided` where values of one cell differ in slot."""
        high = np.arange(_CELLS, dtype=np.uint32) << 16
        ends = (_bins(cuts, high.view(np.float32)), _bins(cuts, (high | 0xFFFF).view(np.float32)))
        return np.where(ends[0] == ends[1], ends[0], self._undecided).astype(self._type)

    def _searched(self, values: Floats, column: NDArray[np.intp]) -> NDArray[np.intp]:
        """Slots by one binary search over the cuts of all columns."""
        found = np.searchsorted(self._cuts, _key(values) + _column(column), side="right")
        special = self._bins[column] + np.where(np.isnan(values), 0, 1)
        bins = np.where(np.isfinite(values), found - self._cut_starts[column], special)
        return bins + self._starts[column]


def _bins(cuts: Floats, values: Floats) -> NDArray[np.intp]:
    """Bin of each value by definition: B bins, then missing (B), then non-finite (B + 1)."""
    special = len(cuts) + 1 + np.where(np.isnan(values), 0, 1)
    return np.where(np.isfinite(values), np.searchsorted(cuts, values, side="right"), special)


def _key(values: Floats) -> NDArray[np.uint64]:
    """Integers of 32 bits in the order of the values, -0.0 as 0.0."""
    bits = np.where(values == 0, np.uint32(0), values.view(np.uint32))
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)


def _column(number: NDArray[np.integer]) -> NDArray[np.uint64]:
    return number.astype(np.uint64) << np.uint64(32)
