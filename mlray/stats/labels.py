"""Confident learning: which labels do not fit what a model says that never saw them.

Scores come out of fold. Binary scores (N,) are probabilities of class 1; here they are (N, K).

Source of thresholds, joint and pruning: Northcutt, Jiang, Chuang, "Confident learning: estimating
uncertainty in dataset labels", JAIR 2021. Legend: N rows, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

RESIDUAL_LIMIT = 6.0
"""A residual of so many robust standard deviations is suspect: 2 in 10^9 if errors are normal, 2
in 1,000 if they fall off as slowly as Laplace's."""
_RESIDUAL_BINS = 10
_LEAST_IN_BIN = 50
_SURE_FRACS = (0.05, 0.1, 0.2)
"""Shares of the rows called a class, the surest ones, that tell how much noise there is."""
_LEAST_SURE = 100
"""Fewer rows than this tell nothing about a few percent of noise."""


@dataclass(frozen=True)
class Noise:
    """Wrong labels that the overlap of classes cannot explain."""

    share: float
    """Estimated share of rows with a wrong label."""
    low: float
    """Lower end of its 95 % confidence interval."""
    of_class: tuple[float, ...]
    """Per given label (K,): estimated share of its rows whose label is wrong."""


def probabilities(scores: npt.NDArray[np.floating]) -> Floats:
    """Scores of a binary model (N,) or of K classes (N, K) as probabilities (N, K).

    >>> probabilities(np.array([0.25])).tolist()
    [[0.75, 0.25]]
    """
    p = np.asarray(scores, np.float64)
    return p if p.ndim == 2 else np.column_stack([1 - p, p])


def thresholds(labels: Ints, p: Floats) -> Floats:
    """How sure the model is of each class on rows that carry its label, on average (K,).

    t_j = mean of p_j over rows labelled j; infinite for a class without rows.
    Source: Northcutt et al. (2021), equation 2.

    >>> thresholds(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.7, 0.3], [0.4, 0.6]])).tolist()
    [0.8, 0.6]
    """
    counts = np.bincount(labels, minlength=p.shape[1])
    sums = np.bincount(labels, weights=p[np.arange(len(p)), labels], minlength=p.shape[1])
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)


def confident_classes(labels: Ints, p: Floats) -> Ints:
    """The class that each row counts for (N,): the likeliest of those whose threshold it reaches;
    -1 if it reaches none.

    >>> p = np.array([[0.9, 0.1], [0.75, 0.25], [0.4, 0.6]])
    >>> confident_classes(np.array([0, 0, 1]), p).tolist()
    [0, -1, 1]
    """
    reached = p >= thresholds(labels, p) - 1e-6
    best = np.argmax(np.where(reached, p, -1.0), axis=1)
    return np.where(reached.any(axis=1), best, -1)


def confident_joint(labels: Ints, p: Floats) -> Ints:
    """Rows by given label (down) and confident class (across), (K, K).

    Source: Northcutt et al. (2021), equation 1.

    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.9, 0.1], [0.1, 0.9]])
    >>> confident_joint(np.array([0, 0, 1, 1]), p).tolist()
    [[1, 0], [1, 1]]
    """
    k = p.shape[1]
    found = confident_classes(labels, p)
    held = found >= 0
    cells = labels[held] * k + found[held]
    return np.bincount(cells, minlength=k * k).reshape(k, k)


def calibrated_joint(labels: Ints, p: Floats) -> Floats:
    """The confident joint (K, K) scaled so that each label has the rows that it really has.

    Q_ij = C_ij / sum_j C_ij * n_i; a label without confident rows keeps all of its own on the
    diagonal. Divided by N it estimates the joint distribution of given and true labels.
    Source: Northcutt et al. (2021), equation 3.

    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.9, 0.1], [0.1, 0.9]])
    >>> calibrated_joint(np.array([0, 0, 1, 1]), p).tolist()
    [[2.0, 0.0], [1.0, 1.0]]
    """
    joint = confident_joint(labels, p).astype(np.float64)
    counts = np.bincount(labels, minlength=p.shape[1]).astype(np.float64)
    empty = joint.sum(axis=1) == 0
    joint[empty, empty] = 1.0
    return np.asarray(joint / joint.sum(axis=1, keepdims=True) * counts[:, None])


