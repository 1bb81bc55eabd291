"""Curves of a binary score: ROC, precision and recall, calibration; and the threshold they suggest.

Arguments everywhere: y_true (N,) of 0 and 1, y_score (N,) higher for 1. Equal scores are one point.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


class Roc(NamedTuple):
    """One point per distinct threshold, from (0, 0) at infinity to (1, 1)."""

    false_positive_rate: Floats
    true_positive_rate: Floats
    thresholds: Floats


class PrecisionRecall(NamedTuple):
    """One point per distinct threshold, falling; the last has recall 1."""

    precision: Floats
    recall: Floats
    thresholds: Floats


class Calibration(NamedTuple):
    """Per bin that holds rows: mean predicted probability, share of 1, rows."""

    predicted: Floats
    observed: Floats
    counts: npt.NDArray[np.int64]


class Ranked(NamedTuple):
    """Per distinct score, falling: rows at or above it, and those of them that are 1."""

    thresholds: Floats
    positives: Floats
    rows: Floats


def ranked(y_true: Array, y_score: Array) -> Ranked:
    """Cumulated counts over falling scores: what all curves are made of."""
    order = np.argsort(y_score)[::-1]
    score, true = np.asarray(y_score)[order], np.asarray(y_true)[order]
    last = np.flatnonzero(np.append(score[1:] != score[:-1], len(score) > 0))
    positives = np.cumsum(true, dtype=np.float64)[last]
    return Ranked(score[last].astype(np.float64), positives, (last + 1).astype(np.float64))


def roc_curve(y_true: Array, y_score: Array, points: int | None = None) -> Roc:
    """True positive rate FP/negatives against TP/positives over all thresholds.

    `points`: keep about so many, spread evenly along the curve. Source: Fawcett (2006), "An
    introduction to ROC analysis".

    >>> curve = roc_curve(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    >>> curve.true_positive_rate.tolist(), curve.false_positive_rate.tolist()
    ([0.0, 0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.5, 0.5, 1.0])
    """
    thresholds, positives, rows = ranked(y_true, y_score)
    true = np.append(0.0, positives) / (positives[-1:].sum() or np.nan)
    negatives = rows - positives
    false = np.append(0.0, negatives) / (negatives[-1:].sum() or np.nan)
    keep = _thinned(true + false, points)
    return Roc(false[keep], true[keep], np.append(np.inf, thresholds)[keep])


def pr_curve(y_true: Array, y_score: Array, points: int | None = None) -> PrecisionRecall:
    """Precision TP/(TP+FP) and recall TP/positives at every distinct threshold.

    >>> curve = pr_curve(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    >>> curve.recall.tolist(), curve.precision.round(2).tolist()
    ([0.5, 0.5, 1.0, 1.0], [1.0, 0.5, 0.67, 0.5])
    """
    thresholds, positives, rows = ranked(y_true, y_score)
    recall = positives / (positives[-1:].sum() or np.nan)
    keep = _thinned(recall + rows / max(len(y_true), 1), points)
    return PrecisionRecall((positives / rows)[keep], recall[keep], thresholds[keep])


def _thinned(along: Floats, points: int | None) -> npt.NDArray[np.intp]:
    """Indices of at most `points` of a path whose length so far is `along`, both ends included."""
    if points is None or len(along) <= points:
        return np.arange(len(along))
    wanted = np.linspace(along[0], along[-1], points)
    at = np.minimum(np.searchsorted(along, wanted), len(along) - 1)
    return np.unique(np.append(at, [0, len(along) - 1]))[-points:] if points > 1 else at[-1:]


def best_f1_threshold(y_true: Array, y_score: Array) -> float:
    """The threshold with the largest F1 = 2 TP / (rows called 1 + positives); score >= it means 1.

    The highest of equals; 0.5 where no row is 1.

    >>> best_f1_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    0.35
    """
    thresholds, positives, rows = ranked(y_true, y_score)
    if not len(positives) or not positives[-1]:
        return 0.5
    return float(thresholds[np.argmax(2 * positives / (rows + positives[-1]))])


def calibration_curve(y_true: Array, y_score: Array, bins: int = 10) -> Calibration:
    """Predicted probability against what happened, in `bins` of equal width over 0 to 1.

    Source: DeGroot and Fienberg (1983), "The comparison and evaluation of forecasters".

    >>> calibration_curve(np.array([0, 1, 1]), np.array([0.1, 0.9, 0.9]), 2).observed.tolist()
    [0.0, 1.0]
    """
    true, score = np.asarray(y_true, np.float64), np.asarray(y_score, np.float64)
    at = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], score)
    counts = np.bincount(at, minlength=bins)
    held = counts > 0
    predicted = np.bincount(at, score, minlength=bins)[held] / counts[held]
    observed = np.bincount(at, true, minlength=bins)[held] / counts[held]
    return Calibration(predicted, observed, counts[held].astype(np.int64))


def expected_calibration_error(y_true: Array, y_score: Array, bins: int = 10) -> float:
    """Mean gap of prediction and outcome: sum of n_b / N |observed_b - predicted_b|.

    Source: Naeini, Cooper, Hauskrecht (2015), "Obtaining well calibrated probabilities using
    Bayesian binning".

    >>> expected_calibration_error(np.array([0, 1, 1, 1]), np.array([0.25, 0.5, 1, 1]), 2)
    0.0625
    """
    predicted, observed, counts = calibration_curve(y_true, y_score, bins)
    return float(np.abs(predicted - observed) @ counts / max(counts.sum(), 1))
