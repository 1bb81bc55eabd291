from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mlray.errors import TrainingError
from mlray.training import checkpoint, loop
from mlray.training.job import TrainingJob
from mlray.training.shards import Rows, read_arrow, write_arrow
from mlray.training.team import Team

MakeJob = Callable[..., TrainingJob]


def best_weights(job: TrainingJob, epoch: int) -> dict[str, torch.Tensor]:
    return load_file(f"{checkpoint.best_folder(job.run_folder, epoch)}/weights.safetensors")


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def run_epochs(job: TrainingJob, epochs: int) -> loop.Run:
    run = loop.begin(job, Team.alone("cpu"))
    for _ in range(epochs):
        loop.train_and_validate(run)
    return run


@pytest.mark.parametrize(
    ("task", "good"),
    [
        ("binary", lambda m: m > 0.95),
        ("multiclass", lambda m: m > 0.8),
        ("regression", lambda m: m < 30),
    ],
)
def test_each_task_is_learnt(make_job: MakeJob, task: str, good: Callable[[float], bool]) -> None:
    progress = loop.train(make_job(task, budget="8 epochs"), Team.alone("cpu"))
    assert good(progress.best_metric), progress.best_metric
    assert [r.epoch for r in progress.history] == list(range(1, len(progress.history) + 1))
    assert progress.history[-1].train_loss < progress.history[0].train_loss


def test_the_same_seed_gives_the_same_weights_to_the_bit(make_job: MakeJob) -> None:
    job = make_job(options={"width": 32, "depth": 1, "dropout": 0.2})
    again, other = replace(job, name="again"), replace(job, seed=1)
    first, second, third = (loop.train(j, Team.alone("cpu")) for j in (job, again, other))
    assert equal(best_weights(job, first.best_epoch), best_weights(again, second.best_epoch))
    assert not equal(best_weights(job, first.best_epoch), best_weights(other, third.best_epoch))


def test_an_interrupted_run_ends_with_the_weights_of_an_undisturbed_one(make_job: MakeJob) -> None:
    job = make_job(options={"width": 32, "depth": 1, "dropout": 0.2}, budget="4 epochs")
    undisturbed = loop.train(replace(job, name="undisturbed"), Team.alone("cpu"))
    run_epochs(job, 2)  # and then the process is gone
    resumed = loop.train(job, Team.alone("cpu"))
    assert [r.epoch for r in resumed.history] == [1, 2, 3, 4]
    other = best_weights(replace(job, name="undisturbed"), undisturbed.best_epoch)
    assert equal(best_weights(job, resumed.best_epoch), other)
    same = [(r.train_loss, r.validation_loss, r.metric) for r in resumed.history]
    assert same == [(r.train_loss, r.validation_loss, r.metric) for r in undisturbed.history]


@pytest.mark.parametrize("file", ["network.safetensors", "optimizer.pt", "progress.json"])
def test_a_damaged_newest_checkpoint_is_passed_over(make_job: MakeJob, file: str) -> None:
    job = make_job()
    run_epochs(job, 2)
    damaged = Path(job.run_folder, "checkpoints", "00002", file)
    damaged.write_bytes(damaged.read_bytes()[:-7] + b"garbage")
    run = loop.begin(job, Team.alone("cpu"))
    assert run.progress.epoch == 1
    progress = loop.train_run(run)
    assert [r.epoch for r in progress.history] == [1, 2, 3]


def test_a_checkpoint_without_sums_is_passed_over(make_job: MakeJob) -> None:
    job = make_job()
    run_epochs(job, 2)
    Path(job.run_folder, "checkpoints", "00002", checkpoint.SUMS).unlink()
    assert checkpoint.newest(job.run_folder) == 1


def test_only_two_checkpoints_and_the_best_weights_stay(make_job: MakeJob) -> None:
    job = make_job(budget="5 epochs", patience=9)
    progress = loop.train(job, Team.alone("cpu"))
    assert [p.name for p in sorted(Path(job.run_folder, "checkpoints").iterdir())] == [
        "00004",
        "00005",
    ]
    best = [p.name for p in Path(job.run_folder, "best").iterdir()]
    assert best == [f"{progress.best_epoch:05d}"]


def test_news_of_an_epoch_lost_in_a_crash_is_published_on_resume(make_job: MakeJob) -> None:
    job = make_job()
    run_epochs(job, 2)
    Path(job.run_folder, "epochs", "00002.json").unlink()
    loop.begin(job, Team.alone("cpu"))
    report = checkpoint.published(job.run_folder, 2)
    assert report is not None
    assert report.epoch == 2


def poison(job: TrainingJob, part: str) -> None:
    """Make one label of a part NaN, behind the encoder's back."""
    for file in sorted(Path(job.shards, part).iterdir()):
        rows = read_arrow(str(file))
        label = rows.label.copy()
        label[0] = np.nan
        write_arrow(str(file), Rows(rows.numeric.copy(), rows.category.copy(), label))


def test_a_label_that_is_no_number_ends_training_with_epoch_and_step(make_job: MakeJob) -> None:
    job = make_job("regression")
    poison(job, "train")
    with pytest.raises(TrainingError, match=r"epoch 1, step \d+") as caught:
        loop.train(job, Team.alone("cpu"))
    assert "learning_rate" in str(caught.value)


def test_a_validation_that_gives_no_number_is_an_error(make_job: MakeJob) -> None:
    job = make_job("regression")
    poison(job, "validation")
    with pytest.raises(TrainingError, match="validation gave no finite number"):
        loop.train(job, Team.alone("cpu"))


def test_training_stops_when_the_metric_gets_no_better(make_job: MakeJob) -> None:
    job = make_job(budget="40 epochs", patience=2, learning_rate=0.02)
    progress = loop.train(job, Team.alone("cpu"))
    assert progress.stopped == "no better roc_auc for 2 epochs"
    assert progress.epoch == progress.best_epoch + 2
    assert progress.best_metric == max(r.metric for r in progress.history)


def test_a_budget_in_rows_may_end_within_an_epoch(make_job: MakeJob) -> None:
    progress = loop.train(make_job(budget="1500 rows", patience=9), Team.alone("cpu"))
    first, second = progress.history
    assert first.rows + second.rows == pytest.approx(1500, abs=64)
    assert second.rows < first.rows


def test_a_budget_in_minutes_ends_in_time(make_job: MakeJob) -> None:
    job = make_job(budget="0.02 minutes", patience=1000)
    progress = loop.train(job, Team.alone("cpu"))
    assert "0.02 minutes" in progress.stopped
    assert 1.2 <= progress.spent_s < 3


def test_class_weights_move_the_scores(make_job: MakeJob) -> None:
    plain, heavy = make_job(), make_job(class_weight=(1.0, 20.0))
    means = []
    for job in (plain, heavy):
        progress = loop.train(job, Team.alone("cpu"))
        kept = load_file(
            f"{checkpoint.best_folder(job.run_folder, progress.best_epoch)}/validation.safetensors"
        )
        assert kept["logits"].shape == (len(kept["label"]), 1)
        means.append(float(kept["logits"].mean()))
    assert means[1] > means[0] + 1


def test_rows_streamed_from_disk_are_learnt_as_well(make_job: MakeJob) -> None:
    progress = loop.train(make_job(budget="6 epochs", memory_bytes=0), Team.alone("cpu"))
    assert progress.best_metric > 0.95


def test_a_gpu_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(TrainingError, match="no GPU"):
        Team.alone("cuda")
