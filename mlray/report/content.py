"""What a report is made from: plain numbers, texts, lists and dicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mlray.report.words import short

Json = Mapping[str, Any]

HISTOGRAM_BINS = 24
"""Bars of a column's small histogram."""
SHOWN_CATEGORIES = 6
"""Named categories of a column's small histogram; the others share one bar."""
MOST_CLASSES = 20
"""A numeric target of at most so many values is shown as classes."""
LEAST_ROWS = 10
"""A category is named only if at least so many rows have it, so that no label points at a person.
"""


@dataclass(frozen=True)
class RunReport:
    """Everything one page shows. Only the first three fields are needed; a section whose facts
    are missing says so in one line, and a drawing whose numbers are missing is left out."""

    project: str
    """Name of the project and of its model."""
    task: str
    """binary, multiclass or regression."""
    target: str
    """Column that is predicted."""
    run: str = ""
    """Id of the run."""
    created_at: str = ""
    """When the run ended, UTC, ISO 8601."""
    metric: str = ""
    """The metric that early stopping and the gate look at."""
    greater_is_better: bool = True
    """Whether a larger value of that metric is the better one."""
    version: str = ""
    """Registered version of the candidate; empty if it was not registered."""
    decision: Json | None = None
    """The gate: {"promote": bool, "reasons": [text]}."""
    warnings: Sequence[str] = ()
    """What a reader must know before believing the numbers."""

    sources: Sequence[Json] = ()
    """Per source {"name", "kind", "path", "rows"?, "size_bytes"?}."""
    parts: Json = field(default_factory=dict)
    """Rows per part: {"train": 1, "validation": 1, "test": 1, "later": 1}."""
    split: Json | None = None
    """`SplitPlan` as a dict; its "reasons" are shown."""
    columns: Sequence[Json] = ()
    """What `columns_of` returns."""
    derived: Sequence[Json] = ()
    """Settings that mlray chose: {"setting", "value", "reason"}."""
    quality: Json | None = None
    """`QualityReport.to_dict()`."""
    quality_page: str = ""
    """Address of the page on quality, from this one."""
    labels: Json | None = None
    """What the labels stage found: {"rows", "suspected", "left_out", "noise", "findings":
    [`Finding.to_dict()`], "quarantine"}; None if it was not in the line."""

    network: Json = field(default_factory=dict)
    """Facts about the network, shown as they are: {"name": "mlp", "parameters": 81234, ...}."""
    history: Sequence[Json] = ()
    """Per epoch an `EpochReport` as a dict: "epoch", losses (any key with "loss" in it),
    "learning_rate", and metrics at the top or under "metrics"."""
    best_epoch: int | None = None
    """Epoch whose weights are in the bundle."""
    stopped: str = ""
    """Why training ended."""
    training: Json = field(default_factory=dict)
    """Facts about training, shown as they are: workers, device, seconds, rows_per_s, ..."""

    evaluation: Json | None = None
    """`Evaluation.to_dict()` of the candidate on the test part."""
    champion: Json | None = None
    """`Evaluation.to_dict()` of the champion on the same rows."""
    champion_version: str = ""
    """Version of that champion."""

    reference: Json | None = None
    """`Reference.to_json()` parsed: the bins and counts that drift will be measured against."""
    drift: Sequence[Json] = ()
    """Drift rows of later traffic against the reference, largest first; may be empty."""
    drift_part: str = ""
    """What that later traffic is, such as `later` or `2013-12`."""

    provenance: Json = field(default_factory=dict)
    """Git commit, dirty flag, lock hash, fingerprints, versions, MLflow run: shown as they are;
    a dict as value becomes lines of its own."""
    stages: Sequence[Json] = ()
    """Per stage {"name", "seconds", "skipped"}."""


class _Column(Protocol):
    """The part of stats.profile.ColumnProfile that the report reads."""

    name: str
    type: str
    kind: str
    rows: int
    missing: int
    distinct: int
    distinct_is_exact: bool
    top: tuple[tuple[Any, int], ...]

    def quantile(self, q: Any) -> Any: ...
    def cdf(self, value: Any) -> Any: ...


class _Profile(Protocol):
    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> Any: ...


def columns_of(
    profile: _Profile, roles: Sequence[Any], left_out: Sequence[tuple[str, str]], target: str
) -> list[dict[str, Any]]:
    """The rows of the report's table of columns, in the profile's order.

    Args:
        profile: a `stats.profile.Profile`.
        roles: what the encoder does with each column it reads: `.column`, `.kind`, `.reason`.
        left_out: (column, reason) of every column that the model does not see.
        target: name of the target.

    Returns:
        Per column: name, type, role, reason, missing_frac, distinct, low and high (1 % and 99 %
        quantiles: extremes are values of single rows) and histogram, either {"edges", "counts"},
        its first and last bin holding the tails too, or {"labels", "counts"}. A column that is
        left out gets no labels and no quantiles.
    """
    kinds = {role.column: (role.kind, role.reason) for role in roles} | {target: ("target", "")}
    reasons = dict(left_out)
    return [
        _facts(column, *kinds.get(name, ("left out", reasons.get(name, ""))))
        for name, column in profile.columns.items()
    ]


def _facts(column: _Column, role: str, reason: str) -> dict[str, Any]:
    low, high, histogram = None, None, None
    if role != "left out" and column.missing < column.rows:
        is_classes = role == "target" and column.distinct <= MOST_CLASSES
        if column.kind in ("numeric", "time") and role != "category" and not is_classes:
            low, high, histogram = _numeric_histogram(column)
        elif column.top:
            histogram = _category_histogram(column)
    return {
        "name": column.name,
        "type": column.type,
        "kind": column.kind,
        "role": role,
        "reason": reason,
        "missing_frac": column.missing / column.rows if column.rows else 0.0,
        "distinct": column.distinct,
        "distinct_is_exact": column.distinct_is_exact,
        "low": low,
        "high": high,
        "histogram": histogram,
    }


def _numeric_histogram(column: _Column) -> tuple[float | None, float | None, Json | None]:
    low, high = (float(v) for v in np.asarray(column.quantile(np.array([0.01, 0.99]))))
    if not (math.isfinite(low) and math.isfinite(high)):
        return None, None, None
    if high <= low:
        return low, high, None
    along = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    edges = low * (1 - along) + high * along  # high - low may be past the largest double
    if not np.isfinite(edges).all():  # a range wider than a float64 can subtract
        return low, high, None
    below = np.asarray(column.cdf(edges), dtype=np.float64)
    below[0], below[-1] = 0.0, 1.0
    shares = np.diff(below).clip(min=0)
    present = column.rows - column.missing
    counts = [round(float(share) * present) for share in shares]
    return low, high, {"edges": [float(edge) for edge in edges], "counts": counts}


def _category_histogram(column: _Column) -> Json:
    named = [(short(v), n) for v, n in column.top[:SHOWN_CATEGORIES] if n >= LEAST_ROWS]
    rest = column.rows - column.missing - sum(count for _, count in named)
    if rest > 0:
        named.append(("other values", rest))
    return {"labels": [label for label, _ in named], "counts": [count for _, count in named]}
