"""What each worker runs: epochs of training and validation until the budget or patience ends.

Plain PyTorch. The same functions run in a Ray Train worker and in any other process
(`Team.alone()`). All randomness of an epoch follows from seed, epoch and rank, so a run that was
interrupted goes on to the same weights, bit for bit on CPU.

Legend: N rows, F numeric features, C categorical features, K outputs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from mlray import storage
from mlray.errors import TrainingError
from mlray.models import networks
from mlray.models.tasks import Task, task_named
from mlray.stats import metrics
from mlray.training import checkpoint
from mlray.training.batches import Batch, InMemory, Streamed, open_batches
from mlray.training.checkpoint import Progress, State
from mlray.training.job import EpochReport, TrainingJob
from mlray.training.schedule import Schedule, factor
from mlray.training.shards import Shards
from mlray.training.team import Team, cores
from mlray.training.validation import Validated, arithmetic, validate

CLIP_NORM = 1.0
"""Gradients longer than this are shortened to it."""
THREAD_OPERATIONS = 1e8
"""A step with less work for each thread is faster on fewer threads: 1e8 take about 3 ms."""
CHECK_STEPS = 64
"""So often losses are looked at: a GPU must not wait for every one."""


@dataclass
class Run:
    """One worker's side of a run."""

    job: TrainingJob
    team: Team
    task: Task
    network: nn.Module
    """As the team wraps it."""
    optimizer: torch.optim.Optimizer
    batches: InMemory | Streamed
    validation: Shards
    schedule: Schedule
    progress: Progress
    first_batch_at: float | None = None
    """UTC seconds of the first optimiser step of this process."""

    @property
    def plain(self) -> nn.Module:
        """The network without what the team wrapped around it."""
        inner = getattr(self.network, "module", None)
        return inner if self.team.size > 1 and isinstance(inner, nn.Module) else self.network


@dataclass
class Trace:
    """Losses and gradient norms of one epoch, kept on the device until somebody looks."""

    epoch: int
    learning_rate: float
    rows: int = 0
    steps: int = 0
    wait_s: float = 0.0
    seconds: float = 0.0
    sum: float = 0.0
    """Of losses times rows."""
    fresh: list[tuple[Tensor, Tensor, int]] = field(default_factory=list)
    """(loss, gradient norm, rows) of steps since the last look."""


def train(job: TrainingJob, team: Team) -> Progress:
    """Train until the end, from the last checkpoint if there is one.

    Raises:
        TrainingError: the loss or the metric became NaN or infinite.
    """
    return train_run(begin(job, team))


def train_run(run: Run) -> Progress:
    while not run.progress.stopped:
        train_and_validate(run)
    finish(run)
    return run.progress


def begin(job: TrainingJob, team: Team, rows: Shards | None = None) -> Run:
    """Everything in place for the next epoch; `rows` train in place of the train part."""
    batches, validation = open_rows(job, team, rows)
    torch.manual_seed(job.seed)
    network = networks.build(job.network, job.inputs, dict(job.options), job.folder)
    torch.set_num_threads(job.threads or threads_for(network, job, team))
    state = last_state(job, team)
    if state is not None:
        network.load_state_dict(state.network)
    network = team.wrap(network)
    optimizer = adamw(network, job)
    if state is not None:
        optimizer.load_state_dict(state.optimizer)
    progress = Progress() if state is None else state.progress
    run = Run(
        job=job,
        team=team,
        task=task_named(job.task),
        network=network,
        optimizer=optimizer,
        batches=batches,
        validation=validation,
        schedule=Schedule(
            job.limit, batches.steps, batches.rows * team.size, team, progress.spent_s
        ),
        progress=progress,
    )
    publish_missing(run)
    return run


