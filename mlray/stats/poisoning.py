"""Findings about rows that somebody may have planted: what they are, and near-copy flooding.

A finding says where, how many rows, how strongly and by what reason; nothing here changes a row.
Its siblings: `regions` (targeted flips), `triggers` (values that carry a label), `origins`
(suppliers and batches compared). Legend: N rows, F numeric features, C categorical features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mlray.stats.significance import binomial_upper

Rows = npt.NDArray[np.int64]

EXAMPLES = 5
GRIDS = 8
"""Randomly shifted grids on which near copies may fall into one cell."""
CELL = 0.5
"""Width of a grid's cells in standard deviations of a feature."""
NEAR = 0.1
"""Near copies differ from their middle by at most this, in standard deviations, in nine of ten
features in which they are not like most rows."""
FLOOD_FRAC = 0.005
"""So large a share of all rows that are near copies of one is a flood."""
LEAST_FLOOD = 20
RARE = 0.2
"""A feature tells copies from other rows if fewer of the others have its value."""
TELLING = 4
"""A flood of copies that so many features tell from other rows is no accident; honest rows with
few values of their own (mails of three words) are alike too, in fewer."""
PURE = 0.9
"""Copies of which so many carry one label push the model there."""


@dataclass(frozen=True)
class Finding:
    """Something about a group of rows that honest rows seldom show."""

    kind: str
    """labels, region, trigger, flooding, origin, batch or influx."""
    where: str
    """The group, in words: `capital_gain at least 5178 and label <=50K`."""
    rows: int
    """Rows of the group that are suspected."""
    score: float
    """0 to 1: how far from what honest rows show."""
    p_value: float
    """Chance of such a group among rows without it; 0 where it is too small to write."""
    reason: str
    """The whole finding in one sentence."""
    grave: bool = False
    """Above the limits: `stop` ends the run, `quarantine` sets the rows aside."""
    members: Rows = field(default_factory=lambda: np.empty(0, np.int64), compare=False, repr=False)
    """Numbers of the suspected rows, among the rows that were looked at."""

    def to_dict(self, places: Rows | None = None) -> dict[str, Any]:
        """As plain data, with examples; `places` (N,) says the number of each row elsewhere."""
        shown = self.members[:EXAMPLES] if places is None else places[self.members[:EXAMPLES]]
        names = ("kind", "where", "rows", "score", "p_value", "reason", "grave")
        return {**{n: getattr(self, n) for n in names}, "examples": [int(i) for i in shown]}


def chance(p: float) -> str:
    """
    >>> chance(0.03), chance(1e-30)
    ('p = 0.03', 'p < 0.0001')
    """
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


# --- flooding -----------------------------------------------------------------------------------


def flooding(
    numeric: npt.NDArray[np.float32],
    category: npt.NDArray[np.int32],
    labels: npt.NDArray[np.integer],
    names: Sequence[str],
    *,
    seed: int = 0,
) -> list[Finding]:
    """Groups of near copies that are larger than honest rows make them, most rows first.

    Each row is hashed by its cell on `GRIDS` randomly shifted grids (locality-sensitive hashing:
    Datar, Immorlica, Indyk, Mirrokni, "Locality-sensitive hashing scheme based on p-stable
    distributions", 2004, with one cell per feature). The fullest cells become groups; a group is
    then all rows that are `NEAR` its middle. It is a flood if it has `FLOOD_FRAC` of the rows or
    more, `PURE` in one label, and its cell should hold far fewer if features were independent.

    Args:
        numeric: (N, F) standardised, NaN for missing.
        category: (N, C) codes.
        labels: (N,) class numbers.
        names: of the classes.
    """
    found: list[Finding] = []
    least = max(LEAST_FLOOD, int(FLOOD_FRAC * len(labels)))
    if len(labels) < 2 * least:
        return found
    taken = np.zeros(len(labels), bool)
    random = np.random.default_rng(seed)
    tokens = np.nan_to_num(np.clip(numeric, -1e6, 1e6), nan=1e7)
    for _ in range(GRIDS):
        cells = np.floor(tokens / CELL + random.random(numeric.shape[1])).astype(np.int64)
        hashes = _hashed(np.column_stack([cells, category.astype(np.int64)]), random)
        values, counts = np.unique(hashes, return_counts=True)
        for value in values[np.argsort(-counts)][: int((counts >= least // 2).sum())].tolist():
            unlike = _unlike(tokens, category, np.flatnonzero(hashes == value))
            finding = _flood(unlike, taken, labels, names, least)
            if finding is not None:
                taken[finding.members] = True
                found.append(finding)
    return sorted(found, key=lambda finding: -finding.rows)


def _hashed(codes: Rows, random: np.random.Generator) -> npt.NDArray[np.uint64]:
    """A hash of each row of codes (N, F): the same codes, the same hash."""
    total = np.zeros(len(codes), np.uint64)
    for i in range(codes.shape[1]):
        weight = int(random.integers(0, 2**62)) * 2 + 1
        mixed = np.asarray(codes[:, i].copy().view(np.uint64) * np.uint64(weight))
        total += mixed ^ (mixed >> np.uint64(29))
    return total


def _unlike(
    tokens: npt.NDArray[np.floating], category: npt.NDArray[np.int32], core: Rows
) -> npt.NDArray[np.bool_]:
    """In which features each row differs from the middle of the core group, (N, F + C)."""
    middle = np.median(tokens[core], axis=0)
    usual = np.array([np.bincount(c).argmax() for c in category[core].T], np.int32)
    return np.column_stack([np.abs(tokens - middle) > NEAR, category != usual])


def _flood(
    unlike: npt.NDArray[np.bool_],
    taken: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.integer],
    names: Sequence[str],
    least: int,
) -> Finding | None:
    """The near copies as a finding, if they are a flood."""
    # in a feature where most rows are alike, to be alike says nothing
    allowed = int((unlike.mean(axis=0) > 0.5).sum()) // 10
    near = unlike.sum(axis=1) <= allowed
    members = np.flatnonzero(near & ~taken)
    if len(members) < least or near.all():
        return None
    given = np.bincount(labels[members].astype(np.int64), minlength=len(names))
    label, purity = int(given.argmax()), float(given.max() / len(members))
    alike = 1 - unlike[~near].mean(axis=0)  # among all other rows
    expected = float(np.prod(np.maximum(alike, 1 / len(labels))))
    p = binomial_upper(len(members), len(labels), expected)
    if purity < PURE or p > 1e-9:
        return None
    telling = int((alike < RARE).sum())
    return Finding(
        "flooding",
        f"near copies labelled {names[label]}",
        len(members),
        purity * min(1.0, telling / (2 * TELLING)),
        p,
        f"{len(members):,} near copies of one row, {purity:.0%} labelled {names[label]}, alike in "
        f"{telling} features in which few others are ({chance(p)})",
        grave=telling >= TELLING,
        members=members,
    )
