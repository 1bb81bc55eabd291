"""A real bundle is judged, registered, promoted, found again, and judged the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import real_bundle

from mlray.config import Project
from mlray.evaluation import Evaluation, evaluate, headline
from mlray.models.bundle import load_bundle
from mlray.models.predictor import Predictor
from mlray.registry import Registry, decide
from mlray.stats.metrics import greater_is_better
from mlray.tracking import Tracker


def judged(folder: str) -> Evaluation:
    predictor = Predictor(load_bundle(folder))
    target = predictor.encoder.target
    return evaluate(predictor, [real_bundle.flights()], target, ["carrier"])


@pytest.mark.parametrize(
    ("target", "metric"), [("late", "roc_auc"), ("origin", "log_loss"), ("delay", "rmse")]
)
def test_a_real_predictor_is_judged_in_every_task(target: str, metric: str, tmp_path: Path) -> None:
    real_bundle.write(str(tmp_path / "b"), target)
    found = judged(str(tmp_path / "b"))
    assert found.rows == 600
    assert found.metric == metric
    assert headline(found)[metric] > 0
    assert Evaluation.from_json(found.to_json()) == found
    assert [s["value"] for s in found.slices] != []


def test_the_champion_from_the_registry_is_the_model_that_was_judged(tmp_path: Path) -> None:
    project = Project.model_validate(
        {"name": "flights", "sources": {"rows": {"path": "x"}}, "model": {"target": "late"}}
    )
    real_bundle.write(str(tmp_path / "b"), "late")
    before = judged(str(tmp_path / "b"))
    tracker = Tracker.open(project, str(tmp_path / "home"))
    run_id = tracker.start("flights")
    tracker.metrics(headline(before))
    registry = Registry.of(tracker)
    version = registry.register(run_id, str(tmp_path / "b"), "flights", metrics=headline(before))
    tracker.end()
    better = greater_is_better("roc_auc")
    decision = decide({}, headline(before), None, "roc_auc", better)
    registry.promote(version, decision, against=None)
    champion = registry.champion("flights")
    assert champion is not None
    assert champion.metrics == headline(before)
    folder = registry.local_path(champion)
    Predictor(load_bundle(folder)).verify_golden()
    assert judged(folder) == before
    again = decide({}, headline(judged(folder)), champion.metrics, "roc_auc", better)
    assert again.promote  # the same model is no worse than itself
