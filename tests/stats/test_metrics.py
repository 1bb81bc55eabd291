"""Scores and curves against scikit-learn, ties and strange inputs included."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve as oracle_calibration

from mlray.errors import ConfigError
from mlray.stats import metrics


def binary(rows: int = 3000, seed: int = 0, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (rng.uniform(size=rows) < 0.3).astype(np.int64)
    p = 1 / (1 + np.exp(1 - 1.5 * y - rng.normal(size=rows)))
    return y, np.round(p, 1 if ties else 12)


def multiclass(rows: int = 2000, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    y = rng.choice(classes, rows, p=np.arange(1, classes + 1) / sum(range(classes + 1)))
    logits = rng.normal(size=(rows, classes)) + 1.2 * np.eye(classes)[y]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return y, p


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_binary_scores_are_those_of_scikit_learn(ties: bool, seed: int, threshold: float) -> None:
    y, p = binary(500, seed, ties)
    called = p >= threshold
    expected = {
        "roc_auc": oracle.roc_auc_score(y, p),
        "average_precision": oracle.average_precision_score(y, p),
        "log_loss": oracle.log_loss(y, p),
        "brier": oracle.brier_score_loss(y, p),
        "accuracy": oracle.accuracy_score(y, called),
        "f1": oracle.f1_score(y, called),
        "precision": oracle.precision_score(y, called),
        "recall": oracle.recall_score(y, called),
        "balanced_accuracy": oracle.balanced_accuracy_score(y, called),
    }
    assert metrics.score("binary", y, p, threshold=threshold) == pytest.approx(expected, rel=1e-12)


def test_multiclass_scores_are_those_of_scikit_learn() -> None:
    y, p = multiclass()
    called = p.argmax(axis=1)
    expected = {
        "roc_auc": oracle.roc_auc_score(y, p, multi_class="ovr"),
        "average_precision": oracle.average_precision_score(np.eye(4)[y], p),
        "log_loss": oracle.log_loss(y, p),
        "brier": oracle.brier_score_loss(y, p),
        "accuracy": oracle.accuracy_score(y, called),
        "f1": oracle.f1_score(y, called, average="macro"),
        "precision": oracle.precision_score(y, called, average="macro"),
        "recall": oracle.recall_score(y, called, average="macro"),
        "balanced_accuracy": oracle.balanced_accuracy_score(y, called),
    }
    assert metrics.score("multiclass", y, p) == pytest.approx(expected, rel=1e-12)


def test_regression_scores_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(1000, 5, 400)
    z = y + rng.normal(1, 2, 400)
    expected = {
        "rmse": oracle.root_mean_squared_error(y, z),
        "mae": oracle.mean_absolute_error(y, z),
        "r2": oracle.r2_score(y, z),
    }
    assert metrics.score("regression", y, z) == pytest.approx(expected, rel=1e-12)


def test_certain_float32_probabilities_cost_what_scikit_learn_says() -> None:
    y, p = np.array([0, 1, 1]), np.array([1, 1, 0], np.float32)
    found = metrics.score("binary", y, p, ["log_loss"])["log_loss"]
    assert found == pytest.approx(oracle.log_loss(y, p), rel=1e-6)


def test_one_class_has_no_ranking_and_says_nan_without_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics.score("binary", np.ones(4), np.array([0.1, 0.2, 0.7, 0.9]))
        for name in metrics.NAMES["binary"]:
            metrics.interval(name, "binary", np.ones(4), np.array([0.1, 0.2, 0.7, 0.9]))
        nothing = metrics.score("binary", np.zeros(3), np.array([0.1, 0.2, 0.3]))
    assert np.isnan(found["roc_auc"])
    assert found["accuracy"] == 0.5
    assert np.isnan(nothing["average_precision"])
    assert nothing["f1"] == 0.0


def test_no_rows_score_nan() -> None:
    for task, shape in (("binary", (0,)), ("multiclass", (0, 3)), ("regression", (0,))):
        found = metrics.score(task, np.empty(0), np.empty(shape))
        assert set(found) == set(metrics.NAMES[task])
        assert all(np.isnan(value) for value in found.values())


def test_a_class_that_never_occurs_is_left_out_of_means() -> None:
    y, p = np.array([0, 1, 1, 0]), np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1]] * 2)
    found = metrics.score("multiclass", y, p)
    assert found["roc_auc"] == 0.5
    assert found["balanced_accuracy"] == 0.5


def test_a_constant_target_has_no_r2() -> None:
    assert np.isnan(metrics.score("regression", np.ones(3), np.arange(3.0))["r2"])
    assert np.isnan(metrics.interval("r2", "regression", np.ones(3), np.arange(3.0))[0])


def test_a_metric_of_another_task_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="rmse"):
        metrics.score("binary", np.array([0, 1]), np.array([0.1, 0.9]), ["rmse"])
    with pytest.raises(ConfigError, match="ranking"):
        metrics.score("ranking", np.array([0, 1]), np.array([0.1, 0.9]))
    with pytest.raises(ConfigError, match="roc_auc"):
        metrics.greater_is_better("auc")


def test_every_metric_has_a_direction() -> None:
    better = {name: metrics.greater_is_better(name) for n in metrics.NAMES.values() for name in n}
    assert [name for name, up in better.items() if not up] == ["log_loss", "brier", "rmse", "mae"]


@pytest.mark.parametrize("ties", [False, True])
def test_curves_are_those_of_scikit_learn(ties: bool) -> None:
    y, p = binary(ties=ties)
    fpr, tpr, thresholds = oracle.roc_curve(y, p, drop_intermediate=False)
    assert np.allclose(metrics.roc_curve(y, p), [fpr, tpr, thresholds])
    precision, recall, cuts = oracle.precision_recall_curve(y, p)
    ours = metrics.pr_curve(y, p)
    for mine, theirs in zip(ours, (precision[:-1], recall[:-1], cuts), strict=True):
        assert np.allclose(mine[::-1], theirs)


def test_thinned_curves_keep_their_shape_and_their_ends() -> None:
    y, p = binary(50_000)
    curve = metrics.roc_curve(y, p, points=200)
    assert len(curve.thresholds) <= 200
    assert (curve.false_positive_rate[0], curve.true_positive_rate[-1]) == (0.0, 1.0)
    area = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
    assert area == pytest.approx(oracle.roc_auc_score(y, p), abs=1e-3)
    thin = metrics.pr_curve(y, p, points=200)
    assert len(thin.recall) <= 200
    assert thin.recall[-1] == 1.0


def test_calibration_is_that_of_scikit_learn() -> None:
    y, p = binary(ties=True)
    observed, predicted = oracle_calibration(y, p, n_bins=7)
    ours = metrics.calibration_curve(y, p, 7)
    assert np.allclose(ours.observed, observed)
    assert np.allclose(ours.predicted, predicted)
    assert ours.counts.sum() == len(y)
    gap = np.abs(observed - predicted) @ ours.counts / len(y)
    assert metrics.expected_calibration_error(y, p, 7) == pytest.approx(gap)


def test_the_best_threshold_wins_over_all_others() -> None:
    for ties in (False, True):
        y, p = binary(400, ties=ties)
        best = metrics.best_f1_threshold(y, p)
        scores = [oracle.f1_score(y, p >= cut) for cut in np.unique(p)]
        assert oracle.f1_score(y, p >= best) == max(scores)
    assert metrics.best_f1_threshold(np.zeros(3), np.array([0.1, 0.2, 0.3])) == 0.5


def test_the_confusion_table_is_that_of_scikit_learn() -> None:
    y, p = multiclass()
    called = metrics.decide("multiclass", p)
    assert np.array_equal(metrics.confusion(y, called, 4), oracle.confusion_matrix(y, called))


def test_a_million_rows_are_ranked_in_a_second() -> None:
    y, p = binary(1_000_000)
    start = time.process_time()
    metrics.score("binary", y, p, ["roc_auc"])
    assert time.process_time() - start < 1.0
