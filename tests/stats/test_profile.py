"""Profiles: exact where they say so, mergeable, deterministic, safe for strange values."""

from __future__ import annotations

import datetime as dt
import json
import math
import pickle
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlray.errors import InputError
from mlray.stats.profile import ColumnProfile, Profile

NUMBERS = st.lists(
    st.one_of(
        st.none(),
        st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e308, -1e308, 5e-324]),
        st.floats(-1e6, 1e6, allow_nan=False),
    ),
    max_size=60,
)
STRINGS = st.lists(st.one_of(st.none(), st.sampled_from(["", "a", "b", "é", "日本"]), st.text()))


def table(numbers: list[float | None], strings: list[str | None]) -> pa.Table:
    rows = max(len(numbers), len(strings))
    return pa.table(
        {
            "x": pa.array(numbers + [None] * (rows - len(numbers)), pa.float64()),
            "s": pa.array(strings + [None] * (rows - len(strings)), pa.string()),
        }
    )


def exact(column: ColumnProfile) -> tuple[object, ...]:
    return (
        column.type, column.kind, column.rows, column.missing, column.nonfinite, column.minimum,
        column.maximum, column.max_length, column.top, column.top_error, column.distinct,
        column.distinct_is_exact, column.ranks,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(NUMBERS, STRINGS, st.integers(0, 60))
def test_merged_parts_equal_the_whole(
    numbers: list[float | None], strings: list[str | None], cut: int
) -> None:
    whole = table(numbers, strings)
    merged = Profile.of(whole.slice(0, cut)).merge(Profile.of(whole.slice(cut)))
    once = Profile.of(whole)
    assert merged.rows == once.rows
    for name in once.columns:
        a, b = once.columns[name], merged.columns[name]
        assert exact(a) == exact(b)
        assert math.isclose(a.mean, b.mean, rel_tol=1e-9, abs_tol=1e-6) or abs(a.mean) > 1e200
        assert math.isclose(a.std, b.std, rel_tol=1e-6, abs_tol=1e-6) or a.std > 1e150
        assert math.isclose(a.mean_length, b.mean_length, abs_tol=1e-9)


@settings(max_examples=60, deadline=None)
@given(NUMBERS, STRINGS)
def test_json_brings_back_the_same_profile(
    numbers: list[float | None], strings: list[str | None]
) -> None:
    profile = Profile.of(table(numbers, strings))
    text = profile.to_json()
    assert Profile.from_json(text) == profile
    assert Profile.from_json(text).to_json() == text
    assert "NaN" not in text.replace('"NaN', "")
    json.loads(text, parse_constant=pytest.fail)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=80), st.floats(0, 1))
def test_quantiles_of_few_values_are_those_of_numpy(values: list[float], q: float) -> None:
    column = Profile.of(pa.table({"x": values})).columns["x"]
    assert column.rank_error == 0.0
    assert column.quantile(q) == np.quantile(values, q, method="inverted_cdf")
    assert column.cdf(values[0]) == np.mean(np.array(values) <= values[0])


def test_quantiles_of_many_values_stay_inside_the_promised_error() -> None:
    rng = np.random.default_rng(3)
    values = rng.lognormal(0, 2, 400_000)
    parts = [Profile.of(pa.table({"x": part})) for part in np.array_split(values, 37)]
    column = Profile.merged(parts).columns["x"]
    q = np.linspace(0, 1, 201)
    ranks = np.searchsorted(np.sort(values), column.quantile(q), side="right") / len(values)
    assert 0 < column.rank_error < 0.005
    assert np.abs(ranks - q).max() <= column.rank_error
    assert column.quantile(0.0) == values.min()
    assert column.quantile(1.0) == values.max()


def test_moments_of_a_large_offset_keep_their_digits() -> None:
    values = 1e9 + np.random.default_rng(0).normal(size=20_000)
    parts = [Profile.of(pa.table({"x": part})) for part in np.array_split(values, 9)]
    merged = Profile.merged(parts).columns["x"]
    assert merged.mean == pytest.approx(values.mean(), rel=1e-14)
    assert merged.std == pytest.approx(values.std(), rel=1e-6)


