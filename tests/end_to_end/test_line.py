"""The whole line on a small CSV: rows to a served and watched version."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mlray
from mlray.errors import ConfigError, InputError, QualityError

pytestmark = pytest.mark.usefixtures("ray_cluster")
QUICK = "training.budget=3 epochs"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def mlflow_statuses(home: Path) -> list[str]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiments = [e.experiment_id for e in client.search_experiments()]
    return [run.info.status for run in client.search_runs(experiments)]


def test_three_lines_go_from_rows_to_a_served_and_watched_model(
    project_file: Callable[..., Path], own_home: Path, tmp_path: Path
) -> None:
    file = project_file()
    run = mlray.run(file, [QUICK])
    assert run.promoted
    assert run.exit_code == 0
    assert run.version == 1
    assert run.metrics["roc_auc"] > 0.6

    left = {out["column"]: out["reason"] for out in run.stage("encode").result["left"]}
    assert {"customer", "note", "land", "signed_up"} <= set(left)
    for column in ("customer", "note", "land"):
        assert f"left out {column}: " in run.summary()
    assert "derived model.task = binary: left has two values" in run.summary()
    page = Path(str(run.report)).read_text()
    for column in ("customer", "note", "land"):
        assert column in page
    assert mlflow_statuses(own_home) == ["FINISHED"]

    again = mlray.run(file, [QUICK])
    assert again.skipped == tuple(s.name for s in run.stages)
    assert again.version == 1
    assert "unchanged, skipped: sources" in again.summary()

    rows = pa.concat_tables(run.rows("test"))
    scored = mlray.predict(file, rows=_written(rows, tmp_path), out=str(tmp_path / "scored"))
    assert scored.rows == rows.num_rows
    batch = pq.read_table(tmp_path / "scored")["score"].to_numpy()
    evaluated = _evaluation_scores(run, rows)

    since = datetime.now(UTC)
    port = free_port()
    with mlray.serve(file, [f"serving.port={port}", "monitoring.flush=1s"]) as service:
        requests = rows.select(run.request_columns).to_pylist()
        requests = [_json_safe(row) for row in requests]
        served = np.array([p["score"] for p in service.predict(requests)], np.float32)
        seen = _wait_for_counts(file, since, len(requests))
    assert batch.tobytes() == evaluated.tobytes()
    finite = [i for i, row in enumerate(requests) if row["spend"] is not None]
    assert served[finite].tobytes() == batch[finite].tobytes()
    assert seen.window.rows == len(requests)
    assert {d.feature for d in seen.drifts} >= {"plan", "age", "spend", "score"}


def _written(rows: pa.Table, folder: Path) -> str:
    file = folder / "new.parquet"
    pq.write_table(rows, file)
    return str(file)


def _evaluation_scores(run: mlray.Run, rows: pa.Table) -> np.ndarray:
    from mlray.models.bundle import load_bundle
    from mlray.models.predictor import Predictor
    from mlray.pipeline.outputs import bundle_folder

    bundle = load_bundle(bundle_folder(run.stage("evaluate")))
    return Predictor(bundle, run.project.folder).predict(rows).scores


def _json_safe(row: dict[str, object]) -> dict[str, object]:
    """JSON has no NaN and no infinity: a client sends null."""
    return {
        name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in row.items()
    }


def _wait_for_counts(file: Path, since: datetime, rows: int) -> mlray.Watched:
    deadline = time.monotonic() + 20
    while True:
        seen = mlray.monitor(file, since=since)
        if seen.window.rows >= rows or time.monotonic() > deadline:
            return seen
        time.sleep(0.3)


def test_a_worse_candidate_is_registered_and_not_promoted(
    project_file: Callable[..., Path], own_home: Path
) -> None:
    first = mlray.run(project_file(), [QUICK])
    second = mlray.run(
        project_file(), [QUICK, "registry.promote={roc_auc: at least champion + 0.4}"]
    )
    assert first.promoted
    assert second.version == 2
    assert not second.promoted
    assert second.exit_code == 3
    assert "champion's" in second.reasons[0]
    aliases = {v.number: v.aliases for v in mlray.versions("churn")}
    assert aliases == {1: ("champion",), 2: ()}
    journal = (own_home / "journal" / "churn.jsonl").read_text().splitlines()
    assert [json.loads(line)["to"] for line in journal] == [1]


def test_a_constant_label_is_bad_input_and_no_run_stays_open(
    project_file: Callable[..., Path], own_home: Path
) -> None:
    with pytest.raises(InputError, match="land"):
        mlray.run(project_file(model="{target: land}"))
    assert set(mlflow_statuses(own_home)) == {"FAILED"}


def test_a_column_that_does_not_exist_is_named_before_anything_is_trained(
    project_file: Callable[..., Path],
) -> None:
    with pytest.raises(ConfigError, match=r"model.target: there is no column `leeft`"):
        mlray.run(project_file(model="{target: leeft}"))


def test_rows_that_break_a_rule_are_kept_in_quarantine_and_too_many_stop_the_run(
    project_file: Callable[..., Path], own_home: Path, customers: Path
) -> None:
    few = "{rules: [{column: age, range: [0, 85]}], max_quarantined: 0.2}"
    run = mlray.run(project_file(quality=few), until="quality")
    found = run.stage("quality").result
    aside = pq.read_table(found["quarantine"])
    assert aside.num_rows + found["clean"] == found["rows"] == 3_000
    assert set(aside["_rule"].to_pylist()) == {"age: range"}
    many = "{rules: [{column: age, range: [0, 30]}], max_quarantined: 0.2}"
    with pytest.raises(QualityError, match=r"more than quality.max_quarantined \(20.0%\)"):
        mlray.run(project_file(quality=many), until="quality")
    kept = list((own_home / "quarantine").rglob("*.parquet"))
    assert sum(pq.read_table(p).num_rows for p in kept) > aside.num_rows


def test_a_dry_run_says_what_would_run_and_leaves_nothing(
    project_file: Callable[..., Path], own_home: Path
) -> None:
    planned = mlray.run(project_file(), dry_run=True)
    assert planned.planned == (
        "sources", "quality", "split", "encode", "train", "evaluate", "register",
    )  # fmt: skip
    assert not (own_home / "stages").exists()


def test_explain_writes_a_project_file_that_loads_again(
    project_file: Callable[..., Path], tmp_path: Path
) -> None:
    text = mlray.explain(str(project_file()))
    assert "# derived: left has two values" in text
    again = tmp_path / "explained.yaml"
    again.write_text(text)
    assert mlray.load(again).model.task == "binary"
    assert mlray.load(again).training.batch_size == 32
    assert "customer is left out: " in " ".join(text.replace("#", "").split())


def test_check_tries_every_part_and_names_the_one_that_fails(
    project_file: Callable[..., Path],
) -> None:
    findings = mlray.check(project_file())
    assert all(finding.ok for finding in findings)
    assert [f.what for f in findings][:2] == ["sources", "quality"]
    broken = mlray.check(project_file(model="{target: left, network: 'nowhere:Net'}"))
    assert not broken[-1].ok
    assert "no module for `nowhere:Net`" in broken[-1].saw


def test_the_service_answers_a_plain_http_client(project_file: Callable[..., Path]) -> None:
    run = mlray.run(project_file(), [QUICK])
    port = free_port()
    with mlray.serve(project_file(), [f"serving.port={port}"]) as service:
        row = next(run.rows("test")).select(run.request_columns).slice(0, 1).to_pylist()[0]
        body = json.dumps({"rows": [row]}).encode()
        request = urllib.request.Request(
            f"{service.url}/predict", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            told = json.load(answer)
    assert told["version"] == "1"
    assert set(told["predictions"][0]) >= {"score", "label"}
