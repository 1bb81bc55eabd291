"""Lineage of real runs: the whole chain, and what changed from one version to the next."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import yaml
from typer.testing import CliRunner

import mlray
from mlray.cli import app

deltalake = pytest.importorskip("deltalake")

SECRET = "canary-secret-5071"
CODE = "def prepare(table):\n    return table\n"


def customers(first: int, rows: int) -> pa.Table:
    random = np.random.default_rng(first)
    age = random.integers(18, 90, rows)
    return pa.table(
        {
            "age": age,
            "plan": random.choice(["basic", "plus"], rows),
            "region": random.choice(["north", "south"], rows),
            "left": np.where(age + random.normal(0, 20, rows) > 55, "yes", "no"),
        }
    )


def wide(folder: Path) -> str:
    return str(folder / "lake")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Iterator[SimpleNamespace]:
    """Two versions of one project: then there are more rows, other code and another setting."""
    folder, patch = tmp_path_factory.mktemp("lineage"), pytest.MonkeyPatch()
    patch.setenv("MLRAY_HOME", str(folder / "home"))
    patch.setenv("LINEAGE_SECRET", SECRET)
    deltalake.write_deltalake(wide(folder), customers(0, 900))
    (folder / "lineage_code.py").write_text(CODE)
    regions = "region,people\nnorth,1\nsouth,2\n"
    (folder / "regions.csv").write_text(regions)
    options = {"AWS_SECRET_ACCESS_KEY": "${env:LINEAGE_SECRET}"}
    written = {
        "name": "churn",
        "sources": {
            "rows": {"kind": "delta", "path": "lake", "options": options},
            "regions": {"path": "regions.csv"},
            "join": [{"with": "regions", "on": "region"}],
            "transform": "lineage_code:prepare",
        },
        "model": {"target": "left"},
        "training": {"budget": "1 epochs", "batch_size": 256},
    }
    file = folder / "churn.yaml"
    file.write_text(yaml.safe_dump(written))
    first = mlray.run(file)
    deltalake.write_deltalake(wide(folder), customers(1, 100), mode="append")
    (folder / "lineage_code.py").write_text(CODE + "\n# another\n")
    second = mlray.run(file, ["training.batch_size=128"])
    yield SimpleNamespace(folder=folder, file=file, first=first, second=second)
    patch.undo()


def test_the_whole_chain_is_recorded(runs):
    found = mlray.lineage("churn@1").to_dict()
    assert found["champion"] is True or found["deployment"]
    data = found["data"]
    assert (data["rows"], data["clean"], data["quarantined"]) == (900, 900, 0)
    assert sum(data["parts"].values()) == 900
    rows, regions = data["inputs"]
    assert rows["source"] == "rows"
    assert rows["path"] == wide(runs.folder)
    assert rows["modified"].startswith("version 0 of ")
    assert regions["modified"].startswith("sha256:")
    assert [s["name"] for s in data["sources"]] == ["rows", "regions"]
    assert data["content"].startswith("900-")
    assert data["content"] == runs.first.stage("quality").result["content"]
    assert set(found["features"]["used"]) == {"age", "plan", "region", "people"} - set(
        found["features"]["left"]
    )
    assert list(found["code"]["functions"]) == ["lineage_code:prepare"]
    assert found["environment"]["packages"]["torch"]
    assert found["settings"]["training.batch_size"] == 256
    assert found["run"]["id"] == runs.first.run_id
    assert found["model"]["metrics"] == runs.first.metrics
    assert found["model"]["files"].keys() >= {"model.onnx"} or found["model"]["files"]
    assert found["deployment"][0]["what"] == "promoted"
    assert found["deployment"][0]["who"]


def test_a_champion_whose_code_is_gone_is_met_by_its_own_figures(runs):
    assert "could not be measured" not in " ".join(runs.second.reasons)
    assert runs.second.promoted == (runs.second.metrics["roc_auc"] >= runs.first.metrics["roc_auc"])
    assert "its own figures stand in" in Path(runs.second.report).read_text()


def test_mlflow_is_told_of_sources_content_and_record(runs):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{runs.folder}/home/mlflow.db")
    run = client.get_run(runs.first.run_id)
    contexts = {
        (each.dataset.name, tag.value)
        for each in run.inputs.dataset_inputs
        for tag in each.tags
        if tag.key == "mlflow.data.context"
    }
    assert {("rows", "source"), ("regions", "source"), ("churn-train", "training")} <= contexts
    assert run.data.tags["mlray.content"].startswith("900-")
    version = client.get_model_version("churn", "1")
    assert version.tags["mlray.content"] == run.data.tags["mlray.content"]
    assert version.tags["mlray.lineage"].endswith("/lineage.json")


def test_it_is_shown_to_people_and_programs(runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    shown = CliRunner().invoke(app, ["lineage", str(runs.file)]).output
    for words in (
        "churn version",
        "900 rows read" if "version 1 (champion)" in shown else "1,000 rows read",
        "source rows: delta",
        "lineage_code:prepare",
        "the gate, ",
        "it is the champion",
        "Python 3.",
    ):
        assert words in shown
    told = CliRunner().invoke(app, ["lineage", "churn@2", "--json"]).output
    assert json.loads(told)["version"] == 2


def test_the_difference_says_only_what_changed(runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    shown = CliRunner().invoke(app, ["lineage", "--diff", "churn@1", "2"]).output
    for words in (
        "from churn@1 to churn@2",
        f"source `rows`: {wide(runs.folder)} changed: version 0 to version 1",
        "100 more rows read (900 to 1,000)",
        "100 more clean rows",
        "the code of `lineage_code:prepare` changed",
        "training.batch_size: 256 to 128",
    ):
        assert words in shown
    for same in (
        "regions",
        "sources.rows.version",
        "torch",
        "host",
        "columns or types",
        "quarantine",
    ):
        assert same not in shown
    told = CliRunner().invoke(app, ["lineage", "churn", "--diff", "1", "2", "--json"]).output
    found = {
        (c["group"], c["what"]): (c["before"], c["after"]) for c in json.loads(told)["changes"]
    }
    assert found["settings", "training.batch_size"] == (256, 128)
    assert found["data", "rows"] == (900, 1000)
    assert mlray.lineage("churn@1").since(mlray.lineage("churn@1")).found == ()


def test_no_secret_is_in_it(runs):
    record = json.dumps(mlray.lineage("churn@1").to_dict())
    assert SECRET not in record
    assert "${env:LINEAGE_SECRET}" in record
    for file in (runs.folder / "home").rglob("*"):
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes(), file


def test_another_machine_needs_only_the_registry(runs, tmp_path, monkeypatch):
    """No journal and no project file there: tags say what became of the version."""
    store, place = f"sqlite:///{runs.folder}/home/mlflow.db", tmp_path / "elsewhere"
    monkeypatch.setenv("MLRAY_HOME", str(place))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    found = mlray.lineage("churn@1")
    assert found.part("data")["rows"] == 900
    assert found.deployment[0]["what"] == "promoted"
    assert not place.exists() or not shutil.os.listdir(place)


@pytest.mark.parametrize(
    ("asked", "told"),
    [("churn@9", "no such version"), ("churn@shadow", "alias: shadow"), ("nobody", "no version")],
)
def test_what_is_not_there_is_said(runs, asked, told):
    with pytest.raises(mlray.MlrayError, match=told):
        mlray.lineage(asked)


def test_a_version_of_other_tools_has_what_the_registry_knows(runs):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{runs.folder}/home/mlflow.db")
    client.create_registered_model("by_hand")
    client.create_model_version("by_hand", str(runs.folder), runs.first.run_id)
    found = mlray.lineage("by_hand")
    assert found.record == {}
    assert "was not registered by `mlray run`" in text(found)
    assert "has no record" in text(found.since(mlray.lineage("churn@1")))


def text(shown: object) -> str:
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as captured:
        console.print(shown)
    return captured.get()


def test_settings_hide_every_secret_and_what_rules_say_of_personal_data(tmp_path, monkeypatch):
    from mlray.pipeline.lineage import secret_values, settings

    for name in ("PW", "TOKEN", "API", "KEY"):
        monkeypatch.setenv(f"LINEAGE_{name}", f"canary-{name}-0815")
    file = tmp_path / "p.yaml"
    file.write_text(
        """
