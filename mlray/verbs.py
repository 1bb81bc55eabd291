"""What mlray can do, one function a verb; the command line and driver scripts call these.

Every function takes a project file's path or a loaded `Project`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from mlray import storage
from mlray.config import Project, with_sections
from mlray.config import load as load_file
from mlray.errors import InputError

if TYPE_CHECKING:
    from datetime import datetime

    from mlray.ancestry import Lineage
    from mlray.health import Finding
    from mlray.pipeline import Run
    from mlray.prediction import Scored
    from mlray.quarantine import Quarantine
    from mlray.registry import Registry, Version
    from mlray.serving import Service
    from mlray.watching import Watched

Source = Project | str | Path


def load(file: Source, *overrides: str) -> Project:
    """Read a project file; `section.field=value` texts override it.

    Raises:
        ConfigError: with every mistake in it and its place.
    """
    if isinstance(file, Project) and not overrides:
        return file
    return load_file(_path(file), overrides)


def run(
    project: Source,
    overrides: Iterable[str] = (),
    *,
    until: str | None = None,
    from_: str | None = None,
    dry_run: bool = False,
) -> Run:
    """Rows to a registered model; see `mlray.pipeline.run`."""
    from mlray.pipeline import run as run_stages

    return run_stages(load(project, *overrides), until=until, from_=from_, dry_run=dry_run)


def check(project: Source, overrides: Iterable[str] = ()) -> list[Finding]:
    """Try the project's files, functions and network on a few real rows."""
    from mlray.trial import try_out

    return try_out(load(project, *overrides))


def suggest(project: Source, overrides: Iterable[str] = ()) -> str:
    """Quality rules that the project's rows keep: YAML to paste, each with why it is there."""
    from mlray.trial import suggestion

    return suggestion(load(project, *overrides))


def explain(what: str, overrides: Iterable[str] = ()) -> str:
    """A section or field in words, or a project file with every derived value written out.

    For a project file its rows are read and profiled first: the stages up to encode are run, or
    found done.
    """
    from mlray.config import explain_section, whole_file

    if what == "expressions":
        from mlray.expressions import LANGUAGE

        return LANGUAGE
    if not what.endswith((".yaml", ".yml")):
        return explain_section(what)
    done = run(what, overrides, until="encode")
    encoded = done.stage("encode").result
    roles = {role["column"]: role["kind"] for role in encoded["roles"]}
    model = done.project.model.model_copy(update={"features": list(roles), "kinds": roles})
    left = "; ".join(f"{out['column']} is left out: {out['reason']}" for out in encoded["left"])
    kinds = "; ".join(f"{role['column']}: {role['reason']}" for role in encoded["roles"])
    reasons = {**done.derived, "model.features": left, "model.kinds": kinds}
    return whole_file(with_sections(done.project, model=model), reasons)


def doctor(project: Source | None = None, overrides: Iterable[str] = ()) -> list[Finding]:
    """Look at this machine, and at what the project needs."""
    from mlray.health import examine

    return examine(None if project is None else load(project, *overrides))


def serve(project: Source, overrides: Iterable[str] = ()) -> Service:
    """Serve the champion, following the registry, until `service.stop()` or the end of `with`.

    Uses the Ray cluster that this process is connected to; else connects to the project's, and
    disconnects again when the service stops.
    """
    from mlray.cluster import connected
    from mlray.serving import serve as start

    loaded = load(project, *overrides)
    with ExitStack() as stack:
        stack.enter_context(connected(loaded, dashboard=True))
        service = start(loaded, storage.home(loaded.storage.path))
        service.after_stop(stack.pop_all().close)
        return service


def predict(
    project: Source,
    overrides: Iterable[str] = (),
    *,
    rows: str | None = None,
    out: str | None = None,
    version: str | int = "champion",
) -> Scored:
    """Score rows on Ray Data with the predictor that also serves.

    Args:
        project: a project or its file.
        overrides: `section.field=value` texts.
        rows: files to score in place of `sources.rows`.
        out: file or folder to write in place of `prediction.path`.
        version: champion, or a version's number.
    """
    from mlray.cluster import connected
    from mlray.prediction import score

    loaded = load(project, *overrides)
    with connected(loaded):
        return score(loaded, storage.home(loaded.storage.path), rows, out, version)


