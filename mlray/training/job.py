"""What is to be trained, and what came out: plain data that travels between processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mlray import storage, usercode
from mlray.config.fields import Budget
from mlray.models.inputs import Inputs
from mlray.training.shards import Manifest


@dataclass(frozen=True)
class TrainingJob:
    """One training run. Same job, same shards, same number of workers: same weights on CPU."""

    name: str
    """Of the run folder; the job's key is added, so that other settings are another run."""
    shards: str
    """Folder written by `write_shards`."""
    storage_path: str
    """Where run folders are kept; on several nodes, a disk that all of them share."""
    inputs: Inputs
    """Shapes and statistics of the network's inputs; also names the task."""
    metric: str
    """Validation metric that early stopping looks at, a name of `mlray.stats.metrics`."""
    batch_size: int
    """Rows per step over all workers."""
    learning_rate: float
    """Peak of the schedule."""
    budget: str = "12 epochs"
    """`6 epochs`, `2000000 rows`, `20 minutes`."""
    network: str = "mlp"
    """`mlp` or `module:Class`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Passed on to the network."""
    folder: str | None = None
    """Where the user's modules are."""
    weight_decay: float = 1e-4
    patience: int = 3
    """Epochs without a better metric before training stops."""
    class_weight: tuple[float, ...] | None = None
    """Weights of classes in the loss; binary: (of 0, of 1)."""
    target_center: float = 0.0
    target_scale: float = 1.0
    """Regression: label * scale + center is in the target's units, in which metrics are given."""
    seed: int = 0
    workers: int = 1
    device: str = "auto"
    """auto (cuda if there), cpu, cuda."""
    amp: bool = True
    """bfloat16 arithmetic on GPUs that have it; never on CPU."""
    threads: int | None = None
    """Torch threads of a worker; None: the node's cores, shared among its workers."""
    memory_bytes: int | None = None
    """Rows of a worker that take more are streamed from disk; None: half of what is free."""
    max_failures: int = 3
    """Lost workers that training survives."""

    @property
    def task(self) -> str:
        return self.inputs.task

    @property
    def key(self) -> str:
        """Changes with all that decides the weights: settings, rows, the network's code."""
        elsewhere = ("name", "shards", "storage_path", "folder", "max_failures", "memory_bytes")
        decides = {k: v for k, v in asdict(self).items() if k not in elsewhere}
        decides["rows"] = Manifest.read(self.shards).digest
        if ":" in self.network:
            decides["code"] = usercode.version(self.network, self.folder)
        text = json.dumps(decides, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def run_name(self) -> str:
        return f"{self.name}-{self.key}"

    @property
    def run_folder(self) -> str:
        return storage.join(self.storage_path, self.run_name)

    @property
    def limit(self) -> Budget:
        return Budget.parse(self.budget)


@dataclass(frozen=True)
class EpochReport:
    """What one epoch did. Losses are means over rows; `metric` is in the target's units."""

    epoch: int
    """From 1."""
    step: int
    """Optimiser steps since the start."""
    rows: int
    """Training rows seen in this epoch, over all workers."""
    seconds: float
    """Training, validation and saving."""
    train_loss: float
    validation_loss: float
    metric: float
    """The job's validation metric."""
    learning_rate: float
    """At the end of the epoch."""
    rows_per_s: float
    """Training rows per second of training, over all workers."""
    data_wait_s: float
    """Seconds of training spent waiting for rows, on rank 0."""
    best: bool
    """Whether the metric is better than in all epochs before."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EpochReport:
        return cls(**values)


@dataclass(frozen=True)
class Trained:
    """A finished training run."""

    weights: str
    """safetensors file of the best epoch."""
    validation: str
    """safetensors file of the best epoch's validation `logits` (N, K) and `label` (N,)."""
    history: tuple[EpochReport, ...]
    best_epoch: int
    stopped: str
    """Why it ended, in words."""
    seconds: float
    """Of training, over all attempts; starting processes not counted."""
    rows_per_s: float
    """Median over epochs."""
    workers: int
    device: str
    first_batch_s: float | None = None
    """From the call of `fit` to the first optimiser step; None if an earlier call did it."""
