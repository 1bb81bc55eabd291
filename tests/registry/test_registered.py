"""Versions, champion, rollback: on a real SQLite store and a real MLflow server."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlflow_server
import pytest

from mlray.config import Project
from mlray.errors import BundleError, GateError, TrackingError
from mlray.models.bundle import LIMITS
from mlray.registry import Decision, Registry
from mlray.tracking import Tracker

YES = Decision(True, ("roc_auc 0.9 is at least 0.7",))
NO = Decision(False, ("roc_auc 0.6 is not at least 0.7",))


def project(name: str = "cells", **sections: Any) -> Project:
    rows = {"rows": {"path": "x.parquet"}}
    return Project.model_validate(
        {"name": name, "sources": rows, "model": {"target": "y"}, **sections}
    )


def bundle(folder: Path, text: str) -> str:
    """Files that are whole by their sums; the registry never parses one."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    for name in LIMITS:
        (folder / name).write_text(text)
    (folder / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name in LIMITS))
    return str(folder)


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    return Tracker.open(project(), str(tmp_path_factory.mktemp("home with spaces")))


@pytest.fixture
def registry(tracker: Tracker) -> Registry:
    return Registry.of(tracker)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server.running(tmp_path_factory.mktemp("server")) as uri:
        yield uri


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A model of its own for every test."""
    return str(request.node.name)[:60]


def some_versions(
    tracker: Tracker, registry: Registry, name: str, tmp_path: Path, count: int
) -> None:
    run_id = tracker.start(name)
    for i in range(1, count + 1):
        registry.register(run_id, bundle(tmp_path / str(i), f"v{i}"), name, metrics={"f1": i / 10})
    tracker.end()


def test_a_version_is_an_unchanging_copy_of_its_bundle(
    tracker: Tracker, registry: Registry, name: str, tmp_path: Path
) -> None:
    run_id = tracker.start("a")
    source = bundle(tmp_path / "b", "one")
    version = registry.register(run_id, source, name, {"project": "cells"}, {"roc_auc": 0.9})
    tracker.end()
    assert (version.name, version.number, version.run_id) == (name, 1, run_id)
    assert version.uri == f"models:/{name}/1"
    assert version.metrics == {"roc_auc": 0.9}
    assert version.tags["project"] == "cells"
    bundle(tmp_path / "b", "changed later")
    kept = Path(registry.local_path(version))
    assert (kept / "bundle.json").read_text() == "one"
    assert Path(tracker.home) / "artifacts" in kept.parents
    assert not (kept / "bundle.json").stat().st_mode & 0o222


def test_registering_the_same_bundle_of_the_same_run_again_changes_nothing(
    tracker: Tracker, registry: Registry, name: str, tmp_path: Path
) -> None:
    run_id = tracker.start("a")
    source = bundle(tmp_path / "b", "one")
    first = registry.register(run_id, source, name)
    assert registry.register(run_id, source, name) == first
    second = registry.register(run_id, bundle(tmp_path / "b", "two"), name)
    tracker.end()
    assert second.number == 2
    assert (Path(registry.local_path(first)) / "bundle.json").read_text() == "one"


def test_a_folder_that_is_no_whole_bundle_is_refused(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="SHA256SUMS"):
        registry.register("0" * 32, str(tmp_path), "cells")
    damaged = bundle(tmp_path / "b", "one")
    (tmp_path / "b" / "model.onnx").write_text("two")
    with pytest.raises(BundleError, match=r"model\.onnx is not the file"):
        registry.register("0" * 32, damaged, "cells")


def test_the_champion_moves_only_by_decision(
    tracker: Tracker, registry: Registry, name: str, tmp_path: Path
) -> None:
    some_versions(tracker, registry, name, tmp_path, 2)
    assert registry.champion(name) is None
    first, second = registry.version(name, 1), registry.version(name, 2)
    with pytest.raises(GateError, match="is not at least"):
        registry.promote(first, NO)
    assert registry.promote(first, YES, against=None).aliases == ("champion",)
    assert registry.champion(name) == registry.version(name, 1)
    with pytest.raises(GateError, match="another champion"):
        registry.promote(second, YES, against=None)
    registry.promote(second, YES, against=first)
    champion = registry.champion(name)
    assert champion is not None
    assert champion.number == 2
    assert champion.tags["mlray.promoted"] == YES.reasons[0]
    registry.promote(second, YES)  # champion already: nothing to write
    told = [(e.what, e.before, e.after) for e in registry.journal(name).entries()]
    assert told == [("promoted", None, 1), ("promoted", 1, 2)]


def test_versions_are_listed_newest_first_and_a_wrong_number_is_named(
    tracker: Tracker, registry: Registry, name: str, tmp_path: Path
) -> None:
    assert registry.versions(name) == []
    some_versions(tracker, registry, name, tmp_path, 3)
    assert [v.number for v in registry.versions(name)] == [3, 2, 1]
    assert registry.versions(name)[0].metrics == {"f1": 0.3}
    with pytest.raises(TrackingError, match=r"no such version: 9\n.*3, 2, 1"):
        registry.version(name, 9)


def test_rollback_goes_back_champion_by_champion_and_then_refuses(
    tracker: Tracker, registry: Registry, name: str, tmp_path: Path
) -> None:
    some_versions(tracker, registry, name, tmp_path, 4)
    for number in (1, 2, 3):
        registry.promote(registry.version(name, number), YES)
    assert registry.rollback(name, "wrong prices").number == 2
    assert registry.version(name, 3).tags["mlray.rolled_back"] == "wrong prices"
    assert registry.rollback(name).number == 1
    with pytest.raises(GateError, match="no earlier champion"):
        registry.rollback(name)
    registry.promote(registry.version(name, 4), YES)
    assert registry.rollback(name).number == 1


def test_rollback_passes_over_deleted_versions(
    tracker: Tracker, registry: Registry, name: str, tmp_path: Path
) -> None:
    some_versions(tracker, registry, name, tmp_path, 3)
    for number in (1, 2, 3):
        registry.promote(registry.version(name, number), YES)
    tracker.client.delete_model_version(name, "2")
    assert registry.rollback(name).number == 1


def test_an_alias_moved_by_others_is_found_and_can_be_rolled_back(
    tracker: Tracker, registry: Registry, name: str, tmp_path: Path
) -> None:
    some_versions(tracker, registry, name, tmp_path, 2)
    registry.promote(registry.version(name, 1), YES)
    tracker.client.set_registered_model_alias(name, "champion", "2")
    assert registry.rollback(name).number == 1
    assert [e.what for e in registry.journal(name).entries()] == [
        "promoted",
        "found",
        "rolled back",
    ]


def test_a_changed_or_missing_bundle_is_refused(
    tracker: Tracker, registry: Registry, name: str, tmp_path: Path
) -> None:
    some_versions(tracker, registry, name, tmp_path, 1)
    version = registry.version(name, 1)
    sums = Path(registry.local_path(version)) / "SHA256SUMS"
    sums.chmod(0o644)
    sums.write_text(sums.read_text() + "\n")
    with pytest.raises(BundleError, match="was changed after it was registered"):
        registry.local_path(version)
    sums.parent.rename(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="is gone"):
        registry.local_path(version)


def test_reading_sqlite_directly_says_what_mlflow_says(
    tracker: Tracker, registry: Registry, name: str, tmp_path: Path
) -> None:
    some_versions(tracker, registry, name, tmp_path, 3)
    registry.promote(registry.version(name, 2), YES)
    tracker.client.delete_model_version(name, "1")
    tracker.client.set_registered_model_alias(name, "challenger", "3")
    assert registry.versions(name) == registry._ask_versions(name)
    assert registry.champion(name) == registry._ask_champion(name, "champion")
    assert registry._ask_champion(name, "never given") is None
    assert registry.names() == registry._ask_names()
    assert name in registry.names()
    assert registry._ask_champion("never heard of", "champion") is None
    assert len(registry.versions(name)) == 2
    assert registry._ask_versions("never heard of") == []


def test_reading_the_champion_loads_no_mlflow(
    tracker: Tracker, registry: Registry, name: str, tmp_path: Path
) -> None:
    some_versions(tracker, registry, name, tmp_path, 1)
    registry.promote(registry.version(name, 1), YES)
    code = (
        "import sys\nfrom mlray.registry import Registry\n"
        "registry = Registry(sys.argv[1], sys.argv[2])\n"
        "champion = registry.champion(sys.argv[3])\n"
        "assert champion.number == 1 and registry.local_path(champion)\n"
        "assert not {'mlflow', 'sqlalchemy', 'pandas', 'ray'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", code, tracker.uri, tracker.home, name]
    assert subprocess.run(command, timeout=300).returncode == 0
    began = time.perf_counter()
    for _ in range(50):
        registry.champion(name)
    assert (time.perf_counter() - began) / 50 < 0.1


def test_a_folder_without_a_store_has_no_champion(tmp_path: Path) -> None:
    assert Registry.open(project(), str(tmp_path)).champion("cells") is None
    assert Registry.at(str(tmp_path)).names() == []
    assert list(tmp_path.iterdir()) == []


def test_two_processes_that_promote_at_once_leave_one_story(
    tracker: Tracker, registry: Registry, name: str, tmp_path: Path
) -> None:
    some_versions(tracker, registry, name, tmp_path, 4)
    code = (
        "import sys\nfrom mlray.registry import Decision, Registry\n"
        "registry = Registry(sys.argv[1], sys.argv[2])\n"
        "for number in map(int, sys.argv[4:]):\n"
        "    registry.promote(registry.version(sys.argv[3], number), Decision(True, ('good',)))\n"
    )
    head = [sys.executable, "-c", code, tracker.uri, tracker.home, name]
    started = [subprocess.Popen([*head, *n]) for n in (["1", "2", "1"], ["3", "4", "3"])]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    entries = registry.journal(name).entries()
    assert all(a.after == b.before for a, b in pairwise(entries))
    assert {e.what for e in entries} == {"promoted"}
    champion = registry.champion(name)
    assert champion is not None
    assert champion.number == entries[-1].after


def test_a_server_works_the_same_and_bundles_are_downloaded_once(
    server: str, tmp_path: Path
) -> None:
    there = project(tracking={"uri": server})
    tracker = Tracker.open(there, str(tmp_path / "home"))
    registry = Registry.open(there, str(tmp_path / "home"))
    assert registry.champion("cells") is None
    assert registry.names() == []
    run_id = tracker.start("remote")
    for i in (1, 2):
        registry.register(run_id, bundle(tmp_path / str(i), f"v{i}"), "cells", metrics={"f1": 0.5})
    (tmp_path / "beside.json").write_text("{}")
    tracker.artifact(str(tmp_path / "beside.json"), "there")
    tracker.end()
    for number in (1, 2):
        registry.promote(registry.version("cells", number), YES)
    assert registry.beside(registry.version("cells", 1), "there/beside.json") == b"{}"
    with pytest.raises(TrackingError, match=r"cannot read nowhere\.json"):
        registry.beside(registry.version("cells", 1), "nowhere.json")
    assert registry.rollback("cells").number == 1
    champion = registry.champion("cells")
    assert champion is not None
    assert champion.metrics == {"f1": 0.5}
    local = registry.local_path(champion)
    assert (Path(local) / "bundle.json").read_text() == "v1"
    assert local.startswith(str(tmp_path / "home" / "cache"))
    assert registry.local_path(champion) == local
    assert sorted(os.listdir(Path(local).parent)) == sorted(
        [Path(local).name, f"{Path(local).name}.lock"]
    )
