from __future__ import annotations

import math
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlray.errors import InputError
from mlray.models.encoder import CUTS, LARGEST, Encoder
from mlray.models.inputs import Inputs
from mlray.models.networks import ResidualMLP
from mlray.models.requests import RequestSchema
from mlray.models.roles import Role
from mlray.models.target import Target
from mlray.stats.profile import Profile
from tests.models.conftest import fitted, mixed_table

TARGET = Target("y", "binary", (0, 1))


def encoder_of(table: pa.Table, **kinds: str) -> Encoder:
    roles = [Role(name, kind, "test") for name, kind in kinds.items()]  # type: ignore[arg-type]
    return Encoder.fit(Profile.of(table), roles, TARGET)


def test_numbers_are_centred_by_the_median_and_scaled_by_their_spread() -> None:
    values = np.random.default_rng(0).normal(7, 3, 20_000)
    table = pa.table({"x": values})
    encoded = encoder_of(table, x="numeric").encode(table).numeric[:, 0]
    assert abs(np.median(encoded)) < 0.01
    assert abs(encoded.std() - 1) < 0.03


def test_one_wild_value_does_not_crush_the_others() -> None:
    values = np.append(np.random.default_rng(0).normal(size=999), 1e308)
    table = pa.table({"x": values})
    encoded = encoder_of(table, x="numeric").encode(table).numeric[:, 0]
    assert 0.8 < encoded[:999].std() < 1.2
    assert np.isfinite(encoded[999])


def test_missing_is_nan_infinity_stays_and_huge_values_stay_finite() -> None:
    table = pa.table({"x": [0.0, 1.0, 2.0, 3.0]})
    encoder = encoder_of(table, x="numeric")
    wild = pa.table({"x": pa.array([None, math.nan, math.inf, -math.inf, 1e308, -1e308])})
    found = encoder.encode(wild).numeric[:, 0]
    assert np.isnan(found[:2]).all()
    assert found[2] == math.inf
    assert found[3] == -math.inf
    assert found[4] == np.float32(LARGEST)
    assert found[5] == -np.float32(LARGEST)


def test_a_column_that_is_nearly_always_zero_still_has_cut_points_for_the_rest() -> None:
    random = np.random.default_rng(0)
    values = np.where(random.random(20_000) < 0.95, 0.0, random.exponential(1000, 20_000))
    inputs = encoder_of(pa.table({"x": values}), x="numeric").inputs()
    assert 40 < len(inputs.quantiles[0]) <= CUTS + 2
    assert list(inputs.quantiles[0]) == sorted(set(inputs.quantiles[0]))


def test_a_column_of_few_values_has_a_cut_point_at_each() -> None:
    table = pa.table({"x": [1, 2, 2, 7] * 50})
    encoder = encoder_of(table, x="numeric")
    center, scale = encoder.numeric[0].center, encoder.numeric[0].scale
    cuts = [q * scale + center for q in encoder.inputs().quantiles[0]]
    np.testing.assert_allclose(cuts, [1, 2, 7], atol=1e-5)


def test_codes_are_missing_unseen_and_then_by_frequency() -> None:
    table = pa.table({"c": ["b"] * 60 + ["a"] * 30 + ["rare"] * 2 + [None] * 8})
    encoder = encoder_of(table, c="category")
    asked = pa.table({"c": ["b", "a", "rare", "never", None]})
    assert encoder.encode(asked).category[:, 0].tolist() == [2, 3, 1, 1, 0]
    assert encoder.labels("c") == ("missing", "unseen", "b", "a")
    assert encoder.inputs().cardinalities == (4,)


def test_numbers_can_be_categories_whatever_their_width() -> None:
    table = pa.table({"c": pa.array([1, 2, 2, 2] * 30, pa.int64())})
    encoder = encoder_of(table, c="category")
    for kind in (pa.int8(), pa.int64(), pa.float64(), pa.string()):
        asked = pa.table({"c": pa.array([2, 1, 9]).cast(kind)})
        assert encoder.encode(asked).category[:, 0].tolist() == [2, 3, 1]


def test_dictionary_columns_encode_as_their_values() -> None:
    table = pa.table({"c": pa.array(["b", "a", "b", None] * 30)})
    encoder = encoder_of(table, c="category")
    dictionary = pa.table({"c": table["c"].dictionary_encode()})
    assert np.array_equal(encoder.encode(dictionary).category, encoder.encode(table).category)


def test_a_time_becomes_the_calendar_features_whose_cycle_was_seen() -> None:
    year = [datetime(2013, 1, 1 + i % 28, i % 24) for i in range(60)]
    week = pa.table({"t": pa.array(year, pa.timestamp("us"))})
    assert encoder_of(week, t="time").inputs().numeric == ("t.hour", "t.weekday")
    long = pa.table({"t": pa.array([datetime(2012 + i % 3, 6, 1) for i in range(60)])})
    assert encoder_of(long, t="time").inputs().numeric == ("t.hour", "t.weekday", "t.yearday")
    days = pa.table({"t": pa.array([date(2012 + i % 3, 6, 1) for i in range(60)])})
    assert encoder_of(days, t="time").inputs().numeric == ("t.weekday", "t.yearday")


def test_calendar_features_are_of_the_columns_own_zone() -> None:
    moments = [datetime(2013, 10, 1, 3, 30, tzinfo=UTC)] * 30
    table = pa.table({"t": pa.array(moments, pa.timestamp("us", "America/New_York"))})
    encoder = encoder_of(table, t="time")
    value = float(encoder.encode(table).numeric[0, 0])
    assert encoder.to_human("t.hour", value) == "23.5"


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="zeros"):
        fitted(mixed_table(), "late").encode(mixed_table().drop_columns(["zeros"]))


