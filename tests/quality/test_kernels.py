"""Every kernel against the plain Python sentence that it stands for."""

from __future__ import annotations

import math
import re
from datetime import date, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlray.config.quality import ExistsIn, Rule
from mlray.errors import InputError
from mlray.quality import KeySet, check, compile_rules
from mlray.quality.keys import hashes_of
from mlray.quality.values import Values

FLOATS = st.one_of(st.none(), st.floats(width=64), st.integers(-5, 5).map(float))
TEXTS = st.one_of(st.none(), st.text("aB1ü🙂 ", max_size=6))


def broken_rows(table, rule, **more):
    checked = check(table, compile_rules([Rule(**rule)], table.schema, **more), whole=True)
    kept = np.ones(len(table), bool) if checked.kept is None else checked.kept
    assert checked.report.rules[0].broken == (~kept).sum()
    return (~kept).tolist()


def pieces(array):
    """A column in several chunks, one of them with an offset."""
    middle = len(array) // 2
    return pa.chunked_array([array[:middle], array[middle:]], array.type)


@settings(max_examples=80, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=40), st.sampled_from([(-2, 3), (None, 1), (0, None)]))
def test_range_is_judged_as_python_would(values, bounds):
    low, high = (-math.inf if bounds[0] is None else bounds[0],
                 math.inf if bounds[1] is None else bounds[1])  # fmt: skip
    expected = [v is not None and not math.isnan(v) and not low <= v <= high for v in values]
    table = pa.table({"x": pieces(pa.array(values, pa.float64()))})
    assert broken_rows(table, {"column": "x", "range": bounds}) == expected


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint64", "float", "decimal128(9, 2)"])
def test_range_holds_for_every_kind_of_number(kind):
    kinds = {"float": pa.float32(), "decimal128(9, 2)": pa.decimal128(9, 2)}
    array = pa.array([None, 1, 7, 100], kinds[kind] if kind in kinds else pa.type_for_alias(kind))
    table = pa.table({"x": array.slice(1)})
    assert broken_rows(table, {"column": "x", "range": [0.5, 99.5]}) == [False, False, True]
    assert broken_rows(table, {"column": "x", "range": [-1e9, 1e9]}) == [False] * 3
    assert broken_rows(table, {"column": "x", "range": [2, None]}) == [True, False, False]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_time_is_in_bounds_to_its_last_tick(unit):
    times = [datetime(2013, 1, 5, 23, 59, 59), datetime(2013, 1, 6), datetime(2012, 12, 31, 23)]
    table = pa.table({"at": pa.array(times, pa.timestamp(unit, tz="Europe/Berlin"))})
    rule = {"column": "at", "range": ["2013-01-01", "2013-01-05"]}
    # 23:59:59 UTC is the next day in Berlin, and 23:00 UTC its first second of the year
    assert broken_rows(table, rule) == [True, True, False]
    naive = pa.table({"at": pa.array(times, pa.timestamp(unit))})
    assert broken_rows(naive, rule) == [False, True, True]


def test_days_are_bounds_for_days():
    table = pa.table({"on": pa.array([date(2013, 1, 1), date(2013, 1, 3)], pa.date32())})
    rule = {"column": "on", "range": ["2013-01-01T00:00:01", "2013-01-03T12:00"]}
    assert broken_rows(table, rule) == [True, False]


@settings(max_examples=80, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=40), st.booleans())
def test_texts_are_judged_whole_and_in_characters(values, encoded):
    array = pa.array(values, pa.string())
    column = pieces(array).dictionary_encode() if encoded else pieces(array)
    table = pa.table({"t": column})
    pattern = "[aB]+1?|ü"
    unlike = [v is not None and re.fullmatch(pattern, v) is None for v in values]
    assert broken_rows(table, {"column": "t", "matches": pattern}) == unlike
    badly_long = [v is not None and not 1 <= len(v) <= 3 for v in values]
    assert broken_rows(table, {"column": "t", "length": [1, 3]}) == badly_long
    strange = [v is not None and v not in ("a", "") for v in values]
    assert broken_rows(table, {"column": "t", "allowed": ["a", ""]}) == strange