def margin(labels: Ints, p: Floats) -> Floats:
    """Normalised margin (N,): (p of the given label - largest p of another + 1) / 2.

    0 where the model is certain of another label, 1 where it is certain of this one.

    >>> margin(np.array([0, 1]), np.array([[0.9, 0.1], [0.9, 0.1]])).round(6).tolist()
    [0.9, 0.1]
    """
    own, others = p[np.arange(len(p)), labels], p.copy()
    others[np.arange(len(p)), labels] = -np.inf
    return np.asarray((own - others.max(axis=1) + 1) / 2)


def suspicion(labels: Ints, p: Floats) -> Floats:
    """1 - `margin`: how strongly the model speaks against a row's label (N,), 0 to 1."""
    return 1.0 - margin(labels, p)


def label_issues(labels: Ints, p: Floats) -> Mask:
    """Rows that confident learning holds for mislabelled (N,): prune by noise rate.

    Of each cell (i, j) off the diagonal of the calibrated joint, the Q_ij rows labelled i with
    the largest p_j - p_i; a class keeps at least one row, and no row goes whose label is as
    likely as any. Source: Northcutt et al. (2021), section 3.2, "PBNR".

    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.9, 0.1], [0.1, 0.9]])
    >>> label_issues(np.array([0, 0, 1, 1]), p).tolist()
    [False, False, True, False]
    """
    joint = calibrated_joint(labels, p)
    issues = np.zeros(len(labels), bool)
    for i in np.unique(labels):
        own = np.flatnonzero(labels == i)
        for j in range(p.shape[1]):
            wanted = min(round(joint[i, j]), len(own) - 1)
            if j == i or wanted <= 0:
                continue
            gap = p[own, i] - p[own, j]
            issues[own[np.argsort(gap, kind="stable")[:wanted]]] = True
    return np.asarray(issues & (p[np.arange(len(p)), labels] < p.max(axis=1)))


# --- how much of it is noise --------------------------------------------------------------------


def noise(labels: Ints, p: Floats) -> Noise:
    """How many labels are wrong beyond what the overlap of classes explains.

    Where the model is surest of class j, a clean label is hardly ever another one; what is other
    there is noise, and random noise is as frequent everywhere. Of the rows called j, the surest
    5, 10 or 20 % with the fewest other labels give their share, and its 95 % Wilson lower end.
    Where classes overlap everywhere, part of the overlap counts as noise.

    Such anchor points: Liu and Tao (2016), "Classification with noisy labels by importance
    reweighting"; Menon et al. (2015), "Learning from corrupted binary labels".

    >>> rng = np.random.default_rng(0)
    >>> truth = rng.integers(0, 2, 4000)
    >>> p = probabilities(np.where(truth == 1, 0.95, 0.05) + rng.normal(0, 0.01, 4000))
    >>> flipped = rng.random(4000) < 0.1
    >>> 0.08 < noise(np.where(flipped, 1 - truth, truth), p).share < 0.12
    True
    """
    k, n = p.shape[1], len(labels)
    called, sure = np.argmax(p, axis=1), p.max(axis=1)
    wrong, low = np.zeros(k), 0.0
    for j in range(k):
        own = np.flatnonzero(called == j)
        if not len(own):
            continue
        rate, low_rate = _anchored(labels[own] != j, sure[own])
        low += len(own) * low_rate
        given = np.bincount(labels[own[labels[own] != j]], minlength=k).astype(np.float64)
        wrong += len(own) * rate * given / max(given.sum(), 1.0)
    counts = np.maximum(np.bincount(labels, minlength=k), 1)
    of_class = np.minimum(wrong / counts, 1.0)
    return Noise(float(wrong.sum() / max(n, 1)), low / max(n, 1), tuple(map(float, of_class)))


