"""Quality: rows that break rules are set aside once, and the report says what was found."""

from __future__ import annotations

import itertools
from datetime import date, datetime
from functools import reduce

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlray.config.quality import Quality, Rule
from mlray.errors import ConfigError, InputError, QualityError
from mlray.quality import ABOUT, QualityReport, check, compile_rules, decide


def checked(table, *rules):
    return check(table, compile_rules([Rule(**r) for r in rules], table.schema))


def broken(table, **rule):
    return checked(table, rule).quarantined


FLIGHTS = pa.table(
    {
        "distance": [100.0, 7000.0, None, float("nan"), float("inf"), -1.0],
        "carrier": ["UA", "AA", None, "UA", "XX", None],
        "on": pa.array([date(2013, 1, d) for d in (1, 2, 3, 4, 5, 6)]),
    }
)


def test_a_range_sets_aside_what_lies_outside_and_does_not_judge_the_missing():
    result = checked(FLIGHTS, {"column": "distance", "range": [0, 6000]})
    assert result.quarantined["distance"].to_pylist() == [7000.0, float("inf"), -1.0]
    assert result.clean.num_rows == 3
    assert result.quarantined["_rule"].to_pylist() == ["distance: range"] * 3
    assert result.quarantined["_reason"][0].as_py() == "distance: 7000 is not in [0, 6000]"
    assert result.clean.column_names == FLIGHTS.column_names


def test_one_bound_is_enough():
    assert broken(FLIGHTS, column="distance", range=[None, 6000]).num_rows == 2
    assert broken(FLIGHTS, column="distance", range=[0, None]).num_rows == 1


def test_nan_and_null_are_missing():
    assert broken(FLIGHTS, column="distance", required=True).num_rows == 2
    assert broken(FLIGHTS, column="carrier", required=True).num_rows == 2


def test_allowed_values():
    result = broken(FLIGHTS, column="carrier", allowed=["UA", "AA"])
    assert result["_reason"].to_pylist() == ["carrier: XX is none of UA, AA"]
    numbers = pa.table({"x": [1, 2, 3]})
    assert broken(numbers, column="x", allowed=[1, 2])["x"].to_pylist() == [3]


def test_a_row_that_breaks_several_rules_is_set_aside_once_with_all_names():
    result = checked(
        FLIGHTS,
        {"column": "distance", "range": [0, 6000]},
        {"column": "carrier", "required": True, "name": "has carrier"},
    )
    assert result.quarantined["_rule"].to_pylist() == [
        "distance: range",
        "has carrier",
        "distance: range",
        "distance: range; has carrier",
    ]
    assert result.quarantined["_reason"][3].as_py() == (
        "distance: -1 is not in [0, 6000]; carrier:  is missing"
    )
    assert result.report.quarantined == 4


def test_days_as_bounds_hold_to_the_end_of_the_day():
    assert broken(FLIGHTS, column="on", range=["2013-01-02", "2013-01-05"]).num_rows == 2
    times = pa.table(
        {
            "at": pa.array(
                [datetime(2013, 1, 5, 23, 59), datetime(2013, 1, 6), None],
                pa.timestamp("us", tz="UTC"),
            )
        }
    )
    assert broken(times, column="at", range=["2013-01-01", "2013-01-05"]).num_rows == 1
    assert broken(times, column="at", range=["2013-01-05T23:59:30", None]).num_rows == 1


def test_values_that_do_not_convert_to_a_type():
    table = pa.table({"x": ["1", "2.5", "two", None, "two"], "f": [1.0, 2.5, None, 3.0, 1e300]})
    assert broken(table, column="x", type="float64")["x"].to_pylist() == ["two", "two"]
    assert broken(table, column="x", type="int64")["x"].to_pylist() == ["2.5", "two", "two"]
    assert broken(table, column="f", type="int64")["f"].to_pylist() == [2.5, 1e300]
    assert broken(table, column="f", type="float64").num_rows == 0


def test_a_warning_sets_nothing_aside():
    result = checked(FLIGHTS, {"column": "carrier", "required": True, "severity": "warn"})
    assert result.clean.num_rows == FLIGHTS.num_rows
    assert result.report.rules[0].broken == 2
    assert decide(result.report, Quality()) == ("carrier: required: broken by 2 rows",)


