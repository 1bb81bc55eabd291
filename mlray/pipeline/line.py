"""The line: which stages there are, in order, and what each one's key covers."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from mlray import quarantine, storage, usercode
from mlray.config import Project
from mlray.config.fields import duration_s
from mlray.pipeline import cleaning, data, labels, model
from mlray.pipeline.stages import Stage
from mlray.sources.personal import keys_of

STAGES = (
    Stage("sources", (), lambda p: _sources(p), data.note_sources),
    Stage("quality", ("sources",), lambda p: _quality(p), cleaning.clean_rows),
    Stage("split", ("quality",), lambda p: _split(p), data.split_rows),
    Stage("encode", ("split",), lambda p: p.model.model_dump(), data.encode_rows),
    Stage("train", ("encode",), lambda p: _training(p), model.train_model),
    Stage("evaluate", ("train",), lambda p: _evaluation(p), model.evaluate_model),
    Stage("register", ("evaluate",), lambda p: _registration(p), model.register_model),
)

LABELS = Stage("labels", ("encode",), lambda p: _labels(p), labels.search_labels)
"""Stands between encode and train where `quality.labels.action` asks for it."""


def stages_of(project: Project) -> tuple[Stage, ...]:
    """The stages of a project, in order."""
    if project.quality.labels.action == "off":
        return STAGES
    places = [stage.name for stage in STAGES]
    at = places.index("train")
    train = replace(STAGES[at], needs=("labels",))
    return (*STAGES[:at], LABELS, train, *STAGES[at + 1 :])


def _labels(project: Project) -> Any:
    return [project.quality.labels.model_dump(), _training(project)]


def _sources(project: Project) -> Any:
    keys = keys_of(project)
    return [project.name, project.sources.model_dump(), keys.id if keys else ""]


def _quality(project: Project) -> Any:
    functions = [_code(project, rule.function) for rule in project.quality.rules]
    transform = _code(project, project.sources.transform)
    repaired = quarantine.version(storage.home(project.storage.path), project.name)
    rules = project.quality.model_dump(exclude={"labels"})
    return [rules, transform, functions, _periods(project), repaired]


def _periods(project: Project) -> list[int]:
    """Rows that have not changed grow old: what must be fresh is looked at once in each period."""
    ages = [rule.fresh for rule in project.quality.rules if rule.fresh]
    return [int(time.time() // duration_s(age)) for age in ages]


def _split(project: Project) -> Any:
    model = project.model
    return [project.split.model_dump(), model.target, model.task, model.label_known_at]


def _training(project: Project) -> Any:
    network = project.model.network
    code = _code(project, network) if ":" in network else ""
    return [project.training.model_dump(), project.evaluation.metric, code]


def _evaluation(project: Project) -> Any:
    watched = project.monitoring
    return [project.evaluation.model_dump(), watched.bins, watched.groups]


def _registration(project: Project) -> Any:
    return [project.registry.model_dump(), project.tracking.model_dump()]


def _code(project: Project, path: str | None) -> str:
    return usercode.version(path, project.folder) if path else ""
