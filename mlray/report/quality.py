"""The page on quality: broken rules first, every column's distribution, examples of what was set
aside. Like the run's report it is one file that loads nothing and runs no script."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from markupsafe import Markup

from mlray.report import words
from mlray.report.content import Json, columns_of
from mlray.report.page import template
from mlray.report.reading import HIDDEN, column_row

SHOWN_COLUMNS = 200
SHOWN_EXAMPLES = 12
SHOWN_VALUES = 6
"""Columns of an example row: those that its rule is about first."""
_ABOUT = {"_rule", "_reason", "_source", "_position", "_raw", "_id", "_score"}
_HERE = Path(__file__).parent
_LONG_CHARS = 60


@dataclass(frozen=True)
class QualityPage:
    """Everything the page shows."""

    project: str
    report: Json
    """`QualityReport.to_dict()`."""
    profile: Any
    """`stats.profile.Profile` of the clean rows."""
    max_quarantined: float
    """Largest share of rows that may be set aside."""
    created_at: str = ""
    quarantine: str = ""
    """Folder of the rows set aside; empty if there are none."""
    private: Collection[str] = ()
    """Columns with personal data: no value of them is shown, nor in a histogram."""
    examples: Any = None
    """pyarrow.Table of some quarantined rows, or None."""
    findings: Sequence[str] = ()
    """What else was found in the rows, such as columns that look like personal data."""


def render_quality(page: QualityPage) -> str:
    """The page as HTML; every text is escaped."""
    rules = rule_rows(page.report)
    return template("quality.html.jinja").render(
        page=page,
        style=Markup((_HERE / "page.css").read_text("utf-8")),
        more_style=Markup((_HERE / "quality.css").read_text("utf-8")),
        verdict=verdict(page, rules),
        figures=_figures(page, rules),
        broken=[rule for rule in rules if rule["state"] != "kept"],
        kept=[rule for rule in rules if rule["state"] == "kept"],
        columns=_columns(page, rules),
        left_out=max(len(page.profile.columns) - SHOWN_COLUMNS, 0),
        examples=example_rows(page, rules),
    )


def rule_rows(report: Json) -> list[dict[str, Any]]:
    """A line per rule, the worst first: those that stop a run, then by rows that broke them."""
    rows, unreadable = int(report["rows"]), int(report.get("unreadable", 0))
    lines = [_rule_row(rule, rows - unreadable) for rule in report["rules"]]
    if unreadable:
        lines.append({
            "name": "readable", "check": "readable", "columns": (), "severity": "quarantine",
            "broken": unreadable, "share": unreadable / rows, "state": "broken",
            "breach": "rows could not be read", "examples": list(report.get("reasons", ())),
        })  # fmt: skip
    order = {"stop": 0, "broken": 1, "kept": 2}
    return sorted(lines, key=lambda line: (order[line["state"]], -line["broken"]))


def _rule_row(rule: Json, rows: int) -> dict[str, Any]:
    """Its state: "stop" if it ends the run, "broken" or "kept"."""
    severity, breach = str(rule["severity"]), str(rule.get("breach", ""))
    stops = breach and (
        severity == "stop" or (severity == "quarantine" and rule.get("at_most") is not None)
    )
    counted = rule["check"] not in ("fresh", "like", "rows")
    return {
        "name": str(rule["name"]),
        "check": str(rule["check"]),
        "columns": tuple(rule["columns"]),
        "severity": severity,
        "broken": int(rule["broken"]),
        "share": rule["broken"] / rows if rows and counted else None,
        "state": "stop" if stops else "broken" if breach else "kept",
        "breach": breach.removeprefix(f"{rule['name']}: "),
        "examples": [_shortened(text) for text in rule["examples"]],
    }


def verdict(page: QualityPage, rules: Sequence[Json]) -> dict[str, Any]:
    """What to make of it, in a title and some sentences."""
    stops = [f"{rule['name']}: {rule['breach']}" for rule in rules if rule["state"] == "stop"]
    rows, aside = page.report["rows"], page.report["quarantined"]
    part = aside / rows if rows else 0.0
    if part > page.max_quarantined:
        stops.append(
            f"{words.share(part)} of the rows were set aside, {words.share(page.max_quarantined)} "
            "may be (quality.max_quarantined)"
        )
    if stops:
        return {"kind": "stopped", "title": "The run was stopped", "reasons": stops}
    broken = sum(rule["state"] == "broken" for rule in rules)
    if not broken:
        title = "Every rule was kept" if rules else "No rule was checked"
        return {"kind": "promoted" if rules else "", "title": title, "reasons": []}
    said = f"{broken} {'rule was' if broken == 1 else 'rules were'} broken; the run went on"
    return {"kind": "warnings", "title": said, "reasons": []}


def _figures(page: QualityPage, rules: Sequence[Json]) -> list[tuple[str, str]]:
    report = page.report
    aside = words.count(report["quarantined"])
    part = report["quarantined"] / report["rows"] if report["rows"] else 0
    figures = [
        ("rows read", words.count(report["rows"])),
        ("clean rows", words.count(page.profile.rows)),
        ("set aside", f"{aside} ({words.share(part)})"),
        ("columns", words.count(len(page.profile.columns))),
        ("rules", words.count(len(rules))),
        ("rules broken", words.count(sum(rule["state"] != "kept" for rule in rules))),
    ]
    return figures


def _columns(page: QualityPage, rules: Sequence[Json]) -> list[dict[str, Any]]:
    """A card per column, those that broken rules are about first."""
    shown = [name for name in page.profile.columns if name not in page.private]
    roles = [SimpleNamespace(column=name, kind="shown", reason="") for name in shown]
    facts = [column_row(c) for c in columns_of(page.profile, roles, [], "")]
    for column in facts:
        about = [rule for rule in rules if column["name"] in rule["columns"]]
        column["broken"] = [rule for rule in about if rule["state"] != "kept"]
        column["checks"] = ", ".join(dict.fromkeys(rule["check"] for rule in about))
        column["private"] = column["name"] in page.private
    return sorted(facts, key=lambda column: not column["broken"])[:SHOWN_COLUMNS]


def example_rows(page: QualityPage, rules: Sequence[Json]) -> list[dict[str, Any]]:
    """Quarantined rows: where each came from, why it is there, and the values that matter."""
    if page.examples is None:
        return []
    about = {rule["name"]: rule["columns"] for rule in rules}
    rows = page.examples.slice(0, SHOWN_EXAMPLES).to_pylist()
    return [_example(row, about, page.private) for row in rows]


def _example(
    row: dict[str, Any], about: dict[str, tuple[str, ...]], private: Collection[str]
) -> dict[str, Any]:
    rule = str(row.get("_rule") or "")
    named = [column for name in rule.split("; ") for column in about.get(name, ())]
    own = [name for name in row if name not in _ABOUT]
    order = list(dict.fromkeys([c for c in named if c in row] + own))
    values = [
        (name, HIDDEN if name in private else _shortened(_plain(row[name])), name in named)
        for name in order[:SHOWN_VALUES]
        if row[name] is not None or name in named
    ]
    raw = row.get("_raw")
    if raw is not None and not private:
        values.insert(0, ("text", _shortened(raw.decode("utf-8", "replace")), True))
    told = set(named) & set(private)
    return {
        "rule": rule,
        "reason": "" if told else _shortened(str(row.get("_reason") or ""), 160),
        "source": Path(str(row.get("_source") or "")).name,
        "position": row.get("_position"),
        "values": values,
        "more": max(len(order) - SHOWN_VALUES, 0),
    }


def _plain(value: Any) -> str:
    return words.ABSENT if value is None else str(value)


def _shortened(text: str, chars: int = _LONG_CHARS) -> str:
    return text if len(text) <= chars else f"{text[: chars - 1]}…"
