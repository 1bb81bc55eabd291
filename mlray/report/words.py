"""Numbers, names and sentences as a reader wants them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

METRIC_NAMES = {
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "log_loss": "log loss",
    "brier": "Brier score",
    "f1": "F1",
    "macro_f1": "macro F1",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "expected_calibration_error": "calibration error",
}
ABSENT = "—"


@dataclass(frozen=True)
class Estimate:
    """A metric's value and its 95 % interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, raw: Any) -> Estimate | None:
        """From a number, [value, low, high] or {"value", "low", "high"}; None if it is none.

        >>> Estimate.of({"value": 0.7, "low": 0.6, "high": 0.8}).high, Estimate.of(None)
        (0.8, None)
        """
        if isinstance(raw, dict):
            raw = [raw.get("value"), raw.get("low"), raw.get("high")]
        numbers = list(raw) if isinstance(raw, (list, tuple)) else [raw]
        finite = [float(n) if is_number(n) else None for n in (*numbers, None, None)]
        if finite[0] is None:
            return None
        return cls(finite[0], finite[1], finite[2])

    @property
    def interval(self) -> str:
        if self.low is None or self.high is None:
            return ABSENT
        return f"{precise(self.low)} to {precise(self.high)}"


def is_number(value: Any) -> bool:
    """Whether it is a finite number (a bool is none)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def metric_name(name: str) -> str:
    """
    >>> metric_name("roc_auc"), metric_name("balanced_accuracy")
    ('ROC AUC', 'balanced accuracy')
    """
    return METRIC_NAMES.get(name, name.replace("_", " "))


def count(value: Any) -> str:
    """
    >>> count(336776), count(None)
    ('336,776', '—')
    """
    return f"{int(value):,}" if is_number(value) else ABSENT


def precise(value: Any) -> str:
    """A metric: four decimals below 10, fewer above.

    >>> precise(0.68431), precise(1234.56), precise(0.00001), precise(float("nan"))
    ('0.6843', '1,234.6', '1e-05', '—')
    """
    if not is_number(value):
        return ABSENT
    size = abs(value)
    if size >= 1e7 or 0 < size < 1e-4:
        return f"{value:.3g}"
    return f"{value:,.4f}" if size < 10 else f"{value:,.2f}" if size < 1000 else f"{value:,.1f}"


def short(value: Any) -> str:
    """A measured number in three figures; whole numbers and texts as they are.

    >>> short(1234567.0), short(81234), short(0.5), short(3.14159), short("x"), short(True)
    ('1.23M', '81,234', '0.5', '3.14', 'x', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ABSENT
    if not is_number(value):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    for least, unit, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if least <= abs(value) < 1e12:
            return f"{value / unit:.3g}{letter}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e4 else f"{value:.3g}"


def share(value: Any) -> str:
    """
    >>> share(0.1234), share(0.0), share(0.00001), share(1.0)
    ('12.3 %', '0 %', '<0.1 %', '100 %')
    """
    if not is_number(value):
        return ABSENT
    if 0 < value < 0.001:
        return "<0.1 %"
    return f"{100 * value:.0f} %" if value in (0, 1) else f"{100 * value:.1f} %"


def seconds(value: Any) -> str:
    """
    >>> seconds(0.04), seconds(12.34), seconds(75), seconds(3700)
    ('0.04 s', '12.3 s', '1 min 15 s', '1 h 1 min')
    """
    if not is_number(value):
        return ABSENT
    if value < 60:
        return f"{value:.2g} s" if value < 1 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(value: Any) -> str:
    """
    >>> size(512), size(31_000_000)
    ('512 B', '31.0 MB')
    """
    if not is_number(value):
        return ABSENT
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{value / limit:.1f} {unit}"
    return f"{int(value)} B"


def position(value: Any, kind: str) -> str:
    """A point on a column's axis: a number, or a day when the column is a time (epoch seconds).

    >>> position(0.25, "numeric"), position(1378771200.0, "time")
    ('0.25', '2013-09-10')
    """
    if kind == "time" and is_number(value) and abs(value) < 2e11:
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d")
    return short(value)


def moment(text: str) -> str:
    """
    >>> moment("2026-11-21T23:50:12.123+01:00"), moment("yesterday")
    ('21 November 2026, 22:50 UTC', 'yesterday')
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return f"{at.day} {at:%B %Y, %H:%M} UTC"
