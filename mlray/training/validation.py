"""How good the network is on the validation part, found by all workers together.

Legend: N rows, K outputs.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mlray.errors import TrainingError
from mlray.models.tasks import task_named
from mlray.stats import metrics
from mlray.training.job import TrainingJob
from mlray.training.shards import Shards
from mlray.training.team import Team

SCORED_ROWS = 8192
"""Rows per forward pass."""


@dataclass(frozen=True)
class Validated:
    """Loss and metric are equal on all ranks; logits and labels are whole on rank 0 only."""

    loss: float
    """Mean over rows, without class weights."""
    metric: float
    """The job's metric; for regression in the target's units."""
    logits: Tensor
    """(N, K) float32 on the CPU."""
    label: Tensor
    """(N,)"""


def validate(job: TrainingJob, team: Team, network: nn.Module, part: Shards) -> Validated:
    """Every rank scores its slice, rank 0 judges the whole, all get the verdict.

    Raises:
        TrainingError: the loss or the metric is not a finite number.
    """
    logits = team.gather(score_slice(job, team, network, part), len(part))
    label, loss, metric = torch.empty(0), float("nan"), float("nan")
    if team.leads:
        label = torch.from_numpy(np.array(part.slice(0, len(part)).label))
        loss = float(task_named(job.task).loss(logits, label))
        metric = judge(job, logits, label)
    loss, metric = team.agree([loss, metric])
    if not (np.isfinite(loss) and np.isfinite(metric)):
        raise TrainingError(
            "validation gave no finite number",
            value=f"loss {loss}, {job.metric} {metric}",
            do="lower training.learning_rate; see that the validation part has all classes",
        )
    return Validated(loss, metric, logits, label)


def score_slice(job: TrainingJob, team: Team, network: nn.Module, part: Shards) -> Tensor:
    """Logits of this rank's share of the rows."""
    network.eval()
    start, stop = team.share(len(part))
    scored = [torch.empty((0, job.inputs.outputs), device=team.device)]
    for low in range(start, stop, SCORED_ROWS):
        rows = part.slice(low, min(low + SCORED_ROWS, stop))
        inputs = [torch.from_numpy(np.array(a)).to(team.device) for a in rows.arrays[:2]]
        with torch.no_grad(), arithmetic(job, team):
            scored.append(network(*inputs).float())
    return torch.cat(scored)


def arithmetic(job: TrainingJob, team: Team) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 where the GPU has it and the job allows it."""
    if job.amp and team.device.type == "cuda" and torch.cuda.is_bf16_supported():
        half: contextlib.AbstractContextManager[Any] = torch.autocast("cuda", dtype=torch.bfloat16)
        return half
    return contextlib.nullcontext()


def judge(job: TrainingJob, logits: Tensor, label: Tensor) -> float:
    """The job's metric of logits (N, K) against labels (N,)."""
    truth: npt.NDArray[Any] = label.numpy()
    scores: npt.NDArray[np.float64] = activated(job.task, logits.double()).numpy()
    if not np.isfinite(scores).all():
        return float("nan")
    if job.task == "regression":
        scores = scores * job.target_scale + job.target_center
        truth = truth.astype(np.float64) * job.target_scale + job.target_center
    return metrics.score(job.task, truth, scores, names=[job.metric])[job.metric]


def activated(task: str, logits: Tensor) -> Tensor:
    """Probabilities, (N,) of the positive class or (N, K); regression: (N,) in standard units."""
    if task == "multiclass":
        return torch.softmax(logits, dim=1)
    return torch.sigmoid(logits[:, 0]) if task == "binary" else logits[:, 0]