def test_values_near_the_largest_double_give_finite_numbers() -> None:
    profile = Profile.of(pa.table({"x": [1e308, -1e308, 1e308, math.inf, math.nan, None]}))
    column = profile.merge(profile).columns["x"]
    assert (column.rows, column.missing, column.nonfinite) == (12, 4, 2)
    assert column.mean == pytest.approx(1e308 / 3)
    assert column.std == 1e308
    assert column.quantile(0.5) == 1e308


def test_the_largest_double_itself_is_safe() -> None:
    largest = np.finfo(np.float64).max
    parts = [Profile.of(pa.table({"x": [largest] * n})) for n in range(1, 50)]
    column = Profile.merged(parts).columns["x"]
    assert column.mean == pytest.approx(largest)
    assert math.isfinite(column.mean)
    assert column.std == 0.0 or math.isfinite(column.std)


def test_an_all_null_column_takes_the_type_of_the_other_part() -> None:
    nothing = Profile.of(pa.table({"x": pa.nulls(3)}))
    assert nothing.columns["x"].kind == "other"
    for merged in (nothing.merge(_one()), _one().merge(nothing)):
        column = merged.columns["x"]
        assert (column.type, column.kind, column.rows, column.missing) == ("int64", "numeric", 5, 3)


def test_a_column_that_a_part_lacks_is_missing_there() -> None:
    merged = _one().merge(Profile.of(pa.table({"y": ["a"]})))
    assert merged.rows == 3
    assert list(merged.columns) == ["x", "y"]
    assert merged.columns["x"].missing == 1
    assert merged.columns["y"].missing == 2


def test_two_types_for_one_column_are_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match="'x' has two types") as caught:
        _one().merge(Profile.of(pa.table({"x": ["a"]})))
    assert "types: {x: ...}" in str(caught.value)


def test_integers_and_doubles_of_one_column_merge() -> None:
    merged = _one().merge(Profile.of(pa.table({"x": [2.0, 0.5]}))).columns["x"]
    assert merged.type == "double"
    assert merged.distinct == 3
    assert merged.top == ((2, 2), (0.5, 1), (1, 1))


def test_types_of_one_kind_find_a_common_one() -> None:
    def merged(a: pa.DataType, b: pa.DataType) -> str:
        one, two = (Profile.of(pa.table({"x": pa.array([None], t)})) for t in (a, b))
        return one.merge(two).columns["x"].type

    assert merged(pa.int32(), pa.uint8()) == "int64"
    assert merged(pa.float32(), pa.int64()) == "double"
    assert merged(pa.string(), pa.large_string()) == "string"
    assert merged(pa.timestamp("s", "UTC"), pa.timestamp("ms", "UTC")) == "timestamp[us, tz=UTC]"


def test_times_are_epoch_seconds() -> None:
    when = dt.datetime(2013, 9, 15, 12, tzinfo=dt.UTC)
    columns = Profile.of(
        pa.table(
            {
                "us": pa.array([when, None], pa.timestamp("us", "UTC")),
                "s": pa.array([when, None], pa.timestamp("s", "Europe/Berlin")),
                "day": pa.array([when.date(), None], pa.date32()),
                "ms_day": pa.array([when.date(), None], pa.date64()),
            }
        )
    ).columns
    midnight = dt.datetime(2013, 9, 15, tzinfo=dt.UTC).timestamp()
    assert {c.kind for c in columns.values()} == {"time"}
    assert [columns[n].minimum for n in ("us", "s")] == [when.timestamp()] * 2
    assert [columns[n].quantile(0.5) for n in ("day", "ms_day")] == [midnight] * 2


def test_booleans_are_counted_by_name() -> None:
    column = Profile.of(pa.table({"b": [True, False, True, None]})).columns["b"]
    assert column.kind == "boolean"
    assert column.top == ((True, 2), (False, 1))
    assert column.top[0][0] is True
    assert column.mean == pytest.approx(2 / 3)


