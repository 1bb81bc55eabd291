"""A rule that cannot be is refused with its place; a rule about the whole table sees all of it."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from functools import reduce

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlray.config.quality import Quality, Rule
from mlray.errors import ConfigError, InputError, QualityError
from mlray.quality import (
    ABOUT,
    QualityReport,
    breach,
    check,
    compile_rules,
    decide,
    row_ids,
    settled,
)
from mlray.sources import reading
from mlray.stats.profile import Profile

TABLE = pa.table({
    "n": [1, 2, 3], "t": ["a", "b", "c"],
    "at": pa.array([datetime(2026, 1, d) for d in (1, 2, 3)], pa.timestamp("us", tz="UTC")),
})  # fmt: skip
NOW = datetime(2026, 1, 4, tzinfo=UTC)


def report_of(table, *rules):
    return check(table, compile_rules([Rule(**r) for r in rules], table.schema)).report


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"column": "n", "nulls": 0.1, "severity": "quarantine"}, "about the whole table"),
        ({"rows": [1, 2], "severity": "quarantine"}, r"quality.rules\[0\]: `rows`"),
        ({"column": "n", "fresh": "1d"}, "fresh is for times, but `n` is: int64"),
        ({"column": "n", "matches": "a"}, "matches is for texts, but `n` is: int64"),
        ({"column": "n", "length": [1, 2]}, "length is for texts"),
        ({"column": "t", "length": [3, 2]}, "a length is"),
        ({"column": "t", "matches": "("}, "no regular expression"),
        ({"column": "t", "range": [0, 1]}, "range is for numbers and times"),
        ({"rows": [None, None]}, "rows are"),
        ({"rows": [5, 2]}, "rows are"),
        ({"unique": True}, "names no column"),
        ({"range": [0, 1]}, "names no column"),
        ({"holds": "n + 1"}, "must be true or false"),
        ({"holds": "n >"}, r"quality.rules\[0\]"),
        ({"column": "n", "like": "champion", "at_most": 0.1}, "remove at_most"),
        ({"column": "n", "type": "number"}, r"quality.rules\[0\]: unknown column type: number"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_with_its_place(rule, message):
    with pytest.raises(ConfigError, match=message):
        report_of(TABLE, rule)


def test_an_unknown_column_names_the_nearest():
    with pytest.raises(InputError, match="nn"):
        report_of(TABLE, {"holds": "nn > 1"})


def test_severity_follows_what_a_rule_is_about():
    rules = compile_rules(
        [Rule(column="n", required=True), Rule(column="n", nulls=0.1), Rule(rows=(1, None))],
        TABLE.schema,
    )
    assert [rule.severity for rule in rules] == ["quarantine", "stop", "stop"]


def test_a_share_of_rows_may_break_a_rule_before_anything_is_said():
    table = pa.table({"x": range(100)})
    for severity, limit, told in (
        ("warn", 0.05, True), ("warn", 0.2, False), ("stop", 0.2, False)
    ):  # fmt: skip
        rule = {"column": "x", "range": [0, 89], "severity": severity, "at_most": limit}
        assert bool(decide(report_of(table, rule), Quality())) == told
    with pytest.raises(QualityError, match=r"broken by 10 rows \(10.0%\), 5.0% may be"):
        decide(
            report_of(
                table, {"column": "x", "range": [0, 89], "severity": "stop", "at_most": 0.05}
            ),
            Quality(),
        )
    rule = {"column": "x", "range": [0, 89], "at_most": 0.05}
    with pytest.raises(QualityError, match=r"5\.0% may be"):
        decide(report_of(table, rule), Quality(max_quarantined=0.5))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=30),
    st.lists(st.integers(0, 30), max_size=5),
    st.sampled_from(["increasing", "decreasing", "strictly increasing", "strictly decreasing"]),
    st.sampled_from([pa.int64(), pa.float64(), pa.string(), pa.timestamp("us")]),
)
def test_order_is_judged_over_the_edges_of_blocks(values, cuts, order, kind):
    array = pa.array(values, pa.int64()).cast(kind)
    table = pa.table({"x": array})
    rules = compile_rules([Rule(column="x", monotonic=order)], table.schema)
    ends = [0, *sorted(min(c, len(table)) for c in cuts), len(table)]
    blocks = [check(table.slice(a, b - a), rules).report for a, b in itertools.pairwise(ends)]
    report = QualityReport.from_dict(reduce(QualityReport.merge, blocks).to_dict())
    good = {
        "increasing": lambda a, b: a <= b, "decreasing": lambda a, b: a >= b,
        "strictly increasing": lambda a, b: a < b, "strictly decreasing": lambda a, b: a > b,
    }[order]  # fmt: skip
    held = [v for v in values if v is not None]
    expected = sum(not good(a, b) for a, b in itertools.pairwise(held))
    assert report.rules[0].broken == expected
    assert bool(breach(report.rules[0], report.readable)) == bool(expected)


def test_the_newest_time_is_measured_from_the_clock_that_is_given():
    report = report_of(TABLE.slice(0, 1), {"column": "at", "fresh": "2d"}).merge(
        report_of(TABLE.slice(1), {"column": "at", "fresh": "2d"})
    )
    assert decide(settled(report, now=NOW), Quality()) == ()
    with pytest.raises(QualityError, match=r"2026-01-03 00:00 UTC, is 4 days old; 2d may be"):
        decide(settled(report, now=NOW + timedelta(days=3)), Quality())
    empty = report_of(TABLE.slice(0, 0), {"column": "at", "fresh": "2d"})
    with pytest.raises(QualityError, match="no time in the column"):
        decide(settled(empty, now=NOW), Quality())


def test_the_number_of_rows_has_bounds():
    assert decide(report_of(TABLE, {"rows": [3, 3]}), Quality()) == ()
    for bounds, said in (([4, None], "fewer than 4"), ([None, 2], "more than 2"),
                         ([5, 9], "not between 5 and 9")):  # fmt: skip
        with pytest.raises(QualityError, match=f"3 rows, {said}"):
            decide(report_of(TABLE, {"rows": bounds}), Quality())


def like(now, reference, **rule):
    rules = [{"columns": now.column_names, "like": "ref", **rule}]
    found = settled(
        report_of(now, *rules), now=NOW, profile=Profile.of(now),
        references={"ref": None if reference is None else Profile.of(reference)},
    )  # fmt: skip
    return {r.columns[0]: r.finding for r in found.rules}


def rows(seed, size, shift=0.0, share=0.5):
    random = np.random.default_rng(seed)
    return pa.table({
        "x": random.normal(shift, 1, size),
        "c": np.where(random.random(size) < share, "a", "b"),
        "zeros": np.where(random.random(size) < 0.9, 0.0, random.normal(size=size)),
        "at": (random.random(size) * 1e15).astype("datetime64[us]"),
    })  # fmt: skip


def test_a_distribution_like_the_reference_is_fine_and_another_is_not():
    same = like(rows(1, 3000), rows(0, 5000))
    assert set(same.values()) == {""}
    other = like(rows(2, 3000, shift=1.0, share=0.9), rows(0, 5000))
    assert "x drifted: values moved up" in other["x"]
    assert "'a' rose from" in other["c"]
    assert other["zeros"] == other["at"] == ""


def test_a_handful_of_rows_proves_no_drift():
    """An effect alone is not enough: false alarms on small samples stay rare."""
    alarms = sum(
        bool(text)
        for seed in range(50)
        for text in like(rows(seed + 10, 30), rows(0, 5000)).values()
    )
    assert alarms <= 4


def test_without_a_champion_nothing_is_compared():
    assert set(like(rows(1, 50, shift=9), None).values()) == {""}


def test_a_reference_without_the_column_or_of_another_type_is_refused():
    table = pa.table({"x": [1.0, 2.0]})
    with pytest.raises(InputError, match="has no column: x"):
        like(table, pa.table({"y": [1.0]}))
    with pytest.raises(InputError, match="`x` is double now, and string"):
        like(table, pa.table({"x": ["a"]}))


def traced(table, unreadable=None):
    table = reading.with_trace(table, "s3://bucket/rows.csv", 10)
    if unreadable is None:
        return table
    reasons, raw = zip(*unreadable, strict=True)
    for name, values in ((reading.UNREADABLE, reasons), (reading.RAW, raw)):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values))
    return table


def test_rows_that_cannot_be_read_are_set_aside_with_their_text():
    table = pa.table({"x": pa.array([1, None, None, 9], pa.int64())})
    why = [(None, None), ("3 values, 1 expected", b"1,2,3"), (None, None), (None, None)]
    rules = compile_rules([Rule(column="x", required=True), Rule(column="x", range=(0, 5))],
                          table.schema)  # fmt: skip
    result = check(traced(table, why), rules)
    assert result.clean.to_pydict() == {"x": [1]}
    assert result.kept.tolist() == [True, False, False, False]
    held = result.quarantined.sort_by("_position").to_pylist()
    assert [row["_rule"] for row in held] == ["readable", "x: required", "x: range"]
    assert held[0]["_reason"] == "3 values, 1 expected"
    assert held[0]["_raw"] == b"1,2,3"
    assert [row["_raw"] for row in held[1:]] == [None, None]
    assert [row["_position"] for row in held] == [11, 12, 13]
    assert {row["_source"] for row in held} == {"s3://bucket/rows.csv"}
    assert result.report.unreadable == 1
    assert result.report.readable == 3
    assert (
        "readable: 1 rows could not be read"
        in decide(result.report, Quality(max_quarantined=1.0))[0]
    )
    assert QualityReport.from_dict(result.report.to_dict()) == result.report


def test_missing_values_are_counted_among_rows_that_could_be_read():
    table = pa.table({"x": pa.array([1, None, 2, 3], pa.int64())})
    why = [(None, None), ("broken", b"?"), (None, None), (None, None)]
    rules = compile_rules([Rule(column="x", nulls=0.0)], table.schema)
    report = check(traced(table, why), rules).report
    assert decide(report, Quality(max_quarantined=1.0))[0].startswith("readable")
    assert len(decide(report, Quality(max_quarantined=1.0))) == 1


def test_an_id_is_the_same_for_the_same_values_wherever_they_lie():
    table = pa.table({"x": [1, 2, 1], "t": ["a", "b", "a"]})
    ids = row_ids(table)
    assert ids[0] == ids[2] != ids[1]
    assert (row_ids(traced(table)) == ids).all()
    assert (row_ids(table.slice(1)) == ids[1:]).all()
    texts = [("no number", b"?"), ("no number", b"!"), (None, None)]
    empty = pa.table({"x": pa.nulls(3, pa.int64()), "t": pa.nulls(3, pa.string())})
    found = row_ids(traced(empty, texts))
    assert len(set(found.tolist())) == 3


def test_quarantined_rows_keep_every_value_and_type():
    table = pa.table({
        "x": [1.5, -1.0], "list": [[1, 2], None], "b": [b"\x00", b"\xff"],
        "d": pa.array(["u", "v"]).dictionary_encode(),
    })  # fmt: skip
    rules = compile_rules([Rule(column="x", range=(0, 5)), Rule(columns=["d", "b"], unique=True)],
                          table.schema)  # fmt: skip
    result = check(traced(table), rules, whole=True)
    own = result.quarantined.drop_columns(ABOUT.names)
    assert own.equals(table.slice(1))
    assert result.clean.equals(table.slice(0, 1))


def test_private_values_stand_in_no_report_and_no_reason():
    table = pa.table({"mail": ["canary@example.org", "x"], "n": [1, 1]})
    rules = compile_rules(
        [Rule(column="mail", length=(0, 3)), Rule(columns=["n", "mail"], matches="x")][:1],
        table.schema,
        private=["mail"],
    )
    result = check(table, rules)
    assert "canary" not in str(result.report.to_dict())
    assert result.quarantined["_reason"].to_pylist() == ["mail: not of at most 3 characters"]
