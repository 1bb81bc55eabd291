"""What a version came from, as one record: data, features, code, environment, run, model.

It is written beside the bundle's artifacts before the version is registered, so no version is
without. No secret and no value of a row is in it, but for those that a project file's rules name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, SecretStr

from mlray import secrets, storage, usercode
from mlray.config import Project
from mlray.errors import ConfigError
from mlray.pipeline.outputs import bundle_folder
from mlray.pipeline.stages import Work
from mlray.sources.kinds import kind_of

if TYPE_CHECKING:
    from mlray.registry import Decision, Version
    from mlray.tracking import Tracker

FORMAT = 1
FILE = "lineage.json"
CONTENT, PLACE = "mlray.content", "mlray.lineage"
"""Tags of a version: fingerprint of its clean rows, and where its record lies."""
_CODE_FIELDS = ("kind", "transform", "function", "network")
_SECRET = re.compile(r"pass|pwd|secret|token|key|credential|signature|auth", re.I)
_PINNED = re.compile(r"sources\.[^.]+\.(version|start|stop)\b")
"""What a run sets itself, so that sources hold still; the inputs say it."""
_MASK, _LONG = "**********", 6
_IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def write(
    work: Work, metrics: Mapping[str, float], decision: Decision, champion: Version | None
) -> dict[str, str]:
    """Write the record to the run's artifacts; returns the tags that a version of it must have."""
    from mlray.models.bundle import load_bundle

    tracker: Tracker = work.services["tracker"]
    digest = load_bundle(bundle_folder(work.before["evaluate"])).digest
    told = record(work, metrics, decision, champion, digest)
    path = storage.join(work.services["folder"], FILE)
    storage.write_json(path, told)
    place = f"lineage/{digest[:16]}"
    tracker.artifact(path, place)
    content = told["data"]["content"] or ""
    tracker.tag({CONTENT: content})
    return {CONTENT: content, PLACE: f"{place}/{FILE}"}


def record(
    work: Work,
    metrics: Mapping[str, float],
    decision: Decision,
    champion: Version | None,
    digest: str,
) -> dict[str, Any]:
    """The whole record, ready for JSON."""
    from mlray.tracking.provenance import environment, tags

    found = tags(work.project.folder)
    whole = {
        "format": FORMAT,
        "model": _model(work, metrics, decision, champion, digest),
        "data": _data(work),
        "features": _features(work),
        "code": {
            "commit": found.get("mlflow.source.git.commit"),
            "dirty": found.get("mlray.git.dirty"),
            "functions": dict(functions(work.project)),
        },
        "environment": {**environment(), "lock": found.get("mlray.lock")},
        "settings": settings(work.project),
        "run": _run(work, found),
    }
    return dict(_without(whole, secret_values(work.project)))


def _model(
    work: Work,
    metrics: Mapping[str, float],
    decision: Decision,
    champion: Version | None,
    digest: str,
) -> dict[str, Any]:
    model = work.project.model
    sums = Path(bundle_folder(work.before["evaluate"]), "SHA256SUMS").read_text().splitlines()
    return {
        "name": work.project.name,
        "task": model.task,
        "target": model.target,
        "network": model.network,
        "digest": digest,
        "files": {name: sha for sha, name in (line.split(maxsplit=1) for line in sums)},
        "metrics": dict(metrics),
        "promote": decision.promote,
        "reasons": list(decision.reasons),
        "compared_with": champion.number if champion else None,
    }


def _data(work: Work) -> dict[str, Any]:
    project, before = work.project, work.before
    sources, quality = before["sources"].result, before["quality"].result
    inputs = [{**item, "path": address(item["path"])} for item in sources["inputs"]]
    used = {item.get("source") for item in inputs}
    return {
        "sources": [
            {"name": name, "kind": kind_of(name, s), "where": address(s.where), **_asked(s)}
            for name, s in project.sources.tables.items()
            if name in used
        ],
        "inputs": inputs,
        "fingerprint": sources["fingerprint"],
        "content": quality.get("content"),
        "rows": quality["rows"],
        "clean": quality["clean"],
        "filtered": quality.get("filtered", 0),
        "quarantined": storage.read_json(before["quality"].path("report.json"))["quarantined"],
        "left_out": before["labels"].result["left_out"] if "labels" in before else 0,
        "personal": quality.get("protected", {}),
        "pii_key": quality.get("pii_key"),
        "parts": before["split"].result["parts"],
        "split": before["split"].result["reasons"],
    }