def threads_for(network: nn.Module, job: TrainingJob, team: Team) -> int:
    """This worker's share of the node's cores, or fewer for steps too small to be shared out.

    A step takes about 6 operations per parameter and row (2 forward, 4 backward).
    """
    parameters = sum(p.numel() for p in network.parameters())
    operations = 6 * parameters * job.batch_size / team.size
    return max(1, min(cores() // team.local_size, int(operations / THREAD_OPERATIONS)))


def last_state(job: TrainingJob, team: Team) -> State | None:
    """The newest whole checkpoint, the same one for all workers."""
    (epoch,) = team.agree([checkpoint.newest(job.run_folder) if team.leads else 0])
    return checkpoint.load(job.run_folder, int(epoch)) if epoch else None


def open_rows(
    job: TrainingJob, team: Team, rows: Shards | None = None
) -> tuple[InMemory | Streamed, Shards]:
    rows = Shards.open(job.shards, "train") if rows is None else rows
    batches = open_batches(rows, team, job.batch_size, job.seed, job.memory_bytes)
    if batches.rows == 0:
        raise TrainingError(
            "fewer training rows than workers",
            value=f"{len(rows)} rows, {team.size} workers",
            do="set training.workers: 1",
        )
    return batches, Shards.open(job.shards, "validation")


def adamw(network: nn.Module, job: TrainingJob) -> torch.optim.Optimizer:
    """AdamW, one kernel for all parameters where that is possible.

    Loshchilov and Hutter, "Decoupled weight decay regularization", 2019.
    """
    groups = [g for g in networks.parameter_groups(network, job.weight_decay) if g["params"]]
    fused = all(p.is_floating_point() for g in groups for p in g["params"])
    return torch.optim.AdamW(groups, lr=job.learning_rate, fused=fused)


# --- one epoch ----------------------------------------------------------------------------------


def train_and_validate(run: Run) -> None:
    """One epoch: train, score, decide, save, tell."""
    began = time.perf_counter()
    trace = train_epoch(run)
    validated = validate(run.job, run.team, run.plain, run.validation)
    report = describe(run, trace, validated)
    decide(run, report)
    if run.team.leads:
        save(run, report, began, validated)
    run.team.agree([0.0])  # nobody goes on before the epoch is safe


def train_epoch(run: Run) -> Trace:
    """All batches of the next epoch, or as many as the budget allows."""
    run.progress.epoch += 1
    trace = Trace(run.progress.epoch, 0.0)
    torch.manual_seed(epoch_seed(run.job.seed, trace.epoch, run.team.rank))
    run.network.train()
    began = time.perf_counter()
    for batch in waited(run.batches.epoch(trace.epoch), trace):
        share = run.schedule.progress(run.progress.step + 1)
        trace.learning_rate = set_learning_rate(run, share)
        trace.fresh.append((*step(run, batch), len(batch[2])))
        run.progress.step += 1
        trace.steps += 1
        if run.first_batch_at is None:
            run.first_batch_at = time.time()
        if len(trace.fresh) == CHECK_STEPS:
            look(trace)
        if share >= 1.0:
            break
    look(trace)
    trace.seconds = time.perf_counter() - began
    return trace


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """A seed for dropout that differs between epochs and workers."""
    return int(np.random.SeedSequence((seed, epoch, rank)).generate_state(1, np.uint64)[0] >> 1)


def waited(batches: Iterator[Batch], trace: Trace) -> Iterator[Batch]:
    """The batches, with the seconds spent on getting them added up."""
    while True:
        began = time.perf_counter()
        batch = next(batches, None)
        trace.wait_s += time.perf_counter() - began
        if batch is None:
            return
        yield batch


def set_learning_rate(run: Run, progress: float) -> float:
    rate = run.job.learning_rate * factor(progress)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    return rate


def step(run: Run, batch: Batch) -> tuple[Tensor, Tensor]:
    """One optimiser step; the loss and the gradient's norm before clipping."""
    numeric, category, label = batch
    with arithmetic(run.job, run.team):
        logits = run.network(numeric, category)
    loss = run.task.loss(logits.float(), label, run.job.class_weight)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(run.network.parameters(), CLIP_NORM)
    run.optimizer.step()
    return loss.detach(), norm


def look(trace: Trace) -> None:
    """Add up the losses since the last look, or say at which step training broke.

    The gradient's norm is the same on all workers (gradients are averaged), so all of them break
    at the same step and none is left waiting.
    """
    if not trace.fresh:
        return
    losses = torch.stack([loss for loss, _, _ in trace.fresh]).double().cpu()
    norms = torch.stack([norm for _, norm, _ in trace.fresh]).cpu()
    rows = torch.tensor([n for _, _, n in trace.fresh])
    if not bool(torch.isfinite(norms).all()):
        first = int((~torch.isfinite(norms)).nonzero()[0])
        broken(trace.epoch, trace.steps - len(trace.fresh) + first + 1, float(losses[first]))
    trace.sum += float((losses * rows).sum())
    trace.rows += int(rows.sum())
    trace.fresh.clear()


def broken(epoch: int, step: int, loss: float) -> None:
    raise TrainingError(
        f"training broke down in epoch {epoch}, step {step}: loss or gradient is not finite",
        value=f"loss {loss}",
        allowed="finite numbers",
        do="lower training.learning_rate, or look for extreme values in the target",
    )


def describe(run: Run, trace: Trace, validated: Validated) -> EpochReport:
    total, rows = run.team.total([trace.sum, trace.rows])
    return EpochReport(
        epoch=trace.epoch,
        step=run.progress.step,
        rows=int(rows),
        seconds=trace.seconds,
        train_loss=total / rows,
        validation_loss=validated.loss,
        metric=validated.metric,
        learning_rate=trace.learning_rate,
        rows_per_s=rows / max(trace.seconds, 1e-9),
        data_wait_s=trace.wait_s,
        best=better(validated.metric, run.progress.best_metric, run.job.metric),
    )


def better(value: float, best: float, metric: str) -> bool:
    """
    >>> better(0.8, 0.7, "roc_auc"), better(0.8, 0.7, "rmse"), better(0.8, float("nan"), "rmse")
    (True, False, True)
    """
    return bool(
        np.isnan(best) or (value > best if metrics.greater_is_better(metric) else value < best)
    )


def decide(run: Run, report: EpochReport) -> None:
    """Whether this was the best epoch and whether it was the last; equal on all ranks."""
    progress = run.progress
    if report.best:
        progress.best_epoch, progress.best_metric = report.epoch, report.metric
    run.schedule.look_at_clock()
    if run.schedule.over(report.step):
        progress.stopped = f"the budget of {run.job.budget} is used up"
    elif report.epoch - progress.best_epoch >= max(1, run.job.patience):
        waited_epochs = report.epoch - progress.best_epoch
        progress.stopped = f"no better {run.job.metric} for {waited_epochs} epochs"


def save(run: Run, report: EpochReport, began: float, validated: Validated) -> None:
    """Best weights first, then the checkpoint that names them, then the news for the driver."""
    folder = run.job.run_folder
    weights = {k: v.detach().cpu().contiguous().clone() for k, v in run.plain.state_dict().items()}
    if report.best:
        validation = {"logits": validated.logits.contiguous(), "label": validated.label}
        checkpoint.save_best(folder, report.epoch, weights, validation)
    report = EpochReport(**{**vars(report), "seconds": time.perf_counter() - began})
    run.progress.history.append(report)
    run.progress.spent_s = run.schedule.spent_s
    checkpoint.save(folder, State(weights, run.optimizer.state_dict(), run.progress))
    checkpoint.drop_all_but(folder, run.progress.best_epoch)
    checkpoint.publish(folder, report)


def publish_missing(run: Run) -> None:
    """After a restart: reports of epochs whose checkpoint was written but not their news."""
    for report in run.progress.history if run.team.leads else []:
        if checkpoint.published(run.job.run_folder, report.epoch) is None:
            checkpoint.publish(run.job.run_folder, report)


def finish(run: Run) -> None:
    """Record that and how the run ended."""
    if run.team.leads:
        ended = {
            "progress": run.progress.to_dict(),
            "workers": run.team.size,
            "device": run.team.device.type,
            "first_batch_at": run.first_batch_at,
        }
        storage.write_json(storage.join(run.job.run_folder, "done.json"), ended)
