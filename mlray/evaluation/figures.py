"""What a reader looks at: curves, calibration, histograms. Plain lists, ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlray.evaluation.rows import Rows
from mlray.stats import metrics

POINTS = 200
"""At most so many points per curve."""
BINS = 20
"""Bins of histograms; calibration has half as many."""
_TAIL = 0.005
"""Share of rows at each end that shares the last bin, so that one wild value shows nothing."""

Array = npt.NDArray[Any]
Json = dict[str, Any]


def numbers(values: Any) -> list[float]:
    """Floats with six significant digits: a curve is looked at, not calculated with."""
    return [float(f"{v:.6g}") for v in np.asarray(values, np.float64).ravel()]


def of_task(task: str, rows: Rows, classes: Sequence[Any], threshold: float) -> Json:
    """All figures of a task, by the name of the `Evaluation` field they go to."""
    if task == "regression":
        return _regression(rows)
    if task == "binary":
        return _binary(rows, [str(c) for c in classes], threshold)
    return _multiclass(rows)


def _binary(rows: Rows, classes: Sequence[str], threshold: float) -> Json:
    y, p = rows.y_true, rows.y_score
    roc = metrics.roc_curve(y, p, POINTS)
    pr = metrics.pr_curve(y, p, POINTS)
    edges = np.linspace(0, 1, BINS + 1)
    counts = {name: np.histogram(p[y == k], edges)[0].tolist() for k, name in enumerate(classes)}
    curves = {
        "roc": {"x": numbers(roc.false_positive_rate), "y": numbers(roc.true_positive_rate)},
        "pr": {"x": numbers(pr.recall), "y": numbers(pr.precision)},
    }
    return {
        "curves": curves,
        **_calibration(y, p),
        "confusion": metrics.confusion(y, metrics.decide("binary", p, threshold)).tolist(),
        "histogram": {"edges": numbers(edges), "counts": counts},
        "base_rate": float(np.mean(y)),
    }


def _multiclass(rows: Rows) -> Json:
    """Calibration and histogram are those of the most probable class: was it the right one?"""
    called, top = metrics.decide("multiclass", rows.y_score), rows.y_score.max(axis=1)
    right = (called == rows.y_true).astype(np.int64)
    edges = np.linspace(0, 1, BINS + 1)
    counts = {
        name: np.histogram(top[right == k], edges)[0].tolist()
        for name, k in (("right", 1), ("wrong", 0))
    }
    return {
        **_calibration(right, top),
        "confusion": metrics.confusion(rows.y_true, called, rows.y_score.shape[1]).tolist(),
        "histogram": {"edges": numbers(edges), "counts": counts},
    }


def _calibration(y: Array, p: Array) -> Json:
    bins = metrics.calibration_curve(y, p, BINS // 2)
    return {
        "calibration": {
            "predicted": numbers(bins.predicted),
            "observed": numbers(bins.observed),
            "rows": bins.counts.tolist(),
        },
        "calibration_error": metrics.expected_calibration_error(y, p, BINS // 2),
    }


def _regression(rows: Rows) -> Json:
    y, p = rows.y_true, rows.y_score.astype(np.float64)
    true_edges, predicted_edges = _edges(y), _edges(p)
    cells, _, _ = np.histogram2d(
        _inside(y, true_edges), _inside(p, predicted_edges), (true_edges, predicted_edges)
    )
    return {
        "histogram": _histogram(p),
        "residuals": _histogram(p - y),
        "predicted_true": {
            "true_edges": numbers(true_edges),
            "predicted_edges": numbers(predicted_edges),
            "counts": cells.astype(int).tolist(),
        },
    }


def _histogram(values: Array) -> Json:
    edges = _edges(values)
    counts, _ = np.histogram(_inside(values, edges), edges)
    return {"edges": numbers(edges), "counts": counts.tolist()}


def _edges(values: Array) -> Array:
    low, high = np.quantile(values, [_TAIL, 1 - _TAIL])
    if not high > low:
        low, high = low - 0.5, low + 0.5
    return np.linspace(low, high, BINS + 1)


def _inside(values: Array, edges: Array) -> Array:
    return np.clip(values, edges[0], edges[-1])
