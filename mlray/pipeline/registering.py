"""A judged bundle becomes a version: compared with the champion, reported, registered, promoted.

The order keeps things whole under `kill -9`: every step can be done again with the same outcome,
and the champion moves last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlray import storage
from mlray.errors import MlrayError
from mlray.pipeline import bundling, lineage, offsets
from mlray.pipeline.data import derived_project
from mlray.pipeline.epochs import EpochLog
from mlray.pipeline.outputs import QUALITY_PAGE, bundle_folder, evaluation_of, profile_of
from mlray.pipeline.stages import Done, Work
from mlray.training.job import EpochReport

if TYPE_CHECKING:
    from mlray.evaluation import Evaluation
    from mlray.registry import Decision, Registry, Version
    from mlray.tracking import Tracker


def register(work: Work) -> dict[str, Any]:
    """Register the run's bundle, and promote it if the gate says so."""
    from mlray.evaluation import headline
    from mlray.registry import Registry

    tracker: Tracker = work.services["tracker"]
    registry = Registry.of(tracker)
    evaluated = work.before["evaluate"]
    evaluation = evaluation_of(evaluated)
    metrics = headline(evaluation)
    work.say("comparing with the champion on the same rows")
    champion, rival, warnings = _champion(work, registry)
    decision = _decide(work, metrics, champion, rival)
    work.say("recording the run")
    _record(work, tracker, metrics)
    about = lineage.write(work, metrics, decision, champion)
    version = registry.register(
        tracker.run_id or "",
        bundle_folder(evaluated),
        work.project.name,
        {"mlray.decision": "; ".join(decision.reasons), **about, **offsets.tags(work.project)},
        metrics,
    )
    report = _write_report(work, evaluation, rival, champion, version, decision, warnings)
    tracker.artifact(report)
    tracker.artifact(_quality_page(work))
    if decision.promote:
        version = registry.promote(version, decision, against=champion)
    word = "champion" if decision.promote else "not promoted"
    return {
        "version": version.number,
        "promoted": decision.promote,
        "reasons": list(decision.reasons),
        "metrics": metrics,
        "report": report,
        "summary": f"version {version.number} {word}: {'; '.join(decision.reasons)}",
    }


def _champion(
    work: Work, registry: Registry
) -> tuple[Version | None, Evaluation | None, list[str]]:
    """The champion and how it does on this run's test rows.

    A champion whose code or key is not here any more cannot read them. Then what it scored on its
    own test rows stands in, with a warning: else no change of a transform could ever be promoted.
    """
    from mlray.evaluation import Evaluation
    from mlray.models.bundle import load_bundle
    from mlray.models.predictor import Predictor
    from mlray.sources.personal import keys_of

    champion = _before(registry, work.project.name, work.services["tracker"].run_id)
    if champion is None:
        return None, None, []
    unjudged = "the champion could not be judged on these rows"
    try:
        bundle = load_bundle(registry.local_path(champion))
    except MlrayError as error:
        return champion, None, [f"{unjudged}: {error.what}"]
    try:
        keys = keys_of(work.project)
        predictor = Predictor(bundle, work.project.folder, threads=2, keys=keys)
        return champion, bundling.judged(work, predictor, "test"), []
    except MlrayError as error:
        recorded = Evaluation.from_dict(bundle.evaluation)
        return champion, recorded, [f"{unjudged} ({error.what}): its own figures stand in"]


def _before(registry: Registry, name: str, run_id: str | None) -> Version | None:
    """The champion that this run has to beat: not its own version of an earlier, killed attempt."""
    from mlray.registry.journal import earlier_champions

    champion = registry.champion(name)
    if champion is None or champion.run_id != run_id:
        return champion
    earlier = earlier_champions(registry.journal(name).entries())
    return registry.version(name, earlier[-1]) if earlier else None


def _decide(
    work: Work,
    metrics: Mapping[str, float],
    champion: Version | None,
    rival: Evaluation | None,
) -> Decision:
    from mlray.evaluation import headline
    from mlray.registry import decide
    from mlray.stats.metrics import greater_is_better

    metric = work.project.evaluation.metric
    of_champion = None if champion is None else headline(rival) if rival else {}
    rules = work.project.registry.promote
    return decide(rules, metrics, of_champion, metric, greater_is_better(metric))


def _record(work: Work, tracker: Tracker, metrics: Mapping[str, float]) -> None:
    """What MLflow is told beside the epochs: settings, rows, test metrics, the project file."""
    project = work.project
    tracker.params({"project": project.document})
    log = EpochLog(tracker, project.evaluation.metric)  # a run that reuses training has its curves
    for epoch in storage.read_json(work.before["train"].path("history.json")):
        log.add(EpochReport.from_dict(epoch))
    tracker.metrics({f"test_{name}": value for name, value in metrics.items()})
    found = work.before["sources"].result
    fingerprint, parts = found["fingerprint"], work.before["split"].result["parts"]
    for name, read in project.sources.tables.items():
        if held := [item for item in found["inputs"] if item.get("source") == name]:
            digest = hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()
            tracker.dataset(name, lineage.address(read.where), digest, None, "source")
    source = lineage.address(project.sources.rows.where)
    for part, context in (("train", "training"), ("validation", "validation"), ("test", "test")):
        name = f"{project.name}-{part}"
        tracker.dataset(name, source, f"{fingerprint[:24]}-{part}", parts[part], context)
    if project.file:
        tracker.artifact(project.file, "project")
    if "labels" in work.before:
        _record_labels(work.before["labels"], tracker)


