"""Features cut into a few slots, so that places in feature space can be counted and named.

Legend: N rows, S slots of a feature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

BINS = 12
"""Slots of a number, about evenly filled; a value that many rows share has a slot of its own."""


@dataclass(frozen=True)
class Column:
    """One feature of N rows in S slots."""

    name: str
    codes: npt.NDArray[np.int32]
    """(N,) slot of each row."""
    words: tuple[str, ...]
    """(S,) a slot in words: `education is Masters`."""
    edges: tuple[str, ...] = ()
    """Of a number: texts of the S - 2 inner edges; its first S - 1 slots ascend, the last holds
    missing values. Empty for a category."""

    @property
    def slots(self) -> int:
        return len(self.words)

    def span(self, low: int, high: int) -> str:
        """Slots low .. high of a number in words.

        >>> column = numeric_column("age", np.array([1., 2., 3., 4.]), lambda v: f"{v:g}", 4)
        >>> column.span(0, 1), column.span(1, 2), column.span(2, 3)
        ('age below 3', 'age from 2 to below 4', 'age at least 3')
        """
        if not self.edges or low == high:
            return self.words[low]
        if high >= len(self.edges):
            return f"{self.name} at least {self.edges[low - 1]}"
        if low == 0:
            return f"{self.name} below {self.edges[high]}"
        return f"{self.name} from {self.edges[low - 1]} to below {self.edges[high]}"


def numeric_column(
    name: str,
    values: npt.NDArray[np.floating],
    human: Callable[[float], str],
    bins: int = BINS,
) -> Column:
    """Numbers (N,), NaN for missing, cut at quantiles; `human` writes an edge."""
    edges = _cuts(values[~np.isnan(values)], bins)
    codes = np.searchsorted(edges, values, side="right").astype(np.int32)
    codes[np.isnan(values)] = len(edges) + 1
    texts = tuple(human(float(edge)) for edge in edges)
    words = [f"{name} from {a} to below {b}" for a, b in pairwise(texts)]
    if texts:
        words = [f"{name} below {texts[0]}", *words, f"{name} at least {texts[-1]}"]
    return Column(name, codes, (*(words or [f"{name} known"]), f"{name} missing"), texts)


def category_column(name: str, codes: npt.NDArray[np.integer], labels: Sequence[str]) -> Column:
    """Category codes (N,) with the texts of all codes (S,)."""
    words = tuple(f"{name} is {label}" for label in labels)
    return Column(name, np.asarray(codes, np.int32), words)


def _cuts(known: npt.NDArray[np.floating], bins: int) -> npt.NDArray[np.floating]:
    """Inner edges (S - 2,): around values that fill a bin alone, and at even shares of the rest."""
    values, counts = np.unique(known, return_counts=True)
    heavy = counts >= len(known) / bins
    after = np.flatnonzero(heavy[:-1]) + 1
    rest = np.repeat(values[~heavy], counts[~heavy])
    left = max(2, bins - int(heavy.sum()))
    shares = np.linspace(0, 1, left + 1)[1:-1]
    even = np.quantile(rest, shares, method="lower") if len(rest) else rest
    edges = np.unique(np.concatenate([values[heavy], values[after], even]))
    return edges[edges > values[0]] if len(edges) else edges
