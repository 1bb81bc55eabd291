"""Bins cut once on the training data; from then on drift is counting.

A feature has S slots. Numeric and score: [bin 0 .. B-1, "missing", "nonfinite"]. Category:
["missing", "unseen", named values by frequency.., and "other values" where they were capped].
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Float32s = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

MISSING, NONFINITE, UNSEEN, OTHER = "missing", "nonfinite", "unseen", "other values"


@dataclass(frozen=True)
class FeatureBins:
    """The slots of one feature.

    Each edge is the smallest of the float32 numbers that share its upper 16 bits, so a table
    over those 65,536 patterns (`table`) counts exactly what `searchsorted` counts.

    >>> bins = numeric_bins("x", np.arange(8, dtype=np.float32), 4, lambda v: f"{v:g}")
    >>> bins.edges, bins.labels
    ((2.0, 4.0, 6.0), ('below 2', '2 to 4', '4 to 6', 'from 6', 'missing', 'nonfinite'))
    >>> bins.count(np.array([1, 2, 99, np.nan, np.inf], np.float32))
    array([1, 1, 0, 1, 1, 1])
    """

    name: str
    kind: Literal["numeric", "category", "score"]
    edges: tuple[float, ...]
    """Inner cuts in encoded float32 units, ascending: v is in bin searchsorted(edges, v, right)."""
    labels: tuple[str, ...]
    """One per slot, in human units."""

    @property
    def missing_slot(self) -> int:
        return 0 if self.kind == "category" else len(self.labels) - 2

    @property
    def unseen_slot(self) -> int | None:
        return 1 if self.kind == "category" else None

    def slots(self, values: npt.NDArray[Any]) -> Ints:
        """The slot of each value (N,): float32 for numeric and score, codes for category."""
        if self.kind == "category":
            codes = np.asarray(values, np.int64)
            return np.where(codes < 0, 1, np.minimum(codes, len(self.labels) - 1))
        values = np.asarray(values, np.float32)
        found = np.searchsorted(np.asarray(self.edges, np.float32), values, side="right")
        found = np.where(np.isinf(values), len(self.edges) + 2, found)
        return np.where(np.isnan(values), len(self.edges) + 1, found).astype(np.int64)

    def count(self, values: npt.NDArray[Any]) -> Ints:
        """Rows per slot (S,) of `values` (N,)."""
        return np.bincount(self.slots(values), minlength=len(self.labels)).astype(np.int64)

    def table(self) -> npt.NDArray[np.uint16]:
        """Slot of each pattern of the upper 16 bits of a float32 (65536,); numeric and score."""
        patterns = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)
        return self.slots(patterns).astype(np.uint16)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "kind": self.kind, "edges": self.edges, "labels": self.labels}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> FeatureBins:
        edges, labels = tuple(map(float, data["edges"])), tuple(data["labels"])
        return cls(data["name"], data["kind"], edges, labels)


@dataclass(frozen=True, eq=False)
class Reference:
    """How the training rows fall into the slots: what served rows are compared with."""

    features: tuple[FeatureBins, ...]
    counts: tuple[Ints, ...]
    """Training rows per slot, one int64 array (S,) per feature."""
    rows: int

    def shares(self) -> tuple[npt.NDArray[np.float64], ...]:
        """Share of rows per slot, one array (S,) per feature; never 0, see `shares`."""
        return tuple(shares(counts) for counts in self.counts)

    def to_json(self) -> str:
        features = [
            {**bins.to_dict(), "counts": counts.tolist()}
            for bins, counts in zip(self.features, self.counts, strict=True)
        ]
        return json.dumps({"format": 1, "rows": self.rows, "features": features}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Reference:
        data = json.loads(text)
        features = tuple(FeatureBins.from_dict(item) for item in data["features"])
        counts = tuple(np.array(item["counts"], np.int64) for item in data["features"])
        return cls(features, counts, int(data["rows"]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.features, self.rows))


def shares(counts: npt.NDArray[np.int64] | Sequence[int]) -> npt.NDArray[np.float64]:
    """Share of rows per slot (S,): (count + 1/2) / (rows + S/2), so none is 0 (Jeffreys).

    >>> shares([3, 0]).tolist()
    [0.875, 0.125]
    """
    c = np.asarray(counts, np.float64)
    return np.asarray((c + 0.5) / (c.sum() + 0.5 * len(c)))


def numeric_bins(
    name: str,
    values: Float32s,
    bins: int,
    to_human: Callable[[float], str],
    *,
    kind: Literal["numeric", "score"] = "numeric",
) -> FeatureBins:
    """At most `bins` bins of about equal mass; a value that fills a bin alone gets one alone.

    `values` (N,) are encoded; missing and infinite ones are passed over. `to_human` turns an
    encoded number into the text that a person knows. A constant gets a bin on each side.
    """
    finite = values[np.isfinite(values)].astype(np.float32)
    cells, counts = np.unique(_cell_floor(finite), return_counts=True)
    if len(cells) == 1:
        return _constant(name, kind, finite, to_human)
    edges = cells[_first_cells(counts, bins)]
    labels = (*_interval_labels(finite, edges, to_human), MISSING, NONFINITE)
    return FeatureBins(name, kind, tuple(map(float, edges)), labels)


def category_bins(
    name: str, labels: Sequence[str], counts: Sequence[int] | Ints, bins: int
) -> FeatureBins:
    """A slot for each of the `bins` most frequent values; the others share one.

    `labels` and `counts` describe codes 2, 3, ..: the most frequent first, as the encoder numbers
    them (`ValueError` if not), so the slot of a code is min(code, S - 1).

    >>> category_bins("carrier", ["UA", "B6", "HA"], [50, 40, 1], 2).labels
    ('missing', 'unseen', 'UA', 'B6', 'other values')
    """
    if np.any(np.diff(np.asarray(counts)) > 0) or len(labels) != len(counts):
        raise ValueError(f"{name}: labels and counts must be given by falling frequency")
    others = (OTHER,) if len(labels) > bins else ()
    return FeatureBins(name, "category", (), (MISSING, UNSEEN, *labels[:bins], *others))


def _cell_floor(values: Float32s) -> Float32s:
    """The smallest float32 with the same upper 16 bits: below zero, low bits lead away from it."""
    bits = (values + np.float32(0)).view(np.uint32)
    down = np.where(bits >> 31, bits | np.uint32(0xFFFF), bits & np.uint32(0xFFFF0000))
    return down.astype(np.uint32).view(np.float32)


def _first_cells(counts: Ints, bins: int) -> list[int]:
    """Where bins start, the first one aside: each takes its fair share of what is left."""
    starts: list[int] = []
    left, reached = int(counts.sum()), 0
    fair = left / bins
    for cell, count in enumerate(counts.tolist()):
        # Start anew if this cell would overshoot by more than stopping here falls short.
        if reached and len(starts) < bins - 1 and reached + count / 2 > fair:
            starts.append(cell)
            left, reached = left - reached, 0
            fair = left / (bins - len(starts))
        reached += count
    return starts


def _interval_labels(
    finite: Float32s, edges: Float32s, to_human: Callable[[float], str]
) -> list[str]:
    if not len(finite):
        return ["any value"]
    ordered = np.sort(finite)
    cuts = np.concatenate([[0], np.searchsorted(ordered, edges, side="left"), [len(ordered)]])
    at = [to_human(float(edge)) for edge in edges]
    labels = []
    for slot in range(len(edges) + 1):
        low, high = ordered[cuts[slot]], ordered[cuts[slot + 1] - 1]
        if low == high:
            labels.append(to_human(float(low)))
        elif slot == 0:
            labels.append(f"below {at[0]}" if at else "any value")
        else:
            labels.append(f"{at[slot - 1]} to {at[slot]}" if slot < len(at) else f"from {at[-1]}")
    return labels


def _constant(
    name: str,
    kind: Literal["numeric", "score"],
    finite: Float32s,
    to_human: Callable[[float], str],
) -> FeatureBins:
    low = _cell_floor(finite[:1])
    high = _cell_floor(np.nextafter(finite.max(keepdims=True), np.float32(np.inf)))
    if high[0] == low[0]:
        step = np.int64(1 << 16) if low[0] >= 0 else -np.int64(1 << 16)
        above = (low.view(np.uint32).astype(np.int64) + step).astype(np.uint32)
        high = above.view(np.float32)
    only = to_human(float(finite[0]))
    labels = (f"below {only}", only, f"above {only}", MISSING, NONFINITE)
    return FeatureBins(name, kind, (float(low[0]), float(high[0])), labels)
