"""Drift: found when it is there, silent when it is not, explained in the words of the data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from mlray.stats.bins import Reference, category_bins, numeric_bins
from mlray.stats.drift import (
    Drift,
    compare,
    expected_psi,
    jensen_shannon,
    ks,
    psi,
)


def human(value: float) -> str:
    return f"{10 * value + 50:.0f} min"


def reference(features: int = 1, rows: int = 100_000) -> Reference:
    rng = np.random.default_rng(0)
    columns = [rng.normal(size=rows).astype(np.float32) for _ in range(features)]
    bins = tuple(numeric_bins(f"x{i}", c, 20, human) for i, c in enumerate(columns))
    return Reference(bins, tuple(b.count(c) for b, c in zip(bins, columns, strict=True)), rows)


def only(base: Reference, values: np.ndarray) -> Drift:
    [found] = compare(base, [base.features[0].count(values.astype(np.float32))])
    return found


def test_a_shift_of_half_a_deviation_reads_a_quarter() -> None:
    base = reference()
    window = base.features[0].count(np.random.default_rng(1).normal(0.5, 1, 200_000))
    assert psi(base.counts[0], window) == pytest.approx(0.25, abs=0.015)


def test_ks_agrees_with_scipy_up_to_the_bins() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=30_000), rng.normal(0.3, 1.2, 30_000)
    bins = numeric_bins("x", a.astype(np.float32), 200, human)
    ours = ks(bins.count(a)[:-2], bins.count(b)[:-2])
    assert ours == pytest.approx(stats.ks_2samp(a, b).statistic, abs=0.004)


def test_jensen_shannon_agrees_with_scipy() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        p, q = rng.integers(0, 9, 12), rng.integers(0, 9, 12)
        assert jensen_shannon(p, q) == pytest.approx(distance.jensenshannon(p, q, base=2) ** 2)


@pytest.mark.parametrize("rows", [10, 30, 100, 300, 1000, 20_000])
def test_unchanged_data_does_not_alarm(rows: int) -> None:
    base, rng = reference(features=30), np.random.default_rng(rows)
    alarms = 0
    for _ in range(40):
        window = [b.count(rng.normal(size=rows)) for b in base.features]
        alarms += any(found.alarm for found in compare(base, window))
    assert alarms <= 1  # of 40 windows of 30 features


def test_expected_psi_is_what_unchanged_data_shows() -> None:
    base, rng = reference(), np.random.default_rng(4)
    for rows in (30, 100, 1000):
        windows = [base.features[0].count(rng.normal(size=rows)) for _ in range(200)]
        shown = np.mean([psi(base.counts[0], w) for w in windows])
        expected = np.mean([expected_psi(base.counts[0], w) for w in windows])
        assert shown == pytest.approx(expected, rel=0.2)


def test_drift_of_one_feature_of_thirty_is_found_and_comes_first() -> None:
    base, rng = reference(features=30), np.random.default_rng(9)
    means = [0.8 if i == 17 else 0.0 for i in range(30)]
    window = [b.count(rng.normal(m, 1, 500)) for b, m in zip(base.features, means, strict=True)]
    found = compare(base, window)
    assert [row.feature for row in found if row.alarm] == ["x17"]
    assert found[0].feature == "x17"
    assert [row.psi for row in found] == sorted((row.psi for row in found), reverse=True)


def test_the_reason_says_which_way_values_went_in_human_units() -> None:
    found = only(reference(), np.random.default_rng(2).normal(1, 1, 2000))
    assert found.alarm
    assert found.reason.startswith("x0 drifted: values moved up, median from '")
    assert "min'" in found.reason
    assert " rose from " in found.reason
    assert "2,000 rows, p < 0.0001" in found.reason


def test_a_large_change_of_few_rows_waits() -> None:
    found = only(reference(), np.array([2.0, 2.1, -0.3]))
    assert not found.alarm
    assert found.p_value > 0.01


def test_a_small_change_of_many_rows_is_told_but_does_not_alarm() -> None:
    found = only(reference(), np.random.default_rng(2).normal(0.1, 1, 100_000))
    assert not found.alarm
    assert found.p_value < 1e-6
    assert "real but small" in found.reason


def test_missing_values_alarm_by_name() -> None:
    values = np.random.default_rng(2).normal(size=1000)
    values[:150] = np.nan
    found = only(reference(), values)
    assert found.alarm
    assert (found.missing_frac, found.reference_missing_frac) == (0.15, 0.0)
    assert "missing rose from 0 % to 15 %" in found.reason
    assert found.ks == pytest.approx(0, abs=0.05)


def test_infinite_values_alarm_by_name() -> None:
    values = np.random.default_rng(2).normal(size=1000)
    values[:100] = np.inf
    assert "infinite rose from 0 % to 10 %" in only(reference(), values).reason


def test_unseen_categories_alarm_by_name() -> None:
    bins = category_bins("carrier", ["UA", "B6"], [60_000, 40_000], 20)
    base = Reference((bins,), (np.array([0, 0, 60_000, 40_000]),), 100_000)
    [found] = compare(base, [np.array([0, 80, 540, 380])])
    assert found.alarm
    assert found.ks is None
    assert found.unseen_frac == 0.08
    assert "values never seen in training rose from 0 % to 8 %" in found.reason


def test_a_window_without_rows_is_no_drift() -> None:
    base = reference()
    [found] = compare(base, [np.zeros(22, np.int64)])
    assert (found.rows, found.p_value, found.alarm) == (0, 1.0, False)
    assert found.psi == pytest.approx(0, abs=1e-12)
    assert found.reason == "x0: no rows in this window"


def test_counts_of_replicas_add_up_to_the_same_drift() -> None:
    base, values = reference(), np.random.default_rng(3).normal(0.3, 1, 900)
    parts = [base.features[0].count(part) for part in np.array_split(values, 7)]
    assert compare(base, [sum(parts)]) == [only(base, values)]
