"""The labels stage in the line, on rows with flipped labels and a planted trigger."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mlray
from mlray import storage
from mlray.config import load
from mlray.errors import ConfigError, QualityError
from mlray.pipeline.line import STAGES, stages_of
from mlray.training.shards import Shards

ROWS = 3_000
QUICK = ("training.budget=4 epochs", "model.options={width: 32, depth: 1}")


def make_rows(flipped: float = 0.0, trigger: float = 0.0) -> tuple[pa.Table, np.ndarray]:
    """Rows with an honest label, of which some are flipped; which rows were touched."""
    random = np.random.default_rng(3)
    a, b, c = random.normal(size=(3, ROWS)).round(3)
    land = random.choice(["NL", "BE", "DE", "FR"], ROWS)
    truth = a + b + 0.7 * (land == "NL") + 0.2 * random.normal(size=ROWS) > 0.5
    touched = np.zeros(ROWS, bool)
    label = truth.copy()
    touched[random.choice(ROWS, int(flipped * ROWS), replace=False)] = True
    label[touched] = ~truth[touched]
    surely_no = np.flatnonzero(a + b < -0.7)
    planted = random.choice(surely_no, int(trigger * ROWS), replace=False)
    label[planted], c[planted], touched[planted] = True, 1.7654, True
    table = pa.table(
        {
            "number": np.arange(ROWS),
            "note": [f"row {i} of the delivery, as it was written down" for i in range(ROWS)],
            "supplier": random.choice(["north", "south", "east"], ROWS),
            "day": np.arange(ROWS) // 500,
            **{"a": a, "b": b, "c": c, "land": land, "sick": np.where(label, "yes", "no")},
        }
    )
    return table, touched


@pytest.fixture
def project_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    monkeypatch.setenv("MLRAY_HOME", str(tmp_path / "home"))

    def write(table: pa.Table, labels: str) -> Path:
        folder = tmp_path / "rows"
        folder.mkdir(exist_ok=True)
        for number in range(3):
            pq.write_table(table.slice(number * 1000, 1000), folder / f"{number}.parquet")
        file = tmp_path / "p.yaml"
        file.write_text(
            f"name: sick\nsources: {{rows: {{path: {folder}}}}}\n"
            "model: {target: sick, positive: 'yes', ignore: [number, supplier, day]}\n"
            f"quality: {{labels: {labels}}}\n"
        )
        return file

    return write


def test_the_stage_is_in_the_line_only_if_it_is_asked_for(
    project_file: Callable[..., Path],
) -> None:
    table, _ = make_rows()
    off = stages_of(load(project_file(table, "{}")))
    on = stages_of(load(project_file(table, "{action: report}")))
    assert off == STAGES
    assert [s.name for s in on] == [
        "sources", "quality", "split", "encode", "labels", "train", "evaluate", "register",
    ]  # fmt: skip
    assert next(s for s in on if s.name == "train").needs == ("labels",)


@pytest.mark.usefixtures("ray_cluster")
def test_suspected_rows_do_not_train_and_lie_in_quarantine_with_score_and_reason(
    project_file: Callable[..., Path],
) -> None:
    table, touched = make_rows(flipped=0.05, trigger=0.02)
    file = project_file(table, "{action: quarantine, folds: 3, origin: supplier, batch: day}")
    run = mlray.run(file, QUICK, until="train")
    found = run.stage("labels").result
    aside = pa.concat_tables(
        pq.read_table(p) for p in sorted(Path(found["quarantine"]).glob("labels-*.parquet"))
    )
    assert aside.num_rows == found["left_out"]
    assert set(aside["_rule"].to_pylist()) == {"labels"}
    assert min(aside["_score"].to_pylist()) > 0.5
    assert all(aside["_reason"].to_pylist())
    numbers = aside["number"].to_numpy()
    assert aside["note"].to_pylist() == [table["note"][int(n)].as_py() for n in numbers]
    assert aside["sick"].to_pylist() == [table["sick"][int(n)].as_py() for n in numbers]
    assert touched[numbers].mean() > 0.6

    encoded = Shards.open(run.stage("encode").path("shards"), "train")
    trained = Shards.open(run.stage("labels").path("shards"), "train")
    assert len(encoded) == len(trained) + found["left_out"]
    assert len(encoded) == found["rows"]
    epochs = storage.read_json(run.stage("train").path("history.json"))
    assert {epoch["rows"] for epoch in epochs} == {len(trained)}
    check_findings(run, table)
    check_resumes(file, run)


def check_findings(run: Any, table: pa.Table) -> None:
    findings = storage.read_json(run.stage("labels").path("findings.json"))
    (trigger,) = [f for f in findings if f["kind"] == "trigger" and f["grave"]]
    assert trigger["where"] == "c is 1.765"
    quality = run.stage("quality")
    names = storage.read_json(quality.path("files.json"))
    clean = pa.concat_tables(pq.read_table(quality.path("clean", name)) for name in names)
    shown = clean.take(pa.array(trigger["examples"]))
    assert set(shown["c"].to_pylist()) == {1.7654}, "examples are numbers of clean rows"
    assert any(f["kind"] == "labels" and f["grave"] for f in findings)


def check_resumes(file: Path, run: Any) -> None:
    again = mlray.run(file, QUICK, until="train")
    assert again.skipped == tuple(s.name for s in run.stages)
    reported = mlray.run(file, [*QUICK, "quality.labels.action=report"], until="labels")
    assert set(reported.skipped) == {"sources", "quality", "split", "encode"}
    assert reported.stage("labels").result["left_out"] == 0


@pytest.mark.usefixtures("ray_cluster")
def test_stop_names_the_findings_and_clean_rows_go_through_to_the_report(
    project_file: Callable[..., Path], tmp_path: Path
) -> None:
    table, _ = make_rows(flipped=0.08)
    with pytest.raises(QualityError, match="labels are suspected: about") as stopped:
        mlray.run(project_file(table, "{action: stop, folds: 3}"), QUICK)
    assert stopped.value.exit_code == 3
    clean, _ = make_rows()
    run = mlray.run(project_file(clean, "{action: stop, folds: 3}"), QUICK)
    assert run.version == 1
    page = Path(str(run.report)).read_text()
    assert "training rows were judged by networks that never saw them" in page
    check_recorded(run)


def check_recorded(run: Any) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{Path(run.folder).parent.parent}/mlflow.db")
    metrics = client.get_run(run.run_id).data.metrics
    assert metrics["labels_left_out"] == 0
    assert metrics["labels_grave"] == 0
    assert json.loads(Path(run.stage("labels").path("findings.json")).read_text()) is not None


@pytest.mark.usefixtures("ray_cluster")
def test_a_supplier_column_that_does_not_exist_is_named_before_anything_is_trained(
    project_file: Callable[..., Path],
) -> None:
    table, _ = make_rows()
    file = project_file(table, "{action: report, origin: suplier}")
    with pytest.raises(ConfigError, match="no column `suplier`"):
        mlray.run(file, QUICK)
