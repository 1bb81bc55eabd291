"""What the project file leaves open is derived from the profile, with a reason for each value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlray.config import Project, with_sections
from mlray.errors import ConfigError
from mlray.models import defaults
from mlray.models.target import Target
from mlray.models.tasks import task_named
from mlray.stats.metrics import greater_is_better
from mlray.stats.profile import ColumnProfile, Profile

TRAIN_FRAC = 0.7
"""Share of the rows that trains, about, before the split is made."""
RARE_FRAC = 0.05
"""A class with a smaller share of the rows is rare."""


@dataclass(frozen=True)
class Derived:
    """A project with nothing left open, and why each derived value is what it is."""

    project: Project
    reasons: Mapping[str, str]


def derive(project: Project, profile: Profile) -> Derived:
    """Fill what the project leaves open from the profile of its rows.

    Raises:
        ConfigError: a named column does not exist.
        InputError: the target cannot be learnt (constant, all missing).
    """
    _check_columns(project, profile)
    reasons: dict[str, str] = {}
    for step in (_task, _split, _batch, _rate, _budget, _metric, _promotion):
        section, values, reason = step(project, profile)
        if values:
            changed = getattr(project, section).model_copy(update=values)
            project = with_sections(project, **{section: changed})
            reasons |= {f"{section}.{name}": reason for name in values}
    return Derived(project, reasons)


Step = tuple[str, dict[str, Any], str]


def _task(project: Project, profile: Profile) -> Step:
    model = project.model
    column = profile.columns[model.target]
    target, reason = Target.fit(column, model.task, model.positive)
    values = {"task": target.task} if model.task == "auto" else {}
    if target.task == "binary" and model.positive is None:
        values["positive"] = target.classes[1]
    return "model", values, f"{model.target} has {reason}"


def _split(project: Project, profile: Profile) -> Step:
    if project.split.by != "auto":
        return "split", {}, ""
    times = _time_columns(project, profile)
    if len(times) == 1:
        reason = f"{times[0]} is the rows' only time: older rows train, newer rows test"
        return "split", {"by": "time", "column": times[0]}, reason
    why = "there is no time column" if not times else f"several times ({', '.join(times)})"
    return "split", {"by": "hash"}, f"{why}: rows are dealt by their hash"


def _time_columns(project: Project, profile: Profile) -> list[str]:
    if project.sources.rows.time:
        return [project.sources.rows.time]
    label_time = project.model.label_known_at
    return [
        c.name
        for c in profile.columns.values()
        if c.kind == "time" and c.name != label_time and c.missing == 0 and c.distinct >= 20
    ]


def _batch(project: Project, profile: Profile) -> Step:
    if project.training.batch_size != "auto":
        return "training", {}, ""
    rows = round(TRAIN_FRAC * profile.rows)
    return "training", {"batch_size": defaults.batch_size(rows)}, f"for about {rows:,} rows"


def _rate(project: Project, profile: Profile) -> Step:
    if project.training.learning_rate != "auto" or project.training.batch_size == "auto":
        return "training", {}, ""
    batch = project.training.batch_size
    rate = round(defaults.learning_rate(batch), 6)
    return "training", {"learning_rate": rate}, f"for batches of {batch:,} rows"


def _budget(project: Project, profile: Profile) -> Step:
    if project.training.budget != "auto":
        return "training", {}, ""
    rows = round(TRAIN_FRAC * profile.rows)
    return "training", {"budget": defaults.budget(rows)}, f"for about {rows:,} rows"


def _metric(project: Project, profile: Profile) -> Step:
    if project.evaluation.metric != "auto":
        return "evaluation", {}, ""
    task = project.model.task
    rarest = rarest_frac(profile.columns[project.model.target])
    if task == "binary" and rarest < RARE_FRAC:
        reason = f"a class has {rarest:.1%} of the rows: precision and recall tell more"
        return "evaluation", {"metric": "average_precision"}, reason
    return "evaluation", {"metric": task_named(task).metric}, f"the usual metric of {task} tasks"


def rarest_frac(target: ColumnProfile) -> float:
    """Share of the rarest class among rows with a label."""
    counts = [count for _, count in target.top]
    return min(counts) / max(1, sum(counts))


def _promotion(project: Project, profile: Profile) -> Step:
    if project.registry.promote:
        return "registry", {}, ""
    metric = project.evaluation.metric
    bound = "at least" if greater_is_better(metric) else "at most"
    return "registry", {"promote": {metric: f"{bound} champion"}}, "never worse than the champion"


def _check_columns(project: Project, profile: Profile) -> None:
    """Every column that the project file names must exist."""
    named: dict[str, list[str | None]] = {
        "model.target": [project.model.target],
        "model.label_known_at": [project.model.label_known_at],
        "model.features": [*(project.model.features or [])],
        "model.kinds": [*project.model.kinds],
        "split.column": [project.split.column],
        "evaluation.slices": [*project.evaluation.slices],
        "monitoring.groups": [*project.monitoring.groups],
        "quality.labels.origin": [project.quality.labels.origin],
        "quality.labels.batch": [project.quality.labels.batch],
    }
    known = set(profile.columns)
    problems = [
        f"{field}: there is no column `{column}`"
        for field, columns in named.items()
        for column in columns
        if column and column not in known
    ]
    if problems:
        raise ConfigError(
            "\n  ".join(problems),
            allowed=", ".join(sorted(known)),
            do="check the names; `mlray check FILE` shows the columns after joins and transforms",
        )
