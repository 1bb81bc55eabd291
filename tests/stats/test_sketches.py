"""The three sketches under a profile: quantiles, distinct values, frequent values."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlray.stats import distinct, frequent
from mlray.stats.columns import profile_column
from mlray.stats.distinct import DistinctSketch, hash_numbers, hash_strings
from mlray.stats.frequent import FrequentValues
from mlray.stats.sketch import QuantileSketch


def test_weights_always_add_up_to_the_rows() -> None:
    rng = np.random.default_rng(0)
    sketch = QuantileSketch()
    for rows in (10, 5_000, 77_777, 3, 20_000):
        sketch = QuantileSketch.merged(
            [sketch, QuantileSketch.of(np.unique(rng.normal(size=rows)))]
        )
    assert sketch.rows == 10 + 5_000 + 77_777 + 3 + 20_000
    assert len(sketch.values) <= 3264
    assert np.all(np.diff(sketch.values) > 0)


def test_a_long_chain_of_small_blocks_keeps_its_ranks() -> None:
    rng = np.random.default_rng(5)
    values = rng.permutation(600_000).astype(float)
    sketch = QuantileSketch()
    for block in np.array_split(values, 200):
        sketch = QuantileSketch.merged([sketch, QuantileSketch.of(np.sort(block))])
    wrong = np.abs(sketch.cdf(np.arange(0, 600_000, 1000.0)) - np.arange(0, 600_000, 1000) / 6e5)
    assert wrong.max() <= sketch.rank_error < 0.01


def test_errors_of_ranks_cancel_and_do_not_lean() -> None:
    errors = []
    for seed in range(60):
        values = np.sort(np.random.default_rng(seed).normal(size=20_000))
        errors.append(float(QuantileSketch.of(values).cdf(values[9_999])) - 0.5)
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(len(errors)) + 1e-9


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(3000, 9000), st.sampled_from([2, 50, 10**9]))
def test_any_weights_fit_the_limit(seed: int, size: int, heaviest: int) -> None:
    weights = np.random.default_rng(seed).integers(1, heaviest, size)
    sketch = QuantileSketch.of(np.arange(size, dtype=float), weights)
    assert len(sketch.values) <= 3264
    assert sketch.rows == weights.sum()
    truth = np.cumsum(weights) / weights.sum()
    assert np.abs(sketch.cdf(np.arange(float(size))) - truth).max() <= sketch.rank_error + 1e-12


def test_distinct_is_exact_while_small_and_near_when_large() -> None:
    for count in (0, 1, 2047):
        sketch = DistinctSketch.of(hash_numbers(np.arange(count, dtype=float)))
        assert (sketch.count, sketch.is_exact) == (count, True)
    errors = [
        DistinctSketch.of(hash_numbers(np.arange(s, s + 50_000))).count / 50_000 - 1
        for s in range(0, 2_000_000, 50_000)
    ]
    assert np.std(errors) < 0.035
    assert abs(np.mean(errors)) < 0.02


def test_distinct_does_not_depend_on_the_order_of_merges() -> None:
    parts = [DistinctSketch.of(hash_numbers(np.arange(s, s + 900.0))) for s in range(0, 9000, 450)]
    forth, back = DistinctSketch(), DistinctSketch()
    for one, two in zip(parts, reversed(parts), strict=True):
        forth, back = DistinctSketch.merged([forth, one]), DistinctSketch.merged([back, two])
    assert forth == back
    whole = DistinctSketch.of(hash_numbers(np.arange(9450.0)))
    assert forth == whole


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(), unique=True))
def test_different_strings_hash_apart_wherever_they_lie(strings: list[str]) -> None:
    array = pa.array(["pad", *strings], pa.large_string()).slice(1)
    hashes = hash_strings(array)
    assert len(np.unique(hashes)) == len(strings)
    for at in range(min(3, len(strings))):
        alone = hash_strings(pa.array([strings[at]], pa.large_string()))
        assert alone[0] == hashes[at]


def test_strings_longer_than_a_chunk_are_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    strings = pa.array(["", "ab", "c" * 500, "", "d" * 3, "ab" * 40], pa.large_string())
    at_once = hash_strings(strings)
    monkeypatch.setattr(distinct, "_CHUNK_BYTES", 7)
    assert np.array_equal(hash_strings(strings), at_once)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 40), max_size=60), min_size=1, max_size=6))
def test_true_counts_lie_between_seen_and_promised(blocks: list[list[int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frequent, "SIZE", 5)
        patch.setattr("mlray.stats.columns.SIZE", 5)
        kept = FrequentValues()
        for block in blocks:
            column = pa.chunked_array([pa.array(block, pa.int64())])
            kept = FrequentValues.merged([kept, profile_column("x", column).frequent])
    truth = Counter(value for block in blocks for value in block)
    assert kept.error <= truth.total() / 6
    assert len(kept.top) <= 5
    for (value, seen), credit in zip(kept.top, kept.credits, strict=True):
        assert seen <= truth[int(value)] <= credit + kept.error
    left_out = set(truth) - {value for value, _ in kept.top}
    assert all(truth[value] <= kept.error for value in left_out)


def test_ties_for_the_last_place_do_not_depend_on_row_order() -> None:
    names = [f"v{i:05d}" for i in range(1500)] * 2
    forth = profile_column("s", pa.chunked_array([names]))
    back = profile_column("s", pa.chunked_array([names[::-1]]))
    assert forth == back
    assert len(forth.top) == 1000
    assert (forth.top[0], forth.top_error) == (("v00000", 2), 2)


def test_identifiers_keep_no_values() -> None:
    column = profile_column("id", pa.chunked_array([[f"id{i}" for i in range(5000)]]))
    assert (column.top, column.top_error) == ((), 1)