def monitor(
    model: Source, *, since: str | datetime = "1h", version: str | int = "champion"
) -> Watched:
    """Drift of served traffic against the training rows, from the counts that replicas keep.

    Args:
        model: a project, its file, or the name of its model.
        since: how far back (90s, 15m, 1h, 7d), or from when on.
        version: champion, or a version's number.
    """
    from mlray.prediction import named_version
    from mlray.watching import watch

    name, project = _named(model)
    registry = _registry(project)
    found = named_version(registry, name, version)
    return watch(registry, found, since, project.monitoring if project else None)


def versions(model: Source | None = None) -> list[Version]:
    """Registered versions, newest first: of one model, or of all."""
    if model is None:
        registry = _registry(None)
        return [v for name in registry.names() for v in registry.versions(name)]
    name, project = _named(model)
    return _registry(project).versions(name)


def lineage(model: Source, version: int | str | None = None) -> Lineage:
    """Where a version comes from: data, features, code, environment, run, model, deployment.

    Args:
        model: a project, its file, or the name of its model; `NAME@VERSION` names both.
        version: a number or an alias; by default the champion, or the newest without one.
    """
    from mlray.ancestry import lineage_of

    if not isinstance(model, Project) and version is None:
        model, version = addressed(str(model))
    name, project = _named(model)
    registry = _registry(project)
    return lineage_of(registry, registry.named(name, version))


def quarantined(project: Source) -> Quarantine:
    """The rows that the project's last run set aside, with the rules they broke and why."""
    from mlray.quarantine import latest

    loaded = load(project)
    return latest(storage.home(loaded.storage.path), loaded.name)


def resubmit(project: Source, file: str) -> int:
    """Hand in repaired rows; they take the place of the broken ones from the next run on.

    Args:
        project: a project or its file.
        file: rows that `quarantined` gave, mended, as .csv or .parquet, each with its `_id`.
    """
    from mlray.quarantine import resubmit as hand_in

    loaded = load(project)
    return hand_in(storage.home(loaded.storage.path), loaded, file)


def promote(model: Source, number: int, why: str = "by hand") -> Version:
    """Make a version champion."""
    from mlray.registry import Decision

    name, project = _named(model)
    registry = _registry(project)
    return registry.promote(registry.version(name, number), Decision(True, (why,)))


def rollback(model: Source, why: str = "by hand") -> Version:
    """Put the champion before this one back."""
    name, project = _named(model)
    return _registry(project).rollback(name, why)


def addressed(text: str) -> tuple[str, str | None]:
    """A model and the version that stands behind an `@`.

    >>> addressed("flights@3"), addressed("flights"), addressed("me@home/flights.yaml")
    (('flights', '3'), ('flights', None), ('me@home/flights.yaml', None))
    """
    model, _, version = text.rpartition("@")
    return (model, version) if model and "/" not in version and version else (text, None)


def _named(model: Source) -> tuple[str, Project | None]:
    """A model's name, and its project where a project or its file was given."""
    if isinstance(model, Project) or str(model).endswith((".yaml", ".yml")):
        project = load(model)
        return project.name, project
    return str(model), None


def _registry(project: Project | None) -> Registry:
    """The registry that a project names, or the one in the storage folder found from here."""
    from mlray.registry import Registry

    if project is None:
        return Registry.at(storage.home())
    return Registry.open(project, storage.home(project.storage.path))


def tracking_uri(project: Source) -> str:
    """Address of the project's MLflow store: what `mlflow server --backend-store-uri` takes."""
    loaded = load(project)
    return _registry(loaded).uri


def _path(file: Source) -> str | Path:
    if isinstance(file, Project):
        if file.file is None:
            raise InputError("this project was not read from a file, so it takes no overrides")
        return file.file
    return file
