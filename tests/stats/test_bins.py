"""Bins: fair, separate spikes, exact by table, labels in human units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlray.stats.bins import FeatureBins, Reference, category_bins, numeric_bins


def human(value: float) -> str:
    return f"{value:g}"


def normal(rows: int = 50_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=rows).astype(np.float32)


def test_bins_of_a_continuous_feature_hold_about_the_same() -> None:
    values = normal()
    counts = numeric_bins("x", values, 20, human).count(values)
    assert len(counts) == 22
    assert counts[:20].min() > 0.8 * 2500
    assert counts[:20].max() < 1.2 * 2500


def test_a_spike_fills_a_bin_alone() -> None:
    values = np.concatenate([np.zeros(80_000, np.float32), np.abs(normal(20_000)) + 0.01])
    bins = numeric_bins("x", values, 10, human)
    assert bins.labels[0] == "0"
    assert bins.count(values)[0] == 80_000
    assert len(bins.edges) == 9


def test_few_values_get_a_bin_each() -> None:
    values = np.repeat(np.array([-1, 0, 2], np.float32), [5, 90, 5])
    bins = numeric_bins("x", values, 20, human)
    assert bins.labels == ("-1", "0", "2", "missing", "nonfinite")
    assert bins.count(values).tolist() == [5, 90, 5, 0, 0]


@pytest.mark.parametrize("value", [0.0, 3.25, -3.25, 1e30, -1e30, 0.1, -0.1])
def test_a_constant_notices_both_sides(value: float) -> None:
    bins = numeric_bins("x", np.full(9, value, np.float32), 20, human)
    assert bins.labels[1] == human(float(np.float32(value)))
    step = abs(value) / 50 + 1e-6
    moved = np.array([value - step, value, value + step], np.float32)
    assert bins.count(moved).tolist() == [1, 1, 1, 0, 0]
    assert bins.slots(moved).tolist() == bins.table()[moved.view(np.uint32) >> 16].tolist()


def test_a_feature_that_is_always_missing_has_one_bin() -> None:
    bins = numeric_bins("x", np.full(4, np.nan, np.float32), 20, human)
    assert bins.labels == ("any value", "missing", "nonfinite")
    assert bins.count(np.array([np.nan, 1.0], np.float32)).tolist() == [1, 1, 0]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=1, max_size=200),
    st.integers(1, 30),
)
def test_the_table_counts_what_searchsorted_counts(values: list[float], count: int) -> None:
    column = np.array(values, np.float32)
    column = column[(np.abs(column) > 1e-37) | (column == 0) | np.isnan(column)]
    bins = numeric_bins("x", column, count, human)
    by_table = bins.table()[(column + np.float32(0)).view(np.uint32) >> 16]
    assert bins.slots(column).tolist() == by_table.tolist()
    assert len(bins.edges) < max(count, 3)
    assert len(bins.labels) == len(bins.edges) + 3
    assert list(bins.edges) == sorted(set(bins.edges))
    assert bins.count(column).sum() == len(column)


def test_every_bin_holds_rows_of_the_data_that_cut_it() -> None:
    rng = np.random.default_rng(2)
    for values in (rng.poisson(2, 3000), rng.geometric(0.7, 3000), rng.normal(size=7)):
        column = values.astype(np.float32)
        bins = numeric_bins("x", column, 10, human)
        assert np.all(bins.count(column)[: len(bins.edges) + 1] > 0)


def test_codes_past_the_cap_share_a_slot() -> None:
    bins = category_bins("c", ["a", "b", "d", "e"], [9, 5, 5, 1], 2)
    assert bins.slots(np.array([0, 1, 2, 3, 4, 5, -1])).tolist() == [0, 1, 2, 3, 4, 4, 1]
    assert category_bins("c", ["a", "b"], [9, 5], 2).labels == ("missing", "unseen", "a", "b")


def test_labels_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="falling frequency"):
        category_bins("c", ["a", "b"], [1, 2], 2)


def test_a_reference_survives_json() -> None:
    numeric = numeric_bins("x", normal(), 20, human, kind="score")
    category = category_bins("c", ["a"], [3], 20)
    reference = Reference(
        (numeric, category), (numeric.count(normal()), np.array([1, 0, 3])), 50_000
    )
    again = Reference.from_json(reference.to_json())
    assert again == reference
    assert isinstance(again.features[0], FeatureBins)
    assert again.counts[0].dtype == np.int64
    assert [float(s.sum()) for s in again.shares()] == pytest.approx([1, 1])
    assert min(s.min() for s in again.shares()) > 0
