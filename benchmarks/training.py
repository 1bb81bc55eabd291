"""What mlray's training costs beside a hand-written PyTorch loop over tensors in memory.

Run: python benchmarks/training.py [--rows 300000] [--no-ray]
Writes benchmarks/results/training.json

Both sides train the same small network (30-64-64-1, where feeding rows weighs most) with the same
optimiser, batches, clipping, schedule and validation. mlray reads its shards, watches the loss,
saves a checkpoint and reports; the other side does none of it. Rounds are interleaved; CPU time of
this process on one thread, the least of all rounds (machines are shared and busy). The first epoch
starts from nothing: files on one side, NumPy arrays on the other.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import torch
from _claims import Claim, save
from torch import nn

from mlray.models.inputs import Inputs
from mlray.stats.metrics import score
from mlray.training import loop
from mlray.training.job import TrainingJob
from mlray.training.shards import Manifest, Shards, write_shards
from mlray.training.team import Team

FEATURES, BATCH, EPOCHS, RATE = 30, 1024, 2, 2e-3
HERE = Path(__file__).parent


class Small(nn.Module):
    """30-64-64-1: about what a row costs least."""

    def __init__(self, inputs: Inputs):
        super().__init__()
        width = len(inputs.numeric)
        layers = [nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, numeric: torch.Tensor, category: torch.Tensor) -> torch.Tensor:
        return self.layers(numeric)


@dataclass(frozen=True)
class Numbers:
    """An encoder of a table that is numbers already."""

    target: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(column="y"))

    def encode(self, table: pa.Table) -> SimpleNamespace:
        flat = table.column("x").combine_chunks().flatten().to_numpy()
        numeric = flat.reshape(-1, FEATURES)
        return SimpleNamespace(numeric=numeric, category=np.zeros((len(numeric), 0), np.int32))

    def encode_target(self, column: pa.ChunkedArray) -> np.ndarray:
        return column.to_numpy()


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, default=300_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--no-ray", action="store_true", help="leave out first_batch_s")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    folder = tempfile.mkdtemp()
    try:
        job = make_job(folder, chosen.rows)
        claims = beside_a_loop_in_memory(job, chosen.rounds)
        if not chosen.no_ray:
            claims.append(first_batch(job))
    finally:
        shutil.rmtree(folder)
    save("training", claims, ("torch", "ray"), rows=chosen.rows)


def make_job(folder: str, rows: int) -> TrainingJob:
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, FEATURES)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 2] + random.normal(size=rows) > 0).astype(np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), FEATURES)
    table = pa.table({"x": lists, "y": y})
    tables = [table.slice(i, 50_000) for i in range(0, rows, 50_000)]
    began = time.process_time()
    write_shards(tables, Numbers(), f"{folder}/shards", lambda t: in_parts(t.num_rows))
    print(f"shards: {rows / (time.process_time() - began):,.0f} rows per CPU second")
    names = tuple(f"x{i}" for i in range(FEATURES))
    inputs = Inputs("binary", names, (), (), ((),) * FEATURES, (False,) * FEATURES, 1)
    return TrainingJob(
        name="benchmark",
        shards=f"{folder}/shards",
        storage_path=f"{folder}/runs",
        inputs=inputs,
        metric="roc_auc",
        batch_size=BATCH,
        learning_rate=RATE,
        budget=f"{EPOCHS} epochs",
        network="training:Small",
        folder=str(HERE),
        threads=1,
        workers=1,
        device="cpu",
    )


def in_parts(rows: int) -> np.ndarray:
    return (np.arange(rows) % 10 == 9).astype(np.int8)


# --- both sides ---------------------------------------------------------------------------------


def beside_a_loop_in_memory(job: TrainingJob, rounds: int) -> list[Claim]:
    """Rows per CPU second of each epoch, ours as a share of the other's."""
    rows = Manifest.read(job.shards).counts["train"]
    parts = [whole(job, part) for part in ("train", "validation")]
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    for i in range(rounds):
        theirs.append(by_hand(job, *parts))
        ours.append(by_mlray(replace(job, name=f"round{i}")))
    best_ours, best_theirs = np.min(ours, axis=0), np.min(theirs, axis=0)
    first, second = best_theirs / best_ours
    return [
        Claim("epoch1_vs_inmemory", first, 0.9, "x", "higher"),
        Claim("epoch2_vs_inmemory", second, 0.95, "x", "higher"),
        Claim("epoch2_rows_per_cpu_s", rows / best_ours[1], None, "rows/s", "higher"),
    ]


def whole(job: TrainingJob, part: str) -> tuple[np.ndarray, np.ndarray]:
    shards = Shards.open(job.shards, part)
    rows = shards.slice(0, len(shards))
    return np.array(rows.numeric), np.array(rows.label)


def by_mlray(job: TrainingJob) -> list[float]:
    """CPU seconds of each epoch, checkpoints and all; starting counts to the first."""
    seconds, began = [], time.process_time()
    run = loop.begin(job, Team.alone("cpu"))
    for _ in range(EPOCHS):
        loop.train_and_validate(run)
        seconds.append(time.process_time() - began)
        began = time.process_time()
    return seconds


def by_hand(
    job: TrainingJob, train: tuple[np.ndarray, ...], validation: tuple[np.ndarray, ...]
) -> list[float]:
    """The same training as anyone would write it."""
    seconds, began = [], time.process_time()
    x, y = (torch.from_numpy(a) for a in train)
    torch.manual_seed(0)
    network = Small(job.inputs)
    empty = torch.empty((0, 0))
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-4, fused=True)
    steps = EPOCHS * math.ceil(len(y) / BATCH)
    factor, step = cosine(steps), 0
    for _ in range(EPOCHS):
        network.train()
        total = torch.zeros(())
        order = torch.randperm(len(y))
        for start in range(0, len(y), BATCH):
            chosen = order[start : start + BATCH]
            for group in optimizer.param_groups:
                group["lr"] = RATE * factor(step)
            logits = network(x[chosen], empty)[:, 0]
            loss = nn.functional.binary_cross_entropy_with_logits(logits, y[chosen])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            step += 1
            total += loss.detach()
        judge(network, *validation)
        seconds.append(time.process_time() - began)
        began = time.process_time()
    return seconds


def cosine(steps: int) -> Callable[[int], float]:
    warm = max(1, steps // 20)
    return lambda i: min(1.0, (i + 1) / warm) * 0.5 * (1 + math.cos(math.pi * min(1, i / steps)))


def judge(network: nn.Module, x: np.ndarray, y: np.ndarray) -> float:
    network.eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(x), torch.empty((0, 0)))[:, 0]
        float(nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(y)))
    return score("binary", y, torch.sigmoid(logits).double().numpy(), ["roc_auc"])["roc_auc"]


# --- on Ray -------------------------------------------------------------------------------------


def first_batch(job: TrainingJob) -> Claim:
    """Wall seconds from `fit` to the first optimiser step in a worker; Ray runs already."""
    import ray

    from mlray.training.trainer import fit

    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=200 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": str(HERE.parent)}},
    )
    try:
        trained = fit(replace(job, name="on-ray"))
    finally:
        ray.shutdown()
    return Claim("first_batch_s", trained.first_batch_s or float("nan"), 10.0, "s", "lower")


if __name__ == "__main__":
    main()
