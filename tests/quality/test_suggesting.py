"""Suggested rules are kept by the rows they came from, and mostly by rows that come later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from mlray.config.quality import Quality, Rule
from mlray.quality import breach, check, compile_rules, settled, suggest, to_yaml

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def orders(first=0, rows=3000):
    random = np.random.default_rng(first)
    at = np.datetime64("2026-01-01T00:00:00", "us") + (first + np.arange(rows)) * 10**9
    return pa.table({
        "order_id": np.arange(first, first + rows),
        "code": [f"C-{n}" for n in random.integers(1000, 10000, rows)],
        "state": np.array(["new", "paid", "sent"])[random.integers(0, 3, rows)],
        "paid": random.integers(0, 2, rows),
        "price": random.gamma(2, 50, rows).round(2),
        "change": random.normal(0, 5, rows),
        "note": pa.array([None if r < 0.1 else "x" * int(90 * r) for r in random.random(rows)]),
        "at": at,
    })  # fmt: skip


def found_in(rows, **more):
    suggestions = suggest(rows, NOW, **more)
    by_check = {}
    for each in suggestions:
        told = each.rule.model_dump(exclude_defaults=True)
        for name in set(told) - {"column", "columns", "severity"}:
            by_check.setdefault(name, {})[each.rule.column] = told[name]
    return suggestions, by_check


def broken_by(rules, rows):
    compiled = compile_rules(rules, rows.schema)
    report = settled(check(rows, compiled, whole=True).report, now=NOW)
    return {rule.name: rule.broken for rule in report.rules if breach(rule, report.readable)}


def test_rules_are_found_that_a_person_would_write():
    _, rules = found_in(orders())
    assert rules["unique"] == {"order_id": True}
    assert rules["matches"] == {"code": "C-[0-9]{4}"}
    assert rules["allowed"] == {"state": ["new", "paid", "sent"], "paid": [0, 1]}
    assert rules["range"]["price"][0] == 0
    assert rules["range"]["change"][0] < -20
    assert rules["range"]["order_id"] == (0, None)
    assert rules["monotonic"] == {"at": "increasing"}
    assert rules["fresh"]["at"].endswith("d")
    assert rules["nulls"] == {None: pytest.approx(0.22, abs=0.03)}
    assert "note" in rules["length"]


def test_the_same_rows_and_later_ones_keep_them():
    suggestions, _ = found_in(orders())
    rules = [each.rule for each in suggestions]
    assert broken_by(rules, orders()) == {}
    later = broken_by(rules, orders(first=3000))
    assert later == {}


def test_the_text_can_be_pasted_into_a_project_file():
    suggestions, _ = found_in(orders())
    text = to_yaml(suggestions, "3,000 rows")
    pasted = Quality(**yaml.safe_load(text)["quality"])
    assert pasted.rules == [each.rule for each in suggestions]
    assert text.count("\n    # ") == len(suggestions)


def test_little_is_said_of_what_little_is_known_of():
    assert suggest(orders(rows=99), NOW) == []
    random = np.random.default_rng(0)
    table = pa.table({
        "constant": np.full(2000, 7),
        "open": [f"w{n}" for n in random.zipf(1.3, 2000) % 500],
        "once": ["a"] * 1999 + ["b"],
        "old": np.full(2000, np.datetime64("2013-01-01", "us")),
        "accident": random.permutation(10**6)[:2000],
        "growing": np.repeat(["a", "b", "c", "d"], 500),
    })  # fmt: skip
    _, rules = found_in(table)
    assert "allowed" not in rules
    assert "unique" not in rules
    assert "fresh" not in rules
    assert "constant" not in rules["range"]


def test_private_columns_lend_no_value_to_a_rule():
    suggestions, _ = found_in(orders(), private=["state", "code", "price"])
    text = to_yaml(suggestions, "rows")
    assert "paid]" not in text
    assert "C-" not in text
    assert "column: price" not in text


def test_a_sample_says_nothing_about_the_number_of_rows():
    assert "rows" not in found_in(orders(), whole=False)[1]
    assert found_in(orders())[1]["rows"] == {None: (300, None)}


def test_a_later_month_of_real_flights_breaks_few(test_data):
    """Rules from January to September; October to December were never seen."""
    import mlray
    from mlray.sources import sample

    rows = sample(mlray.load("configs/flights.yaml"), 10**9)
    month = pc.month(rows["time_hour"])
    rules = [each.rule for each in suggest(rows.filter(pc.less_equal(month, 9)), NOW)]
    assert broken_by(rules, rows.filter(pc.less_equal(month, 9))) == {}
    for later in (10, 11, 12):
        part = rows.filter(pc.equal(month, later))
        assert sum(broken_by(rules, part).values()) <= 0.001 * len(part)


def test_real_rows_keep_what_is_suggested_from_them(test_data):
    import pyarrow.parquet as pq

    train, test = (
        pq.read_table(test_data / "bias_adult_census" / f"adult_{part}.parquet")
        for part in ("train", "test")
    )
    rules = [each.rule for each in suggest(train, NOW)]
    assert broken_by(rules, train) == {}
    compiled = compile_rules(rules, test.schema)
    assert check(test, compiled, whole=True).report.share < 0.005


def test_the_newest_time_may_become_twice_as_old():
    rows = orders()
    age = NOW - pc.max(rows["at"]).as_py().replace(tzinfo=UTC)
    _, rules = found_in(rows)
    days = int(rules["fresh"]["at"].removesuffix("d"))
    assert timedelta(days=days) >= 2 * age
    assert isinstance(Rule(column="at", fresh=rules["fresh"]["at"]), Rule)
