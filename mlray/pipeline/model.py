"""The stages from shards to a registered version: train, evaluate, register."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from mlray import storage
from mlray.config import Project
from mlray.derive import RARE_FRAC
from mlray.pipeline.epochs import EpochLog
from mlray.pipeline.outputs import encoder_of, profile_of
from mlray.pipeline.stages import Work
from mlray.stats.profile import ColumnProfile

if TYPE_CHECKING:
    from mlray.training.job import EpochReport, TrainingJob


def train_model(work: Work) -> dict[str, Any]:
    """Train on Ray Train workers; each epoch is shown and logged as soon as it ends."""
    from mlray.training.trainer import fit

    job = training_job(work)
    told = _Epochs(work, job)
    trained = fit(job, told)
    for source, name in ((trained.weights, "weights"), (trained.validation, "validation")):
        shutil.copyfile(source, work.path(f"{name}.safetensors"))
    best = trained.history[trained.best_epoch - 1]
    storage.write_json(work.path("history.json"), [r.to_dict() for r in trained.history])
    facts = {
        "workers": trained.workers,
        "device": trained.device,
        "seconds": round(trained.seconds, 2),
        "rows_per_s": round(trained.rows_per_s),
        "batch_size": job.batch_size,
        "learning_rate": job.learning_rate,
        "budget": job.budget,
    }
    return {
        "best_epoch": trained.best_epoch,
        "stopped": trained.stopped,
        "facts": facts,
        "summary": f"{len(trained.history)} epochs, best {trained.best_epoch}: validation "
        f"{job.metric} {best.metric:.4f}; {trained.rows_per_s:,.0f} rows/s",
    }


_SETTINGS = (
    *("batch_size", "learning_rate", "budget", "weight_decay", "patience", "class_weight"),
    *("seed", "workers", "device", "metric", "network"),
)


class _Epochs:
    """Shows and logs every epoch as soon as it ends."""

    def __init__(self, work: Work, job: TrainingJob):
        self._work, self._metric = work, job.metric
        tracker = work.services["tracker"]
        tracker.params({"training": {name: getattr(job, name) for name in _SETTINGS}})
        self._log = EpochLog(tracker, job.metric)

    def __call__(self, report: EpochReport) -> None:
        best = " (best)" if report.best else ""
        self._work.say(
            f"epoch {report.epoch}: loss {report.train_loss:.4f}, validation {self._metric} "
            f"{report.metric:.4f}{best}, {report.rows_per_s:,.0f} rows/s"
        )
        self._log.add(report)


def training_job(work: Work) -> TrainingJob:
    """Everything that decides the weights, as plain data."""
    from mlray.training.job import TrainingJob

    project, encoder = work.project, encoder_of(work.before["encode"])
    training, model = project.training, project.model
    workers, device = _placement(project)
    target = profile_of(work.before["split"]).columns[model.target]
    return TrainingJob(
        name=project.name,
        shards=shards_of(work),
        storage_path=work.scratch,
        inputs=encoder.inputs(),
        metric=project.evaluation.metric,
        batch_size=int(training.batch_size),
        learning_rate=float(training.learning_rate),
        budget=training.budget,
        network=model.network,
        options=model.options,
        folder=project.folder,
        weight_decay=training.weight_decay,
        patience=training.patience,
        class_weight=class_weights(project, target, encoder.classes),
        target_center=encoder.target.center,
        target_scale=encoder.target.scale,
        seed=training.seed,
        workers=workers,
        device=device,
        max_failures=training.max_failures,
    )


def shards_of(work: Work) -> str:
    """Folder of the shards to train on: without rows that the labels stage left out."""
    searched = work.before.get("labels")
    left_out = searched is not None and searched.result["left_out"] > 0
    return work.before["labels" if left_out else "encode"].path("shards")


def _placement(project: Project) -> tuple[int, str]:
    """How many workers on which device, from what the cluster has."""
    import ray

    gpus = int(ray.cluster_resources().get("GPU", 0))
    device = project.training.device
    device = ("cuda" if gpus else "cpu") if device == "auto" else device
    workers = project.training.workers
    if workers == "auto":
        workers = gpus if device == "cuda" else 1
    return workers, device


def class_weights(
    project: Project, target: ColumnProfile, classes: tuple[Any, ...]
) -> tuple[float, ...] | None:
    """rows / (classes * rows of the class), as scikit-learn's `balanced`; None for equal weights.

    `auto` balances only if a class is rare: the network then learns from rare rows at all, and
    the calibration afterwards brings the probabilities back to the true rates.
    """
    wanted = project.training.class_weight
    if project.model.task == "regression" or wanted == "none":
        return None
    counts = {str(value): count for value, count in target.top}
    of_class = [counts.get(str(c), 1) for c in classes]
    if wanted == "auto" and min(of_class) / sum(of_class) >= RARE_FRAC:
        return None
    return tuple(sum(of_class) / (len(of_class) * n) for n in of_class)


# --- evaluate -----------------------------------------------------------------------------------


def evaluate_model(work: Work) -> dict[str, Any]:
    """Calibrate, export, write the bundle, and judge it on the test rows as it will be served."""
    from mlray.evaluation import headline
    from mlray.pipeline import bundling

    _, evaluation = bundling.write(work)
    storage.write_json(work.path("evaluation.json"), evaluation.to_dict())
    metric = work.project.evaluation.metric
    found = evaluation.metrics[metric]
    return {
        "metrics": headline(evaluation),
        "summary": f"test {metric} {found['value']:.4f} "
        f"({found['low']:.4f} to {found['high']:.4f}) on {evaluation.rows:,} rows",
    }


# --- register -----------------------------------------------------------------------------------


def register_model(work: Work) -> dict[str, Any]:
    """Report, artefacts, version, gate: in this order, so that a version is never half there."""
    from mlray.pipeline import registering

    return registering.register(work)
