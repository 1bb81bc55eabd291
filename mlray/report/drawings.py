"""Which drawings a report has: each one whose numbers are there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from mlray.report import plots
from mlray.report.content import Json, RunReport
from mlray.report.reading import class_names, pairs
from mlray.report.words import Estimate, is_number, metric_name, precise, share

DRAWN_CLASSES = 24
"""A confusion matrix of more classes shows the largest and folds the others into one."""


@dataclass(frozen=True)
class Drawing:
    """A drawing with its title and one line that says how to read it."""

    title: str
    svg: Markup
    caption: str


def headline(report: RunReport) -> Markup | None:
    """The headline metric of candidate, champion and baseline with their intervals."""
    rows = []
    version = f" {report.champion_version}" if report.champion_version else ""
    evaluation = report.evaluation or {}
    for text, metrics in (
        ("this run", evaluation.get("metrics")),
        (f"champion{version}", (report.champion or {}).get("metrics")),
        ("baseline", evaluation.get("baseline")),
    ):
        if estimate := Estimate.of((metrics or {}).get(report.metric)):
            rows.append((text, estimate))
    return plots.intervals(rows, metric_name(report.metric)) if len(rows) > 1 else None


def training_drawings(report: RunReport) -> list[Drawing]:
    """Loss, metric and learning rate by epoch."""
    history = [_flat(epoch) for epoch in report.history]
    epochs = [int(epoch.get("epoch", i + 1)) for i, epoch in enumerate(history)]
    names = list(dict.fromkeys(name for epoch in history for name in epoch))
    groups = [
        ("Loss", "loss", [n for n in names if "loss" in n and not n.endswith("log_loss")]),
        (metric_name(report.metric), "metric", [n for n in names if _is_metric(n, report)]),
        ("Learning rate", "rate", [n for n in names if n in ("learning_rate", "lr")]),
    ]
    marked = report.best_epoch is not None
    captions = ["Dotted: the best epoch, whose weights are kept." if marked else "", "", ""]
    drawings = []
    for title, name, members in groups:
        series = {
            _series_name(m): [_or_nan(epoch.get(m)) for epoch in history] for m in members[:3]
        }
        series = {text: values for text, values in series.items() if np.isfinite(values).any()}
        if series and epochs:
            svg = plots.curve(epochs, series, title.lower() if name != "metric" else title, name,
                              report.best_epoch)  # fmt: skip
            drawings.append(Drawing(title[:1].upper() + title[1:], svg, captions.pop(0)))
    return drawings


def evaluation_drawings(report: RunReport) -> list[Drawing]:
    """Everything that can be drawn from the evaluation on the test part."""
    if not report.evaluation:
        return []
    return [*_curves(report.evaluation), *_counts(report.evaluation, report.target)]


def _curves(evaluation: Json) -> Iterator[Drawing]:
    metrics, curves = evaluation.get("metrics") or {}, evaluation.get("curves") or {}
    if (points := pairs(curves.get("roc"))) is not None:
        area = Estimate.of(metrics.get("roc_auc"))
        said = "How many of the real cases are found (up) for how many false calls (across)."
        if area:
            said += f" Area {precise(area.value)}; guessing has 0.5."
        yield Drawing("ROC", plots.roc(points, area), said)
    if (points := pairs(curves.get("pr"))) is not None:
        area = Estimate.of(metrics.get("average_precision"))
        rate = _number(evaluation.get("base_rate"))
        said = "How many of the called cases are real (up) for how many are found (across)."
        yield Drawing("Precision and recall", plots.precision_recall(points, rate, area), said)
    if (bins := _calibration(evaluation.get("calibration"))) is not None:
        said = "Of the rows given a probability, the share that came true. Larger dots: more rows."
        if is_number(gap := evaluation.get("calibration_error")):
            said += f" Mean gap {precise(gap)}."
        yield Drawing("Calibration", plots.calibration(*bins), said)


def _counts(evaluation: Json, target: str) -> Iterator[Drawing]:
    if (scores := evaluation.get("histogram")) and (series := _series(scores)) and _rises(scores):
        threshold = _number(evaluation.get("threshold"))
        mark = (threshold, f"threshold {threshold:.3g}") if threshold is not None else None
        label = "predicted value" if len(series) == 1 else "score"
        svg = plots.histogram(plots.numbers(scores["edges"]), series, label, "scores", mark)
        said = "How the model's scores spread; the further apart the classes, the better."
        if len(series) == 1:
            said = "How the predictions spread."
        yield Drawing("Predictions" if len(series) == 1 else "Scores", svg, said)
    if matrix := evaluation.get("confusion"):
        table = plots.numbers(matrix)
        shown, names = _largest(table, class_names(evaluation, len(table)))
        svg = plots.confusion(shown, names)
        right = float(np.trace(table)) / max(float(table.sum()), 1)
        at = evaluation.get("threshold")
        said = f"{share(right)} of the rows are on the diagonal" + (
            f", at threshold {at:.3g}." if is_number(at) and len(table) == 2 else "."
        )
        yield Drawing("Confusion", svg, said + " The shade is the share of the true class.")
    cells = evaluation.get("predicted_true") or {}
    if _rises(cells, "true_edges") and _rises(cells, "predicted_edges"):
        svg = plots.predicted_against_true(
            plots.numbers(cells["true_edges"]),
            plots.numbers(cells["predicted_edges"]),
            plots.numbers(cells["counts"]),
        )
        yield Drawing("Predicted against true", svg, "Darker cells hold more rows.")
    if (residuals := evaluation.get("residuals")) and _rises(residuals):
        edges, counts = plots.numbers(residuals["edges"]), plots.numbers(residuals["counts"])
        svg = plots.histogram(edges, {"rows": counts}, f"predicted minus true {target}",
                              "residuals", (0.0, "no error"))  # fmt: skip
        yield Drawing("Residuals", svg, "Centred on zero means that the model leans to no side.")


def _rises(facts: Json, edges: str = "edges") -> bool:
    """Whether there are edges to draw along."""
    values = list(facts.get(edges) or [])
    return len(values) > 1 and values[0] < values[-1]


def _largest(matrix: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """The classes with most rows, the others as one, so that each cell can be seen."""
    if len(names) <= DRAWN_CLASSES:
        return matrix, names
    order = np.argsort(-matrix.sum(axis=1), kind="stable")
    first, others = order[: DRAWN_CLASSES - 1], order[DRAWN_CLASSES - 1 :]
    rows = np.vstack([matrix[first], matrix[others].sum(axis=0)])
    folded = np.column_stack([rows[:, first], rows[:, others].sum(axis=1)])
    return folded, [*(names[i] for i in first), f"{len(others)} others"]


def _calibration(raw: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None] | None:
    """Mean predicted, observed share and rows per bin; bins without rows are left out."""
    if not raw:
        return None
    if isinstance(raw, list):
        raw = {name: [bin_.get(name) for bin_ in raw] for name in ("predicted", "observed", "rows")}
    predicted = plots.numbers([_or_nan(v) for v in raw["predicted"]])
    observed = plots.numbers([_or_nan(v) for v in raw["observed"]])
    rows = plots.numbers([_or_nan(v) for v in raw.get("rows") or np.ones(len(predicted))])
    kept = np.isfinite(predicted) & np.isfinite(observed) & (rows > 0)
    return (predicted[kept], observed[kept], rows[kept]) if kept.any() else None


def _series(scores: Json) -> dict[str, np.ndarray]:
    """Counts by name: {"counts": [...]} is one series, {"counts": {name: [...]}} are several."""
    counts = scores.get("counts")
    named = counts if isinstance(counts, dict) else {"rows": counts or []}
    return {str(name): plots.numbers(values) for name, values in named.items() if len(values)}


def _flat(epoch: Json) -> dict[str, Any]:
    return {**(epoch.get("metrics") or {}), **{k: v for k, v in epoch.items() if k != "metrics"}}


def _is_metric(name: str, report: RunReport) -> bool:
    return name == "metric" or (bool(report.metric) and name.endswith(report.metric))


def _series_name(name: str) -> str:
    for start, text in (("train", "train"), ("val", "validation"), ("test", "test")):
        if name.startswith(start):
            return text
    return "validation" if "loss" not in name and "rate" not in name else name.replace("_", " ")


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None


def _or_nan(value: Any) -> float:
    return float(value) if is_number(value) else float("nan")
