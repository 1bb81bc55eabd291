"""Rules that need more than rows: what time it is, and what the reference looked like.

Both come from outside, so that the same report settled twice gives the same findings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np

from mlray.errors import InputError
from mlray.quality.report import QualityReport, RuleReport
from mlray.sources.opened import did_you_mean
from mlray.stats.bins import FeatureBins, Ints, Reference
from mlray.stats.drift import compare
from mlray.stats.profile import ColumnProfile, Profile

BINS = 20
"""Quantile bins of a number, or most frequent values of a category, that are compared."""


def settled(
    report: QualityReport,
    *,
    now: datetime,
    profile: Profile | None = None,
    references: Mapping[str, Profile | None] | None = None,
) -> QualityReport:
    """The report with `fresh` and `like` judged.

    Args:
        report: of all rows.
        now: with a zone.
        profile: of the clean rows.
        references: what `like` names -> its profile; None: there is none yet, so nothing is judged.

    Raises:
        InputError: a reference is not given, or has no such column or another type of it.
    """
    rules = tuple(_settled(rule, now, profile, references or {}) for rule in report.rules)
    return dataclasses.replace(report, rules=rules)


def _settled(
    rule: RuleReport,
    now: datetime,
    profile: Profile | None,
    references: Mapping[str, Profile | None],
) -> RuleReport:
    if rule.check == "fresh":
        return dataclasses.replace(rule, finding=_stale(rule, now))
    if rule.check != "like" or profile is None:
        return rule
    name, limit = rule.wants["reference"], rule.wants["psi"]
    if name not in references:
        raise InputError(f"{rule.name}: the reference was not read", value=name)
    reference = references[name]
    finding = "" if reference is None else _unlike(rule, reference, profile, name, limit)
    return dataclasses.replace(rule, finding=finding)


def _stale(rule: RuleReport, now: datetime) -> str:
    if not rule.seen:
        return "no time in the column"
    newest = datetime.fromtimestamp(rule.seen["newest"], UTC)
    age = (now - newest).total_seconds()
    if age <= rule.wants["seconds"]:
        return ""
    said = f"the newest time, {newest:%Y-%m-%d %H:%M} UTC, is {_span(age)} old"
    return f"{said}; {rule.wants['age']} may be"


def _span(seconds: float) -> str:
    """
    >>> _span(90), _span(7200), _span(2.6e6)
    ('2 minutes', '2 hours', '30 days')
    """
    for unit, length in (("days", 86400), ("hours", 3600)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"


def _unlike(rule: RuleReport, reference: Profile, profile: Profile, name: str, limit: float) -> str:
    column = rule.columns[0]
    if column not in reference.columns:
        raise InputError(
            f"{rule.name}: the reference `{name}` has no column",
            value=column,
            do=did_you_mean(column, reference.columns),
        )
    before, now = reference.columns[column], profile.columns[column]
    if before.kind != now.kind:
        raise InputError(
            f"{rule.name}: `{column}` is {now.type} now, and {before.type} in `{name}`"
        )
    found = unlikeness(before, now, limit)
    return found.reason if found.alarm else ""


def unlikeness(reference: ColumnProfile, now: ColumnProfile, limit: float) -> Any:
    """How far a column is from its reference, as a `stats.drift.Drift`.

    PSI over the reference's quantile bins, or its most frequent values, with missing and infinite
    values as slots of their own. Its `alarm` needs PSI - expected_psi >= limit and a difference
    that is significant (p < 0.01) for so many rows. Nothing but the two profiles is read.

    >>> import pyarrow as pa
    >>> one = Profile.of(pa.table({"x": np.arange(1000.0)})).columns["x"]
    >>> other = Profile.of(pa.table({"x": np.arange(1000.0) + 300})).columns["x"]
    >>> unlikeness(one, one, 0.2).alarm, unlikeness(one, other, 0.2).alarm
    (False, True)
    """
    ranked = reference.kind in ("numeric", "time") and reference.present > 0
    bins, before, after = (_ranked if ranked else _named)(reference, now)
    whole = Reference((bins,), (before,), reference.rows)
    return compare(whole, [after], psi=limit)[0]


def _ranked(reference: ColumnProfile, now: ColumnProfile) -> tuple[FeatureBins, Ints, Ints]:
    """Bins (a, b] between quantiles of the reference."""
    edges = np.unique(reference.quantile(np.linspace(0, 1, BINS + 1)[1:-1]))
    texts = [_edge(edge, reference.kind) for edge in edges.tolist()]
    labels = [f"up to {texts[0]}"]
    labels += [f"{a} to {b}" for a, b in pairwise(texts)]
    labels += [f"above {texts[-1]}", "missing", "nonfinite"]
    bins = FeatureBins(reference.name, "numeric", tuple(edges.tolist()), tuple(labels))
    return bins, _ranked_counts(reference, edges), _ranked_counts(now, edges)


def _ranked_counts(column: ColumnProfile, edges: np.ndarray) -> Ints:
    below = np.zeros(len(edges)) if not column.present else np.asarray(column.cdf(edges))
    reached = np.round(below * column.present).astype(np.int64)
    counts = np.diff(reached, prepend=0, append=column.present)
    return np.append(counts, [column.missing, column.nonfinite]).astype(np.int64)


def _named(reference: ColumnProfile, now: ColumnProfile) -> tuple[FeatureBins, Ints, Ints]:
    """The reference's most frequent values; what it never had is unseen, if its list is whole."""
    names = [value for value, _ in reference.top[:BINS]]
    others = len(reference.top) > BINS or reference.top_error > 0
    labels = ("missing", "unseen", *map(str, names), *(["other values"] if others else []))
    bins = FeatureBins(reference.name, "category", (), labels)
    return bins, _named_counts(reference, names, others), _named_counts(now, names, others)


def _named_counts(column: ColumnProfile, names: list[Any], others: bool) -> Ints:
    seen = dict(column.top)
    counts = [seen.get(name, 0) for name in names]
    rest = max(column.present - sum(counts), 0)
    slots = [column.missing, 0, *counts, rest] if others else [column.missing, rest, *counts]
    return np.array(slots, np.int64)


def _edge(value: float, kind: str) -> str:
    if kind == "time":
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M")
    return f"{value:.6g}"
