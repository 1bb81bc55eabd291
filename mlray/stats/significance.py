"""Is a difference between two sets of counts more than chance? Tests that hold for few rows too."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64] | Sequence[int]
Floats = npt.NDArray[np.float64]

_ENOUGH_ROWS = 5.0
"""Cochran's rule: chi-square holds where every slot expects this many rows."""


def homogeneity(reference: Counts, window: Counts) -> float:
    """p-value of "both counts (S,) come from the same shares"; 1 without rows.

    Pearson's two-sample chi-square. Slots that expect under 5 rows are first taken together with
    the next such ones until they do. If all such slots together still expect fewer, they leave the
    chi-square and get an exact hypergeometric test (does the window have too many of them? so a
    burst of unseen values does not drown), and p is twice the smaller of the two. Which slots go
    together depends on the sum of both counts only, so it does not favour either side.

    Source: Pearson (1911); Cochran (1954) on small expectations; Fisher (1935) for the exact part.

    >>> homogeneity([500, 500], [50, 50])
    1.0
    >>> homogeneity([500, 500], [70, 30]) < 0.001
    True
    >>> homogeneity([1000, 0], [17, 3]) < 0.001
    True
    """
    r, w = np.asarray(reference, np.float64), np.asarray(window, np.float64)
    n, m = float(w.sum()), float(r.sum())
    if not n or not m:
        return 1.0
    expected = (r + w) * min(n, m) / (n + m)
    small = expected < _ENOUGH_ROWS
    if 0 < expected[small].sum() < _ENOUGH_ROWS:
        exact = fisher_upper(int(w[small].sum()), int(n), int(r[small].sum()), int(m))
        return min(1.0, 2 * min(_pearson(r[~small], w[~small]), exact))
    groups = _groups(expected[small])
    return _pearson(
        np.append(r[~small], np.bincount(groups, r[small])),
        np.append(w[~small], np.bincount(groups, w[small])),
    )


def _groups(expected: Floats) -> npt.NDArray[np.int64]:
    """The group of each slot (S,): neighbours together until they expect enough rows."""
    groups = np.zeros(len(expected), np.int64)
    group, held, left = 0, 0.0, float(expected.sum())
    for slot, rows in enumerate(expected.tolist()):
        if held >= _ENOUGH_ROWS and left >= _ENOUGH_ROWS:
            group, held = group + 1, 0.0
        groups[slot] = group
        held, left = held + rows, left - rows
    return groups


def _pearson(r: Floats, w: Floats) -> float:
    r, w = r[r + w > 0], w[r + w > 0]
    if len(r) < 2 or not r.sum() or not w.sum():
        return 1.0
    differences = r * math.sqrt(w.sum() / r.sum()) - w * math.sqrt(r.sum() / w.sum())
    return chi_square_p(float(np.sum(differences**2 / (r + w))), len(r) - 1)


def fisher_upper(hits: int, rows: int, other_hits: int, other_rows: int) -> float:
    """P(at least `hits` of `rows`), given hits + other_hits among rows + other_rows in all.

    Source: Fisher (1935); the upper tail of the hypergeometric distribution.

    >>> round(fisher_upper(3, 4, 1, 4), 6)  # the lady tasting tea
    0.242857
    """
    total, everyone = hits + other_hits, rows + other_rows
    last = min(total, rows)
    ways = _log_choose(everyone, total)
    k = hits
    term = math.exp(_log_choose(rows, k) + _log_choose(other_rows, total - k) - ways)
    tail = 0.0
    while k <= last and (k == hits or term > tail * 1e-16):
        tail += term
        term *= (rows - k) * (total - k) / ((k + 1) * (other_rows - total + k + 1))
        k += 1
    return min(tail, 1.0)


def binomial_upper(hits: int, rows: int, share: float) -> float:
    """P(at least `hits` of `rows`) where each hits with chance `share`: the exact upper tail.

    Source: Clopper and Pearson (1934), who invert it.

    >>> round(binomial_upper(9, 10, 0.5), 6), binomial_upper(0, 10, 0.5)
    (0.010742, 1.0)
    """
    if hits <= 0 or share >= 1:
        return 1.0
    if share <= 0:
        return 0.0
    log_term = _log_choose(rows, hits) + hits * math.log(share) + (rows - hits) * math.log1p(-share)
    term, tail, k = 1.0, 0.0, hits  # relative to the first term, which may be below 1e-308
    while k <= rows and (k == hits or term > tail * 1e-16 or k < rows * share):
        tail += term
        term *= (rows - k) / (k + 1) * share / (1 - share)
        k += 1
    return min(1.0, math.exp(min(0.0, log_term + math.log(tail))))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def chi_square_p(statistic: float, degrees: int) -> float:
    """P(chi-square with `degrees` of freedom >= `statistic`) = Q(degrees / 2, statistic / 2).

    Q is the regularised upper incomplete gamma function: its series below a + 1, Lentz's continued
    fraction above. Source: Press et al., "Numerical Recipes", 3rd edition, section 6.2.

    >>> round(chi_square_p(3.841459, 1), 6), round(chi_square_p(18.307038, 10), 6)
    (0.05, 0.05)
    """
    a, x = degrees / 2, statistic / 2
    if x <= 0:
        return 1.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        return max(0.0, 1.0 - front * _gamma_series(a, x))
    return front * _gamma_fraction(a, x)


def _gamma_series(a: float, x: float) -> float:
    term = total = 1 / a
    while term > total * 1e-16:
        a += 1
        term *= x / a
        total += term
    return total


def _gamma_fraction(a: float, x: float) -> float:
    tiny = 1e-300
    b = x + 1 - a
    c, d = 1 / tiny, 1 / b
    value = d
    for i in range(1, 10_000):
        step = -i * (i - a)
        b += 2
        d = 1 / (step * d + b or tiny)
        c = b + step / c or tiny
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def benjamini_hochberg(p_values: Sequence[float] | Floats, q: float) -> npt.NDArray[np.bool_]:
    """Which of the hypotheses (F,) to reject so that at most a share `q` of rejections is false.

    Reject the k smallest p-values, k the largest i with p_(i) <= q i / F.
    Source: Benjamini and Hochberg (1995), "Controlling the false discovery rate".

    >>> benjamini_hochberg([0.001, 0.2, 0.012, 0.03], 0.05).tolist()
    [True, False, True, True]
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    passed = np.flatnonzero(p[order] <= q * np.arange(1, len(p) + 1) / max(len(p), 1))
    rejected = np.zeros(len(p), bool)
    rejected[order[: passed[-1] + 1 if len(passed) else 0]] = True
    return rejected
