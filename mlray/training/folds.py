"""Out-of-fold predictions: each training row is judged by a network that never saw it.

The training loop runs in plain Ray tasks, one a fold, side by side: a fold is too short to pay
for the start of a group of workers, and is simply done again if it is lost. It runs to the end of
a modest budget without a look at the validation part: early epochs learn what rows have in
common, late ones learn wrong labels by heart (Arpit et al., "A closer look at memorization in
deep networks", 2017).

Legend: N training rows, K outputs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlray.config.fields import Budget
from mlray.models.tasks import task_named
from mlray.training.batches import free_bytes
from mlray.training.job import TrainingJob
from mlray.training.shards import Rows, Shards

BUDGET_FRAC = 0.4
"""Share of the training budget that a fold gets: five folds then cost 5 x 0.8 x 0.4 = 1.6 training
runs."""
LEAST_EPOCHS = 3
SCORED_ROWS = 8192
"""Rows per forward pass."""
_GRID = 64.0
"""Rows that are equal on a grid of 1/64 of a feature's spread go to the same fold."""

Folds = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]


def modest(budget: str) -> str:
    """The budget of one fold.

    >>> modest("10 epochs"), modest("3 epochs"), modest("20 minutes")
    ('4 epochs', '3 epochs', '8 minutes')
    """
    whole = Budget.parse(budget)
    amount = BUDGET_FRAC * whole.amount
    if whole.unit == "epochs":
        amount = min(whole.amount, max(LEAST_EPOCHS, round(amount)))
    return f"{amount:g} {whole.unit}" if whole.unit != "rows" else f"{amount:.0f} rows"


def fold_numbers(shards: Shards, folds: int, seed: int) -> Folds:
    """The fold of each row (N,), by a hash of its features: order and files do not matter.

    Copies of a row go to one fold, or each would vouch for the label of the others. Where so few
    rows differ that folds would be uneven, rows are dealt by number.
    """
    places = [row_hashes(rows, seed) % np.uint64(folds) for rows in shards.files]
    dealt: Folds = np.concatenate(places).astype(np.int8)
    counts = np.bincount(dealt, minlength=folds)
    if counts.min() >= 0.5 * len(dealt) / folds and counts.max() <= 1.5 * len(dealt) / folds:
        return dealt
    random = np.random.default_rng(seed)
    return random.permutation(np.arange(len(dealt)) % folds).astype(np.int8)


