"""Try a project on a few real rows before anything costly runs: each part in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mlray.cluster import connected
from mlray.config import Project
from mlray.errors import MlrayError
from mlray.health import Finding
from mlray.sources.steps import Shown, Steps

SAMPLE_ROWS = 500
_SHOWN_VALUES = 3
_WHOLE_BYTES = 256 << 20
_SUGGESTED_FROM = 200_000
"""Rows that rules are suggested from where the sources are larger than `_WHOLE_BYTES`."""


@dataclass
class _Trial:
    """What is known so far; each step adds to it."""

    project: Project
    known: dict[str, Any] = field(default_factory=dict)


Step = Callable[[_Trial], str]


def try_out(project: Project) -> list[Finding]:
    """Read a few rows, apply joins, transforms and rules, derive, encode and run the network once.

    The first part that fails ends the trial, since what follows stands on it.
    """
    trial = _Trial(project)
    findings: list[Finding] = []
    with _ray_for_functions(project):
        for what, step in _steps():
            try:
                findings.append(Finding(what, True, step(trial)))
            except MlrayError as error:
                findings.append(Finding(what, False, str(error)))
                break
    return findings


def _ray_for_functions(project: Project) -> AbstractContextManager[Any]:
    """Only a source that is a function needs Ray for a look at its first rows."""
    calls = any(":" in (source.kind or "") for source in project.sources.tables.values())
    return connected(project) if calls else nullcontext()


def suggestion(project: Project) -> str:
    """Rules that the project's rows keep, as YAML to paste, each with why it is there."""
    from datetime import UTC, datetime

    from mlray import quality
    from mlray.sources import find, sample

    whole = sum(file.size_bytes for file in find(project).inputs) <= _WHOLE_BYTES
    with _ray_for_functions(project):
        rows = sample(project, sys.maxsize if whole else _SUGGESTED_FROM)
    private = [column for source in project.sources.tables.values() for column in source.pii]
    now = datetime.now(UTC)
    found = quality.suggest(rows, now, whole=whole, private=private)
    about = f"all {rows.num_rows:,} rows" if whole else (
        f"the first {rows.num_rows:,} rows: later ones may have a wider range"
    )  # fmt: skip
    return quality.to_yaml(found, about)


def _steps() -> Iterator[tuple[str, Step]]:
    yield "sources", _read
    yield "quality", _rules
    yield "personal", _personal
    yield "steps", _transform
    yield "derived", _derive
    yield "encoder", _encode
    yield "network", _network
    yield "gate", _gate


def _read(trial: _Trial) -> str:
    from mlray.sources.rows import sample, source_heads

    trial.known["source steps"] = [
        words
        for steps, rows in source_heads(trial.project, SAMPLE_ROWS)
        for words in _steps_in_words(steps, rows)
    ]
    rows = sample(trial.project, SAMPLE_ROWS)
    trial.known["rows"] = rows
    return f"{rows.num_rows} rows tried, {rows.num_columns} columns: {_names(rows)}"


def _rules(trial: _Trial) -> str:
    from mlray import quality

    rows: pa.Table = trial.known["rows"]
    declared = trial.project.quality.rules
    rules = quality.compile_rules(declared, rows.schema, folder=trial.project.folder)
    here = [rule for rule in rules if rule.alone]
    report = quality.check(rows, here).report
    return f"{len(rules)} rules; {report.quarantined} of {report.rows} tried rows break one"


def _personal(trial: _Trial) -> str:
    from mlray.pipeline import personal

    rows: pa.Table = trial.known["rows"]
    project = trial.project
    marked = [column for source in project.sources.tables.values() for column in source.pii]
    unmarked = personal.unmarked(project, [personal.look(rows)], marked)
    personal.check(project, unmarked)
    return "; ".join(unmarked) or "no unmarked column looks like personal data"


def _transform(trial: _Trial) -> str:
    from mlray.pipeline.preparing import Prepared, steps_of

    rows: pa.Table = trial.known["rows"]
    steps = steps_of(trial.project)
    words = list(_steps_in_words(steps, rows))
    rows = trial.known["rows"] = steps.kept(rows)
    trial.known["features"] = Prepared(steps, trial.project.model.target)(rows)
    return "\n".join([*trial.known["source steps"], *words]) or "none"


def _steps_in_words(steps: Steps, rows: pa.Table) -> Iterator[str]:
    """Each step with what became of the rows, one after the other."""
    for step in steps.shown(rows):
        yield f"{step.place}: {step.says}{_outcome(step, rows)}"
        rows = step.table


def _outcome(step: Shown, before: pa.Table) -> str:
    if step.column is not None:
        values = step.table[step.column].slice(0, _SHOWN_VALUES).to_pylist()
        kind = step.table.schema.field(step.column).type
        return f" -> {kind}: {', '.join(map(str, values))}"
    if step.table.num_rows != before.num_rows:
        return f" -> {step.table.num_rows} of {before.num_rows} rows"
    return f" -> {_names(step.table)}"


def _derive(trial: _Trial) -> str:
    from mlray.derive import derive
    from mlray.pipeline.preparing import steps_of
    from mlray.stats.profile import Profile

    rows, project = trial.known["rows"], trial.project
    profile = Profile.of(steps_of(project).wide(rows))
    trial.known["profile"] = profile
    derived = derive(project, profile)
    trial.project = derived.project
    return "; ".join(f"{k}: {v}" for k, v in derived.reasons.items()) or "nothing was left open"


def _encode(trial: _Trial) -> str:
    from mlray.pipeline.data import fitted_encoder
    from mlray.stats.profile import Profile

    features: pa.Table = trial.known["features"]
    profile = Profile.of(features)
    encoder, roles, left = fitted_encoder(trial.project, profile, trial.known["profile"])
    trial.known["encoder"] = encoder
    out = ", ".join(f"{each.column} ({each.reason})" for each in left) or "nothing"
    return f"learns from {', '.join(r.column for r in roles)}; leaves out {out}"


def _network(trial: _Trial) -> str:
    import torch

    from mlray.errors import ConfigError
    from mlray.models.networks import build

    encoder, features = trial.known["encoder"], trial.known["features"]
    model = trial.project.model
    network = build(model.network, encoder.inputs(), model.options, trial.project.folder)
    rows = encoder.encode(features.slice(0, 16))
    network.eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(rows.numeric), torch.from_numpy(rows.category))
    wanted = (len(rows), encoder.inputs().outputs)
    if tuple(logits.shape) != wanted:
        raise ConfigError(
            f"`{model.network}` gives logits of shape {tuple(logits.shape)}", allowed=str(wanted)
        )
    weights = sum(p.numel() for p in network.parameters())
    return f"{model.network}: {weights:,} parameters, one forward pass is fine"


def _gate(trial: _Trial) -> str:
    from mlray.registry import check_rules
    from mlray.stats.metrics import NAMES

    rules = trial.project.registry.promote
    check_rules(rules, NAMES[trial.project.model.task])
    return "; ".join(f"{metric} {bound}" for metric, bound in rules.items())


def _names(table: pa.Table) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in table.schema)
