"""95 % confidence intervals of scores, and the per-row parts that both are made of.

A metric that is smooth in the data moves by about its influence function IF(row) / N when a row
joins, so its variance is mean(IF^2) / N: the infinitesimal jackknife (Jaeckel 1972; Hampel 1974).
For the AUC that is DeLong's interval, for a mean loss the textbook one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mlray.stats.curves import ranked

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

Z = 1.959963984540054
"""The 97.5 % point of the normal distribution."""
_DRAWS = 1000


def wilson(hits: float, rows: float) -> tuple[float, float]:
    """Interval of a share: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).

    Source: Wilson (1927), "Probable inference".

    >>> [round(end, 4) for end in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if not rows:
        return float("nan"), float("nan")
    p, n = hits / rows, rows
    half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    middle, whole = p + Z**2 / (2 * n), 1 + Z**2 / n
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)


def placements(y_true: Array, y_score: Array) -> tuple[Floats, Floats]:
    """Per 1 the share of 0s that it beats, per 0 the share of 1s that beat it; ties count half.

    Both in ascending order of score; empty where a class is missing. Their means are the AUC.

    >>> wins, losses = placements(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    >>> wins.tolist(), losses.tolist()
    ([0.5, 1.0], [1.0, 0.5])
    """
    positive = np.asarray(y_true) == 1
    ones, zeros = np.sort(y_score[positive]), np.sort(y_score[~positive])
    if not len(ones) or not len(zeros):
        return np.empty(0), np.empty(0)
    return _beaten(zeros, ones), 1 - _beaten(ones, zeros)


def _beaten(field: Array, by: Array) -> Floats:
    """For each of `by` the share of the sorted `field` below it, ties half."""
    below = np.searchsorted(field, by, side="left")
    return np.asarray((below + np.searchsorted(field, by, side="right")) / (2 * len(field)))


def delong(y_true: Array, y_score: Array) -> tuple[float, float]:
    """Interval of the AUC: AUC -+ z sqrt(var(wins) / positives + var(losses) / negatives).

    DeLong, DeLong, Clarke-Pearson (1988), by sorting in O(N log N) as Sun and Xu (2014), "Fast
    implementation of DeLong's algorithm". A perfect ranking has no variance: then Wilson's
    interval of as many rows as the rarer class has.

    >>> y, p = np.array([0, 0, 0, 1, 1, 1]), np.array([0.1, 0.3, 0.6, 0.4, 0.7, 0.9])
    >>> [round(end, 3) for end in delong(y, p)]
    [0.581, 1.0]
    """
    wins, losses = placements(y_true, y_score)
    fewer = min(len(wins), len(losses))
    auc = float(np.mean(wins)) if fewer else float("nan")
    if fewer < 2 or auc in (0.0, 1.0):
        return wilson(auc * fewer, fewer)
    variance = wins.var(ddof=1) / len(wins) + losses.var(ddof=1) / len(losses)
    return _around(auc, math.sqrt(variance), 0.0, 1.0)


def by_influence(
    name: str, task: str, y_true: Array, y_score: Array, value: float
) -> tuple[float, float]:
    """Interval of a ranking, loss or regression metric whose value is `value`."""
    if name == "roc_auc" and task == "binary":
        return delong(y_true, y_score)
    if name in LOSSES:
        parts = LOSSES[name](y_true, y_score)
        return _around(value, float(parts.std()) / math.sqrt(len(parts)), 0.0, math.inf)
    if name in _INFLUENCE:
        influence = _INFLUENCE[name](y_true, y_score)
        low, high = (-math.inf, 1.0) if name == "r2" else (0.0, math.inf)
    else:
        influence, (low, high) = _macro_influence(name, task, y_true, y_score), (0.0, 1.0)
    error = math.sqrt(float(np.mean(np.square(influence))) / len(influence))
    return _around(value, error, low, high)


def _around(value: float, error: float, low: float, high: float) -> tuple[float, float]:
    return max(low, value - Z * error), min(high, value + Z * error)


# Losses: one number per row, the metric is their mean.


