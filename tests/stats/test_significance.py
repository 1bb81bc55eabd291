"""The tests of significance against SciPy, and their rate of false alarms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mlray.stats.significance import (
    benjamini_hochberg,
    chi_square_p,
    fisher_upper,
    homogeneity,
)


def test_chi_square_agrees_with_scipy() -> None:
    for degrees in (1, 2, 3, 7, 21, 100, 1000):
        for x in (0.0, 1e-8, 0.3, 1, degrees * 0.9, degrees, degrees + 1.5, degrees * 2, 700):
            expected = stats.chi2.sf(x, degrees)
            assert chi_square_p(x, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-13)


def test_a_huge_statistic_is_certain_and_no_error() -> None:
    assert chi_square_p(1e9, 3) == 0.0


def test_the_exact_tail_agrees_with_scipy() -> None:
    for hits, rows, other, others in [
        (3, 20, 0, 500),
        (1, 7, 12, 9000),
        (0, 5, 3, 10),
        (4, 4, 1, 4),
    ]:
        table = [[hits, rows - hits], [other, others - other]]
        expected = stats.fisher_exact(table, alternative="greater")[1]
        assert fisher_upper(hits, rows, other, others) == pytest.approx(expected, rel=1e-9)


def test_many_rows_give_the_chi_square_of_scipy() -> None:
    reference, window = [900, 300, 250, 50], [80, 40, 20, 10]
    expected = stats.chi2_contingency([reference, window], correction=False)[1]
    grouped = stats.chi2_contingency([[900, 300, 250, 50], [80, 40, 20, 10]], correction=False)
    assert homogeneity(reference, window) == pytest.approx(expected)
    assert grouped[1] == pytest.approx(expected)


@pytest.mark.parametrize("window_rows", [10, 30, 100, 1000])
@pytest.mark.parametrize("reference_rows", [500, 100_000])
@pytest.mark.parametrize("slots", [2, 20, 300])
def test_p_values_of_unchanged_data_are_honest(
    window_rows: int, reference_rows: int, slots: int
) -> None:
    rng = np.random.default_rng(window_rows + slots)
    p = 1 / np.arange(1, slots + 1) ** 1.5
    p /= p.sum()
    found = np.array([
        homogeneity(rng.multinomial(reference_rows, p), rng.multinomial(window_rows, p))
        for _ in range(400)
    ])  # fmt: skip
    assert (found < 0.05).mean() < 0.085
    assert (found < 0.01).mean() < 0.03


def test_a_great_change_is_seen_in_fifty_rows() -> None:
    assert homogeneity(np.full(20, 5000), [50] + [0] * 19) < 1e-6


def test_a_burst_of_unseen_values_does_not_drown() -> None:
    assert homogeneity([0, 0, 5000, 5000, 3], [0, 30, 485, 485, 0]) < 1e-6


def test_benjamini_hochberg_agrees_with_scipy() -> None:
    p = np.random.default_rng(0).uniform(size=200) ** 3
    adjusted = stats.false_discovery_control(p, method="bh")
    assert np.array_equal(benjamini_hochberg(p, 0.05), adjusted <= 0.05)
    assert benjamini_hochberg([], 0.05).tolist() == []
