"""The page on quality: broken rules first, every value escaped, no private value."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from mlray.config.quality import Rule
from mlray.quality import check, compile_rules, settled
from mlray.report.quality import QualityPage, render_quality, rule_rows
from mlray.sources import reading
from mlray.stats.profile import Profile

NOW = datetime(2026, 3, 1, tzinfo=UTC)
EVIL = "<script>alert(1)</script>"


def page(rules, private=(), **more):
    random = np.random.default_rng(0)
    table = pa.table({
        "x": [*random.normal(size=498), 99.0, -99.0],
        "mail": [f"canary{i}@example.org" for i in range(500)],
        "group": [*(["a", "b"] * 249), EVIL, "a"],
        "whole": np.arange(500),
    })  # fmt: skip
    compiled = compile_rules([Rule(**r) for r in rules], table.schema, private=private)
    result = check(reading.with_trace(table, "/data/in.csv", 0), compiled, whole=True)
    report = settled(result.report, now=NOW)
    return render_quality(QualityPage(
        "orders", report.to_dict(), Profile.of(result.clean), 0.05, NOW.isoformat(),
        "/home/quarantine", private, result.quarantined, **more,
    ))  # fmt: skip


def test_broken_rules_come_first_and_kept_ones_are_folded_away():
    html = page([
        {"column": "whole", "required": True},
        {"column": "group", "allowed": ["a", "b"]},
        {"column": "x", "range": [-9, 9], "severity": "warn"},
        {"column": "whole", "monotonic": "decreasing"},
    ])  # fmt: skip
    names = re.findall(r"</span>([^<]+)</th>", html)
    assert names == ["whole: monotonic", "x: range", "group: allowed", "whole: required"]
    assert "The run was stopped" in html
    assert "1 rule kept" in html
    assert "row 498" in html
    assert "in.csv" in html
    assert html.count('<svg class="spark"') >= 3


def test_every_text_is_escaped_and_nothing_is_loaded():
    html = page([{"column": "group", "allowed": ["a", "b"], "name": EVIL}], findings=[EVIL])
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")
    assert "&lt;script&gt;" in html


def test_private_columns_show_no_value():
    html = page([{"column": "mail", "length": [0, 5]}], private=["mail"])
    assert "canary" not in html
    assert "personal data: not shown" in html
    assert "(not shown)" in html


def test_without_rules_the_page_says_how_to_get_some():
    html = page([])
    assert "No rule was checked" in html
    assert "--suggest" in html


def test_rows_that_could_not_be_read_are_a_line_of_their_own():
    report = {"rows": 10, "quarantined": 1, "unreadable": 1, "reasons": ["ragged"], "rules": []}
    assert [line["name"] for line in rule_rows(report)] == ["readable"]
