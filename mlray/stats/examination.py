"""All that can be asked of labelled rows at once: wrong labels, and the marks of poisoning.

What needs no out-of-fold scores (flooding, triggers, label rates and drift of origins, influx) is
found without them too. Legend: N rows, F numeric and C categorical features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mlray.stats import additive
from mlray.stats import labels as confident
from mlray.stats.cells import Column, category_column, numeric_column
from mlray.stats.labels import Noise
from mlray.stats.origins import compare_origins, influxes
from mlray.stats.poisoning import Finding, flooding
from mlray.stats.regions import regions
from mlray.stats.triggers import repeated_values, triggers

SEARCHED_ROWS = 1_000_000
"""Of more rows, so many are searched for poisoning, evenly chosen; labels are judged in all."""
MOST_SLOTS = 1500
"""Slots over all features in the additive model: more features get fewer slots each."""
THIRDS = ("low", "middle", "high")

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Features:
    """Encoded rows with the words for their values."""

    numeric: npt.NDArray[np.float32]
    """(N, F), NaN for missing."""
    category: npt.NDArray[np.int32]
    """(N, C)."""
    numbers: tuple[str, ...]
    """Names of the F numbers."""
    categories: tuple[tuple[str, tuple[str, ...]], ...]
    """Names of the C categories, and the texts of their codes."""
    human: Callable[[str, float], str]
    """A number's name and encoded value in the words of the column."""

    def __len__(self) -> int:
        return len(self.numeric)

    def binned(self) -> list[Column]:
        """Every feature in slots."""
        bins = max(2, min(12, MOST_SLOTS // max(1, len(self.numbers))))
        columns = [
            numeric_column(name, self.numeric[:, i], self._texts(name), bins)
            for i, name in enumerate(self.numbers)
        ]
        return columns + self._categories()

    def exact(self) -> list[Column]:
        """Every feature by its single values."""
        columns = [
            repeated_values(name, self.numeric[:, i], self._texts(name))
            for i, name in enumerate(self.numbers)
        ]
        return columns + self._categories()

    def _texts(self, name: str) -> Callable[[float], str]:
        return lambda value: self.human(name, value)

    def _categories(self) -> list[Column]:
        return [
            category_column(name, self.category[:, i], texts)
            for i, (name, texts) in enumerate(self.categories)
        ]


@dataclass(frozen=True)
class Delivery:
    """Who delivered the rows, or when: numbers (N,) of `names`, -1 for nobody knows."""

    numbers: npt.NDArray[np.int64]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Examined:
    """What came out."""

    findings: tuple[Finding, ...]
    """Grave ones first."""
    suspicion: npt.NDArray[np.float32]
    """(N,) 0 to 1 for each row's label; empty without out-of-fold scores."""
    suspected: Mask
    """(N,) labels that are wrong more likely than not."""
    noise: Noise | None
    """How many labels are wrong; None for regression or without scores."""

    @property
    def set_aside(self) -> Mask:
        """(N,) rows with a suspected label, and those of grave findings."""
        aside = self.suspected.copy()
        for finding in self.findings:
            if finding.grave:
                aside[finding.members] = True
        return aside

    def scores(self) -> npt.NDArray[np.float32]:
        """(N,) the suspicion of each label, or the score of a grave finding that is higher."""
        scores = self.suspicion.copy() if len(self.suspicion) else self.suspected.astype(np.float32)
        for finding in self.findings:
            if finding.grave and finding.kind != "labels":
                scores[finding.members] = np.maximum(scores[finding.members], finding.score)
        return scores

    def reasons(self, judged: Judged) -> dict[int, str]:
        """Why each row of `set_aside` is suspected, by its number."""
        told = {row: judged.reason(row) for row in np.flatnonzero(self.suspected).tolist()}
        for finding in self.findings:
            if finding.grave and finding.kind != "labels":
                for row in finding.members.tolist():
                    told[row] = f"{told[row]}; {finding.reason}" if row in told else finding.reason
        return told


@dataclass(frozen=True)
class Judged:
    """Labels as classes, and what out-of-fold scores say of them."""

    classes: tuple[str, ...]
    labels: Ints
    """(N,) class numbers; of regression, thirds of the target."""
    p: npt.NDArray[np.float64] | None
    """(N, K) out-of-fold probabilities; None for regression or without scores."""
    suspicion: npt.NDArray[np.float32]
    suspected: Mask
    noise: Noise | None

    def reason(self, row: int) -> str:
        """Why a row's label is suspected."""
        if self.p is None:
            return f"value far from what like rows have (suspicion {self.suspicion[row]:.2f})"
        likely = int(np.argmax(self.p[row]))
        return (
            f"labelled {self.classes[self.labels[row]]}, but {self.classes[likely]} at "
            f"{self.p[row, likely]:.0%} by a network trained without it"
        )


def judge(
    labels: npt.NDArray[Any],
    classes: Sequence[str],
    scores: npt.NDArray[np.float32] | None,
) -> Judged:
    """What the scores say of every label.

    Args:
        labels: (N,) class numbers, or standardised values of regression.
        classes: names of the K classes; empty for regression.
        scores: out of fold: (N,) or (N, K) probabilities, or (N,) values; None if there are none.
    """
    none = np.zeros(len(labels), bool)
    if not classes:
        edges = np.quantile(labels, [1 / 3, 2 / 3])
        thirds = np.searchsorted(edges, labels, side="right").astype(np.int64)
        if scores is None:
            return Judged(THIRDS, thirds, None, np.empty(0, np.float32), none, None)
        z = confident.robust_z(labels.astype(np.float64), scores.astype(np.float64))
        suspicion = confident.residual_suspicion(z).astype(np.float32)
        wrong = np.abs(z) > confident.RESIDUAL_LIMIT
        return Judged(THIRDS, thirds, None, suspicion, wrong, None)
    given = labels.astype(np.int64)
    if scores is None:
        return Judged(tuple(classes), given, None, np.empty(0, np.float32), none, None)
    p = confident.probabilities(scores)
    noise = confident.noise(given, p)
    wrong = confident.suspects(given, p, noise)
    suspicion = confident.suspicion(given, p).astype(np.float32)
    return Judged(tuple(classes), given, p, suspicion, wrong, noise)


def searched(rows: int) -> Ints:
    """Numbers of the rows that are searched for poisoning: all, or evenly many of them.

    >>> len(searched(10)), len(searched(3_000_000))
    (10, 1000000)
    """
    return np.arange(0, rows, -(-max(rows, 1) // SEARCHED_ROWS))


def examine(
    features: Features,
    rows: Ints,
    judged: Judged,
    *,
    max_suspects: float,
    origin: Delivery | None = None,
    batch: Delivery | None = None,
    seed: int = 0,
) -> Examined:
    """Everything that is found in labelled rows, grave findings first.

    Args:
        features: of the rows that are searched.
        rows: their numbers among the N rows, from `searched`.
        judged: `judge` of all N rows.
        max_suspects: share of wrong labels from which on noise is grave.
        origin: who delivered each of the N rows.
        batch: when it was delivered, numbers in order of time.
        seed: of the hashes.
    """
    held, binned = judged.labels[rows], features.binned()
    model = additive.fit(binned, held, len(judged.classes))
    found = _noise(judged, max_suspects)
    found += flooding(features.numeric, features.category, held, judged.classes, seed=seed)
    found += triggers(binned, features.exact(), model, held, judged.classes)
    if judged.p is not None:
        found += regions(binned, held, judged.p[rows], model.scores(binned), judged.classes)
    suspected = judged.suspected[rows] if len(judged.suspicion) else None
    found += _deliveries(origin, batch, rows, held, judged.classes, binned, suspected)
    found = [replace(f, members=rows[f.members]) if f.kind != "labels" else f for f in found]
    found.sort(key=lambda f: (not f.grave, f.kind != "labels", -f.score))
    return Examined(tuple(found), judged.suspicion, judged.suspected, judged.noise)


def _noise(judged: Judged, limit: float) -> list[Finding]:
    """One finding about wrong labels as a whole, if there are any."""
    members = np.flatnonzero(judged.suspected)
    if not len(members):
        return []
    n = len(judged.labels)
    share = judged.noise.share if judged.noise else len(members) / n
    low = judged.noise.low if judged.noise else confident.wilson_low(len(members), n)
    listed = ""
    if judged.p is not None:
        issues = int(confident.label_issues(judged.labels, judged.p).sum())
        listed = f"; confident learning alone lists {issues:,}, hard rows among them"
    order = np.argsort(-judged.suspicion[members], kind="stable")
    return [
        Finding(
            "labels",
            "all rows",
            len(members),
            min(1.0, 0.5 * low / max(limit, 1e-9)),
            1.0 if low <= 0 else 0.025,
            f"{len(members):,} of {n:,} labels are suspected: about {share:.1%} are wrong, at "
            f"least {low:.1%} (limit {limit:.1%}){listed}",
            grave=low > limit,
            members=members[order],
        )
    ]


def _deliveries(
    origin: Delivery | None,
    batch: Delivery | None,
    rows: Ints,
    labels: Ints,
    classes: Sequence[str],
    columns: Sequence[Column],
    suspected: Mask | None,
) -> list[Finding]:
    found: list[Finding] = []
    for delivery, kind in ((origin, "origin"), (batch, "batch")):
        if delivery is not None:
            found += compare_origins(
                delivery.numbers[rows],
                delivery.names,
                labels,
                classes,
                columns,
                suspected,
                kind=kind,
                ordered=kind == "batch",
            )
    if origin is not None and batch is not None:
        found += influxes(origin.numbers[rows], origin.names, batch.numbers[rows], batch.names)
    return found
