"""The fingerprint of rows: blind to order and storage, never to a value."""

from __future__ import annotations

import itertools
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlray.sources.fingerprint import Content, merged

NAN = float("nan")


def content(values, kind=None, name="x"):
    return Content.of(pa.table({name: pa.array(values, kind)}))


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    """Every kind of column, with missing values."""
    random = np.random.default_rng(3)
    count = 5_000
    numbers = random.integers(-(2**40), 2**40, count)
    texts = [f"row {n}" * (n % 40) for n in range(count)]
    some = random.random(count) < 0.1
    return pa.table(
        {
            "int": pa.array(numbers, mask=some),
            "small": pa.array(numbers % 100, pa.int16(), mask=some),
            "float": pa.array(random.normal(size=count), mask=some),
            "bool": pa.array(numbers % 2 == 0, mask=some),
            "text": pa.array(texts, mask=some),
            "coded": pa.array([f"c{n % 7}" for n in range(count)], mask=some).dictionary_encode(),
            "bytes": pa.array([t.encode() for t in texts], pa.binary(), mask=some),
            "fixed": pa.array([bytes([n % 256] * 5) for n in range(count)], pa.binary(5)),
            "day": pa.array(numbers % 20_000, pa.int32(), mask=some).view(pa.date32()),
            "moment": pa.array(numbers, pa.timestamp("us", "UTC"), mask=some),
            "price": pa.array([Decimal(int(n)) / 100 for n in numbers], pa.decimal128(20, 2)),
            "list": pa.array([[n, None] * (n % 3) for n in range(count)], pa.list_(pa.int64())),
            "struct": pa.array([{"a": n % 5, "b": None} for n in range(count)]),
            "tensor": pa.array([[n % 9, 1] for n in range(count)], pa.list_(pa.uint8(), 2)),
            "none": pa.nulls(count),
        }
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 5_000), max_size=6))
def test_order_of_rows_blocks_and_columns_does_not_count(rows, seed, cuts):
    random = np.random.default_rng(seed)
    shuffled = rows.take(random.permutation(len(rows)))
    shuffled = shuffled.select(list(random.permutation(rows.column_names)))
    ends = [0, *sorted(cuts), len(rows)]
    parts = [shuffled.slice(a, b - a) for a, b in itertools.pairwise(ends)]
    assert merged(Content.of(part) for part in parts) == Content.of(rows)
    assert Content.from_text(Content.of(rows).text) == Content.of(rows)


def test_how_values_are_stored_does_not_count():
    for kind in (pa.int8(), pa.uint32(), pa.int64()):
        assert content([1, 2, None], kind) == content([1, 2, None])
    assert content([1.5, NAN], pa.float32()) == content([1.5, NAN])
    texts = ["a", "", None, "long" * 500]
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())):
        assert content(texts, kind) == content(texts)
    coded = pa.DictionaryArray.from_arrays([0, 1, None], pa.array(["a", None]))
    assert content(coded) == content(["a", None, None])
    under = pa.array([1, 2], mask=np.array([False, True]))
    assert content(under) == content([1, None])
    assert content(pa.array([5, 6, 7]).slice(1, 1)) == content([6])


CHANGES = [
    ([1.0, 2.0], [1.0, 3.0]),
    ([0.0], [-0.0]),
    ([1.0, 2.0], [-1.0, 2.0]),
    ([NAN], [None]),
    ([NAN], [0.0]),
    ([1], [1.0]),
    ([1], [True]),
    (["1"], [1]),
    ([""], [None]),
    (["a"], [b"a"]),
    (["ab", "c"], ["a", "bc"]),
    (["a"], ["a\0"]),
    (["x" * 600], ["x" * 599 + "y"]),
    (["x" * 513], ["x" * 512]),
    ([[1], [2, 3]], [[1, 2], [3]]),
    ([[]], [None]),
    ([[None]], [[]]),
    ([[1, 2]], [[2, 1]]),
    ([{"a": 1, "b": 2}], [{"a": 2, "b": 1}]),
    ([date(2020, 1, 1)], [date(2020, 1, 2)]),
    ([time(1)], [time(2)]),
    ([timedelta(1)], [timedelta(2)]),
    ([datetime(2020, 1, 1)], [datetime(2020, 1, 1, tzinfo=UTC)]),
    ([Decimal("1.10")], [Decimal("1.11")]),
    ([2**62], [-(2**62)]),
    ([1, 1, 2], [1, 2, 2]),
    ([1, 2], [1, 2, 2]),
    ([1, 2, 3], [1, 2]),
    ([1, 5], [2, 4]),
    ([0], [None]),
]


@pytest.mark.parametrize(("before", "after"), CHANGES, ids=str)
def test_every_change_of_a_value_counts(before, after):
    assert content(before) != content(after)


def test_names_and_which_values_stand_in_one_row_count():
    table = pa.table({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    swapped = pa.table({"a": [2.0, 1.0], "b": [3.0, 4.0]})
    renamed = table.rename_columns(["b", "a"])
    negative = pa.table({"a": [-1.0, 2.0], "b": [-3.0, 4.0]})
    opposite = pa.table({"a": [3.0, 2.0], "b": [1.0, 4.0]})
    found = [Content.of(t) for t in (table, swapped, renamed, negative, opposite)]
    assert len({c.text for c in found}) == 5
    assert Content.of(table.slice(0, 0)) != Content.of(renamed.slice(0, 0).select(["a"]))
    with pytest.raises(ValueError, match="different columns"):
        found[0] + content([1.0])


def test_a_single_bit_anywhere_counts(rows):
    whole = Content.of(rows)
    random = np.random.default_rng(0)
    values = rows["float"].fill_null(0.0).to_numpy().copy()
    plain = Content.of(rows.set_column(2, "float", pa.array(values)))
    for _ in range(40):
        changed = values.copy()
        changed.view(np.uint64)[random.integers(len(values))] ^= np.uint64(1) << np.uint64(
            random.integers(64)
        )
        assert Content.of(rows.set_column(2, "float", pa.array(changed))) != plain
    assert whole != plain


def test_signs_and_small_numbers_of_two_columns_never_cancel_out():
    """Folding comes first because of these: top bits of two products would add up to nothing."""
    random = np.random.default_rng(5)
    seen = set()
    for left in range(-60, 61):
        for right in range(-60, 61):
            values = {"a": [float(left)], "b": [float(right)], "c": [int(random.integers(3))]}
            seen.add((left, right, values["c"][0], Content.of(pa.table(values)).total))
    assert len({total for *_, total in seen}) == len(seen)


def test_it_is_the_same_in_another_process():
    code = (
        "import pyarrow as pa; from mlray.sources.fingerprint import Content;"
        "print(Content.of(pa.table({'a': [1.5, None], 'b': ['x', '']})).text)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == Content.of(pa.table({"a": [1.5, None], "b": ["x", ""]})).text
    assert told.stdout.strip() == KNOWN


KNOWN = "2-aa3b751b0892727c-f2af5cd98bfb458a-d57cbcfd89082373"
"""Written down once: versions of years to come must find the same."""