def row_hashes(rows: Rows, seed: int = 0) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each row's features (N,); rows that are equal on a grid have the same.

    A weighted sum of the cells with odd random weights, modulo 2^64, and splitmix64's finaliser.
    """
    width = rows.numeric.shape[1] + rows.category.shape[1]
    random = np.random.default_rng((seed, width))
    weights = random.integers(0, 2**63, width, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    total = np.full(len(rows), np.uint64(seed))
    with np.errstate(over="ignore", invalid="ignore"):
        grid = np.nan_to_num(np.round(rows.numeric * _GRID), nan=2.0**40).clip(-(2.0**62), 2.0**62)
        cells = [grid[:, i].astype(np.int64).view(np.uint64) for i in range(grid.shape[1])]
        cells += [c.astype(np.uint64) for c in rows.category.T]
        for cell, weight in zip(cells, weights, strict=True):
            total += (cell ^ (cell >> np.uint64(31))) * weight
        total = (total ^ (total >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        total = (total ^ (total >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return total ^ (total >> np.uint64(31))


# --- all folds ----------------------------------------------------------------------------------


def out_of_fold(
    job: TrainingJob,
    folds: int,
    say: Callable[[str], None] = lambda text: None,
) -> Floats:
    """Scores of all training rows, in their order, each by the network of the other folds.

    Args:
        job: as for the model; its budget is cut (`modest`), its class weights are left out, for
            probabilities must be those of the rows. Finished folds lie in `job.storage_path` and
            are found again by an interrupted call.
        folds: parts of the training rows, 2 or more.
        say: is told when a fold is done.

    Returns:
        float32: (N,) probability of class 1 (binary), (N, K) (multiclass), or (N,) in standard
        units (regression). The same job gives the same bits on CPU.

    Raises:
        TrainingError: a fold's training broke down.
    """
    job = replace(job, budget=modest(job.budget), class_weight=None, workers=1, threads=1)
    numbers = fold_numbers(Shards.open(job.shards, "train"), folds, job.seed)
    files = [_file(job, folds, number) for number in range(folds)]
    missing = [n for n in range(folds) if not os.path.exists(files[n])]
    for done, _ in enumerate(_trained(job, folds, missing), folds - len(missing) + 1):
        say(f"{done} of {folds} folds")
    scores = [np.load(file) for file in files]
    whole: Floats = np.empty((len(numbers), *scores[0].shape[1:]), np.float32)
    for number, found in enumerate(scores):
        whole[numbers == number] = found
    return whole


def _file(job: TrainingJob, folds: int, number: int) -> str:
    return os.path.join(job.storage_path, f"fold-{job.key}-{folds}-{number}.npy")


def _trained(job: TrainingJob, folds: int, numbers: list[int]) -> Iterator[int]:
    """Each fold as soon as it is done; side by side, as many as the cluster has room for."""
    import ray

    from mlray.training import failure
    from mlray.training.trainer import resources

    each = resources(job)
    task = ray.remote(_fold).options(
        name=f"{job.name}-fold",
        num_cpus=each["CPU"],
        num_gpus=each.get("GPU", 0),
        max_retries=job.max_failures,
    )
    waiting = [task.remote(job, folds, number) for number in numbers]
    while waiting:
        done, waiting = ray.wait(waiting)
        try:
            yield ray.get(done[0])
        except Exception as error:
            for other in waiting:
                ray.cancel(other)
            raise failure.explained(failure.root(error)) from error


def _fold(job: TrainingJob, folds: int, number: int) -> int:
    """Train without a fold and keep the scores of its rows. Runs in a Ray worker."""
    scores = fold_scores(job, folds, number)
    file = _file(job, folds, number)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    with open(f"{file}.tmp", "wb") as handle:
        np.save(handle, scores)
    os.replace(f"{file}.tmp", file)
    return number


# --- one fold -----------------------------------------------------------------------------------


def fold_scores(job: TrainingJob, folds: int, number: int) -> Floats:
    """Train on the rows of the other folds, in this process; scores of the fold's rows."""
    from mlray.training import loop
    from mlray.training.team import Team

    shards = Shards.open(job.shards, "train")
    dealt = fold_numbers(shards, folds, job.seed)
    others = _affordable(np.flatnonzero(dealt != number), shards)
    run = loop.begin(job, Team.alone(job.device), Shards.of(shards.take(others)))
    while not run.schedule.over(run.progress.step):
        loop.train_epoch(run)
        run.schedule.look_at_clock()
    return _scored(run, shards, np.flatnonzero(dealt == number))


def _affordable(rows: npt.NDArray[np.int64], shards: Shards) -> npt.NDArray[np.int64]:
    """All of the rows, or evenly many of them where copies would take the node's memory."""
    most = max(1, free_bytes() // 8 // max(1, shards.bytes_per_row))
    return rows[:: -(-len(rows) // most)]


def _scored(run: Any, shards: Shards, wanted: npt.NDArray[np.int64]) -> Floats:
    import torch

    from mlray.training.validation import activated, arithmetic

    network, team, found = run.plain.eval(), run.team, []
    for low in range(0, len(wanted), SCORED_ROWS):
        rows = shards.take(wanted[low : low + SCORED_ROWS])
        inputs = [torch.from_numpy(a).to(team.device) for a in rows.arrays[:2]]
        with torch.no_grad(), arithmetic(run.job, team):
            logits = network(*inputs).float()
        found.append(activated(task_named(run.job.task).name, logits.double()).cpu().numpy())
    width = () if run.job.task != "multiclass" else (run.job.inputs.outputs,)
    return np.concatenate([np.empty((0, *width)), *found]).astype(np.float32)
