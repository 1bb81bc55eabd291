"""Trigger patterns: a rare value, or pair of values, that carries a label against all else.

A planted trigger (Gu, Dolan-Gavitt, Garg, "BadNets", 2017) makes its rows' label nearly certain,
though the rest of the row says otherwise. It is found by counting, without the network, which has
learnt it and sees nothing odd. Legend: N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from mlray.stats.additive import Additive, pairs
from mlray.stats.cells import Column
from mlray.stats.labels import wilson_low
from mlray.stats.poisoning import Finding, chance
from mlray.stats.significance import benjamini_hochberg, binomial_upper

MOST_FRAC = 0.05
"""A value of more rows is not rare."""
LEAST_ROWS = 15
MOST_OF_VALUE = 0.7
"""A pair that holds more of the rows of one of its values is that value."""
PURE = 0.9
"""A value is nearly certain of a label from this share on."""
_LEAST_LOW = 0.8
"""And this at the lower end of its confidence interval."""
OTHERWISE = 0.7
"""Without the value, the label would be expected in fewer of these rows than this."""
LIMIT = 0.6
"""A trigger is grave if its lower end is so far above what would be expected: the tax codes of
census data, which carry their label by nature, reach 0.55."""
GRAVE_FRAC = 0.002
"""A trigger of fewer rows changes little."""
FALSE_FRAC = 0.001
_VALUES = 48
"""At most so many values of a number count as repeated."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Group:
    """Rows with a value or pair: how many carry the label, how many would be expected to."""

    where: str
    label: int
    rows: int
    hits: int
    expected: float
    columns: tuple[Column, ...]
    slots: tuple[int, ...]

    @property
    def p_value(self) -> float:
        return binomial_upper(self.hits, self.rows, min(max(self.expected, 1e-3), 1.0))

    @property
    def low(self) -> float:
        return wilson_low(self.hits, self.rows)


def repeated_values(
    name: str, values: npt.NDArray[np.floating], human: Callable[[float], str]
) -> Column:
    """A number's exact values that unnaturally many rows share, as a category (slot 0: others).

    >>> column = repeated_values("x", np.r_[np.arange(80.0), np.full(20, 7.5)], str)
    >>> column.words, int((column.codes == 1).sum())
    (('x other', 'x is 7.5'), 20)
    """
    found, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    often = np.flatnonzero((counts >= LEAST_ROWS) & ~np.isnan(found))
    often = often[np.argsort(-counts[often], kind="stable")][:_VALUES]
    slots = np.zeros(len(found), np.int32)
    slots[often] = np.arange(1, len(often) + 1)
    words = (f"{name} other", *(f"{name} is {human(float(v))}" for v in found[often]))
    return Column(name, slots[place], words)


def triggers(
    binned: Sequence[Column],
    exact: Sequence[Column],
    model: Additive,
    labels: npt.NDArray[np.int64],
    names: Sequence[str],
) -> list[Finding]:
    """Values and pairs of values that carry a label which the rest of the row does not suggest.

    Of each rare value, the rows with the most usual label are counted against what `model`
    expects: without the value's own feature (or, for one number among others like it, with its
    bin); for a pair with both features, since a trigger is then what they do together. Exact
    binomial tails, Benjamini-Hochberg over all that was counted.

    Args:
        binned: features as `model` was fitted on them.
        exact: the same features in the same order, each value a slot: categories as they are,
            numbers by `repeated_values`.
        model: `additive.fit(binned, labels)`.
        labels: (N,) class numbers.
        names: of the classes.
    """
    scores = model.scores(binned)
    told = (binned, exact, model, labels, scores)
    groups = [group for i in range(len(exact)) for group in _singles(i, *told)]
    for i, j in combinations([i for i, c in enumerate(exact) if c.slots > 1], 2):
        groups += _pairs(i, j, *told)
    if not groups:
        return []
    p_values = np.array([g.p_value for g in groups])
    sure = benjamini_hochberg(p_values, FALSE_FRAC)
    held = [g for g, s in zip(groups, sure, strict=True)
            if s and g.low >= _LEAST_LOW and g.expected <= OTHERWISE]  # fmt: skip
    held.sort(key=lambda g: (len(g.slots), g.expected - g.low))
    found = _distinct([_finding(g, labels, names) for g in held])
    return sorted(found, key=lambda finding: (not finding.grave, -finding.score))


