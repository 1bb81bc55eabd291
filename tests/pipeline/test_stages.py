from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlray import storage
from mlray.config import Project, load
from mlray.errors import ConfigError
from mlray.pipeline.stages import Stage, Work, checked_name, finished, forget, keys, perform
from mlray.pipeline.state import RunningError, State, locked


@pytest.fixture
def project(tmp_path: Path) -> Project:
    file = tmp_path / "p.yaml"
    file.write_text("name: x\nsources: {rows: {path: a.csv}}\nmodel: {target: y}\n")
    return load(file)


def write_one(work: Work) -> dict[str, Any]:
    storage.write_bytes(work.path("out.txt"), b"1")
    return {"summary": "one"}


def two_stages(**settings: int) -> tuple[Stage, Stage]:
    first = Stage("first", (), lambda p: settings.get("first", 0), write_one)
    second = Stage("second", ("first",), lambda p: settings.get("second", 0), write_one)
    return first, second


def do(stage: Stage, project: Project, home: Path, key: str = "k") -> Any:
    return perform(stage, project, str(home), key, {}, lambda text: None, {})


def test_a_changed_setting_changes_the_key_of_its_stage_and_of_all_after_it(
    project: Project,
) -> None:
    before = keys(two_stages(), project, "data")
    early = keys(two_stages(first=1), project, "data")
    late = keys(two_stages(second=1), project, "data")
    assert early["first"] != before["first"]
    assert early["second"] != before["second"]
    assert late["first"] == before["first"]
    assert late["second"] != before["second"]


def test_other_rows_change_every_key(project: Project) -> None:
    before, after = (keys(two_stages(), project, data) for data in ("a", "b"))
    assert all(before[name] != after[name] for name in before)


def test_a_finished_stage_is_found_again_with_what_it_said(
    project: Project, tmp_path: Path
) -> None:
    stage = two_stages()[0]
    assert finished(str(tmp_path), "first", "k") is None
    do(stage, project, tmp_path)
    found = finished(str(tmp_path), "first", "k")
    assert found is not None
    assert found.skipped
    assert found.result == {"summary": "one"}
    assert Path(found.path("out.txt")).read_text() == "1"


def test_a_stage_that_fails_half_way_leaves_nothing_that_counts(
    project: Project, tmp_path: Path
) -> None:
    def fail(work: Work) -> dict[str, Any]:
        write_one(work)
        Path(work.scratch, "progress").write_text("half")
        raise RuntimeError("disk full")

    stage = Stage("first", (), lambda p: 0, fail)
    with pytest.raises(RuntimeError):
        do(stage, project, tmp_path)
    assert finished(str(tmp_path), "first", "k") is None
    left = sorted(p.name for p in (tmp_path / "stages" / "first").iterdir())
    assert left == ["k.scratch"], "only the scratch folder, from which it can go on"


def test_what_a_killed_run_left_half_filled_is_swept(project: Project, tmp_path: Path) -> None:
    orphan = tmp_path / "stages" / "first" / ".k.dead0000.tmp"
    orphan.mkdir(parents=True)
    do(two_stages()[0], project, tmp_path)
    assert not orphan.exists()
    assert not (tmp_path / "stages" / "first" / "k.scratch").exists()


def test_a_forgotten_stage_runs_again(project: Project, tmp_path: Path) -> None:
    do(two_stages()[0], project, tmp_path)
    forget(str(tmp_path), "first", "k")
    assert finished(str(tmp_path), "first", "k") is None


def test_an_unknown_stage_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match="first, second"):
        checked_name("thrid", two_stages())


def test_two_drivers_do_not_work_on_one_run(tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    with locked(folder), pytest.raises(RunningError, match="another process"), locked(folder):
        pass
    with locked(folder):
        pass


def test_a_runs_state_survives_the_process(tmp_path: Path) -> None:
    State(run_id="abc", status="running", attempts=2).write(str(tmp_path))
    assert State.read(str(tmp_path)) == State("abc", "running", 2)
    assert State.read(str(tmp_path / "other")) == State()
