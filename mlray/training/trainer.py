"""`fit`: the loop on 1..N Ray Train workers, watched live, resumed after whatever died.

Runs in the driver. Workers leave one file per epoch in the run's folder (`checkpoint.publish`),
which a thread of the driver tails: nothing is lost if the driver dies, nothing comes twice.
"""

from __future__ import annotations

import statistics
import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from mlray import storage
from mlray.errors import TrainingError
from mlray.training import failure
from mlray.training.job import EpochReport, Trained, TrainingJob

OnReport = Callable[[EpochReport], None]

POLL_S = 0.1
"""How often the driver looks for a new epoch."""
QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that wait for each other sleep. By default they spin, and where another process wants
the cores too, training is 10 to 40 times slower (measured: 1,300 rows/s instead of 19,000)."""
START_TRIES = 4
"""Attempts at starting the workers before training is given up."""


def fit(job: TrainingJob, on_report: OnReport | None = None) -> Trained:
    """Train on Ray Train workers.

    The same job goes on from its last checkpoint if an earlier call was killed, and returns at
    once if an earlier call finished it.

    Args:
        job: what to train on what; Ray is connected already.
        on_report: called from a thread once per epoch as soon as it ended, in order. Epochs of an
            earlier, killed call are handed over first. What it raises is raised when training has
            ended.

    Raises:
        TrainingError: the cluster can never hold these workers, training broke down, or workers
            were lost more than `max_failures` times.
    """
    called_at = time.time()
    done = storage.join(job.run_folder, "done.json")
    with Tail(job.run_folder, on_report or (lambda report: None)):
        if not storage.exists(done):
            require_room(job)
            launch(job)
    return trained(job, storage.read_json(done), called_at)


def trained(job: TrainingJob, ended: dict[str, Any], called_at: float) -> Trained:
    """What `done.json` says, with the best weights checked."""
    from mlray.training import checkpoint

    progress = checkpoint.Progress.from_dict(ended["progress"])
    best = checkpoint.best_folder(job.run_folder, progress.best_epoch)
    checkpoint.require_whole(best)
    first = ended["first_batch_at"]
    return Trained(
        weights=storage.join(best, "weights.safetensors"),
        validation=storage.join(best, "validation.safetensors"),
        history=tuple(progress.history),
        best_epoch=progress.best_epoch,
        stopped=progress.stopped,
        seconds=progress.spent_s,
        rows_per_s=statistics.median(r.rows_per_s for r in progress.history),
        workers=ended["workers"],
        device=ended["device"],
        first_batch_s=first - called_at if first and first > called_at else None,
    )


# --- room ---------------------------------------------------------------------------------------


def resources(job: TrainingJob) -> dict[str, float]:
    """What one worker asks Ray for; its threads may use more of an idle node."""
    import ray

    gpus = ray.cluster_resources().get("GPU", 0)
    use_gpu = job.device == "cuda" or (job.device == "auto" and gpus > 0)
    return {"CPU": 1.0, "GPU": 1.0} if use_gpu else {"CPU": 1.0}


def require_room(job: TrainingJob) -> None:
    """
    Raises:
        TrainingError: more workers are wanted than the cluster can ever hold.
    """
    import ray

    if job.workers < 1:
        raise TrainingError("no workers", value=job.workers, allowed="1 or more")
    each = resources(job)
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    most = sum(min(int(n.get(kind, 0) // amount) for kind, amount in each.items()) for n in nodes)
    if job.workers > most:
        there = ", ".join(f"{ray.cluster_resources().get(k, 0):g} {k}" for k in each)
        raise TrainingError(
            f"{job.workers} workers of {failure.listed(each)} each do not fit on this cluster",
            value=f"it has {there}",
            allowed=f"at most {most} workers",
            do="set training.workers lower, or training.device: cpu, or add nodes",
        )


# --- Ray Train ----------------------------------------------------------------------------------


def launch(job: TrainingJob) -> None:
    """Run the workers to the end; their own error comes out, not Ray's report about it."""
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    each = resources(job)
    trainer = TorchTrainer(
        work,
        train_loop_config={"job": job, "attempt": uuid.uuid4().hex},
        scaling_config=ScalingConfig(
            num_workers=job.workers, use_gpu="GPU" in each, resources_per_worker=each
        ),
        run_config=RunConfig(
            name=job.run_name,
            storage_path=job.storage_path,
            failure_config=FailureConfig(
                max_failures=job.max_failures, controller_failure_limit=START_TRIES - 1
            ),
            logging_config=LoggingConfig(log_level="ERROR"),
            worker_runtime_env={"env_vars": QUIET_THREADS},
        ),
    )
    try:
        result = trainer.fit()
    except Exception as error:
        raise failure.cause(error, job.max_failures) from error
    if isinstance(result.return_value, TrainingError):
        raise result.return_value


def work(config: dict[str, Any]) -> TrainingError | None:
    """One worker, from start to end. Ray Train retries what is raised; what would only happen
    again is returned instead."""
    from mlray.training import loop
    from mlray.training.team import Team

    job, team = config["job"], Team.of_ray()
    final = failure.Final(job.run_folder, config["attempt"])
    if (known := final.read()) is not None:
        return known
    try:
        loop.train(job, team)
    except Exception as error:
        return final.record(error, team)
    report_end(job, team)
    return None


def report_end(job: TrainingJob, team: Any) -> None:
    """One report at the end gives Ray's `Result` its metrics and its checkpoint.

    Not one per epoch: Ray takes reports up every two seconds, and small epochs would wait for it.
    """
    import ray.train

    from mlray.training import checkpoint

    ended = storage.read_json(storage.join(job.run_folder, "done.json"))
    progress = checkpoint.Progress.from_dict(ended["progress"])
    best = checkpoint.best_folder(job.run_folder, progress.best_epoch)
    ray.train.report(
        {job.metric: progress.best_metric, "epoch": progress.best_epoch},
        checkpoint=ray.train.Checkpoint(best) if team.leads else None,
        checkpoint_upload_mode=ray.train.CheckpointUploadMode.NO_UPLOAD,
    )


# --- the driver's view --------------------------------------------------------------------------


class Tail:
    """Hands each epoch's report on as soon as its file is there, in order, each once."""

    def __init__(self, run_folder: str, on_report: OnReport):
        self._folder, self._on_report = run_folder, on_report
        self._next = 1
        self._ended = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._watch, name="mlray-epochs", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def _watch(self) -> None:
        while not self._ended.wait(POLL_S):
            self._hand_on()
        self._hand_on()

    def _hand_on(self) -> None:
        from mlray.training import checkpoint

        while self._error is None:
            report = checkpoint.published(self._folder, self._next)
            if report is None:
                return
            self._next += 1
            try:
                self._on_report(report)
            except Exception as error:
                self._error = error  # training goes on; `__exit__` raises it
