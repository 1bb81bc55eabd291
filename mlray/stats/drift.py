"""Counts against counts: how far a window of rows is from the reference, and whether to say so.

Slots are those of `bins.FeatureBins`. Every score is a function of two arrays of counts (S,), so
windows add up over any time and any number of replicas, and PromQL can compute the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlray.stats.bins import FeatureBins, Reference, shares
from mlray.stats.significance import Counts, Floats, benjamini_hochberg, homogeneity

PRIOR_ROWS = 10.0
"""Imagined rows of no drift that join every window, so an empty slot in 50 rows is no infinity."""
_SHOWN = 2


@dataclass(frozen=True)
class Drift:
    """One feature of one window against the reference."""

    feature: str
    rows: int
    psi: float
    """Population stability index over all slots, missing and unseen among them."""
    ks: float | None
    """Kolmogorov-Smirnov distance over the bins of a numeric feature; None for categories."""
    js: float
    """Jensen-Shannon divergence in bits, 0 to 1."""
    missing_frac: float
    reference_missing_frac: float
    unseen_frac: float
    p_value: float
    """Chance of counts this different if nothing has changed, for this many rows."""
    alarm: bool
    reason: str
    expected_psi: float = 0.0
    """What `psi` would show in a window of this size without any drift."""


def window_shares(reference: Counts, window: Counts) -> Floats:
    """Share of the window's rows per slot (S,), with `PRIOR_ROWS` rows spread like the reference.

    w = (count + 10 r) / (rows + 10), r = shares(reference).

    >>> window_shares([49, 49], [0, 90]).tolist()
    [0.05, 0.95]
    """
    c = np.asarray(window, np.float64)
    return np.asarray((c + PRIOR_ROWS * shares(reference)) / (c.sum() + PRIOR_ROWS))


def psi(reference: Counts, window: Counts) -> float:
    """Population stability index: sum of (w - r) ln(w / r) over slots; 0 is no drift.

    r = `shares(reference)`, w = `window_shares(reference, window)`. Rules of thumb: under 0.1
    little, over 0.2 much. Source: Siddiqi (2006), "Credit Risk Scorecards"; it is Jeffreys'
    divergence (1946).

    >>> round(psi([5000, 5000], [800_000, 200_000]), 4)  # (0.8 - 0.5) ln(0.8 / 0.2)
    0.4159
    """
    r, w = shares(reference), window_shares(reference, window)
    return float(np.sum((w - r) * np.log(w / r)))


def expected_psi(reference: Counts, window: Counts) -> float:
    """The PSI that chance alone gives: about (S - 1)(n / (n + 10)^2 + 1 / m).

    n rows in the window, m in the reference, S the slots that hold rows: both shares have
    multinomial noise, and n PSI is nearly chi-square with S - 1 degrees of freedom.
    Source: Yurdakul and Naranjo (2020), "Statistical properties of the population stability index".

    >>> expected_psi([9000, 500, 500], [1, 0, 0]) < expected_psi([9000, 500, 500], [15, 3, 2])
    True
    """
    r, w = np.asarray(reference, np.float64), np.asarray(window, np.float64)
    n, m = float(w.sum()), float(r.sum())
    free = max(int(np.count_nonzero(r + w)) - 1, 0)
    return float(free * (n / (n + PRIOR_ROWS) ** 2 + 1 / max(m, 1.0)))


def ks(reference: Counts, window: Counts) -> float:
    """Kolmogorov-Smirnov distance over ordered bins (B,): the largest gap of cumulated shares.

    sup |F(x) - G(x)|, seen at the edges only. Source: Smirnov (1939).

    >>> ks([50, 50], [80, 20])
    0.3
    """
    r, w = np.asarray(reference, np.float64), np.asarray(window, np.float64)
    if not r.sum() or not w.sum():
        return 0.0
    gaps = np.cumsum(r) / r.sum() - np.cumsum(w) / w.sum()
    return float(np.round(np.abs(gaps).max(), 12))


def jensen_shannon(p: Counts, q: Counts) -> float:
    """Jensen-Shannon divergence of counts (S,), in bits: 0 alike, 1 nothing in common.

    (KL(P || M) + KL(Q || M)) / 2, M = (P + Q) / 2. Source: Lin (1991), "Divergence measures based
    on the Shannon entropy".

    >>> jensen_shannon([1, 0], [0, 1]), jensen_shannon([3, 3], [1, 1])
    (1.0, 0.0)
    """
    a, b = np.asarray(p, np.float64), np.asarray(q, np.float64)
    if not a.sum() or not b.sum():
        return 0.0
    a, b = a / a.sum(), b / b.sum()
    middle = (a + b) / 2
    return max(0.0, (_relative_entropy(a, middle) + _relative_entropy(b, middle)) / 2)


def _relative_entropy(p: Floats, q: Floats) -> float:
    held = p > 0
    return float(np.sum(p[held] * np.log2(p[held] / q[held])))


def compare(
    reference: Reference,
    counts: Sequence[npt.NDArray[np.int64]],
    *,
    psi: float = 0.2,
    false_alarms: float = 0.01,
) -> list[Drift]:
    """Every feature of a window against the reference, largest PSI first.

    `counts`: one array (S,) per feature of the reference, in its order. An alarm needs both
    an effect, PSI - expected_psi >= `psi`, and significance at the window's size: the p-values of
    `homogeneity` pass Benjamini-Hochberg at `false_alarms`, the share of alarms that may be false.

    >>> from mlray.stats.bins import category_bins
    >>> bins = category_bins("carrier", ["UA", "B6"], [600, 400], 10)
    >>> reference = Reference((bins,), (np.array([0, 0, 600, 400]),), 1000)
    >>> [found] = compare(reference, [np.array([0, 0, 150, 350])])
    >>> found.alarm
    True
    >>> print(found.reason)
    carrier drifted: 'B6' rose from 40 % to 70 %, 'UA' fell from 60 % to 30 % (PSI 0.36, \
limit 0.2; 500 rows, p < 0.0001)
    """
    held = [np.asarray(window, np.int64) for window in counts]
    sides = list(zip(reference.features, reference.counts, held, strict=True))
    p_values = [homogeneity(before, now) for _, before, now in sides]
    significant = benjamini_hochberg(p_values, false_alarms)
    found = [
        _drift(*side, p, bool(sure), psi)
        for side, p, sure in zip(sides, p_values, significant, strict=True)
    ]
    return sorted(found, key=lambda drift: -drift.psi)


def _drift(
    bins: FeatureBins,
    before: npt.NDArray[np.int64],
    now: npt.NDArray[np.int64],
    p: float,
    significant: bool,
    limit: float,
) -> Drift:
    score, noise, rows = psi(before, now), expected_psi(before, now), int(now.sum())
    large = score - noise >= limit
    unseen = bins.unseen_slot
    edge = bins.missing_slot
    return Drift(
        feature=bins.name,
        rows=rows,
        psi=score,
        ks=None if bins.kind == "category" else ks(before[:edge], now[:edge]),
        js=jensen_shannon(before, now),
        missing_frac=_share(now, bins.missing_slot),
        reference_missing_frac=_share(before, bins.missing_slot),
        unseen_frac=0.0 if unseen is None else _share(now, unseen),
        p_value=p,
        alarm=large and significant,
        reason=_reason(bins, before, now, (score, limit, p), large, significant),
        expected_psi=noise,
    )


def _share(counts: npt.NDArray[np.int64], slot: int) -> float:
    return float(counts[slot] / max(int(counts.sum()), 1))


def _reason(
    bins: FeatureBins,
    before: npt.NDArray[np.int64],
    now: npt.NDArray[np.int64],
    figures: tuple[float, float, float],
    large: bool,
    significant: bool,
) -> str:
    """What changed and how sure that is, in the words of the data."""
    score, limit, p = figures
    rows = int(now.sum())
    if not rows:
        return f"{bins.name}: no rows in this window"
    chance = "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"
    numbers = f"(PSI {score:.2g}, limit {limit:.2g}; {rows:,} rows, {chance})"
    moves = ", ".join(_direction(bins, before, now) + _moves(bins, before, now))
    if large and significant:
        return f"{bins.name} drifted: {moves} {numbers}"
    if large:
        return f"{bins.name}: too few rows to tell; wait for more before acting {numbers}"
    if significant:
        return f"{bins.name}: a real but small change: {moves} {numbers}"
    return f"{bins.name}: no drift {numbers}"


def _moves(
    bins: FeatureBins, before: npt.NDArray[np.int64], now: npt.NDArray[np.int64]
) -> list[str]:
    """The slots that grew most and shrank most, by their part of the PSI."""
    r, w = before / max(before.sum(), 1), now / now.sum()
    smooth, shown = shares(before), window_shares(before, now)
    parts = (shown - smooth) * np.log(shown / smooth)
    ranked = [slot for slot in np.argsort(-parts, kind="stable") if parts[slot] > 0]
    grew = [slot for slot in ranked if w[slot] > r[slot]][:_SHOWN]
    shrank = [slot for slot in ranked if w[slot] < r[slot]][:_SHOWN]
    return [
        f"{_named(bins, slot)} {'rose' if w[slot] > r[slot] else 'fell'} "
        f"from {_percent(r[slot])} to {_percent(w[slot])}"
        for slot in grew + shrank
    ]


def _named(bins: FeatureBins, slot: int) -> str:
    """A label in quotes; the slots that are no value of the column in plain words."""
    if slot == bins.missing_slot:
        return "missing"
    if slot == bins.unseen_slot:
        return "values never seen in training"
    if bins.kind != "category" and slot == bins.missing_slot + 1:
        return "infinite"
    return f"'{bins.labels[slot]}'"


def _direction(
    bins: FeatureBins, before: npt.NDArray[np.int64], now: npt.NDArray[np.int64]
) -> list[str]:
    """Where the median of a numeric feature went, if it left its bin."""
    r, w = before[: bins.missing_slot], now[: bins.missing_slot]
    if bins.kind == "category" or not r.sum() or not w.sum():
        return []
    old, new = (int(np.searchsorted(np.cumsum(c), (c.sum() + 1) // 2)) for c in (r, w))
    if old == new:
        return []
    word = "up" if new > old else "down"
    return [f"values moved {word}, median from '{bins.labels[old]}' to '{bins.labels[new]}'"]


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.3g} %"
