"""Runs in a real SQLite store, a real MLflow server and over real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow_server
import pytest

from mlray.config import Project
from mlray.errors import ConfigError, StorageError, TrackingError
from mlray.tracking import Tracker, provenance, store
from mlray.tracking.provenance import Driver


def project(**sections: Any) -> Project:
    return Project.model_validate(
        {
            "name": "cells",
            "sources": {"rows": {"path": "cells.parquet"}},
            "model": {"target": "benign"},
            **sections,
        }
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A storage folder whose store is created once for this file's tests."""
    return str(tmp_path_factory.mktemp("home"))


@pytest.fixture
def tracker(home: str) -> Tracker:
    return Tracker.open(project(), home)


def child(code: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    head = "import sys, os, time\nfrom mlray.config import Project\n"
    head += "from mlray.tracking import Tracker\nhome = sys.argv[1]\n"
    head += "project = Project.model_validate({'name': 'cells', 'sources': {'rows': {'path': 'x'}},"
    head += "'model': {'target': 'y'}})\n"
    command = [sys.executable, "-c", head + textwrap.dedent(code), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **{**pipes, **options})


def run_of(tracker: Tracker, run_id: str) -> Any:
    return tracker.client.get_run(run_id)


def test_a_run_holds_what_it_was_given_and_what_came_of_it(tracker: Tracker) -> None:
    run_id = tracker.start("first", key="k1", tags={"stage": "train"})
    tracker.params({"training": {"workers": 2, "weights": [1, 2.5]}, "seed": 0, "none": None})
    for epoch in range(3):
        tracker.metrics({"loss": 1 / (epoch + 1), "recall@5": 0.5}, step=epoch)
    assert tracker.steps("loss") == {0, 1, 2}
    assert tracker.steps("never") == set()
    tracker.dataset("rows", "s3://me:secret@b/x.csv", "f" * 64, 1000, "training")
    tracker.end()
    run = run_of(tracker, run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "training.workers": "2",
        "training.weights": "[1, 2.5]",
        "seed": "0",
        "none": "None",
    }
    assert run.data.metrics["loss"] == pytest.approx(1 / 3)
    assert any(name.startswith("recall_5-") for name in run.data.metrics)
    history = tracker.client.get_metric_history(run_id, "loss")
    assert [m.step for m in history] == [0, 1, 2]
    (used,) = run.inputs.dataset_inputs
    assert used.dataset.digest == "f" * 36
    assert json.loads(used.dataset.profile) == {"rows": 1000, "fingerprint": "f" * 64}
    assert "secret" not in used.dataset.source
    tags = run.data.tags
    assert tags["mlray.version"]
    assert tags["mlray.host"] == socket.gethostname()
    assert tags["stage"] == "train"
    assert tags["mlray.driver.pid"] == str(os.getpid())


def test_values_too_long_for_mlflow_are_cut_with_a_mark_and_kept_whole(
    tracker: Tracker, tmp_path: Path
) -> None:
    run_id = tracker.start("long")
    long, name = "x" * 10_000, "n" * 300
    tracker.params({"columns": long, name: 1, "bad#name": 2} | {f"p{i}": i for i in range(250)})
    tracker.end()
    params = run_of(tracker, run_id).data.params
    assert len(params) == 253
    assert len(params["columns"]) == 6000
    assert "[10000 characters, sha256 " in params["columns"]
    assert all(len(key) <= 250 for key in params)
    whole = tracker.client.download_artifacts(run_id, "params.json", str(tmp_path))
    kept = json.loads(Path(whole).read_text())
    assert kept["columns"] == long
    assert kept[name] == "1"


def test_a_thousand_metrics_go_in_few_calls(tracker: Tracker) -> None:
    run_id = tracker.start("many")
    began = time.perf_counter()
    tracker.metrics({f"m{i}": float(i) for i in range(2500)} | {"bad": float("nan")})
    assert time.perf_counter() - began < 20
    tracker.end()
    assert len(run_of(tracker, run_id).data.metrics) == 2501


def test_artifacts_live_below_the_storage_folder(
    tracker: Tracker, home: str, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_text("<p>ok</p>")
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "roc.svg").write_text("<svg/>")
    run_id = tracker.start("artifacts")
    tracker.artifact(str(tmp_path / "report.html"))
    tracker.artifact(str(tmp_path / "plots"), "plots")
    tracker.end()
    below = {p.name for p in (Path(home) / "artifacts" / "cells" / run_id).rglob("*.*")}
    assert below == {"report.html", "roc.svg"}


def test_nothing_is_written_without_an_open_run(tracker: Tracker) -> None:
    with pytest.raises(TrackingError, match="no run is open"):
        tracker.metrics({"loss": 1.0})
    tracker.end()


def test_fluent_state_and_the_current_folder_stay_untouched(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    tracker.start("quiet")
    assert mlflow.active_run() is None
    assert mlflow.get_tracking_uri() == before
    tracker.end()
    assert list(tmp_path.iterdir()) == []


def test_four_processes_may_start_at_once_on_a_fresh_folder(tmp_path: Path) -> None:
    code = """
        tracker = Tracker.open(project, home)
        tracker.start("one of four")
        for step in range(5):
            tracker.metrics({"loss": 1.0, "other": 2.0}, step)
        tracker.end()
        print(tracker.experiment_id)
    """
    started = [child(code, str(tmp_path)) for _ in range(4)]
    answers = [process.communicate(timeout=300) for process in started]
    assert [p.returncode for p in started] == [0] * 4, answers
    assert len({out.strip() for out, _ in answers}) == 1
    tracker = Tracker.open(project(), str(tmp_path))
    runs = tracker.client.search_runs([tracker.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 4


def test_a_killed_driver_is_ended_as_killed_and_its_run_goes_on(home: str) -> None:
    code = """
        tracker = Tracker.open(project, home)
        print(tracker.start("doomed", key="same work"), flush=True)
        tracker.metrics({"loss": 3.0}, 0)
        time.sleep(60)
    """
    process = child(code, home)
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    live = Tracker.open(project(), home)
    assert run_of(live, run_id).info.status == "RUNNING"
    with pytest.raises(TrackingError, match=f"process {process.pid}"):
        live.resume(run_id)
    assert live.start("own", key="same work") != run_id
    live.end()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    after = Tracker.open(project(), home)
    ended = run_of(after, run_id)
    assert ended.info.status == "KILLED"
    assert f"process {process.pid}" in ended.data.tags["mlray.ended"]
    assert after.start("again", key="same work") == run_id
    after.metrics({"loss": 2.0}, 1)
    assert run_of(after, run_id).data.tags["mlray.driver.pid"] == str(os.getpid())
    assert run_of(after, run_id).info.status == "RUNNING"
    Tracker.open(project(), home)  # a second tracker of this live process leaves it alone
    assert run_of(after, run_id).info.status == "RUNNING"
    after.end("FAILED")
    assert run_of(after, run_id).info.status == "FAILED"
    assert after.start("anew", key="same work") != run_id
    after.end()


def test_a_run_can_be_resumed_by_its_id(tracker: Tracker, home: str) -> None:
    run_id = tracker.start("resumed")
    tracker.end("KILLED")
    second = Tracker.open(project(), home)
    assert second.resume(run_id) == run_id
    second.end()
    assert run_of(second, run_id).info.status == "FINISHED"
    with pytest.raises(TrackingError, match="cannot resume the run"):
        second.resume("0" * 32)


def test_a_resumed_run_may_be_given_another_parameter(tracker: Tracker) -> None:
    run_id = tracker.start("changed")
    tracker.params({"workers": 2, "seed": 0})
    tracker.params({"workers": 4, "seed": 0, "device": "cpu"})
    tracker.end()
    data = run_of(tracker, run_id).data
    assert data.params == {"workers": "2", "seed": "0", "device": "cpu"}
    changed = {n: v for n, v in data.tags.items() if n.startswith("mlray.changed")}
    assert changed == {"mlray.changed.workers": "4"}


def test_only_a_driver_known_to_be_dead_is_called_gone() -> None:
    here = Driver.here()
    assert Driver.of(here.tags()) == here
    assert Driver.of({"mlray.driver.host": "x"}) is None

    def gone(one_machine: bool = True, **changed: Any) -> bool:
        other = Driver(**{**here.__dict__, **changed})
        return other.is_gone(here, one_machine=one_machine)

    assert not gone()
    assert gone(started="1")  # the pid was given to another process since
    assert gone(pid=4_000_000)
    assert not gone(pid=4_000_000, host="elsewhere")
    assert not gone(pid=4_000_000, space="pid:[1]")
    assert gone(boot="earlier")
    assert not gone(boot="earlier", one_machine=False)


def test_a_process_that_only_waits_to_be_reaped_counts_as_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.time() + 20
    while provenance._started(process.pid) and time.time() < deadline:
        time.sleep(0.05)
    assert provenance._started(process.pid) is None
    process.wait()


def test_provenance_names_commit_dirt_and_lock_file(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True)

    git("init", "-q")
    (tmp_path / "uv.lock").write_text("v1")
    git("add", "-A")
    git("commit", "-qm", "one")
    below = tmp_path / "configs"
    below.mkdir()
    clean = provenance.tags(str(below))
    assert len(clean["mlflow.source.git.commit"]) == 40
    assert clean["mlray.git.dirty"] == "false"
    assert clean["mlray.lock"].startswith("uv.lock sha256:3bfc26959")
    (tmp_path / "uv.lock").write_text("v2")
    dirty = provenance.tags(str(below))
    assert dirty["mlray.git.dirty"] == "true"
    assert dirty["mlray.lock"] != clean["mlray.lock"]


def test_a_store_of_an_older_mlflow_is_migrated_and_kept(tmp_path: Path) -> None:
    import sqlalchemy
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base

    file = tmp_path / "mlflow.db"
    uri = f"sqlite:///{file}"
    engine = sqlalchemy.create_engine(uri)
    Base.metadata.create_all(engine)
    config = utils._get_alembic_config(uri)
    chain = list(ScriptDirectory.from_config(config).walk_revisions())
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, chain[1].revision)
    engine.dispose()
    Tracker.open(project(), str(tmp_path)).start("after")
    assert store._revision(str(file)) == chain[0].revision
    assert store._revision(f"{file}.{chain[1].revision}") == chain[1].revision


def test_a_store_of_a_newer_mlflow_is_refused(tmp_path: Path) -> None:
    Tracker.open(project(), str(tmp_path))
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("update alembic_version set version_num = 'ffffffffffff'")
    with pytest.raises(TrackingError, match="of a newer MLflow"):
        Tracker.open(project(), str(tmp_path))


def test_a_damaged_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database" * 100)
    with pytest.raises(TrackingError, match="damaged"):
        Tracker.open(project(), str(tmp_path))


def test_a_deleted_experiment_is_named(tmp_path: Path) -> None:
    tracker = Tracker.open(project(), str(tmp_path))
    tracker.client.delete_experiment(tracker.experiment_id)
    with pytest.raises(TrackingError, match="was deleted"):
        Tracker.open(project(), str(tmp_path))


def test_a_lock_that_another_process_holds_ends_in_an_error(tmp_path: Path) -> None:
    path = str(tmp_path / "x.lock")
    refused = pytest.raises(StorageError, match="another process")
    with store.locked(path), refused, store.locked(path, timeout_s=0.2):
        pass


@pytest.mark.parametrize("uri", ["file:///tmp/x", "mlruns", "ftp://host/x"])
def test_an_address_of_no_known_kind_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="no address of a store"):
        store.address(uri, "/h", "/p")


def test_the_address_comes_from_the_project_then_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000/")
    assert store.address(None, "/h", "/p") == "http://mlflow:5000"
    assert store.address("sqlite:////a/m.db", "/h", "/p") == "sqlite:////a/m.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(ConfigError, match="object store"):
        store.address(None, "s3://bucket/home", "/p")


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_an_address_that_refuses_is_named_at_once(scheme: str, tmp_path: Path) -> None:
    uri = f"{scheme}://me:secret@127.0.0.1:{mlflow_server.free_port()}"
    began = time.perf_counter()
    with pytest.raises(TrackingError, match=r"does not answer .*refused") as caught:
        Tracker.open(project(tracking={"uri": uri}), str(tmp_path))
    assert time.perf_counter() - began < 10
    assert "127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_host_that_no_one_knows_is_named_soon() -> None:
    began = time.perf_counter()
    with pytest.raises(TrackingError, match=r"does not answer .*\n?.*nowhere\.invalid"):
        store.probe("http://nowhere.invalid:5000", timeout_s=3)
    assert time.perf_counter() - began < 6


def test_a_store_in_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot lock"):
        Tracker.open(project(), str(tmp_path / "file" / "home"))


def test_a_server_that_accepts_and_says_nothing_is_given_up_soon() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.perf_counter()
        with pytest.raises(TrackingError, match="does not answer"):
            store.probe(uri, timeout_s=1)
        assert time.perf_counter() - began < 4
    assert store.PROBE_S <= 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server.running(tmp_path_factory.mktemp("server")) as uri:
        yield uri


def test_a_real_server_takes_the_same_calls(server: str, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<p>ok</p>")
    tracker = Tracker.open(project(tracking={"uri": server}), str(tmp_path / "home"))
    run_id = tracker.start("remote", key="k")
    tracker.params({"seed": 0})
    tracker.metrics({"loss": 1.5}, step=3)
    tracker.dataset("rows", "x.csv", "abc", 10, "training")
    tracker.artifact(str(tmp_path / "report.html"), "report")
    tracker.end("KILLED")
    assert tracker.start("remote", key="k") == run_id
    tracker.end()
    run = run_of(tracker, run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"loss": 1.5}
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    copied = tracker.client.download_artifacts(run_id, "report/report.html", str(tmp_path / "b"))
    assert Path(copied).read_text() == "<p>ok</p>"
    assert not (tmp_path / "home" / "mlflow.db").exists()
