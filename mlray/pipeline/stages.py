"""Stages: what they are, when they may be skipped, and where their outputs lie.

A stage has a key: a hash of its settings, of the code that it runs, and of the keys of the stages
it needs. Its output is a folder `stages/NAME/KEY` that appears in one piece when the stage is
done; a folder that is there is never made again. A killed run leaves only folders that nobody
looks at.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mlray import storage
from mlray.config import Project
from mlray.errors import ConfigError

_MANIFEST = "stage.json"


@dataclass(frozen=True)
class Done:
    """A finished stage: its folder, what it said of itself, and how long it took."""

    name: str
    key: str
    folder: str
    result: dict[str, Any]
    seconds: float
    skipped: bool = False

    def path(self, *parts: str) -> str:
        """A file of the stage's output."""
        return storage.join(self.folder, *parts)


@dataclass
class Work:
    """What a stage is given: the project, the finished stages before it, a folder to fill."""

    project: Project
    home: str
    key: str
    folder: str
    scratch: str
    """Survives a killed run, so that a stage can go on where it was; removed when it is done."""
    before: Mapping[str, Done]
    say: Callable[[str], None]
    services: dict[str, Any] = field(default_factory=dict)

    def path(self, *parts: str) -> str:
        return storage.join(self.folder, *parts)


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline."""

    name: str
    needs: tuple[str, ...]
    settings: Callable[[Project], Any]
    """What of the project decides the output: all that the key must cover."""
    run: Callable[[Work], dict[str, Any]]
    """Fills `work.folder`; returns what later stages and the report want to know at once."""


def keys(stages: Iterable[Stage], project: Project, fingerprint: str) -> dict[str, str]:
    """The key of every stage, known before any of them has run.

    Args:
        stages: in order.
        project: as the user wrote it; what is derived follows from it and the rows.
        fingerprint: of what the sources hold; part of every key.
    """
    found: dict[str, str] = {}
    for stage in stages:
        parts = [
            stage.name,
            fingerprint,
            _code_version(),
            stage.settings(project),
            [found[name] for name in stage.needs],
        ]
        text = json.dumps(parts, sort_keys=True, default=str)
        found[stage.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def finished(home: str, name: str, key: str) -> Done | None:
    """The stage's output if it is there."""
    folder = _folder(home, name, key)
    manifest = storage.join(folder, _MANIFEST)
    if not storage.exists(manifest):
        return None
    told = storage.read_json(manifest)
    return Done(name, key, folder, told["result"], told["seconds"], skipped=True)


def perform(
    stage: Stage,
    project: Project,
    home: str,
    key: str,
    before: Mapping[str, Done],
    say: Callable[[str], None],
    services: dict[str, Any],
) -> Done:
    """Run a stage and publish its folder in one piece."""
    started = time.monotonic()
    target = _folder(home, stage.name, key)
    scratch = f"{target}.scratch"
    Path(scratch).mkdir(parents=True, exist_ok=True)
    _sweep(home, stage.name, key)
    with storage.new_folder(target) as folder:
        work = Work(project, home, key, folder, scratch, before, say, services)
        result = stage.run(work)
        seconds = time.monotonic() - started
        storage.write_json(
            storage.join(folder, _MANIFEST), {"result": result, "seconds": round(seconds, 3)}
        )
    storage.remove(scratch)
    return Done(stage.name, key, target, result, seconds)


def forget(home: str, name: str, key: str) -> None:
    """Remove a stage's output, so that it runs again."""
    storage.remove(_folder(home, name, key))
    storage.remove(f"{_folder(home, name, key)}.scratch")


def checked_name(name: str, stages: Iterable[Stage]) -> str:
    """`name` if a stage is called so; else `ConfigError` with the names there are."""
    known = [stage.name for stage in stages]
    if name not in known:
        raise ConfigError("there is no such stage", value=name, allowed=", ".join(known))
    return name


def _sweep(home: str, name: str, key: str) -> None:
    """Remove half-filled folders that a killed run of this very stage left."""
    parent = storage.join(home, "stages", name)
    for entry in storage.names(parent):
        if entry.startswith(f".{key}.") and entry.endswith(".tmp"):
            storage.remove(storage.join(parent, entry))


def _folder(home: str, name: str, key: str) -> str:
    return storage.join(home, "stages", name, key)


@cache
def _code_version() -> str:
    """Hash of mlray's own source: another mlray never trusts this one's stages blindly."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        if file.relative_to(package).parts[0] not in {"cli.py", "cli", "serving", "__main__.py"}:
            digest.update(file.read_bytes())
    return digest.hexdigest()