def test_a_rule_that_stops_the_run_says_what_it_found():
    rule = {"column": "carrier", "allowed": ["UA"], "severity": "stop", "name": "known"}
    with pytest.raises(QualityError) as caught:
        decide(checked(FLIGHTS, rule).report, Quality())
    assert "known: broken by 2 rows (e.g. AA; XX)" in str(caught.value)


def test_too_many_rows_set_aside_stop_the_run():
    report = checked(FLIGHTS, {"column": "distance", "range": [0, 6000]}).report
    with pytest.raises(QualityError) as caught:
        decide(report, Quality(max_quarantined=0.4))
    assert "3 of 6 rows (50.0%) broke a rule" in str(caught.value)
    assert "quality.max_quarantined (40.0%)" in str(caught.value)
    assert len(decide(report, Quality(max_quarantined=0.5))) == 1


def test_a_share_of_missing_values_is_judged_over_the_whole_column():
    rule = {"column": "carrier", "nulls": 0.3}
    result = checked(FLIGHTS, rule)
    assert result.clean.num_rows == 6
    with pytest.raises(QualityError, match=r"33.3% of the values are missing, 30.0% may be"):
        decide(result.report, Quality())
    assert decide(checked(FLIGHTS, {**rule, "nulls": 0.4}).report, Quality()) == ()
    assert len(decide(checked(FLIGHTS, {**rule, "severity": "warn"}).report, Quality())) == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(-10, 10)), min_size=1, max_size=60),
    st.lists(st.integers(0, 60), max_size=4),
)
def test_reports_of_blocks_merge_to_the_report_of_the_whole(values, cuts):
    table = pa.table({"x": pa.array(values, pa.float64())})
    rules = compile_rules(
        [
            Rule(column="x", range=(-5, 5)),
            Rule(column="x", required=True),
            Rule(column="x", nulls=0.5),
        ],
        table.schema,
    )
    ends = [0, *sorted(min(c, len(table)) for c in cuts), len(table)]
    pieces = [check(table.slice(a, b - a), rules) for a, b in itertools.pairwise(ends)]
    merged = reduce(QualityReport.merge, [p.report for p in pieces])
    whole = check(table, rules)
    assert (merged.rows, merged.quarantined) == (whole.report.rows, whole.report.quarantined)
    assert [r.broken for r in merged.rules] == [r.broken for r in whole.report.rules]
    assert all(len(r.examples) <= 5 for r in merged.rules)
    assert pa.concat_tables([p.clean for p in pieces]).equals(whole.clean)
    assert pa.concat_tables([p.quarantined for p in pieces]).equals(whole.quarantined)
    assert QualityReport.from_dict(merged.to_dict()) == merged


def test_no_rules_and_no_rows_are_fine():
    assert checked(FLIGHTS).clean.num_rows == FLIGHTS.num_rows
    empty = checked(FLIGHTS.slice(0, 0), {"column": "distance", "range": [0, 1]})
    assert empty.quarantined.column_names == [*FLIGHTS.column_names, *ABOUT.names]
    assert empty.report.share == 0.0
    assert decide(empty.report, Quality()) == ()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"column": "distanc", "required": True}, "did you mean `distance`"),
        ({"required": True}, "names no column"),
        ({"column": "carrier"}, "checks nothing"),
        ({"column": "carrier", "range": [0, 1]}, "range is for numbers and times"),
        ({"column": "on", "range": ["soon", None]}, "the bounds of `on` are not date32"),
        ({"column": "distance", "range": [5, 1]}, "lower bound of `distance` is above"),
        ({"column": "distance", "allowed": ["far"]}, "allowed values of `distance`"),
        ({"column": "distance", "type": "number"}, "unknown column type: number"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(rule, message):
    with pytest.raises((ConfigError, InputError), match=message):
        checked(FLIGHTS, rule)


def test_rules_of_one_name_are_told_apart():
    rules = [Rule(columns=["distance", "carrier"], required=True, name="there")]
    assert [r.name for r in compile_rules(rules, FLIGHTS.schema)] == ["there", "there #2"]
