"""Confident learning against cleanlab, on synthetic rows and on real ones with flipped labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mlray.stats import additive, labels
from mlray.stats.cells import numeric_column
from mlray.stats.metrics import roc_auc


def noisy(
    rows: int = 3000, classes: int = 3, flipped: float = 0.1, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Given labels, calibrated probabilities of the true ones, and which labels are wrong."""
    random = np.random.default_rng(seed)
    logits = 3.0 * random.normal(size=(rows, classes))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.array([random.choice(classes, p=row) for row in p])
    wrong = random.random(rows) < flipped
    given = np.where(wrong, (truth + random.integers(1, classes, rows)) % classes, truth)
    return given, p, wrong


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("seed", [0, 1])
def test_thresholds_joint_ranking_and_issues_are_those_of_cleanlab(classes: int, seed: int) -> None:
    cleanlab = pytest.importorskip("cleanlab")
    from cleanlab.count import compute_confident_joint
    from cleanlab.filter import find_label_issues
    from cleanlab.internal.latent_algebra import compute_py  # noqa: F401
    from cleanlab.rank import get_normalized_margin_for_each_label

    assert cleanlab.__version__
    given, p, _ = noisy(classes=classes, seed=seed)
    assert np.array_equal(
        labels.confident_joint(given, p), compute_confident_joint(given, p, calibrate=False)
    )
    theirs = compute_confident_joint(given, p, calibrate=True)
    assert np.abs(labels.calibrated_joint(given, p) - theirs).max() <= 1
    margins = get_normalized_margin_for_each_label(given, p)
    assert np.allclose(labels.margin(given, p), margins)
    issues = find_label_issues(given, p, filter_by="prune_by_noise_rate")
    assert np.mean(labels.label_issues(given, p) == issues) > 0.998


def test_suspicion_ranks_flipped_labels_above_honest_ones() -> None:
    given, p, wrong = noisy()
    scores = labels.suspicion(given, p)
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert roc_auc(wrong, scores) > 0.9


@pytest.mark.parametrize("flipped", [0.0, 0.05, 0.1])
def test_noise_counts_flips_and_not_the_overlap_of_classes(flipped: float) -> None:
    given, p, _ = noisy(rows=20_000, classes=2, flipped=flipped)
    found = labels.noise(given, p)
    assert abs(found.share - flipped) < 0.02
    assert found.low <= found.share
    assert labels.label_issues(given, p).mean() > flipped, "hard rows are listed, too"


def test_a_class_without_rows_and_a_model_without_opinion_are_no_issue() -> None:
    given = np.array([0, 0, 1, 1])
    flat = np.full((4, 3), 1 / 3)
    assert not labels.suspects(given, flat).any()
    assert labels.confident_joint(given, flat).shape == (3, 3)


def test_rows_set_aside_are_issues_and_as_many_as_the_noise() -> None:
    given, p, wrong = noisy(rows=20_000, classes=2, flipped=0.05)
    estimate = labels.noise(given, p)
    found = labels.suspects(given, p, estimate)
    assert not (found & ~labels.label_issues(given, p)).any()
    assert found.mean() <= estimate.share + 1e-3
    assert wrong[found].mean() > wrong[labels.label_issues(given, p)].mean()


def test_a_residual_far_out_is_suspect_whatever_the_scale_of_its_neighbours() -> None:
    random = np.random.default_rng(0)
    predicted = random.uniform(1, 100, 5000)
    truth = predicted + predicted * 0.1 * random.normal(size=5000)  # errors grow with the value
    wrong = random.choice(5000, 50, replace=False)
    truth[wrong] *= 3
    z = labels.robust_z(truth, predicted)
    marked = np.isin(np.arange(5000), wrong)
    assert roc_auc(marked, labels.residual_suspicion(z)) > 0.99
    assert (np.abs(z[~marked]) > labels.RESIDUAL_LIMIT).mean() < 0.001


def test_heavy_tails_and_equal_residuals_are_not_all_suspect() -> None:
    random = np.random.default_rng(0)
    tails = labels.robust_z(random.laplace(size=20_000), np.zeros(20_000))
    assert (np.abs(tails) > labels.RESIDUAL_LIMIT).mean() < 0.005
    assert not labels.robust_z(np.ones(100), np.ones(100)).any()


def test_flips_in_spam_are_ranked_by_a_cheap_model_too(test_data: Path) -> None:
    """The additive model of half of the rows judges the other half; figures of the network stand
    in the benchmark."""
    table = pq.read_table(test_data / "poison_spambase" / "spambase.parquet")
    random = np.random.default_rng(0)
    honest = table["Spam"].to_numpy()
    wrong = random.random(len(honest)) < 0.1
    given = np.where(wrong, 1 - honest, honest)
    columns = [
        numeric_column(name, table[name].to_numpy().astype(float), str)
        for name in table.column_names
        if name != "Spam"
    ]
    half = random.random(len(honest)) < 0.5
    scores = np.zeros((len(honest), 2))
    for train in (half, ~half):
        part = [type(c)(c.name, c.codes[train], c.words, c.edges) for c in columns]
        scores[~train] = additive.fit(part, given[train], 2).scores(columns)[~train]
    found = labels.suspicion(given, np.clip(scores, 0, 1))
    assert roc_auc(wrong, found) > 0.92
