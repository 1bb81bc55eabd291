"""Kinds of problems by name: their loss, what turns logits into scores, their metric.

Legend: N rows, K outputs (1 for binary and regression, classes for multiclass).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlray.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Task:
    """One kind of problem."""

    name: str
    metric: str
    """What early stopping and the gate look at if the project file names nothing."""
    metrics: tuple[str, ...]
    """What an evaluation reports."""

    def outputs(self, classes: Sequence[object]) -> int:
        """Logits per row."""
        return len(classes) if self.name == "multiclass" else 1

    def loss(
        self, logits: Tensor, target: Tensor, class_weight: Sequence[float] | None = None
    ) -> Tensor:
        """Mean loss of a batch.

        Cross entropy (binary: target 0 or 1; multiclass: class numbers), or half the squared error
        of a standardised target.

        Args:
            logits: (N, K).
            target: (N,) as `Encoder.encode_target` gives it.
            class_weight: one factor per class for the rows of that class; of (0, 1) if binary.
        """
        from torch.nn import functional

        if self.name == "regression":
            return 0.5 * functional.mse_loss(logits[:, 0], target)
        if self.name == "binary":
            losses = functional.binary_cross_entropy_with_logits(
                logits[:, 0], target, reduction="none"
            )
        else:
            losses = functional.cross_entropy(logits, target, reduction="none")
        if class_weight is not None:
            losses = losses * losses.new_tensor(class_weight)[target.long()]
        return losses.mean()


TASKS = {
    task.name: task
    for task in (
        Task(
            "binary",
            "roc_auc",
            ("roc_auc", "average_precision", "log_loss", "brier", "accuracy", "f1"),
        ),
        Task("multiclass", "log_loss", ("log_loss", "accuracy", "balanced_accuracy", "f1")),
        Task("regression", "rmse", ("rmse", "mae", "r2")),
    )
}


def task_named(name: str) -> Task:
    """The task, or `ConfigError` with the names there are."""
    if name not in TASKS:
        raise ConfigError("no such task", value=name, allowed=", ".join(TASKS))
    return TASKS[name]
