"""A cheap second opinion: what each feature adds to the chance of each class, by least squares.

No network, no folds, one pass: enough to say what a row's label would be without one of its
features. Legend: N rows, S slots over all features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mlray.stats.cells import Column

Floats = npt.NDArray[np.float64]
RIDGE = 1.0
"""Rows of no opinion that each slot gets, so that a slot of two rows says little."""


@dataclass(frozen=True)
class Additive:
    """p_k(row) = base_k + sum over features of weight_k(slot), a linear probability model."""

    base: Floats
    """(K,) share of each class."""
    weights: tuple[Floats, ...]
    """Per feature (slots, K); over the rows each is 0 on average."""

    def scores(self, columns: Sequence[Column]) -> Floats:
        """Of each row (N, K); about probabilities, not cut to 0 .. 1."""
        total = np.tile(self.base, (len(columns[0].codes), 1)) if columns else self.base[None]
        for column, weight in zip(columns, self.weights, strict=True):
            total += weight[column.codes]
        return np.asarray(total)


def fit(columns: Sequence[Column], labels: npt.NDArray[np.integer], classes: int) -> Additive:
    """Ridge regression of class indicators on slot indicators: (X'X + r I) W = X'(Y - base).

    Source: Hoerl and Kennard (1970), "Ridge regression"; on class indicators it is the linear
    probability model, whose mean over any slot is the share of the class there.

    >>> from mlray.stats.cells import category_column
    >>> column = category_column("a", np.array([0, 0, 1, 1]), ["x", "y"])
    >>> fit([column], np.array([0, 0, 0, 1]), 2).base.tolist()
    [0.75, 0.25]
    """
    base = np.bincount(labels, minlength=classes) / max(len(labels), 1)
    starts = np.cumsum([0, *(c.slots for c in columns)])
    gram = np.zeros((starts[-1], starts[-1]))
    right = np.zeros((starts[-1], classes))
    for i, a in enumerate(columns):
        held = slice(starts[i], starts[i + 1])
        right[held] = pairs(a, labels, classes) - np.outer(np.bincount(a.codes, minlength=a.slots),
                                                           base)  # fmt: skip
        for j, b in enumerate(columns[: i + 1]):
            block = pairs(a, b.codes, b.slots)
            gram[held, starts[j] : starts[j + 1]] = block
            gram[starts[j] : starts[j + 1], held] = block.T
    gram[np.diag_indices_from(gram)] += RIDGE
    solved = np.linalg.solve(gram, right) if len(gram) else right
    return _centred(base, columns, [solved[a:b] for a, b in pairwise(starts.tolist())])


def pairs(column: Column, other: npt.NDArray[np.integer], size: int) -> Floats:
    """Rows by slot of `column` (down) and code of `other` (across), (slots, size)."""
    cells = column.codes.astype(np.int64) * size + other
    found = np.bincount(cells, minlength=column.slots * size).astype(np.float64)
    return found.reshape(column.slots, size)


def _centred(base: Floats, columns: Sequence[Column], weights: list[Floats]) -> Additive:
    for column, weight in zip(columns, weights, strict=True):
        counts = np.bincount(column.codes, minlength=column.slots)
        middle = counts @ weight / max(counts.sum(), 1)
        weight -= middle
        base = base + middle
    return Additive(base, tuple(weights))
