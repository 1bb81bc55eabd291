"""Targeted flips: places in feature space where labels of one class are noise.

Rows of a class that lie in one place are usually told apart from the others there: of those that
the model holds surest for the class, nearly all carry its label. Where some of them were given
another label, nothing tells these apart, and the surest carry the wrong label as often as the
others. Places that are merely hard do not show this. Legend: N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlray.stats.cells import Column
from mlray.stats.labels import wilson_low
from mlray.stats.poisoning import Finding, chance
from mlray.stats.significance import benjamini_hochberg, binomial_upper

SURE_FRAC = 0.15
"""Of the rows of a class in a place, as many as this share of them are its surest."""
LEAST_SURE = 20
LEAST_SHARE = 0.15
"""A place where fewer rows than this carry the class says nothing: its members are rare there."""
LEAST_PLACE, MOST_SHARE = 0.01, 0.4
"""Share of the rows in a place. A larger one is no place: what is left when the easy rows are left
out is merely harder."""
LIMIT = 0.15
"""A place is grave if, at the lower end, so large a share of its surest rows is labelled
otherwise; in clean spam and census data no place reaches it."""
TIMES = 3.0
"""And if that is so many times the share in all of the data."""
FALSE_FRAC = 0.001
SHOWN = 5
_MOST_CLASSES = 20

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Place:
    """One place and one class: how many of its surest rows carry another label."""

    where: str
    inside: Mask
    hits: int
    sure: int
    base: float

    @property
    def p_value(self) -> float:
        return binomial_upper(self.hits, self.sure, max(self.base, 0.01))

    @property
    def low(self) -> float:
        return wilson_low(self.hits, self.sure)

    @property
    def gain(self) -> float:
        """Log likelihood ratio of hits at this rate against the base rate.

        Source: Kulldorff (1997), "A spatial scan statistic", Bernoulli model.
        """
        q, b = min(self.hits / self.sure, 1 - 1e-9), max(self.base, 0.01)
        if q <= b:
            return 0.0
        return float(
            self.hits * np.log(q / b) + (self.sure - self.hits) * np.log((1 - q) / (1 - b))
        )


def regions(
    columns: Sequence[Column],
    labels: npt.NDArray[np.int64],
    p: Floats,
    second: Floats,
    names: Sequence[str],
) -> list[Finding]:
    """Places where the surest rows of a class carry other labels, the clearest first.

    Every value of a category and every run of a number's slots is a place. The surest rows are
    tested by the exact binomial tail against the same share over all rows, Benjamini-Hochberg over
    all places and classes. The best place is then narrowed by a second feature if that makes it
    clearer.

    Args:
        columns: features in slots.
        labels: (N,) given class numbers.
        p: (N, K) probabilities out of fold.
        second: (N, K) scores of a simpler model, `additive.fit`, that cannot learn the place by
            heart: of two labels mixed in one place it says which is the honest one.
        names: of the classes.
    """
    told = (labels, p, second)
    found: list[tuple[_Place, int]] = []
    classes = np.argsort(-np.bincount(labels, minlength=p.shape[1]), kind="stable")[:_MOST_CLASSES]
    everywhere = np.ones(len(labels), bool)
    for j in classes.tolist():
        whole = _place("", everywhere, j, *told, 0.0)
        if whole is None:
            continue
        places = list(_places(columns, everywhere, j, *told, whole.hits / whole.sure))
        sure = benjamini_hochberg([place.p_value for place in places], FALSE_FRAC)
        found += [(place, j) for place, s in zip(places, sure, strict=True) if s]
    clearest = _clearest(columns, found, *told)
    findings = [_finding(place, j, labels, p, names) for place, j in clearest]
    return sorted(findings, key=lambda finding: not finding.grave)


def _places(
    columns: Sequence[Column],
    among: Mask,
    j: int,
    labels: npt.NDArray[np.int64],
    p: Floats,
    second: Floats,
    base: float,
) -> Iterator[_Place]:
    for column in columns:
        for low, high in _spans(column):
            inside = among & (column.codes >= low) & (column.codes <= high)
            place = _place(column.span(low, high), inside, j, labels, p, second, base)
            if place is not None:
                yield place


def _spans(column: Column) -> Iterator[tuple[int, int]]:
    if not column.edges:
        yield from ((slot, slot) for slot in range(column.slots))
        return
    last = len(column.edges)
    for low in range(last + 1):
        yield from ((low, high) for high in range(low, last + 1) if (low, high) != (0, last))
    yield last + 1, last + 1


def _place(
    where: str,
    inside: Mask,
    j: int,
    labels: npt.NDArray[np.int64],
    p: Floats,
    second: Floats,
    base: float,
) -> _Place | None:
    """The surest rows of class j in a place; None where there are too few to tell."""
    rows = np.flatnonzero(inside)
    if where and not LEAST_PLACE <= len(rows) / len(labels) <= MOST_SHARE:
        return None
    other = labels[rows] != j
    carried = len(rows) - int(other.sum())
    sure = round(SURE_FRAC * carried)
    if sure < LEAST_SURE or carried < LEAST_SHARE * len(rows):
        return None
    surest = np.argpartition(-p[rows, j], sure - 1)[:sure]
    if second[rows[surest], j].mean() < 0.5:
        return None
    return _Place(where, inside, int(other[surest].sum()), sure, base)


def _clearest(
    columns: Sequence[Column],
    places: list[tuple[_Place, int]],
    labels: npt.NDArray[np.int64],
    p: Floats,
    second: Floats,
) -> list[tuple[_Place, int]]:
    """Places that do not tell the same rows twice, the clearest first and narrowed."""
    told = np.zeros(len(labels), bool)
    chosen: list[tuple[_Place, int]] = []
    for place, j in sorted(places, key=lambda each: -each[0].gain):
        if len(chosen) == SHOWN or place.gain <= 0:
            break
        if (told & place.inside).sum() > 0.3 * place.inside.sum():
            continue
        told |= place.inside
        narrow = place if chosen else _narrowed(columns, place, j, labels, p, second)
        chosen.append((narrow, j))
    return chosen


def _narrowed(
    columns: Sequence[Column],
    place: _Place,
    j: int,
    labels: npt.NDArray[np.int64],
    p: Floats,
    second: Floats,
) -> _Place:
    inner = list(_places(columns, place.inside, j, labels, p, second, place.base))
    best = max(inner, key=lambda other: other.gain, default=place)
    if best.gain <= 1.1 * place.gain:
        return place
    return _Place(f"{place.where} and {best.where}", best.inside, best.hits, best.sure, best.base)


def _finding(
    place: _Place, j: int, labels: npt.NDArray[np.int64], p: Floats, names: Sequence[str]
) -> Finding:
    """Suspected are rows of other labels that the model holds for the class as much as half of
    the rows that carry it."""
    inside = place.inside
    usual = np.median(p[inside & (labels == j), j])
    wrong = inside & (labels != j)
    given = int(np.bincount(labels[wrong], minlength=len(names)).argmax())
    group = inside & (labels == given)
    members = np.flatnonzero(group & (p[:, j] >= usual))
    rest = ~inside & (labels == given)
    bar = np.median(p[~inside & (labels == j), j]) if (~inside & (labels == j)).any() else 1.0
    usual_share = max(float((p[rest, j] >= bar).mean()) if rest.any() else 0.0, 1e-3)
    times = len(members) / max(int(group.sum()), 1) / usual_share
    grave = bool(place.low >= max(LIMIT, TIMES * place.base))
    where = f"{place.where} and label {names[given]}"
    return Finding(
        "region",
        where,
        len(members),
        min(1.0, place.low / (2 * LIMIT)) if grave else min(0.5, place.low / (2 * LIMIT)),
        place.p_value,
        f"{where}: {len(members):,} of {int(group.sum()):,} rows suspected, {times:.1f}x the rest; "
        f"of the {place.sure:,} rows there that are surest {names[j]}, {place.hits:,} are labelled "
        f"otherwise, {place.base:.1%} in all of the data ({chance(place.p_value)})",
        grave=grave,
        members=members,
    )