def test_texts_that_hardly_repeat_are_judged_one_by_one():
    texts = [f"id-{i}" for i in range(5000)] + ["wrong", None]
    table = pa.table({"t": texts})
    assert Values(table["t"])._distinct is None
    assert np.flatnonzero(broken_rows(table, {"column": "t", "matches": "id-[0-9]+"})) == [5000]


def test_a_line_break_is_part_of_the_text():
    table = pa.table({"t": ["AB", "AB\n", "AB\nCD"]})
    assert broken_rows(table, {"column": "t", "matches": "[A-Z]{2}"}) == [False, True, True]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-50, 50)), min_size=1, max_size=60),
       st.lists(st.integers(-50, 50), max_size=60))  # fmt: skip
def test_values_exist_in_another_source(values, known):
    keys = KeySet.of([hashes_of(pa.chunked_array([pa.array(known, pa.float64())]), pa.int64())])
    table = pa.table({"x": pa.array(values, pa.int64())})
    rule = {"column": "x", "exists_in": ExistsIn(source="other", column="k")}
    expected = [v is not None and v not in known for v in values]
    assert broken_rows(table, rule, keys={("other", "k", "int64"): keys}) == expected


def test_many_keys_are_all_found_and_no_other():
    known = np.arange(0, 2_000_000, 7)
    keys = KeySet.of([hashes_of(pa.chunked_array([part]), pa.int64())
                      for part in np.array_split(known, 3)])  # fmt: skip
    asked = np.arange(100_000)
    lacking = keys.lacks(pa.array(asked))
    assert (lacking == (asked % 7 != 0)).all()


def test_keys_of_another_type_are_refused():
    with pytest.raises(InputError, match="keys do not convert to int64"):
        hashes_of(pa.chunked_array([["a"]]), pa.int64())
    rule = compile_rules(
        [Rule(column="x", exists_in=ExistsIn(source="o", column="k"))],
        pa.schema({"x": pa.int64()}),
    )
    with pytest.raises(InputError, match="values that `x` must exist in were not read"):
        check(pa.table({"x": [1]}), rule)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 3))),
                min_size=1, max_size=40))  # fmt: skip
def test_the_first_row_of_a_key_stays(rows):
    table = pa.table({"a": [a for a, _ in rows], "b": pa.array([b for _, b in rows], pa.int64())})
    seen, expected = set(), []
    for row in rows:
        expected.append(row[1] is not None and row in seen)
        seen.add(row)
    assert broken_rows(table, {"columns": ["a", "b"], "unique": True}) == expected


def test_an_expression_holds_or_is_not_judged():
    table = pa.table({"a": [1, 5, None, 2], "b": [2, 3, 4, 2]})
    assert broken_rows(table, {"holds": "a <= b"}) == [False, True, False, False]


def test_a_function_of_the_user_judges_rows(tmp_path, monkeypatch):
    (tmp_path / "judges_of_rows.py").write_text(
        "import pyarrow as pa\nimport pyarrow.compute as pc\n"
        "def good(t): return pc.greater(t['x'], pa.scalar(1))\n"
        "def short(t): return pa.array([True])\n"
        "def numbers(t): return t['x']\n"
        "def fails(t): raise KeyError('y')\n"
    )
    table = pa.table({"x": [1, 2, None]})
    more = {"folder": str(tmp_path)}
    assert broken_rows(table, {"function": "judges_of_rows:good"}, **more) == [True, False, False]
    for name, said in (("short", "1 of bool"), ("numbers", "3 of int64"), ("fails", "KeyError")):
        with pytest.raises(InputError, match=said):
            broken_rows(table, {"function": f"judges_of_rows:{name}"}, **more)