def _record_labels(labels: Done, tracker: Tracker) -> None:
    """What the search for wrong labels and poisoning came to."""
    found = labels.result
    grave = sum(finding["grave"] for finding in found["findings"])
    counts = {"suspected": found["suspected"], "left_out": found["left_out"], "grave": grave}
    if found["noise"] is not None:
        counts["noise"] = found["noise"]
    tracker.metrics({f"labels_{name}": float(value) for name, value in counts.items()})
    tracker.artifact(labels.path("findings.json"), "labels")


def _write_report(
    work: Work,
    evaluation: Evaluation,
    rival: Evaluation | None,
    champion: Version | None,
    version: Version,
    decision: Decision,
    warnings: list[str],
) -> str:
    from mlray.report import RunReport, render
    from mlray.stats.metrics import greater_is_better

    project, before = work.project, work.before
    metric = project.evaluation.metric
    page = render(
        RunReport(
            project=project.name,
            task=project.model.task,
            target=project.model.target,
            run=work.services["tracker"].run_id or "",
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            metric=metric,
            greater_is_better=greater_is_better(metric),
            version=str(version.number),
            decision={"promote": decision.promote, "reasons": list(decision.reasons)},
            warnings=[*warnings, *before["quality"].result["findings"], *_above_limits(before)],
            evaluation=evaluation.to_dict(),
            champion=rival.to_dict() if rival else None,
            champion_version=str(champion.number) if champion else "",
            provenance=_provenance(work),
            stages=_stage_times(work),
            **_about_data(work),
            **_about_training(work),
        )
    )
    path = storage.join(work.services["folder"], "report.html")
    storage.write_bytes(path, page.encode())
    return path


def _quality_page(work: Work) -> str:
    """The quality stage's page beside the report, which a skipped stage has not put there."""
    page = storage.join(work.services["folder"], QUALITY_PAGE)
    held = work.before["quality"].path(QUALITY_PAGE)
    storage.write_bytes(page, storage.read_bytes(held))
    return page


def _above_limits(before: Mapping[str, Done]) -> list[str]:
    """Findings about labels that a reader must know of."""
    findings = before["labels"].result["findings"] if "labels" in before else []
    return [finding["reason"] for finding in findings if finding["grave"]]


def _about_data(work: Work) -> dict[str, Any]:
    from mlray.models.roles import Left, Role
    from mlray.report import columns_of

    project, before = work.project, work.before
    roles = [Role(**role) for role in before["encode"].result["roles"]]
    left = [Left(**out) for out in before["encode"].result["left"]]
    reasons = derived_project(work.services["declared"], before["quality"]).reasons
    reference = storage.read_json(storage.join(bundle_folder(before["evaluate"]), "reference.json"))
    sources = project.sources.tables.items()
    return {
        "sources": [{"name": n, "kind": s.kind or "", "path": s.where} for n, s in sources],
        "parts": before["split"].result["parts"],
        "split": {"by": project.split.by, "reasons": before["split"].result["reasons"]},
        "columns": columns_of(
            profile_of(before["split"]),
            roles,
            [(out.column, out.reason) for out in left],
            project.model.target,
        ),
        "derived": [
            {"setting": name, "value": _value(project, name), "reason": reason}
            for name, reason in reasons.items()
        ],
        "quality": storage.read_json(before["quality"].path("report.json")),
        "quality_page": QUALITY_PAGE,
        "labels": before["labels"].result if "labels" in before else None,
        "reference": reference,
    }


def _value(project: Any, dotted: str) -> str:
    section, name = dotted.split(".")
    return str(getattr(getattr(project, section), name))


def _about_training(work: Work) -> dict[str, Any]:
    trained = work.before["train"]
    return {
        "network": {"name": work.project.model.network, **work.project.model.options},
        "history": storage.read_json(trained.path("history.json")),
        "best_epoch": trained.result["best_epoch"],
        "stopped": trained.result["stopped"],
        "training": trained.result["facts"],
    }


def _provenance(work: Work) -> dict[str, Any]:
    from mlray.tracking.provenance import tags

    found = work.before["sources"].result
    return {
        "MLflow run": work.services["tracker"].run_id,
        "data fingerprint": found["fingerprint"],
        "files": [Path(item["path"]).name for item in found["inputs"]],
        **tags(work.project.folder),
    }


def _stage_times(work: Work) -> list[dict[str, Any]]:
    return [
        {"name": done.name, "seconds": done.seconds, "skipped": done.skipped}
        for done in work.before.values()
    ]
