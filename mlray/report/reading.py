"""Plain facts of a run as the rows of the page's tables."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import Markup

from mlray.errors import EXAMPLES
from mlray.report import plots, words
from mlray.report.content import Json, RunReport
from mlray.report.words import Estimate

SHOWN_COLUMNS = 300
SHOWN_SLICES = 40
NAMED = 4
"""So many categories are named in the table of columns."""
HIDDEN = "(not shown)"


def pairs(raw: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """A curve as (x, y): from {"x": [...], "y": [...]} or from [[x, y], ...]; None if empty."""
    if not raw:
        return None
    if isinstance(raw, dict):
        x, y = plots.numbers(raw["x"]), plots.numbers(raw["y"])
    else:
        x, y = plots.numbers(raw).T
    kept = np.isfinite(x) & np.isfinite(y)
    return (x[kept], y[kept]) if kept.any() else None


def class_names(evaluation: Json, k: int) -> list[str]:
    """Names of K classes; without names, their numbers."""
    classes = [str(name) for name in evaluation.get("classes") or ()]
    return classes if len(classes) == k else [str(i) for i in range(k)]


def column_rows(report: RunReport) -> list[dict[str, Any]]:
    """Per shown column its facts, texts ready, with a small histogram as "spark"."""
    return [column_row(column) for column in report.columns[:SHOWN_COLUMNS]]


def column_row(column: Json) -> dict[str, Any]:
    """One column with its texts ready, and its small histogram as "spark"."""
    kind = str(column.get("kind", ""))
    low, high = column.get("low"), column.get("high")
    labels = [str(label) for label in (column.get("histogram") or {}).get("labels") or ()]
    extent = ", ".join(labels[:NAMED]) + (", …" if len(labels) > NAMED else "")
    if low is not None and high is not None:
        extent = f"{words.position(low, kind)} to {words.position(high, kind)}"
    about = "" if column.get("distinct_is_exact", True) else "≈ "
    return {
        **column,
        "extent": extent,
        "distinct_text": about + words.count(column.get("distinct")),
        "spark": _column_spark(column, kind),
    }


def _column_spark(column: Json, kind: str) -> Markup | None:
    histogram = column.get("histogram")
    if not histogram or not histogram.get("counts"):
        return None
    labels = [str(label) for label in histogram.get("labels") or ()]
    if edges := histogram.get("edges"):
        texts = [words.position(edge, kind) for edge in edges]
        labels = [f"{a} to {b}" for a, b in pairwise(texts)]
    return plots.spark(histogram["counts"], f"histogram of {column['name']}", labels)


def metric_rows(report: RunReport) -> list[dict[str, Any]]:
    """Per metric its value, interval, champion's and baseline's value; the headline first."""
    evaluation, champion = report.evaluation or {}, report.champion or {}
    metrics = dict(evaluation.get("metrics") or {})
    names = sorted(metrics, key=lambda name: name != report.metric)
    rows = []
    for name in names:
        if (estimate := Estimate.of(metrics[name])) is None:
            continue
        others = {
            other: Estimate.of((facts or {}).get(name))
            for other, facts in (
                ("champion", champion.get("metrics")),
                ("baseline", evaluation.get("baseline")),
            )
        }
        rows.append({"name": name, "estimate": estimate, **others})
    return rows


def slice_rows(report: RunReport) -> list[dict[str, Any]]:
    """Slices with the headline metric, worst first; "below" if the whole interval is worse than
    the value over all rows."""
    evaluation = report.evaluation or {}
    overall = Estimate.of((evaluation.get("metrics") or {}).get(report.metric))
    rows = []
    for part in evaluation.get("slices") or ():
        estimate = Estimate.of((part.get("metrics") or {}).get(report.metric))
        rows.append({
            "column": str(part.get("column", "")),
            "value": str(part.get("value", "")),
            "rows": part.get("rows"),
            "estimate": estimate,
            "below": _is_worse(estimate, overall, report.greater_is_better),
        })  # fmt: skip
    sign = 1 if report.greater_is_better else -1
    rows.sort(key=lambda r: sign * r["estimate"].value if r["estimate"] else float("inf"))
    return _with_bars(rows[:SHOWN_SLICES])


def _is_worse(estimate: Estimate | None, overall: Estimate | None, greater: bool) -> bool:
    if estimate is None or overall is None or estimate.low is None or estimate.high is None:
        return False
    return estimate.high < overall.value if greater else estimate.low > overall.value


def _with_bars(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row with "bar": where its interval lies, in percent of the range of all rows."""
    shown = [row["estimate"] for row in rows if row["estimate"]]
    ends = [n for e in shown for n in (e.value, e.low, e.high) if n is not None]
    low, width = (min(ends), max(ends) - min(ends)) if ends else (0.0, 0.0)
    for row in rows:
        estimate, row["bar"] = row["estimate"], None
        if estimate and width > 0:
            start = estimate.value if estimate.low is None else estimate.low
            end = estimate.value if estimate.high is None else estimate.high
            places = [2 + 96 * (n - low) / width for n in (start, end, estimate.value)]
            row["bar"] = {"left": places[0], "width": places[1] - places[0], "at": places[2]}
    return rows


def quality_facts(quality: Json | None, learned: set[str]) -> dict[str, Any] | None:
    """Rows checked and set aside, a line per rule, and at most five examples over all rules.

    Values show only for rules whose name begins with `learned` columns ("distance: range"): a
    rule named otherwise may be about any column.
    """
    if quality is None:
        return None
    rows, aside = quality.get("rows") or 0, quality.get("quarantined") or 0
    rules = [_rule_row(rule, rows) for rule in quality.get("rules") or ()]
    examples = [
        {"rule": rule["rule"], "value": value if _is_about(rule["rule"], learned) else HIDDEN}
        for rank in range(EXAMPLES)  # the first example of each rule before the second of any
        for rule in rules
        for value in rule["examples"][rank : rank + 1]
    ]
    return {
        "rows": rows,
        "quarantined": aside,
        "share": aside / rows if rows else 0.0,
        "rules": rules,
        "examples": examples[:EXAMPLES],
    }


def _is_about(rule: str, columns: set[str]) -> bool:
    named, colon, _ = rule.rpartition(": ")
    return bool(colon) and (named in columns or set(named.split(", ")) <= columns)


def _rule_row(rule: Json, rows: int) -> dict[str, Any]:
    broken = rule.get("broken") or 0
    return {
        "rule": str(rule.get("name", "")),
        "severity": str(rule.get("severity", "")),
        "broken": broken,
        "share": broken / rows if rows else 0.0,
        "examples": [str(example) for example in rule.get("examples") or ()],
    }


def reference_rows(reference: Json | None) -> list[dict[str, Any]]:
    """Per feature of the drift reference: its kind, bins, range and shares, "spark" drawn."""
    rows: list[dict[str, Any]] = []
    if reference is None:
        return rows
    for bins in reference["features"]:
        counts, labels = bins["counts"], [str(label) for label in bins["labels"]]
        missing = sum(n for n, label in zip(counts, labels, strict=True) if label == "missing")
        name = str(bins["name"])
        rows.append({
            "name": name,
            "kind": str(bins["kind"]),
            "slots": len(labels),
            "missing_frac": missing / max(sum(counts), 1),
            "spark": plots.spark(counts, f"reference counts of {name}", labels),
        })  # fmt: skip
    return rows