def test_dictionaries_decimals_views_and_small_floats_are_read() -> None:
    columns = Profile.of(
        pa.table(
            {
                "d": pa.array(["a", None, "a"]).dictionary_encode(),
                "m": pa.array([Decimal("1.5"), None, Decimal("2.5")], pa.decimal128(10, 2)),
                "v": pa.array(["a", "b", "bb"], pa.string_view()),
                "h": pa.array(np.array([1, 2, np.inf], np.float16)),
                "l": pa.array([[1], None, [2]]),
            }
        )
    ).columns
    assert columns["d"].top == (("a", 2),)
    assert columns["m"].mean == 2.0
    assert (columns["v"].max_length, columns["v"].distinct) == (2, 3)
    assert (columns["h"].nonfinite, columns["h"].maximum) == (1, 2.0)
    assert (columns["l"].kind, columns["l"].missing) == ("other", 1)


def test_lengths_count_characters_not_bytes() -> None:
    column = Profile.of(pa.table({"s": ["日本", "a", "a", None]})).columns["s"]
    assert column.max_length == 2
    assert column.mean_length == pytest.approx(4 / 3)
    assert (column.minimum, column.maximum) == ("a", "日本")


def test_large_integers_are_told_apart() -> None:
    ids = np.arange(2**60, 2**60 + 1500, dtype=np.int64)
    column = Profile.of(pa.table({"id": ids})).columns["id"]
    assert column.distinct == 1500
    assert column.ranks.rows == 1500
    unsigned = Profile.of(pa.table({"id": np.array([2**64 - 1, 2**64 - 2, 0], np.uint64)}))
    assert unsigned.columns["id"].distinct == 3
    assert unsigned.columns["id"].top[1] == (2**64 - 2, 1)


def test_empty_tables_and_empty_profiles_are_neutral() -> None:
    schema = {"x": pa.array([], pa.int64()), "t": pa.array([], pa.timestamp("us")),
              "s": pa.array([], pa.string()), "b": pa.array([], pa.bool_())}  # fmt: skip
    empty = Profile.of(pa.table(schema))
    assert empty.rows == 0
    assert empty.columns["x"].std == 0.0
    assert empty.columns["x"].missing_frac == 0.0
    assert Profile().merge(_one()) == _one()
    assert Profile.merged([]) == Profile()


def test_quantiles_of_a_column_without_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="no numbers"):
        Profile.of(pa.table({"s": ["a"]})).columns["s"].quantile(0.5)
    with pytest.raises(InputError, match="no numbers"):
        Profile.of(pa.table({"x": pa.array([None], pa.int64())})).columns["x"].cdf(1.0)


def test_same_tables_in_the_same_order_give_the_same_text() -> None:
    rng = np.random.default_rng(1)
    tables = [pa.table({"x": rng.normal(size=9_000), "k": rng.integers(0, 5_000, 9_000)})] * 4
    texts = {Profile.merged(map(Profile.of, tables)).to_json() for _ in range(2)}
    assert len(texts) == 1


def test_chunks_do_not_matter() -> None:
    whole = pa.table({"s": ["a", "b", "a"], "x": [1, 2, 3]})
    chunked = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    assert Profile.of(chunked) == Profile.of(whole)


def _one() -> Profile:
    return Profile.of(pa.table({"x": [1, 2]}))


def test_many_parts_at_once_equal_one_after_the_other() -> None:
    rng = np.random.default_rng(2)
    values = pa.table({"x": rng.integers(0, 900, 7_000), "s": rng.choice(["a", "b", None], 7_000)})
    parts = [Profile.of(values.slice(start, 100)) for start in range(0, 7_000, 100)]
    at_once, stepwise = Profile.merged(parts), Profile()
    for part in parts:
        stepwise = stepwise.merge(part)
    for name, column in at_once.columns.items():
        assert (
            exact(column)
            == exact(stepwise.columns[name])
            == exact(Profile.of(values).columns[name])
        )
        assert column.std == pytest.approx(stepwise.columns[name].std, rel=1e-12)


def test_a_profile_of_another_format_is_refused() -> None:
    with pytest.raises(InputError, match="unknown format: 99"):
        Profile.from_json('{"format": 99, "rows": 0, "columns": []}')


def test_a_profile_travels_between_processes() -> None:
    profile = Profile.of(table([1.0, None, 2.5], ["a", "b", None]))
    assert pickle.loads(pickle.dumps(profile)) == profile
