from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mlray.errors import TrainingError
from mlray.training import checkpoint, loop
from mlray.training.job import EpochReport, TrainingJob
from mlray.training.team import Team
from mlray.training.trainer import Tail, fit
from mlray.training.validation import score_slice

MakeJob = Callable[..., TrainingJob]

NETWORKS = '''
import os, signal
from pathlib import Path
from mlray.models.networks import ResidualMLP


class DiesOnce(ResidualMLP):
    """Kills its process at the given training step of rank 0, once."""

    def __init__(self, inputs, at=10**9, mark="", **options):
        super().__init__(inputs, **options)
        self.steps, self.at, self.mark = 0, at, mark

    def forward(self, numeric, category):
        self.steps += self.training
        if self.steps == self.at and not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(numeric, category)


class Broken(ResidualMLP):
    def forward(self, numeric, category):
        return super().forward(numeric[:, :1], category)
'''


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "networks_for_tests.py").write_text(NETWORKS)
    return str(tmp_path)


def equal(left: str, right: str) -> bool:
    one, other = load_file(left), load_file(right)
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def in_process(job: TrainingJob) -> str:
    progress = loop.train(job, Team.alone("cpu"))
    return f"{checkpoint.best_folder(job.run_folder, progress.best_epoch)}/weights.safetensors"


def test_a_killed_worker_costs_nothing_but_time(
    ray_cluster: None, make_job: MakeJob, folder: str, tmp_path: Path
) -> None:
    options = {"width": 32, "depth": 1, "dropout": 0.2}
    job = make_job(network="networks_for_tests:DiesOnce", folder=folder, options=options)
    undisturbed = in_process(replace(job, name="undisturbed"))
    steps = 19 + 8  # in the middle of the second epoch
    dying = replace(job, options={**options, "at": steps, "mark": str(tmp_path / "died")})
    seen: list[tuple[EpochReport, float]] = []
    trained = fit(dying, lambda report: seen.append((report, time.time())))
    ended_at = time.time()
    assert (tmp_path / "died").exists()
    assert [r.epoch for r, _ in seen] == [1, 2, 3]
    assert [r.epoch for r in trained.history] == [1, 2, 3]
    assert seen[0][1] < ended_at - 2, "the first epoch was to be seen while the run went on"
    assert equal(trained.weights, undisturbed)

    began, again = time.monotonic(), []
    assert fit(dying, again.append) == replace(trained, first_batch_s=None)
    assert time.monotonic() - began < 2, "a finished run was trained again"
    assert [r.epoch for r in again] == [1, 2, 3]


def test_two_workers_train_on_equally_many_rows(ray_cluster: None, make_job: MakeJob) -> None:
    job = make_job(workers=2, rows=2001)
    trained = fit(job)
    train_rows = len(loop.open_rows(job, Team.alone("cpu"))[0].tensors[2])
    assert {r.rows for r in trained.history} == {train_rows // 2 * 2}
    assert trained.workers == 2
    assert trained.history[-1].metric > 0.9
    kept = load_file(trained.validation)
    alone = loop.begin(replace(job, workers=1, name="alone"), Team.alone("cpu"))
    alone.network.load_state_dict(load_file(trained.weights))
    logits = score_slice(job, alone.team, alone.network, alone.validation)
    torch.testing.assert_close(kept["logits"], logits)


def test_an_error_in_the_network_comes_out_as_it_was(
    ray_cluster: None, make_job: MakeJob, folder: str
) -> None:
    job = make_job(network="networks_for_tests:Broken", folder=folder)
    with pytest.raises(TrainingError, match="RuntimeError") as caught:
        fit(job)
    assert "networks.py" in str(caught.value)
    assert len(str(caught.value)) < 600


def test_more_workers_than_the_cluster_holds_are_refused_at_once(
    ray_cluster: None, make_job: MakeJob
) -> None:
    began = time.monotonic()
    with pytest.raises(TrainingError, match="64 workers of 1 CPU each do not fit") as caught:
        fit(make_job(workers=64))
    assert "4 CPU" in str(caught.value)
    assert "at most 4 workers" in str(caught.value)
    assert time.monotonic() - began < 5


def test_no_workers_are_refused(ray_cluster: None, make_job: MakeJob) -> None:
    with pytest.raises(TrainingError, match="no workers"):
        fit(make_job(workers=0))


def test_an_error_of_the_listener_comes_out_when_training_has_ended(make_job: MakeJob) -> None:
    job = make_job()
    in_process(job)

    def listener(report: EpochReport) -> None:
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"), Tail(job.run_folder, listener):
        pass


def test_damaged_weights_of_a_finished_run_are_refused(make_job: MakeJob) -> None:
    job = make_job()
    weights = Path(in_process(job))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(TrainingError, match="weights are damaged"):
        fit(job)


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_end_with_the_same_weights(
    ray_cluster: None, make_job: MakeJob, folder: str, tmp_path: Path
) -> None:
    options = {"width": 32, "depth": 1, "dropout": 0.2}
    job = make_job(network="networks_for_tests:DiesOnce", folder=folder, options=options, workers=2)
    undisturbed = fit(job)
    trained = fit(replace(job, options={**options, "at": 27, "mark": str(tmp_path / "died")}))
    assert (tmp_path / "died").exists()
    assert [r.epoch for r in trained.history] == [1, 2, 3]
    assert equal(trained.weights, undisturbed.weights)
