"""Each row is judged by a network that never saw it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlray.errors import TrainingError
from mlray.training.filtered import without_rows
from mlray.training.folds import fold_numbers, fold_scores, modest, out_of_fold
from mlray.training.job import TrainingJob
from mlray.training.shards import Manifest, Rows, Shards, read_arrow, write_arrow

MakeJob = Callable[..., TrainingJob]


def shards_of(rows: int, distinct: int) -> Shards:
    values = np.random.default_rng(0).normal(size=(distinct, 3)).astype(np.float32)
    numeric = values[np.arange(rows) % distinct]
    return Shards.of(Rows(numeric, np.zeros((rows, 0), np.int32), np.zeros(rows, np.float32)))


def test_copies_of_a_row_go_to_one_fold_wherever_they_lie() -> None:
    folds = fold_numbers(shards_of(3000, 1000), 5, seed=0)
    assert (folds[:1000] == folds[1000:2000]).all()
    assert np.bincount(folds).min() > 400
    assert (fold_numbers(shards_of(3000, 1000), 5, seed=1) != folds).any()


def test_rows_that_hardly_differ_are_dealt_evenly_all_the_same() -> None:
    counts = np.bincount(fold_numbers(shards_of(1000, 2), 4, seed=0), minlength=4)
    assert counts.tolist() == [250] * 4


def test_missing_and_infinite_values_are_hashed_too() -> None:
    numeric = np.array([[np.nan, np.inf, -1e30]] * 2, np.float32)
    rows = Rows(numeric, np.zeros((2, 1), np.int32), np.zeros(2, np.float32))
    assert len(fold_numbers(Shards.of(rows), 2, seed=0)) == 2


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_fold_scores_the_rows_it_did_not_train_on(make_job: MakeJob, task: str) -> None:
    job = make_job(task, budget="3 epochs", device="cpu")
    shards = Shards.open(job.shards, "train")
    scores = fold_scores(job, 3, 1)
    assert len(scores) == (fold_numbers(shards, 3, job.seed) == 1).sum()
    assert scores.shape[1:] == ((3,) if task == "multiclass" else ())
    assert np.isfinite(scores).all()
    assert scores.tobytes() == fold_scores(job, 3, 1).tobytes(), "the same bits again"


@pytest.mark.usefixtures("ray_cluster")
def test_all_rows_are_scored_once_and_found_again(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(budget="6 epochs", device="cpu")
    told: list[str] = []
    scores = out_of_fold(job, 3, told.append)
    shards = Shards.open(job.shards, "train")
    label = shards.take(np.arange(len(shards))).label
    assert ((scores > 0.5) == (label == 1)).mean() > 0.8
    assert told == ["1 of 3 folds", "2 of 3 folds", "3 of 3 folds"]
    told.clear()
    again = out_of_fold(job, 3, told.append)
    assert again.tobytes() == scores.tobytes()
    assert told == [], "finished folds are found again"


@pytest.mark.usefixtures("ray_cluster")
def test_a_fold_that_breaks_down_says_why(make_job: MakeJob) -> None:
    job = replace(make_job("regression"), device="cpu")
    for file in Path(job.shards, "train").iterdir():
        rows = Rows(*(np.array(a) for a in read_arrow(str(file)).arrays))
        rows.label[:] = np.nan
        write_arrow(str(file), rows)
    with pytest.raises(TrainingError, match=r"training broke down in epoch 1, step \d+"):
        out_of_fold(job, 2)


def test_a_fold_gets_a_modest_budget() -> None:
    assert modest("40 epochs") == "16 epochs"
    assert modest("2 epochs") == "2 epochs"
    assert modest("1000000 rows") == "400000 rows"


def test_shards_without_rows_keep_order_and_the_other_parts(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job()
    before = Shards.open(job.shards, "train")
    left_out = np.zeros(len(before), bool)
    left_out[: len(before.files[0])] = True  # a whole file, and every third row
    left_out[::3] = True
    manifest = without_rows(job.shards, str(tmp_path / "fewer"), left_out)
    after = Shards.open(str(tmp_path / "fewer"), "train")
    kept = before.take(np.flatnonzero(~left_out))
    found = after.slice(0, len(after))
    assert all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(kept.arrays, found.arrays, strict=True)
    )
    assert manifest.digest != Manifest.read(job.shards).digest
    assert manifest.counts["train"] == len(after)
    validation = Shards.open(str(tmp_path / "fewer"), "validation")
    assert len(validation) == len(Shards.open(job.shards, "validation"))
