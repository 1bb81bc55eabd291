"""The judgement: metrics with intervals, slices, figures, and what guessing would have reached."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlray.errors import InputError
from mlray.evaluation import figures
from mlray.evaluation.rows import Rows, Scorer, Slice, View, as_it_is, collect
from mlray.models.target import Target
from mlray.stats import metrics as stats

LEAST_ROWS = 50
"""A slice of fewer rows is not judged: its numbers would be noise, and might point at people."""
MOST_VALUES = 20
"""At most so many values of a slice column are judged, the most frequent ones."""
_RANKING = ("roc_auc", "average_precision")
"""Metrics that rows of one class do not have."""
_UNDEFINED: dict[str, float | None] = {"value": None, "low": None, "high": None}
_METRIC = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}

Json = dict[str, Any]
Estimate = dict[str, float | None]


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on one part of the data. All fields are plain JSON.

    An estimate is {"value", "low", "high"}: the metric and its 95 % interval, None where it is
    not defined.
    """

    part: str
    task: str
    target: str
    metric: str
    """The metric that slices are ordered by."""
    rows: int
    """Rows judged."""
    metrics: dict[str, Estimate]
    baseline: dict[str, float | None]
    """Metrics of the best constant prediction on these rows: the prior or the mean."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows not judged, by reason."""
    classes: list[str] = field(default_factory=list)
    """Names of the classes, in the order of codes; empty for regression."""
    class_rows: list[int] = field(default_factory=list)
    """Rows of each class."""
    threshold: float | None = None
    """Binary: probability from which on a row is called positive."""
    base_rate: float | None = None
    """Binary: share of positive rows."""
    slices: list[Json] = field(default_factory=list)
    """{"column", "value", "rows", "metrics": {name: estimate}}, worst first by `metric`."""
    curves: Json = field(default_factory=dict)
    """Binary: {"roc": {"x", "y"}, "pr": {"x", "y"}}, at most 200 points each."""
    calibration: Json = field(default_factory=dict)
    """{"predicted", "observed", "rows"} per bin; for multiclass of the most probable class."""
    calibration_error: float | None = None
    """Expected calibration error: mean gap of predicted and observed, 0 to 1."""
    confusion: list[list[int]] = field(default_factory=list)
    """Rows by true class (down) and called class (across)."""
    histogram: Json = field(default_factory=dict)
    """Of scores: {"edges", "counts"}; counts by class, or right and wrong, or of all rows."""
    residuals: Json = field(default_factory=dict)
    """Regression: {"edges", "counts"} of predicted minus true."""
    predicted_true: Json = field(default_factory=dict)
    """Regression: {"true_edges", "predicted_edges", "counts"}, true down, predicted across."""

    def to_dict(self) -> Json:
        return asdict(self)

    def to_json(self) -> str:
        """The same evaluation gives the same text."""
        return json.dumps(self.to_dict(), indent=1, sort_keys=True, allow_nan=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        return cls(**values)

    @classmethod
    def from_json(cls, text: str | bytes) -> Evaluation:
        return cls.from_dict(json.loads(text))


def headline(evaluation: Evaluation) -> dict[str, float]:
    """Plain metrics for the gate and the registry: the values alone, NaN where not defined."""
    values = {name: estimate["value"] for name, estimate in evaluation.metrics.items()}
    return {name: math.nan if v is None else v for name, v in values.items()}


def evaluate(
    predictor: Scorer,
    tables: Iterable[pa.Table],
    target: Target,
    slices: Sequence[str] = (),
    part: str = "test",
    *,
    metric: str | None = None,
    threshold: float = 0.5,
    told: View = as_it_is,
) -> Evaluation:
    """Judge a model on rows whose target is known.

    Only truth, score and slice values of the rows are kept (about 16 bytes a row and slice), so
    the tables may be a stream far larger than memory.

    Args:
        predictor: gives scores in the shape of the task.
        tables: request columns, the target's column and the slices' columns.
        target: the encoder's target: column, task, classes.
        slices: columns whose values are also judged apart.
        part: what the rows are, for messages and reports.
        metric: what slices are ordered by; the task's usual one by default.
        threshold: binary only, from which probability on a row is called positive; it should
            have been chosen on other rows.
        told: makes the table that target and slices are read from, where that is another one
            than the predictor is given.

    Raises:
        InputError: no row has a target, all rows have the same class, or a column is missing.
        TrainingError: the model gave scores that are no numbers.
        ConfigError: no such metric for the task.
    """
    task, metric = target.task, metric or _METRIC[target.task]
    stats.score(task, np.zeros(0), np.zeros(0), [metric])  # refuses an unknown name before work
    rows = collect(predictor, tables, target, slices, part, told)
    counts = _class_rows(rows, target, part)
    return Evaluation(
        part=part,
        task=task,
        target=target.column,
        metric=metric,
        rows=len(rows),
        metrics={n: _estimate(n, task, rows, threshold) for n in stats.NAMES[task]},
        baseline=_baseline(task, rows, counts),
        left_out={reason: n for reason, n in rows.left_out.items() if n},
        classes=[str(c) for c in target.classes],
        class_rows=counts,
        threshold=threshold if task == "binary" else None,
        slices=_slices(task, rows, metric, threshold),
        **figures.of_task(task, rows, target.classes, threshold),
    )


def _class_rows(rows: Rows, target: Target, part: str) -> list[int]:
    if target.task == "regression":
        return []
    counts = np.bincount(rows.y_true, minlength=len(target.classes))
    if np.count_nonzero(counts) == 1:
        only = target.classes[int(counts.argmax())]
        raise InputError(
            f"all rows of the {part} part have the same class, so no model can be judged by them",
            value=f"{target.column} = {only} in {len(rows):,} rows",
            do="give that part more or other rows under `split`",
        )
    return [int(n) for n in counts]


def _estimate(name: str, task: str, rows: Rows, threshold: float) -> Estimate:
    value = stats.score(task, rows.y_true, rows.y_score, [name], threshold)[name]
    low, high = stats.interval(name, task, rows.y_true, rows.y_score, threshold)
    return {"value": _known(value), "low": _known(low), "high": _known(high)}


def _baseline(task: str, rows: Rows, counts: Sequence[int]) -> dict[str, float | None]:
    """The best that one constant answer reaches: class shares, or the mean."""
    if task == "regression":
        constant: npt.NDArray[Any] = np.full(len(rows), rows.y_true.mean())
    else:
        shares = np.array(counts, np.float64) / len(rows)
        one = shares[1] if task == "binary" else shares
        constant = np.broadcast_to(one, rows.y_score.shape).copy()
    return {n: _known(v) for n, v in stats.score(task, rows.y_true, constant).items()}


def _slices(task: str, rows: Rows, metric: str, threshold: float) -> list[Json]:
    judged = [
        _judged(task, rows, one, code, metric, threshold)
        for one in rows.slices
        for code in _frequent(one)
    ]
    sign = 1 if stats.greater_is_better(metric) else -1

    def goodness(part: Json) -> float:
        value = part["metrics"][metric]["value"]
        return math.inf if value is None else sign * value

    return sorted(judged, key=goodness)


def _frequent(one: Slice) -> list[int]:
    counts = np.bincount(one.codes, minlength=1)
    order = np.argsort(-counts, kind="stable")[:MOST_VALUES]
    return [int(code) for code in order if counts[code] >= LEAST_ROWS]


def _judged(task: str, rows: Rows, one: Slice, code: int, metric: str, threshold: float) -> Json:
    """One slice: the headline metric with its interval, the others by value."""
    held = one.codes == code
    part = Rows(rows.y_true[held], rows.y_score[held], (), {})
    ranked = task == "regression" or part.y_true.min() < part.y_true.max()
    names = [n for n in stats.NAMES[task] if ranked or n not in _RANKING]
    values = stats.score(task, part.y_true, part.y_score, names, threshold)
    found: dict[str, Estimate] = {n: {"value": _known(v)} for n, v in values.items()}
    found[metric] = _estimate(metric, task, part, threshold) if metric in names else _UNDEFINED
    return {
        "column": one.column,
        "value": one.values[code],
        "rows": int(held.sum()),
        "metrics": found,
    }


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
