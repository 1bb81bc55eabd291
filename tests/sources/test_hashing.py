"""Hashes are of values, not of how they are stored."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from mlray.sources.hashing import hash_rows, uniform


def hashes(values, kind=None):
    return hash_rows(pa.table({"x": pa.array(values, kind)}), ["x"]).tolist()


def test_types_that_hold_the_same_value_hash_the_same():
    assert hashes([1, 2], pa.int8()) == hashes([1, 2], pa.int64())
    assert hashes(["a", None]) == hashes(["a", None], pa.large_string())
    coded = pa.array(["a", "b", "a"]).dictionary_encode()
    assert hash_rows(pa.table({"x": coded}), ["x"]).tolist() == hashes(["a", "b", "a"])
    assert hashes([0.0]) == hashes([-0.0])
    assert hashes([float("nan")]) == hashes([None], pa.float64())


def test_lists_and_decimals_are_hashed_too():
    assert len(set(hashes([[1, 2], [1], None]))) == 3
    assert len(set(hashes(["1.10", "1.20"], pa.string()))) == 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=6), min_size=1, max_size=50, unique=True))
def test_different_texts_hash_differently_wherever_the_slice_begins(texts):
    table = pa.table({"x": texts})
    whole = hash_rows(table, ["x"])
    assert len(set(whole.tolist())) == len(texts)
    for start in (1, len(texts) // 2):
        assert hash_rows(table.slice(start), ["x"]).tolist() == whole[start:].tolist()


def test_hashes_of_counting_numbers_and_of_like_texts_are_uniform():
    for values in (range(100_000), [f"row-{i:06}" for i in range(100_000)]):
        table = pa.table({"x": list(values)})
        counts, _ = np.histogram(uniform(hash_rows(table, ["x"])), 100, (0, 1))
        chi_square = ((counts - 1000.0) ** 2 / 1000).sum()
        assert chi_square < 150  # 99 degrees of freedom: 150 has p < 0.001


def test_a_long_text_beside_others_does_not_change_their_hashes():
    texts = ["a", "b" * 1023, "c" * 1025, "d" * 70_000, ""]
    together = hashes(texts)
    assert together == [h for text in texts for h in hashes([text])]
