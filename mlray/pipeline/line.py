"""The line: which stages there are, in order, and what each one's key covers."""

from __future__ import annotations

from typing import Any

from mlray import usercode
from mlray.config import Project
from mlray.pipeline import cleaning, data, model
from mlray.pipeline.stages import Stage

STAGES = (
    Stage("sources", (), lambda p: _sources(p), data.note_sources),
    Stage("quality", ("sources",), lambda p: _quality(p), cleaning.clean_rows),
    Stage("split", ("quality",), lambda p: _split(p), data.split_rows),
    Stage("encode", ("split",), lambda p: p.model.model_dump(), data.encode_rows),
    Stage("train", ("encode",), lambda p: _training(p), model.train_model),
    Stage("evaluate", ("train",), lambda p: _evaluation(p), model.evaluate_model),
    Stage("register", ("evaluate",), lambda p: _registration(p), model.register_model),
)


def _sources(project: Project) -> Any:
    return [project.name, project.sources.model_dump()]


def _quality(project: Project) -> Any:
    return [project.quality.model_dump(), _code(project, project.sources.transform)]


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