def log_losses(y_true: Array, y_score: Array) -> Floats:
    """-ln(probability given to what happened), (N,); probabilities are kept 1 epsilon off 0 and 1.

    Epsilon is that of the scores' type: 2.2e-16 for float64, 1.2e-7 for float32.

    >>> log_losses(np.array([1, 0]), np.array([0.5, 0.5])).round(3).tolist()
    [0.693, 0.693]
    """
    floats = y_score.dtype if y_score.dtype.kind == "f" else np.dtype(np.float64)
    epsilon = float(np.finfo(floats).eps)
    given = np.asarray(y_score, np.float64)
    if given.ndim == 1:
        given = np.where(np.asarray(y_true) == 1, given, 1 - given)
    else:
        given = np.take_along_axis(given, np.asarray(y_true, np.int64)[:, None], 1)[:, 0]
    return np.asarray(-np.log(np.clip(given, epsilon, 1 - epsilon)))


def brier_losses(y_true: Array, y_score: Array) -> Floats:
    """Squared error of the probabilities, (N,), summed over classes if there are K of them.

    Source: Brier (1950), "Verification of forecasts expressed in terms of probability".

    >>> brier_losses(np.array([1, 0]), np.array([0.5, 0.1])).round(3).tolist()
    [0.25, 0.01]
    """
    given = np.asarray(y_score, np.float64)
    if given.ndim == 1:
        return np.asarray(np.square(given - np.asarray(y_true, np.float64)))
    happened = given[np.arange(len(given)), np.asarray(y_true, np.int64)]
    return np.asarray(np.square(given).sum(axis=1) - 2 * happened + 1)


def _absolute(y_true: Array, y_score: Array) -> Floats:
    return np.abs(np.asarray(y_score, np.float64) - np.asarray(y_true, np.float64))


LOSSES: dict[str, Callable[[Array, Array], Floats]] = {
    "log_loss": log_losses,
    "brier": brier_losses,
    "mae": _absolute,
}


# Influence functions: how much each row moves the metric.


def _rmse_influence(y_true: Array, y_score: Array) -> Floats:
    """sqrt(A), A = mean of squared errors: (e^2 - A) / (2 sqrt(A))."""
    squares = np.square(_absolute(y_true, y_score))
    mean = float(squares.mean())
    return np.asarray((squares - mean) / (2 * math.sqrt(mean) if mean else 1.0))


def _r2_influence(y_true: Array, y_score: Array) -> Floats:
    """1 - A / B, B = variance of y: (A ((y - mean)^2 - B) / B - (e^2 - A)) / B."""
    squares = np.square(_absolute(y_true, y_score))
    spread = np.square(np.asarray(y_true, np.float64) - np.mean(y_true))
    a, b = float(squares.mean()), float(spread.mean())
    return np.asarray((a * (spread - b) / b - (squares - a)) / b)


def auc_influence(y_true: Array, y_score: Array) -> Floats:
    """For a 1: (wins - AUC) / share of 1s; for a 0: (losses - AUC) / share of 0s; (N,).

    >>> auc_influence(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])).tolist()
    [0.5, -0.5, -0.5, 0.5]
    """
    positive, score = np.asarray(y_true) == 1, np.asarray(y_score)
    ones, zeros = np.sort(score[positive]), np.sort(score[~positive])
    found = np.empty(len(score))
    found[positive] = _beaten(zeros, score[positive])
    found[~positive] = 1 - _beaten(ones, score[~positive])
    auc, share = found[positive].mean(), positive.mean()
    return np.asarray((found - auc) / np.where(positive, share, 1 - share))


def average_precision_influence(y_true: Array, y_score: Array) -> Floats:
    """How much each row (N,) moves the average precision AP = G / share of 1s.

    S(s) and T(s): shares of all rows, and of rows that are 1, that score s or higher. For a row of
    score s: IF_G = y T(s)/S(s) + sum over the 1s at u <= s of (y/S(u) - T(u)/S(u)^2) / N - 2 G,
    written with y (T/S) for the row itself; IF = (IF_G - AP (y - share of 1s)) / share of 1s.

    >>> y, p = np.array([0, 1, 1, 0]), np.array([0.1, 0.4, 0.35, 0.8])
    >>> bool(abs(average_precision_influence(y, p).sum()) < 1e-12)
    True
    """
    y, n = np.asarray(y_true, np.float64), len(y_true)
    thresholds, positives, rows = ranked(y_true, y_score)
    steps = np.diff(positives, prepend=0.0) / n
    precision, share, total = positives / rows, rows / n, positives[-1] / n
    gains = np.cumsum((steps / share)[::-1])[::-1]
    costs = np.cumsum((steps * precision / share)[::-1])[::-1]
    at = np.searchsorted(-thresholds, -np.asarray(y_score, np.float64))
    moved = y * (precision[at] + gains[at]) - costs[at]
    moved -= moved.mean()
    value = float(steps @ precision) / total
    return np.asarray((moved - value * (y - total)) / total)