def _singles(
    i: int,
    binned: Sequence[Column],
    exact: Sequence[Column],
    model: Additive,
    labels: npt.NDArray[np.int64],
    scores: Floats,
) -> list[_Group]:
    """Each rare value of one feature, against what the other features expect, and the rest of the
    bin of a number."""
    column, coarse = exact[i], binned[i]
    counts = np.bincount(column.codes, minlength=column.slots)
    rare = np.flatnonzero((counts >= LEAST_ROWS) & (counts <= MOST_FRAC * len(labels)))
    given = pairs(column, labels, scores.shape[1])
    groups = []
    for slot in rare.tolist():
        label = int(given[slot].argmax())
        if given[slot, label] < PURE * counts[slot] or (slot == 0 and _mixed(column)):
            continue
        mask = column.codes == slot
        rows = np.flatnonzero(mask)
        bin_of = int(coarse.codes[rows[0]])
        own = model.weights[i][bin_of, label]
        others = (coarse.codes == bin_of) & ~mask
        # two readings of the bin, with the value's rows and without; the careful one counts
        kept = coarse.edges and others.sum() > len(rows)
        told = [own, _effect(own, others, label, labels, scores)] if kept else [0.0]
        expected = max(
            float(np.clip(scores[rows, label] - own + effect, 0, 1).mean()) for effect in told
        )
        hits, word = int(given[slot, label]), column.words[slot]
        groups.append(_Group(word, label, len(rows), hits, expected, (column,), (slot,)))
    return groups


def _effect(
    own: float,
    others: npt.NDArray[np.bool_],
    label: int,
    labels: npt.NDArray[np.int64],
    scores: Floats,
) -> float:
    """What a slot adds to a label's chance, on rows of the slot outside the group in question:
    the weight, which the group has a part in, and what it leaves unexplained on the others."""
    if not others.any():
        return 0.0
    return float(own + ((labels[others] == label) - scores[others, label]).mean())


def _pairs(
    i: int,
    j: int,
    binned: Sequence[Column],
    exact: Sequence[Column],
    model: Additive,
    labels: npt.NDArray[np.int64],
    scores: Floats,
) -> list[_Group]:
    """Each rare pair of values, against what each says without the other and the other features
    say."""
    a, b, k = exact[i], exact[j], scores.shape[1]
    cells = a.codes.astype(np.int64) * b.slots + b.codes
    given = np.bincount(cells * k + labels, minlength=a.slots * b.slots * k)
    given = given.reshape(a.slots, b.slots, k)
    counts = given.sum(axis=2)
    pure = given.max(axis=2) >= PURE * counts
    alone = np.minimum(counts.sum(axis=1)[:, None], counts.sum(axis=0)[None])
    rare = (counts >= LEAST_ROWS) & (counts <= MOST_FRAC * len(labels)) & pure
    rare &= counts <= MOST_OF_VALUE * alone  # or one of the values would tell it all
    groups = []
    for x, y in np.argwhere(rare).tolist():
        if (_mixed(a) and x == 0) or (_mixed(b) and y == 0):
            continue
        label, n = int(given[x, y].argmax()), int(counts[x, y])
        hits, expected = int(given[x, y, label]), scores[:, label]
        both = cells == x * b.slots + y
        rows, added = np.flatnonzero(both), 0.0
        for c, slot in ((i, x), (j, y)):
            own = model.weights[c][binned[c].codes[rows[0]], label]
            others = (exact[c].codes == slot) & ~both
            added += _effect(own, others, label, labels, scores) - own
        rest = float(np.clip(expected[rows] + added, 0, 1).mean())
        word = f"{a.words[x]} with {b.words[y]}"
        groups.append(_Group(word, label, n, hits, rest, (a, b), (x, y)))
    return groups


def _mixed(column: Column) -> bool:
    """Whether slot 0 holds all numbers that are no repeated value."""
    return column.words[0] == f"{column.name} other"


def _finding(group: _Group, labels: npt.NDArray[np.int64], names: Sequence[str]) -> Finding:
    held = np.ones(len(labels), bool)
    for column, slot in zip(group.columns, group.slots, strict=True):
        held &= column.codes == slot
    members = np.flatnonzero(held & (labels == group.label))
    gap = group.low - group.expected
    return Finding(
        "trigger",
        group.where,
        len(members),
        float(min(1.0, max(0.0, gap))),
        group.p_value,
        f"{group.where}: {group.hits:,} of {group.rows:,} rows are labelled "
        f"{names[group.label]}, where the rest of the row suggests {group.expected:.0%} "
        f"({chance(group.p_value)})",
        grave=bool(gap >= LIMIT and group.rows >= GRAVE_FRAC * len(labels)),
        members=members,
    )


def _distinct(findings: list[Finding]) -> list[Finding]:
    """Without those whose rows are mostly told already: a trigger shows in many pairs."""
    told: set[int] = set()
    kept = []
    for finding in findings:
        members = set(finding.members.tolist())
        if len(members & told) <= 0.5 * len(members):
            kept.append(finding)
            told |= members
    return kept
