"""Splits: no leak, repeatable, whatever the blocks."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlray.config.sections import Split
from mlray.errors import ConfigError, InputError
from mlray.sources.hashing import hash_rows
from mlray.splits import LATER, TEST, TRAIN, VALIDATION, SplitPlan, plan
from mlray.stats.profile import Profile

START = datetime(2013, 1, 1, tzinfo=UTC)


def planned(table, time_column=None, **split):
    return plan(Split(**split), Profile.of(table), time_column=time_column)


def days(count=365, **more):
    at = [START + timedelta(days=d, hours=12) for d in range(count)]
    return pa.table({"at": pa.array(at, pa.timestamp("us", tz="UTC")), **more})


def counts(parts):
    return np.bincount(parts, minlength=4).tolist()


rows = st.lists(
    st.tuples(
        st.one_of(st.none(), st.text(max_size=8), st.sampled_from(["a", "b", "c"])),
        st.one_of(st.none(), st.floats(), st.integers(-5, 5).map(float)),
        st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        st.booleans(),
    ),
    min_size=1,
    max_size=60,
)


def table_of(values):
    names, kinds = "gfib", (pa.string(), pa.float64(), pa.int64(), pa.bool_())
    columns = zip(*values, strict=True)
    return pa.table({n: pa.array(c, k) for n, c, k in zip(names, columns, kinds, strict=True)})


@settings(max_examples=80, deadline=None)
@given(rows, st.lists(st.integers(0, 60), max_size=4), st.sampled_from([None, "g", "f", "i"]))
def test_assignment_does_not_depend_on_block_boundaries(values, cuts, column):
    table = table_of(values)
    split = SplitPlan("hash", column, 0.3, 0.3, 7, ())
    whole = split.assign(table)
    ends = [0, *sorted(min(c, len(table)) for c in cuts), len(table)]
    pieces = [table.slice(a, b - a) for a, b in itertools.pairwise(ends)]
    assert np.concatenate([split.assign(p) for p in pieces]).tolist() == whole.tolist()
    glued = pa.concat_tables(pieces)
    assert split.assign(glued).tolist() == whole.tolist()


@settings(max_examples=80, deadline=None)
@given(rows, st.integers(-(2**31), 2**31))
def test_no_group_is_in_two_parts(values, seed):
    table = table_of(values)
    parts = SplitPlan("group", "g", 0.4, 0.3, seed, ()).assign(table)
    for group in set(table["g"].to_pylist()):
        inside = [p for p, g in zip(parts, table["g"].to_pylist(), strict=True) if g == group]
        assert len(set(inside)) == 1


@settings(max_examples=40, deadline=None)
@given(rows, st.integers(0, 1000))
def test_the_same_seed_gives_the_same_parts(values, seed):
    table = table_of(values)
    split = SplitPlan("hash", None, 0.3, 0.3, seed, ())
    again = SplitPlan.from_json(split.to_json())
    assert again == split
    assert again.assign(table).tolist() == split.assign(table).tolist()


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 0.45), st.floats(0.05, 0.45), st.integers(0, 50))
def test_shares_are_close_to_what_was_asked(validation, test, seed):
    n = 20_000
    table = pa.table({"k": [f"key {i}" for i in range(n)], "y": np.arange(n) % 2})
    parts = SplitPlan("hash", None, validation, test, seed, ()).assign(table)
    found = np.array(counts(parts)) / n
    error = 5 * np.sqrt(0.25 / n)  # five standard deviations of a share
    assert abs(found[VALIDATION] - validation) < error
    assert abs(found[TEST] - test) < error


def test_another_seed_gives_another_split():
    table = pa.table({"k": range(1000)})
    one, two = (SplitPlan("hash", None, 0.3, 0.3, s, ()).assign(table) for s in (0, 1))
    assert 0.2 < (one == two).mean() < 0.6


def test_hashes_are_the_same_in_every_version():
    table = pa.table({"k": ["a", "b", None, ""], "x": [1.0, -0.0, float("nan"), 1e308]})
    found = hash_rows(table, ["k", "x"], seed=3).tolist()
    assert found == [
        17994657054898805164,
        12133627199941969941,
        6706143613168544597,
        1455183398496570006,
    ]


def test_months_are_cut_at_their_first_moment():
    split = planned(days(), by="time", column="at", validation="2013-09", test="2013-10")
    assert counts(split.assign(days())) == [243, 30, 31, 61]
    edge = pa.table(
        {
            "at": pa.array(
                [
                    datetime(2013, 8, 31, 23, 59, 59, 999999),
                    datetime(2013, 9, 1),
                    datetime(2013, 10, 1),
                    datetime(2013, 11, 1),
                    None,
                ],
                pa.timestamp("ns"),
            )
        }
    )
    assert split.assign(edge).tolist() == [TRAIN, VALIDATION, TEST, LATER, LATER]


def test_days_years_and_first_moments_are_periods():
    table = days(800)
    by = {"by": "time", "column": "at"}
    day = planned(table, validation="2013-09-15", test="2013-09-16", **by)
    assert counts(day.assign(table))[1:3] == [1, 1]
    year = planned(table, validation="2014", test="2015", **by)
    assert counts(year.assign(table)) == [365, 365, 70, 0]
    moment = planned(table, validation="2014-01-01T00:00:00", test="2014-07-01T00:00:00", **by)
    assert counts(moment.assign(table)) == [365, 181, 254, 0]


def test_what_lies_between_validation_and_test_is_kept_apart():
    split = planned(days(), column="at", validation="2013-09", test="2013-11")
    assert counts(split.assign(days())) == [243, 30, 30, 62]


def test_shares_of_time_are_quantiles():
    split = planned(days(1000), by="time", column="at", validation=0.2, test=0.1)
    parts = split.assign(days(1000))
    assert np.abs(np.array(counts(parts)) - [700, 200, 100, 0]).max() <= 2
    assert (np.diff(parts) >= 0).all()


def test_a_share_before_a_test_period_and_after_a_validation_period():
    before = planned(days(), column="at", validation=0.1, test="2013-12")
    assert abs(counts(before.assign(days()))[1] - 36) <= 2
    after = planned(days(), column="at", validation="2013-06", test=0.1)
    assert abs(counts(after.assign(days()))[2] - 36) <= 2
    rest = planned(days(), column="at", validation="2013-06")
    assert counts(rest.assign(days())) == [151, 30, 184, 0]


def test_auto_takes_the_time_column_then_the_group_then_the_row():
    table = days(9, g=["a", "b", "c"] * 3, part=["train", "val", "test"] * 3)
    assert planned(table, time_column="at").by == "time"
    assert planned(table, column="at").by == "time"
    assert planned(table, column="g").by == "group"
    assert planned(table, column="part").by == "column"
    assert planned(table).by == "hash"
    assert all(planned(table, column=c).reasons for c in ("at", "g", "part"))


def test_a_column_that_says_the_part_is_followed():
    table = pa.table({"part": ["Train", "valid", "test", "later"]})
    split = planned(table, by="column", column="part")
    assert split.assign(table).tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError) as caught:
        split.assign(pa.table({"part": ["train", "holdout", None]}))
    assert "these are none: holdout, None" in str(caught.value)
    assert "Allowed: train, validation, test, later" in str(caught.value)


def test_an_empty_part_is_refused_with_the_counts():
    split = planned(days(), column="at", validation="2014-09", test="2014-10")
    with pytest.raises(InputError) as caught:
        split.check(counts(split.assign(days())))
    assert "parts without rows" in str(caught.value)
    assert "validation, test" in str(caught.value)
    assert "train 365" in str(caught.value)
    SplitPlan("hash", None, 0.1, 0.1, 0, ()).check([5, 1, 1, 0])


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"by": "time", "validation": "2013-10", "test": "2013-09"}, "must come after"),
        ({"by": "time", "validation": "soon", "test": "2013-09"}, "neither a share nor a period"),
        ({"by": "time", "validation": "2013-13", "test": "2014"}, "neither a share nor a period"),
        ({"by": "hash", "validation": "2013-09"}, "is a period"),
        ({"by": "group"}, "split.column is not set"),
        ({"by": "hash", "validation": 0.6, "test": 0.6}, "together below 1"),
        ({"by": "hash", "validation": 0.0}, "above 0"),
    ],
)
def test_a_split_that_cannot_be_is_refused(split, message):
    with pytest.raises(ConfigError, match=message):
        planned(days(), **split)


def test_columns_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"split\.column is not a column of the rows: att"):
        planned(days(), by="group", column="att")
    with pytest.raises(InputError, match="is not a time: int64"):
        planned(days(x=range(365)), by="time", column="x")
    with pytest.raises(ConfigError, match="needs a time column"):
        planned(pa.table({"x": [1]}), by="time")
    with pytest.raises(InputError, match="the column to split by is not there: g"):
        SplitPlan("group", "g", 0.1, 0.1, 0, ()).assign(days())


def test_no_rows_give_no_parts():
    nothing = table_of([("a", 1.0, 1, True)]).slice(0, 0)
    for column in (None, "g", "f"):
        assert SplitPlan("hash", column, 0.1, 0.1, 0, ()).assign(nothing).tolist() == []


def test_a_label_that_was_not_known_when_the_next_part_began_is_not_learnt_from() -> None:
    days = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=i) for i in range(90)]
    known = [day + timedelta(days=7) for day in days]
    table = pa.table({"day": days, "known": known})
    split = Split(by="time", column="day", validation="2024-02", test="2024-03")
    made = plan(split, Profile.of(table), known_at="known")
    parts = SplitPlan.from_json(made.to_json()).assign(table)
    starts = {"2024-02-01": 0, "2024-03-01": 1}
    for start, part in starts.items():
        cut = datetime.fromisoformat(start).replace(tzinfo=UTC)
        learnt = [k for k, p in zip(known, parts, strict=True) if p == part]
        assert max(learnt) < cut
    assert (parts == 3).sum() == 14, "a week before each cut"
