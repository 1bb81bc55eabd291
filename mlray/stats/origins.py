"""Suppliers and batches compared: who delivers labels, suspicion or rows unlike the others.

Honest suppliers differ, so a difference alone is a finding to read, not a reason to stop; only an
origin whose labels are suspected far more often than others' is grave.
Legend: N rows, K classes, S slots of a feature, O origins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mlray.stats.additive import pairs
from mlray.stats.cells import Column
from mlray.stats.drift import expected_psi, psi
from mlray.stats.poisoning import Finding, chance
from mlray.stats.significance import benjamini_hochberg, fisher_upper, homogeneity

LEAST_ROWS = 30
MOST_ORIGINS = 500
"""The origins with most rows are compared; of more, each has few."""
LABEL_GAP = 0.15
"""A label's share that differs by so much from the others' is told."""
SUSPECT_GAP, SUSPECT_TIMES = 0.05, 3.0
"""An origin is grave if its share of suspects exceeds the others' by the first and is so many
times theirs."""
DRIFT = 0.25
"""Population stability index, beyond what chance gives, from which on drift is told."""
INFLUX_TIMES, INFLUX_SHARE = 3.0, 0.05
"""An origin floods a batch if its share is so many times its share before, and at least this."""
FALSE_FRAC = 0.01

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def compare_origins(
    origin: npt.NDArray[np.integer],
    names: Sequence[str],
    labels: Ints,
    classes: Sequence[str],
    columns: Sequence[Column],
    suspected: Mask | None = None,
    *,
    kind: str = "origin",
    ordered: bool = False,
) -> list[Finding]:
    """Each origin against all others: label rate, suspicion, features given the label.

    Label rates and features are compared by Pearson's two-sample chi-square (`homogeneity`),
    suspicion by Fisher's exact tail, effects by share differences and PSI; Benjamini-Hochberg at
    `FALSE_FRAC` runs over all comparisons.

    Args:
        origin: (N,) number of each row's origin, -1 for none.
        names: of the origins.
        labels: (N,) class numbers.
        classes: names of the classes.
        columns: features in slots.
        suspected: (N,) rows with a suspected label, if they are known.
        kind: `origin` or `batch`, for the findings.
        ordered: origins follow one another in time: each is compared with those before it.
    """
    counts = np.bincount(origin[origin >= 0], minlength=len(names))
    held = np.flatnonzero(counts >= LEAST_ROWS)
    if len(held) > MOST_ORIGINS:
        held = np.sort(held[np.argsort(-counts[held], kind="stable")][:MOST_ORIGINS])
    found: list[Finding] = []
    for number in held.tolist():
        inside = origin == number
        others = (origin >= 0) & ((origin < number) if ordered else ~inside)
        if int(others.sum()) < LEAST_ROWS:
            continue
        where = f"{kind} {names[number]}"
        found += _label_rates(where, kind, inside, others, labels, classes)
        if suspected is not None:
            found.append(_suspicion(where, kind, inside, others, suspected))
        found += _drifts(where, kind, inside, others, labels, classes, columns)
    return significant(found)


def significant(found: list[Finding]) -> list[Finding]:
    """Those with an effect (score above 0) that pass the false discovery rate, grave ones first."""
    sure = benjamini_hochberg([f.p_value for f in found], FALSE_FRAC)
    held = [f for f, s in zip(found, sure, strict=True) if s and f.score > 0]
    return sorted(held, key=lambda f: (not f.grave, -f.score))


def _label_rates(
    where: str, kind: str, inside: Mask, others: Mask, labels: Ints, classes: Sequence[str]
) -> Iterator[Finding]:
    """One finding for the label whose share differs most."""
    here = np.bincount(labels[inside], minlength=len(classes))
    there = np.bincount(labels[others], minlength=len(classes))
    shares = here / here.sum(), there / there.sum()
    label = int(np.argmax(shares[0] - shares[1]))
    gap = float(shares[0][label] - shares[1][label])
    p = homogeneity(there, here)
    yield Finding(
        kind,
        f"{where} and label {classes[label]}",
        int(here[label]),
        min(1.0, gap) if gap >= LABEL_GAP else 0.0,
        p,
        f"{where}: {shares[0][label]:.0%} of {int(here.sum()):,} rows are labelled "
        f"{classes[label]}, {shares[1][label]:.0%} of the others ({chance(p)})",
        members=np.flatnonzero(inside & (labels == label)),
    )


def _suspicion(where: str, kind: str, inside: Mask, others: Mask, suspected: Mask) -> Finding:
    hits, rows = int(suspected[inside].sum()), int(inside.sum())
    other_hits, other_rows = int(suspected[others].sum()), int(others.sum())
    share, usual = hits / rows, other_hits / other_rows
    times = share / max(usual, 1 / other_rows)
    grave = share - usual >= SUSPECT_GAP and times >= SUSPECT_TIMES
    p = fisher_upper(hits, rows, other_hits, other_rows)
    return Finding(
        kind,
        where,
        hits,
        min(1.0, 0.5 + share / 2) if grave else 0.0,
        p,
        f"{where}: {hits:,} of {rows:,} rows have a suspected label, {times:.1f}x the others "
        f"({chance(p)})",
        grave=grave,
        members=np.flatnonzero(inside & suspected),
    )


def _drifts(
    where: str,
    kind: str,
    inside: Mask,
    others: Mask,
    labels: Ints,
    classes: Sequence[str],
    columns: Sequence[Column],
) -> Iterator[Finding]:
    """Of each label, the feature that differs most from the others' rows with the same label."""
    for label, name in enumerate(classes):
        here, there = inside & (labels == label), others & (labels == label)
        rows = int(here.sum())
        if rows < LEAST_ROWS or int(there.sum()) < LEAST_ROWS:
            continue
        for column in columns:
            now = np.bincount(column.codes[here], minlength=column.slots)
            before = np.bincount(column.codes[there], minlength=column.slots)
            effect, p = psi(before, now) - expected_psi(before, now), homogeneity(before, now)
            yield Finding(
                kind,
                f"{where}, label {name}, {column.name}",
                rows,
                effect / (1 + effect) if effect >= DRIFT else 0.0,
                p,
                f"{where}: among {rows:,} rows labelled {name}, {column.name} is unlike the "
                f"others' with this label (PSI {effect:.2f}, {chance(p)})",
                members=np.flatnonzero(here),
            )


