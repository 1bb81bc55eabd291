"""Scores that mean what they say: fitted on the validation part, then a part of the graph.

Legend: N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_STEPS = 60
_LOG_TEMPERATURES = (-3.0, 3.0)


@dataclass(frozen=True)
class Calibration:
    """scores = activation(slope * logits + shift).

    Binary: Platt's two numbers; multiclass: slope = 1 / temperature; regression: the target's
    scale and centre, which take the network's standard units to the target's.
    """

    slope: float = 1.0
    shift: float = 0.0
    reason: str = "not calibrated"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        return cls(**values)


def calibrate(
    task: str, logits: npt.NDArray[Any], labels: npt.NDArray[Any], *, fit: bool = True
) -> Calibration:
    """The calibration that fits validation rows best; the identity if they cannot tell.

    Args:
        task: binary or multiclass; a regression's is `Calibration(target.scale, target.center)`.
        logits: (N, K) of the best epoch.
        labels: (N,) class numbers.
        fit: False leaves the scores as they are.
    """
    logits = np.asarray(logits, dtype=np.float64)
    labels = np.asarray(labels).astype(np.int64)
    if not fit:
        return Calibration(reason="switched off")
    if len(logits) < 50 or len(np.unique(labels)) < 2 or not np.isfinite(logits).all():
        return Calibration(reason="not calibrated: too few validation rows or only one class")
    return platt(logits[:, 0], labels) if task == "binary" else temperature(logits, labels)


def platt(logits: Floats, labels: npt.NDArray[np.int64]) -> Calibration:
    """P(y=1) = sigmoid(a z + b), by Newton's method on the log loss.

    Targets are (n1 + 1) / (n1 + 2) and 1 / (n0 + 2) and not 1 and 0, which keeps a separable set
    finite (Platt 1999; Lin, Lin, Weng: "A note on Platt's probabilistic outputs", 2007).

    >>> z = np.repeat([-4.0, 4.0], 100)  # sure of itself, right in 3 of 4 cases
    >>> y = np.tile([0, 0, 0, 1], 25).tolist() + np.tile([1, 1, 1, 0], 25).tolist()
    >>> found = platt(z, np.array(y))
    >>> round(float(1 / (1 + np.exp(-(found.slope * 4 + found.shift)))), 2)
    0.75
    """
    n1 = int(labels.sum())
    wanted = np.where(labels == 1, (n1 + 1) / (n1 + 2), 1 / (len(labels) - n1 + 2))
    x = np.stack([logits, np.ones_like(logits)], axis=1)
    w = np.array([1.0, 0.0])
    for _ in range(_STEPS):
        p = _sigmoid(x @ w)
        gradient = x.T @ (p - wanted)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        while _platt_loss(x, w - step, wanted) > _platt_loss(x, w, wanted) and abs(step).max() > 0:
            step = step / 2 if abs(step).max() > 1e-12 else step * 0
        w = w - step
        if abs(step).max() < 1e-10:
            break
    if not (np.isfinite(w).all() and w[0] > 0):
        return Calibration(reason="not calibrated: scores do not rise with the labels")
    return Calibration(float(w[0]), float(w[1]), f"Platt on {len(labels):,} validation rows")


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * z)), dtype=np.float64)


def _platt_loss(x: Floats, w: Floats, wanted: Floats) -> float:
    z = x @ w
    return float((np.logaddexp(0, z) - wanted * z).sum())


def temperature(logits: Floats, labels: npt.NDArray[np.int64]) -> Calibration:
    """softmax(z / T) with the T of least log loss (Guo et al.: "On Calibration of Modern Neural
    Networks", 2017), by golden section over log T; the loss is convex in 1 / T.

    >>> z = np.array([[8.0, 0.0, 0.0]] * 100)
    >>> found = temperature(z, np.array([0] * 80 + [1] * 10 + [2] * 10))
    >>> p = np.exp(z[0] * found.slope)
    >>> round(float(p[0] / p.sum()), 2)
    0.8
    """
    low, high = _LOG_TEMPERATURES
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(_STEPS):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        if _log_loss(logits, labels, a) < _log_loss(logits, labels, b):
            high = b
        else:
            low = a
    slope = float(np.exp(-(low + high) / 2))
    return Calibration(slope, 0.0, f"temperature on {len(labels):,} validation rows")


def _log_loss(logits: Floats, labels: npt.NDArray[np.int64], log_temperature: float) -> float:
    z = logits * np.exp(-log_temperature)
    z = z - z.max(axis=1, keepdims=True)
    return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]).mean())
