"""Steps of the project file through the whole line: the same bits in training and for requests."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mlray
from mlray.models.bundle import load_bundle
from mlray.models.predictor import Predictor
from mlray.pipeline.outputs import bundle_folder, encoder_of, evaluation_of
from mlray.pipeline.preparing import steps_of

pytestmark = pytest.mark.usefixtures("ray_cluster")

STEPS = """
  rows: {{path: {path}, types: {{age: int64}}}}
  rename: {{plan: tariff}}
  cast: {{age: float64}}
  derive:
    spend: '0.0 if spend < 0 else spend'
    spend_per_year: spend / (age - 17)
    segment: tariff + "-" + ("young" if age < 30 else "old")
    churned: left == "yes"
    day: timestamp(signed_up)
  filter: age is None or age < 85
  select: [tariff, age, spend, spend_per_year, segment, churned]
"""
TRANSFORM = """
import pyarrow.compute as pc

def prepare(table):
    return table.append_column("log_spend", pc.log1p(table["spend"]))
"""
REST = """
model: {target: churned}
split: {by: time, column: day, validation: "2024-09", test: "2024-10"}
evaluation: {slices: [segment]}
monitoring: {groups: [tariff]}
"""


@pytest.fixture(params=["declared", "with a function"])
def project(request: pytest.FixtureRequest, tmp_path: Path, customers: Path) -> Path:
    sources = STEPS.format(path=customers)
    if request.param == "with a function":
        (tmp_path / "churn_steps.py").write_text(TRANSFORM)
        sources += "  transform: churn_steps:prepare\n"
    file = tmp_path / "churn.yaml"
    file.write_text(f"name: churn\nsources:{sources}{REST}")
    return file


def test_training_batches_and_requests_get_the_same_bits(project: Path, tmp_path: Path) -> None:
    run = mlray.run(project, ["training.budget=1 epochs"])
    quality = run.stage("quality").result
    assert quality["filtered"] > 0
    assert quality["clean"] + quality["filtered"] == 3_000
    assert set(run.request_columns) == {"plan", "age", "spend"}

    bundle = load_bundle(bundle_folder(run.stage("evaluate")))
    assert bundle.manifest.steps["rename"] == {"plan": "tariff"}
    raw = pa.concat_tables(run.rows("test"))
    assert {"plan", "left", "signed_up"} < set(raw.column_names)

    encoder, steps = encoder_of(run.stage("encode")), steps_of(run.project)
    trained = encoder.encode(steps.rowwise(raw))
    predictor = Predictor(bundle, str(tmp_path))
    evaluated = predictor.predict(raw)
    assert evaluated.numeric.tobytes() == trained.numeric.tobytes()
    assert evaluated.category.tobytes() == trained.category.tobytes()

    pq.write_table(raw.select(run.request_columns), tmp_path / "new.parquet")
    mlray.predict(project, rows=str(tmp_path / "new.parquet"), out=str(tmp_path / "scored"))
    batch = pq.read_table(tmp_path / "scored")["score"].to_numpy()
    assert batch.tobytes() == evaluated.scores.tobytes()

    requests = [_json_safe(row) for row in raw.select(run.request_columns).to_pylist()]
    with mlray.serve(project, [f"serving.port={_free_port()}"]) as service:
        served = np.array([p["score"] for p in service.predict(requests)], np.float32)
        filtered_out = service.predict([{"plan": "pro", "age": 89, "spend": 1.0}])
    assert served.tobytes() == batch.tobytes()
    assert len(filtered_out) == 1  # a request is always answered
    judged = evaluation_of(run.stage("evaluate")).slices
    assert {s["column"] for s in judged} == {"segment", "tariff"}


def _json_safe(row: dict[str, object]) -> dict[str, object]:
    return {n: None if isinstance(v, float) and not np.isfinite(v) else v for n, v in row.items()}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