def _asked(source: Any) -> dict[str, Any]:
    """What was asked for of a source: table, query, topic, version."""
    asked = {n: getattr(source, n, None) for n in ("table", "query", "topic", "version", "column")}
    return {name: value for name, value in asked.items() if value is not None}


def _features(work: Work) -> dict[str, Any]:
    encoded = work.before["encode"].result
    return {
        "used": {role["column"]: role["kind"] for role in encoded["roles"]},
        "left": {
            out["column"]: out["reason"]
            for out in encoded["left"]
            if out["column"] != work.project.model.target
        },
    }


def _run(work: Work, found: Mapping[str, str]) -> dict[str, Any]:
    from mlray.registry.version import moment

    tracker: Tracker = work.services["tracker"]
    facts = work.before["train"].result["facts"]
    return {
        "id": tracker.run_id,
        "started_at": moment(tracker.started_ms),
        "who": found["mlflow.user"],
        "host": found["mlray.host"],
        "seed": work.project.training.seed,
        "workers": facts["workers"],
        "device": facts["device"],
        "seconds": {done.name: done.seconds for done in work.before.values()},
    }


def functions(project: Project) -> Iterator[tuple[str, str]]:
    """The user's functions and classes that the project file names, with the hash of their code."""
    for path in sorted(set(_import_paths(project.model_dump(mode="json")))):
        try:
            yield path, usercode.version(path, project.folder)
        except (ConfigError, OSError, TypeError):
            yield path, "its code cannot be read"


def _import_paths(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _import_paths(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _import_paths(inner, name)
    elif name in _CODE_FIELDS and isinstance(value, str) and _IMPORT_PATH.fullmatch(value):
        yield value


def settings(project: Project) -> dict[str, Any]:
    """Every value of the project file, derived ones too, by dotted name; secrets are hidden, and
    so are the values that rules name for personal data."""
    told = project.model_dump(mode="json", exclude_none=True)
    private = {c for s in project.sources.tables.values() for c in s.pii}
    for rule in told["quality"]["rules"]:
        if private & {rule.get("column"), *(rule.get("columns") or [])}:
            rule.update({n: secrets.HIDDEN for n in ("allowed", "range", "holds") if n in rule})
    written = dict(_flat(project.document))
    return {
        name: _shown(value, written.get(name))
        for name, value in _flat(told)
        if name in written or not _PINNED.match(name)
    }


def _shown(value: Any, written: Any) -> Any:
    """What stands in the project file where that names a secret, else the value."""
    if written is not None and secrets.named_in(json.dumps(written, default=str)):
        return written
    if isinstance(value, list):
        return [_shown(item, None) for item in value]
    return address(value) if isinstance(value, str) else value


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _flat(inner, f"{before}{name}.")
        else:
            yield f"{before}{name}", inner


def secret_values(project: Project) -> list[str]:
    """The plain text of every secret of a project, and the passwords inside of addresses."""
    told = dict(_flat(project.model_dump(mode="json", exclude_none=True)))
    named = [
        str(told.get(name, ""))
        for name, written in _flat(project.document)
        if secrets.named_in(json.dumps(written, default=str))
    ]
    # What is not called a secret may be a plain word (`type: sql`), and would spoil the record.
    found = [text for text in named if len(text) >= _LONG and text != _MASK]
    return [*found, *_of_section(project)]


def _of_section(value: Any, name: str = "secret") -> Iterator[str]:
    if isinstance(value, SecretStr):
        plain = value.get_secret_value()
        yield from secrets.of_address(plain)
        if _SECRET.search(name):
            yield plain
    elif isinstance(value, BaseModel):
        for inner in [*value.__dict__.values(), *(value.__pydantic_extra__ or {}).values()]:
            yield from _of_section(inner)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _of_section(inner, str(key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _of_section(inner, name)


def address(text: str) -> str:
    """A path as it is, an address without credentials.

    >>> address("/data/a@b.csv"), address("https://me:pw@host/a.csv?sig=xyz")
    ('/data/a@b.csv', 'https://host/a.csv')
    """
    plain = "://" not in text or not re.search(r"://[^/]*@|\?", text)
    return text if plain else secrets.without_credentials(text)


def _without(value: Any, known: Sequence[str]) -> Any:
    """The same with every secret redacted, wherever it may have slipped in."""
    if isinstance(value, str):
        return secrets.redacted(value, known)
    if isinstance(value, Mapping):
        return {name: _without(inner, known) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without(inner, known) for inner in value]
    return value