def test_an_encoder_is_the_same_after_json() -> None:
    for target in ("late", "size", "minutes"):
        encoder = fitted(mixed_table(), target)
        again = Encoder.from_json(encoder.to_json())
        assert again == encoder
        assert again.to_json() == encoder.to_json()
        assert Inputs.from_dict(again.inputs().to_dict()) == encoder.inputs()


def test_matrices_are_contiguous_and_of_the_types_of_the_contract() -> None:
    table = mixed_table()
    encoded = fitted(table, "late").encode(table)
    assert encoded.numeric.dtype == np.float32
    assert encoded.category.dtype == np.int32
    assert encoded.numeric.flags.c_contiguous
    assert encoded.category.flags.c_contiguous


def test_chunks_and_slices_do_not_change_the_encoding() -> None:
    table = mixed_table()
    encoder = fitted(table, "late")
    chunked = pa.concat_tables([table.slice(0, 3), table.slice(3, 700), table.slice(703)])
    assert encoder.encode(chunked).numeric.tobytes() == encoder.encode(table).numeric.tobytes()
    assert np.array_equal(encoder.encode(chunked).category, encoder.encode(table).category)
    assert len(encoder.encode(table.slice(0, 0))) == 0


wild_floats = st.one_of(
    st.none(), st.floats(width=64), st.sampled_from([1e308, -1e308, 5e-324, 0.0, -0.0])
)
wild_texts = st.one_of(st.none(), st.text(max_size=5), st.sampled_from(["UA", "B6"]))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    train=st.lists(st.tuples(wild_floats, wild_texts), min_size=1, max_size=40),
    asked=st.lists(st.tuples(wild_floats, wild_texts), max_size=20),
)
def test_no_table_breaks_the_encoder_or_gives_a_score_that_is_no_number(
    train: list[tuple[float | None, str | None]], asked: list[tuple[float | None, str | None]]
) -> None:
    encoder = encoder_of(_wild(train), x="numeric", c="category")
    network = ResidualMLP(encoder.inputs(), width=8, depth=1, number_size=4).eval()
    for rows in (train, asked):
        encoded = encoder.encode(_wild(rows))
        with torch.inference_mode():
            logits = network(torch.from_numpy(encoded.numeric), torch.from_numpy(encoded.category))
        assert bool(torch.isfinite(logits).all())
        codes = encoded.category
        assert ((codes >= 0) & (codes < encoder.inputs().cardinalities[0])).all()


def _wild(rows: list[tuple[float | None, str | None]]) -> pa.Table:
    return pa.table(
        {
            "x": pa.array([x for x, _ in rows], pa.float64()),
            "c": pa.array([c for _, c in rows], pa.string()),
        }
    )


finite = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))
whole = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))
moments = st.one_of(st.none(), st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1)))
row = st.tuples(finite, whole, st.one_of(st.none(), st.booleans()), wild_texts, moments)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(row, min_size=1, max_size=8))
def test_lists_and_tables_encode_to_the_same_bits(rows: list[tuple[object, ...]]) -> None:
    train = pa.table(
        {
            "x": np.linspace(-1, 1, 60),
            "n": np.arange(60) % 7,
            "flag": np.arange(60) % 2 == 0,
            "c": ["UA", "B6"] * 30,
            "t": pa.array([datetime(2010 + i % 4, 1, 1, i % 24) for i in range(60)]),
        }
    )
    encoder = encoder_of(train, x="numeric", n="category", flag="numeric", c="category", t="time")
    assert encoder.takes_lists
    records = [
        {
            k: v.isoformat() if isinstance(v, datetime) else v
            for k, v in zip(train.column_names, r, strict=True)
        }
        for r in rows
    ]
    requests = RequestSchema(encoder.schema)
    columns = requests.columns(records)
    direct, by_table = (
        encoder.encode_lists(columns, len(rows)),
        encoder.encode(requests.table(columns)),
    )
    assert direct.numeric.tobytes() == by_table.numeric.tobytes()
    assert direct.category.tobytes() == by_table.category.tobytes()


def test_labels_of_each_task() -> None:
    table = mixed_table(200)
    late = fitted(table, "late").encode_target(table["late"])
    assert late.dtype == np.float32
    assert set(late) == {0.0, 1.0}
    size = fitted(table, "size").encode_target(table["size"])
    assert size.dtype == np.int64
    minutes = fitted(table, "minutes").encode_target(table["minutes"])
    assert minutes.dtype == np.float32
    assert abs(minutes.mean()) < 1e-5
    assert abs(minutes.std() - 1) < 1e-5


def test_rows_without_a_label_are_counted() -> None:
    encoder = fitted(mixed_table(), "late")
    with pytest.raises(InputError, match="2 rows have no target"):
        encoder.encode_target(pa.chunked_array([[True, None, None]]))
    with pytest.raises(InputError, match="1 rows have no finite"):
        fitted(mixed_table(), "minutes").encode_target(pa.chunked_array([[1.0, math.inf]]))
    with pytest.raises(InputError, match="no class"):
        fitted(mixed_table(), "size").encode_target(pa.chunked_array([["huge"]]))


def test_values_are_told_in_the_words_of_the_column() -> None:
    encoder = fitted(mixed_table(), "late")
    feature = next(f for f in encoder.numeric if f.name == "seats")
    assert encoder.to_human("seats", (120 - feature.center) / feature.scale) == "120"
    assert encoder.to_human("carrier", 0) == "missing"
    with pytest.raises(KeyError):
        encoder.to_human("nothing", 0)