_INFLUENCE: dict[str, Callable[[Array, Array], Floats]] = {
    "rmse": _rmse_influence,
    "r2": _r2_influence,
}


def present(y_true: Array) -> list[int]:
    """Classes that some row has and some row has not."""
    counts = np.bincount(np.asarray(y_true, np.int64))
    return np.flatnonzero((counts > 0) & (counts < len(y_true))).tolist()


def _macro_influence(name: str, task: str, y_true: Array, y_score: Array) -> Floats:
    of = auc_influence if name == "roc_auc" else average_precision_influence
    if task == "binary":
        return of(y_true, y_score)
    each = [of(y_true == k, y_score[:, k]) for k in present(y_true)]
    return np.asarray(np.mean(each, axis=0))


# Decisions: metrics of a confusion table, computed for many tables (R, K, K) at once.


def _per_class(tables: Array) -> tuple[Floats, Floats, Floats]:
    """Hits, rows called and rows that are each class, (R, K)."""
    hits = np.diagonal(tables, axis1=1, axis2=2).astype(np.float64)
    return hits, tables.sum(axis=1).astype(np.float64), tables.sum(axis=2).astype(np.float64)


def _share(a: Floats, b: Floats) -> Floats:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _averaged(each: Floats, called: Floats, real: Floats, task: str) -> Floats:
    """Class 1 of two, or the mean over classes that occur or are called."""
    if task == "binary":
        return each[:, 1]
    occurs = called + real > 0
    return np.asarray((each * occurs).sum(axis=1) / np.maximum(occurs.sum(axis=1), 1))


def _accuracy(tables: Array, task: str) -> Floats:
    hits, _, real = _per_class(tables)
    return _share(hits.sum(axis=1), real.sum(axis=1))


def _precision(tables: Array, task: str) -> Floats:
    hits, called, real = _per_class(tables)
    return _averaged(_share(hits, called), called, real, task)


def _recall(tables: Array, task: str) -> Floats:
    hits, called, real = _per_class(tables)
    return _averaged(_share(hits, real), called, real, task)


def _f1(tables: Array, task: str) -> Floats:
    hits, called, real = _per_class(tables)
    return _averaged(_share(2 * hits, called + real), called, real, task)


def _balanced_accuracy(tables: Array, task: str) -> Floats:
    hits, _, real = _per_class(tables)
    return np.asarray(_share(hits, real).sum(axis=1) / np.maximum((real > 0).sum(axis=1), 1))


DECISIONS: dict[str, Callable[[Array, str], Floats]] = {
    "accuracy": _accuracy,
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
    "balanced_accuracy": _balanced_accuracy,
}


def of_decisions(name: str, task: str, table: Array, seed: int) -> tuple[float, float]:
    """Interval of a metric of one confusion table (K, K).

    Resampling rows and drawing the cells of their table are the same multinomial draw, so the
    bootstrap (Efron 1979, percentiles) costs nothing however many the rows.

    >>> low, high = of_decisions("f1", "binary", np.array([[50, 10], [5, 35]]), seed=0)
    >>> low < 2 * 35 / (45 + 40) < high
    True
    """
    hits, called, real = (part[0] for part in _per_class(table[None]))
    if name == "accuracy":
        return wilson(float(hits.sum()), float(real.sum()))
    if task == "binary" and name in ("precision", "recall"):
        return wilson(float(hits[1]), float((called if name == "precision" else real)[1]))
    rows = int(table.sum())
    draws = np.random.default_rng(seed).multinomial(rows, table.ravel() / rows, size=_DRAWS)
    found = DECISIONS[name](draws.reshape(-1, *table.shape), task)
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
