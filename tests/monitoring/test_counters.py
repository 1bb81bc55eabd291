from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlray.errors import InputError
from mlray.monitoring.counters import BLOCK_ROWS, Counts, count
from mlray.stats.bins import FeatureBins, Reference

NO_CODES = np.zeros((0, 0), np.int32)
FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)
CUTS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=40)


def by_definition(edges: tuple[float, ...], values: np.ndarray) -> np.ndarray:
    bins = len(edges) + 1
    found = np.searchsorted(np.asarray(edges, np.float32), values, side="right")
    slots = np.where(np.isnan(values), bins, np.where(np.isinf(values), bins + 1, found))
    return np.bincount(slots, minlength=bins + 2)


def feature(name: str, edges: Any, kind: str = "numeric") -> FeatureBins:
    labels = (*map(str, range(len(edges) + 1)), "missing", "nonfinite")
    return FeatureBins(name, kind, tuple(map(float, edges)), labels)  # type: ignore[arg-type]


def counted(edges: Any, values: np.ndarray) -> np.ndarray:
    bins = [feature("x", edges), feature("score", [0.5], "score")]
    empty = np.zeros((len(values), 0), np.int32)
    return count(bins, values[:, None], empty, np.zeros(len(values), np.float32))[0]


@given(CUTS, arrays(np.float32, st.integers(1, 60), elements=FLOATS))
def test_the_table_counts_what_a_binary_search_counts(cuts: list[float], values: Any) -> None:
    edges = tuple(sorted({float(np.float32(c)) + 0.0 for c in cuts}))
    values = np.concatenate([values, np.asarray(edges, np.float32)])
    assert counted(edges, values).tolist() == by_definition(edges, values).tolist()


def test_cuts_much_closer_than_16_bits_can_tell_apart_still_count_exactly() -> None:
    values = np.float32(1000) + np.random.default_rng(0).normal(size=5000).astype(np.float32)
    edges = np.unique(np.quantile(values, np.arange(1, 256) / 256).astype(np.float32))
    assert counted(edges, values).tolist() == by_definition(tuple(edges), values).tolist()


def test_both_zeros_subnormals_and_every_kind_of_nan_have_their_slot() -> None:
    odd = np.array([0x7F800001, 0xFFC00000, 0x7FFFFFFF], np.uint32).view(np.float32)
    values = np.concatenate([odd, np.float32([-0.0, 0.0, 1e-45, -1e-45, np.inf, -np.inf, 3e38])])
    assert counted((0.0,), values).tolist() == [1, 4, 3, 2]


def test_codes_past_the_last_slot_share_it_and_classes_are_counted_by_the_likeliest() -> None:
    carrier = FeatureBins("carrier", "category", (), ("missing", "unseen", "UA", "other values"))
    predicted = FeatureBins("class", "category", (), ("missing", "unseen", "cat", "dog"))
    codes = np.array([[0], [1], [2], [3], [900]], np.int32)
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [np.nan, 1], [0.5, 0.5]], np.float32)
    got = count([carrier, predicted], np.zeros((5, 0), np.float32), codes, scores)
    assert [g.tolist() for g in got] == [[1, 1, 1, 2], [1, 0, 2, 2]]


def test_counts_do_not_depend_on_how_rows_came_in(
    reference: Reference, traffic: Callable[..., Any]
) -> None:
    rows = traffic(5000, seed=3)
    whole = count(reference.features, *rows)
    counts, at, sizes = Counts(reference), 0, [1, 1, 7, 300, 1500, 1, 2500, 690]
    for size in sizes:
        counts.add(*rows[at : at + size])
        at += size
    assert at == 5000
    for got, want in zip(counts.take(), whole, strict=True):
        assert got.tolist() == want.tolist()
    assert not any(c.any() for c in counts.take())


def test_no_row_is_lost_or_counted_twice_while_another_thread_takes(
    reference: Reference, traffic: Callable[..., Any]
) -> None:
    counts, rows, done = Counts(reference), traffic(1000), threading.Event()
    singles = [rows[i : i + 1] for i in range(1000)]
    taken = [np.zeros(len(f.labels), np.int64) for f in reference.features]

    def flush() -> None:
        while not done.is_set():
            for total, new in zip(taken, counts.take(), strict=True):
                total += new

    flusher = threading.Thread(target=flush)
    flusher.start()
    for _ in range(20):
        for one in singles:
            counts.add(*one)
    done.set()
    flusher.join()
    whole = count(reference.features, *rows)
    for total, left, want in zip(taken, counts.take(), whole, strict=True):
        assert (total + left).tolist() == (20 * want).tolist()


def test_memory_does_not_grow_with_traffic_that_nobody_takes(
    reference: Reference, traffic: Callable[..., Any]
) -> None:
    counts, rows = Counts(reference), traffic(1)
    waiting = set()
    for _ in range(3 * BLOCK_ROWS):
        counts.add(*rows)
        waiting.add(len(counts._waiting))
    assert max(waiting) < BLOCK_ROWS
    assert sum(counts.take()[-1]) == 3 * BLOCK_ROWS


def test_rows_of_another_shape_are_refused_before_they_are_queued(reference: Reference) -> None:
    counts = Counts(reference)
    with pytest.raises(InputError, match=r"numeric \(1, 3\).*\n.*Allowed: \(N, 2\), \(N, 1\)"):
        counts.add(np.zeros((1, 3), np.float32), np.zeros((1, 1), np.int32), np.zeros(1, "f4"))
    assert not counts.take()[-1].any()


def test_an_empty_request_counts_nothing(reference: Reference, traffic: Callable[..., Any]) -> None:
    counts = Counts(reference)
    counts.add(*traffic(3)[0:0])
    assert not any(c.any() for c in counts.take())