name: x
sources:
  rows: {kind: sql, url: "postgresql://me:${env:LINEAGE_PW}@db/shop", query: select 1,
         pii: {mail: hash}}
  pages: {kind: rest, url: "https://a:canary-url@api/x", token: "${env:LINEAGE_TOKEN}",
          parameters: {api: "${env:LINEAGE_API}", size: 5}}
  lake: {kind: iceberg, table: ns.t,
         catalog: {type: sql, uri: "sqlite:////x.db", token: canary-plain}}
  pii_key: "${env:LINEAGE_KEY}"
quality: {rules: [{column: mail, allowed: [canary@example.com]}, {column: age, range: [0, 120]}]}
model: {target: y}
"""
    )
    project = mlray.load(file)
    told = settings(project)
    assert "canary" not in json.dumps(told)
    assert told["sources.pages.parameters.api"] == "${env:LINEAGE_API}"
    assert told["sources.pages.parameters.size"] == 5
    assert told["sources.rows.query"] == "select 1"
    assert {"column": "age", "range": [0, 120]}.items() <= told["quality.rules"][1].items()
    known = secret_values(project)
    for name in ("PW", "TOKEN", "API", "KEY"):
        assert any(f"canary-{name}-0815" in value for value in known)
    assert "canary-plain" in known
    assert "sql" not in known  # a plain word of a catalog would spoil the record


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"a.csv": "sha256:1"}, {"a.csv": "sha256:1", "b.csv": "sha256:2"}, "b.csv added (10 B)"),
        ({"a.csv": "sha256:1", "b.csv": "x"}, {"a.csv": "sha256:1"}, "b.csv removed (10 B)"),
        ({"old/a.csv": "sha256:1"}, {"new/a.csv": "sha256:1"}, None),
        ({"t": "snapshot 5"}, {"t": "snapshot 9"}, "t changed: snapshot 5 to snapshot 9"),
        (
            {"k/0": "offsets 0-9"},
            {"k/0": "offsets 9-12"},
            "k/0 changed: offsets 0-9 to offsets 9-12",
        ),
        ({}, {f"{n}.csv": str(n) for n in range(9)}, "source `rows` is new"),
        ({"z": "0"}, {"z": "0", **{f"{n}.csv": f"n{n}" for n in range(9)}}, "4 more added"),
    ],
)
def test_inputs_that_came_went_or_changed_are_named(before, after, told):
    from mlray.ancestry.files import input_changes

    def data(held):
        inputs = [
            {"source": "rows", "path": p, "size_bytes": 10, "modified": m} for p, m in held.items()
        ]
        return {"inputs": inputs, "sources": [{"name": "rows", "kind": "csv", "where": "x"}]}

    said = "\n".join(text for _, text, _, _ in input_changes(data(before), data(after)))
    assert told in said if told else said == ""