def influxes(
    origin: npt.NDArray[np.integer],
    names: Sequence[str],
    batch: npt.NDArray[np.integer],
    batches: Sequence[str],
) -> list[Finding]:
    """Origins that suddenly deliver far more of a batch than of the batches before it.

    Args:
        origin: (N,) number of each row's origin, -1 for none.
        batch: (N,) number of its batch, in order of time, -1 for none.
    """
    known = (origin >= 0) & (batch >= 0)
    column = Column("batch", np.where(known, batch, 0).astype(np.int32)[known], tuple(batches))
    table = pairs(column, origin[known], len(names)).astype(np.int64)
    found = []
    for number in range(1, len(batches)):
        before, now = table[:number].sum(axis=0), table[number]
        if before.sum() < LEAST_ROWS or now.sum() < LEAST_ROWS:
            continue
        for o in np.flatnonzero(now >= INFLUX_SHARE * now.sum()).tolist():
            finding = _influx(int(now[o]), int(now.sum()), int(before[o]), int(before.sum()),
                              names[o], batches[number])  # fmt: skip
            members = np.flatnonzero((origin == o) & (batch == number))
            found.append(replace(finding, members=members))
    return significant(found)


def _influx(
    hits: int, rows: int, hits_before: int, rows_before: int, origin: str, batch: str
) -> Finding:
    share, usual = hits / rows, hits_before / rows_before
    times = share / max(usual, 1 / rows_before)
    p = fisher_upper(hits, rows, hits_before, rows_before)
    return Finding(
        "influx",
        f"origin {origin} in batch {batch}",
        hits,
        share if times >= INFLUX_TIMES else 0.0,
        p,
        f"origin {origin} gives {share:.0%} of the {rows:,} rows of batch {batch}, {usual:.1%} of "
        f"the rows before ({chance(p)})",
    )
