"""A small problem with everything in it: numbers, missing and infinite ones, a category."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from mlray.models.encoder import Encoder
from mlray.models.roles import Role
from mlray.models.target import Target
from mlray.stats.profile import Profile
from mlray.training.job import TrainingJob
from mlray.training.shards import write_shards


@dataclass(frozen=True)
class Problem:
    table: pa.Table
    encoder: Encoder

    @staticmethod
    def parts(table: pa.Table) -> np.ndarray:
        return table.column("part").to_numpy().astype(np.int8)


def make_table(rows: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    a, b, c = rng.normal(size=(3, rows))
    kind = rng.choice(["red", "green", "blue"], rows)
    truth = a - b + (kind == "red") + 0.3 * rng.normal(size=rows)
    a[rng.random(rows) < 0.05] = np.nan
    b[rng.random(rows) < 0.01] = np.inf
    return pa.table(
        {
            "a": a,
            "b": b,
            "c": c,
            "constant": np.full(rows, 7.0),
            "kind": kind,
            "yes": truth > 0.3,
            "three": np.array(["low", "middle", "high"])[np.digitize(truth, [-0.5, 1.0])],
            "amount": 1000.0 + 50.0 * truth,
            "part": rng.choice(4, rows, p=[0.6, 0.2, 0.1, 0.1]),
        }
    )


def make_problem(table: pa.Table, task: str = "binary") -> Problem:
    column, classes = {
        "binary": ("yes", (False, True)),
        "multiclass": ("three", ("high", "low", "middle")),
        "regression": ("amount", ()),
    }[task]
    roles = [Role(n, "numeric", "number") for n in ("a", "b", "c", "constant")]
    roles.append(Role("kind", "category", "few values"))
    scale = (1000.0, 50.0) if task == "regression" else (0.0, 1.0)
    target = Target(column, task, classes, *scale)
    return Problem(table, Encoder.fit(Profile.of(table), roles, target))


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., TrainingJob]:
    """A job on 2,000 rows; every argument of `TrainingJob` can be set."""

    def make(task: str = "binary", rows: int = 2000, **settings: Any) -> TrainingJob:
        problem = make_problem(make_table(rows), task)
        shards = str(tmp_path / f"shards-{task}-{rows}")
        if not Path(shards).exists():
            tables = [problem.table.slice(i, 700) for i in range(0, rows, 700)]
            write_shards(tables, problem.encoder, shards, problem.parts)
        metric = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "rmse"}[task]
        target = problem.encoder.target
        defaults = {
            "name": "job",
            "storage_path": str(tmp_path / "runs"),
            "batch_size": 64,
            "learning_rate": 3e-3,
            "budget": "3 epochs",
            "options": {"width": 32, "depth": 1},
            "threads": 1,
            "target_center": target.center,
            "target_scale": target.scale,
        }
        return TrainingJob(
            shards=shards,
            inputs=problem.encoder.inputs(),
            metric=metric,
            **{**defaults, **settings},
        )

    return make
