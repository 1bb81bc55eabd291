"""Confidence intervals: against slow definitions, against resampled rows, and by coverage."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats

from mlray.stats import intervals, metrics

Rows = tuple[np.ndarray, np.ndarray]


def binary(rows: int, seed: int = 0, ties: bool = False) -> Rows:
    rng = np.random.default_rng(seed)
    y = (rng.uniform(size=rows) < 0.3).astype(np.int64)
    p = 1 / (1 + np.exp(1 - 1.5 * y - rng.normal(size=rows)))
    return y, np.round(p, 1 if ties else 12)


def multiclass(rows: int, classes: int = 4) -> Rows:
    rng = np.random.default_rng(1)
    y = rng.choice(classes, rows, p=np.arange(1, classes + 1) / sum(range(classes + 1)))
    logits = rng.normal(size=(rows, classes)) + 1.2 * np.eye(classes)[y]
    return y, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def regression(rows: int) -> Rows:
    rng = np.random.default_rng(2)
    y = rng.normal(1000, 5, rows)
    return y, y + rng.standard_t(6, rows)


def slow_delong_error(y: np.ndarray, p: np.ndarray) -> float:
    """The definition: every 1 against every 0."""
    beats = p[y == 1][:, None] - p[y == 0][None, :]
    kernel = (beats > 0) + 0.5 * (beats == 0)
    wins, losses = kernel.mean(axis=1), kernel.mean(axis=0)
    return float(np.sqrt(wins.var(ddof=1) / len(wins) + losses.var(ddof=1) / len(losses)))


@pytest.mark.parametrize("ties", [False, True])
def test_delong_is_its_definition(ties: bool) -> None:
    y, p = binary(400, ties=ties)
    low, high = metrics.interval("roc_auc", "binary", y, p)
    assert (high - low) / 2 == pytest.approx(intervals.Z * slow_delong_error(y, p), rel=1e-10)


def test_a_perfect_ranking_of_few_rows_is_not_certain() -> None:
    low, high = metrics.interval("roc_auc", "binary", np.array([0, 0, 1, 1]), np.arange(4) / 4)
    assert high == pytest.approx(1.0)
    assert low == pytest.approx(intervals.wilson(2, 2)[0])


def test_wilson_agrees_with_scipy() -> None:
    for hits, rows in ((0, 7), (3, 7), (7, 7), (812, 1000)):
        theirs = stats.binomtest(hits, rows).proportion_ci(0.95, method="wilson")
        assert intervals.wilson(hits, rows) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


CASES = [
    *(("binary", name) for name in metrics.NAMES["binary"]),
    *(("multiclass", name) for name in metrics.NAMES["multiclass"]),
    *(("regression", name) for name in metrics.NAMES["regression"]),
]
MAKE = {"binary": binary, "multiclass": multiclass, "regression": regression}


@pytest.mark.parametrize(("task", "name"), CASES)
def test_intervals_have_the_width_that_resampled_rows_give(task: str, name: str) -> None:
    y, p = MAKE[task](1500)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(300):
        rows = rng.integers(0, len(y), len(y))
        drawn.append(metrics.score(task, y[rows], p[rows], [name])[name])
    low, high = metrics.interval(name, task, y, p)
    assert low < metrics.score(task, y, p, [name])[name] < high
    assert (high - low) / 2 == pytest.approx(intervals.Z * np.std(drawn), rel=0.15)


@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "f1"])
def test_nineteen_of_twenty_intervals_hold_the_truth(name: str) -> None:
    y, p = binary(400_000, seed=99)
    truth = metrics.score("binary", y, p, [name])[name]
    held = 0
    for start in range(0, 400 * 500, 500):
        part = slice(start, start + 500)
        low, high = metrics.interval(name, "binary", y[part], p[part])
        held += low <= truth <= high
    assert 0.92 < held / 400 < 0.98


def test_same_seed_same_interval() -> None:
    y, p = binary(300)
    first = metrics.interval("f1", "binary", y, p, seed=4)
    assert first == metrics.interval("f1", "binary", y, p, seed=4)
    assert first != metrics.interval("f1", "binary", y, p, seed=5)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_intervals_of_a_hundred_thousand_rows_take_half_a_second(task: str) -> None:
    y, p = MAKE[task](100_000)
    for name in metrics.NAMES[task]:
        start = time.process_time()
        metrics.interval(name, task, y, p)
        assert time.process_time() - start < 0.5, name
