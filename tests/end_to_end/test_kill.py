"""kill -9 of the driver: the same command again gives the same model, and does nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

STAGES = ("quality", "split", "encode", "train", "evaluate", "register")
COMMAND = (sys.executable, "-u", "-m", "mlray", "run")
WAIT_S = 180


def start(file: Path, home: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "MLRAY_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [*COMMAND, str(file), "training.budget=4 epochs"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_in(stage: str, file: Path, home: Path) -> list[str]:
    """Start a run and kill its driver as soon as a stage has begun; returns what it had printed."""
    process = start(file, home)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith(f"▶ {stage}"):
            if stage == "train":  # the first epoch is over, so there is a checkpoint to go on from
                lines += [next_line.strip() for next_line in until_epoch(process)]
            break
    process.send_signal(signal.SIGKILL)
    process.wait(WAIT_S)
    assert process.returncode == -signal.SIGKILL, "\n".join(lines)
    return lines


def until_epoch(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "epoch 1:" in line:
            break
    return lines


def finish(file: Path, home: Path) -> str:
    process = start(file, home)
    output, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, output
    return output


def sums(home: Path) -> str:
    """The sums of the registered bundle: equal bundles, equal text, but for when it was made."""
    (found,) = home.glob("stages/evaluate/*/bundle/SHA256SUMS")
    return "\n".join(sorted(x for x in found.read_text().splitlines() if "bundle.json" not in x))


def mlflow_runs(home: Path) -> list[tuple[str, int]]:
    """Status of each run, and how many epochs it has recorded."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return [
        (r.info.status, len(client.get_metric_history(r.info.run_id, "train_loss"))) for r in runs
    ]


def check_same_as_undisturbed(killed_in: tuple[str, ...], file: Path, tmp_path: Path) -> None:
    disturbed, calm = tmp_path / "disturbed", tmp_path / "calm"
    for stage in killed_in:
        lines = kill_in(stage, file, disturbed)
        before = STAGES[: STAGES.index(stage)]
        if stage != killed_in[0]:
            done_before = killed_in[: killed_in.index(stage)]
            for name in [b for b in before if STAGES.index(b) < STAGES.index(done_before[-1])]:
                assert any(x.startswith(f"= {name}") for x in lines), f"{name} was done twice"
        time.sleep(1)
    told = finish(file, disturbed)
    for name in STAGES[: STAGES.index(killed_in[-1])]:
        assert f"= {name} unchanged" in told
    finish(file, calm)
    assert sums(disturbed) == sums(calm)
    assert mlflow_runs(disturbed) == mlflow_runs(calm) == [("FINISHED", 4)]
    assert not list(disturbed.glob("stages/*/*.scratch"))
    assert not list(disturbed.glob("stages/*/.*.tmp"))


def test_killed_while_training_goes_on_from_the_last_epoch(
    project_file: Callable[..., Path], tmp_path: Path
) -> None:
    check_same_as_undisturbed(("train",), project_file(), tmp_path)


@pytest.mark.slow
def test_killed_in_every_stage_in_turn(project_file: Callable[..., Path], tmp_path: Path) -> None:
    check_same_as_undisturbed(STAGES, project_file(), tmp_path)
