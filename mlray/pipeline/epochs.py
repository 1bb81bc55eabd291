"""Every epoch reaches MLflow once, also when a run was killed, taken up again, or reused."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlray.tracking import Tracker
    from mlray.training.job import EpochReport


class EpochLog:
    """The epochs of the tracked run."""

    def __init__(self, tracker: Tracker, metric: str):
        self._tracker, self._metric = tracker, metric
        self._logged = tracker.steps("validation_loss")

    def add(self, report: EpochReport) -> None:
        """Record an epoch, unless it is there already."""
        if report.epoch in self._logged:
            return
        values = {
            "train_loss": report.train_loss,
            "validation_loss": report.validation_loss,
            f"validation_{self._metric}": report.metric,
            "learning_rate": report.learning_rate,
            "rows_per_s": report.rows_per_s,
            "data_wait_s": report.data_wait_s,
        }
        self._tracker.metrics(values, step=report.epoch)
        self._logged.add(report.epoch)
