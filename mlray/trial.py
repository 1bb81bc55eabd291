"""Try a project on a few real rows before anything costly runs: each part in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mlray.config import Project
from mlray.errors import MlrayError
from mlray.health import Finding

SAMPLE_ROWS = 500


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
    for what, step in _steps():
        try:
            findings.append(Finding(what, True, step(trial)))
        except MlrayError as error:
            findings.append(Finding(what, False, str(error)))
            break
    return findings


def _steps() -> Iterator[tuple[str, Step]]:
    yield "sources", _read
    yield "quality", _rules
    yield "transform", _transform
    yield "derived", _derive
    yield "encoder", _encode
    yield "network", _network
    yield "gate", _gate


def _read(trial: _Trial) -> str:
    from mlray.sources import sample

    rows = sample(trial.project, SAMPLE_ROWS)
    trial.known["rows"] = rows
    return f"{rows.num_rows} rows tried, {rows.num_columns} columns: {_names(rows)}"


def _rules(trial: _Trial) -> str:
    from mlray import quality

    rows: pa.Table = trial.known["rows"]
    declared = trial.project.quality.rules
    rules = quality.compile_rules(declared, rows.schema)
    here = [rule for rule in rules if rule.check != "unique"]
    report = quality.check(rows, here).report
    return f"{len(rules)} rules; {report.quarantined} of {report.rows} tried rows break one"


def _transform(trial: _Trial) -> str:
    from mlray.pipeline.preparing import transformed

    rows: pa.Table = trial.known["rows"]
    path = trial.project.sources.transform
    made = transformed(rows, path, trial.project.folder)
    trial.known["features"] = made
    return f"{path}: {_names(made)}" if path else "none"


def _derive(trial: _Trial) -> str:
    from mlray.derive import derive
    from mlray.pipeline.preparing import wide
    from mlray.stats.profile import Profile

    rows, project = trial.known["rows"], trial.project
    profile = Profile.of(wide(rows, project.sources.transform, project.folder))
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