def _anchored(other: Mask, sure: Floats) -> tuple[float, float]:
    """Share of other labels among the surest rows, and its lower end."""
    found = []
    for frac in _SURE_FRACS:
        # equal scores are as many as there are, so that the order of rows has no say
        surest = other[sure >= np.quantile(sure, 1 - frac)]
        if len(surest) >= min(_LEAST_SURE, _SURE_FRACS[-1] * len(other)):
            hits = int(surest.sum())
            found.append((hits / len(surest), wilson_low(hits, len(surest))))
    return min(found, default=(0.0, 0.0))


def wilson_low(hits: int, rows: int, z: float = 1.96) -> float:
    """Lower end of Wilson's interval of a share. Source: Wilson (1927).

    >>> round(wilson_low(5, 100), 4), wilson_low(0, 100)
    (0.0215, 0.0)
    """
    if not rows or not hits:
        return 0.0
    share, zz = hits / rows, z * z / rows
    half = z * math.sqrt(share * (1 - share) / rows + zz / (4 * rows))
    return max(0.0, (share + zz / 2 - half) / (1 + zz))


def suspects(labels: Ints, p: Floats, estimate: Noise | None = None) -> Mask:
    """Rows to set aside (N,): of the `label_issues` those most suspected, as many as `noise` says.

    Confident learning alone lists every row that lies deep in another class, also where classes
    overlap by nature; setting all of them aside would take the hard rows from the model.
    """
    estimate = noise(labels, p) if estimate is None else estimate
    listed, scores = label_issues(labels, p), suspicion(labels, p)
    found = np.zeros(len(labels), bool)
    for i in np.unique(labels):
        own = np.flatnonzero(listed & (labels == i))
        wanted = round(estimate.of_class[i] * int((labels == i).sum()))
        found[own[np.argsort(-scores[own], kind="stable")[:wanted]]] = True
    return found


# --- regression ---------------------------------------------------------------------------------


def robust_z(truth: Floats, predicted: Floats) -> Floats:
    """Residuals in robust standard deviations (N,), each side by its own.

    z = (r - m) / (1.4826 MAD), r = truth - predicted, with median m and the median absolute
    deviations above and below it taken among rows of a like prediction (tenths), since errors
    often grow with what is predicted. Source: Hampel (1974); Rousseeuw and Croux (1993).

    >>> truth = np.array([1.0, 2.0, 3.0, 4.0, 50.0])
    >>> robust_z(truth, np.array([1.1, 1.9, 3.1, 3.9, 5.0])).argmax()
    np.int64(4)
    """
    r = np.asarray(truth, np.float64) - np.asarray(predicted, np.float64)
    bins = max(1, min(_RESIDUAL_BINS, len(r) // _LEAST_IN_BIN))
    edges = np.quantile(predicted, np.linspace(0, 1, bins + 1)[1:-1])
    bin_of = np.searchsorted(edges, predicted, side="right")
    z = np.zeros(len(r))
    least = max(1e-3 * float(np.std(r)), 1e-300)
    for number in range(bins):
        held = bin_of == number
        if not held.any():
            continue
        gap = r[held] - np.median(r[held])
        sides = [np.median(np.abs(gap[side])) if side.any() else 0.0
                 for side in (gap <= 0, gap >= 0)]  # fmt: skip
        scale = np.where(gap < 0, *(max(1.4826 * float(s), least) for s in sides))
        z[held] = gap / scale
    return z


def residual_suspicion(z: Floats) -> Floats:
    """z^2 / (z^2 + `RESIDUAL_LIMIT`^2): 0 for no residual, 0.5 at the limit, towards 1 beyond.

    >>> residual_suspicion(np.array([0.0, 6.0])).tolist()
    [0.0, 0.5]
    """
    return np.asarray(z * z / (z * z + RESIDUAL_LIMIT**2))
