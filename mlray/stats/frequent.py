"""The most frequent values of a column, mergeable, with a bound on what was missed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Value = str | bool | int | float

SIZE = 1000
"""Values kept at most; the counts are exact while a column has no more."""


@dataclass(frozen=True)
class FrequentValues:
    """Values, how often each was seen, and `error`: no value is missing `error` + 1 times.

    A value's true count c satisfies seen <= c <= credit + error. When more than `SIZE` values
    compete, the count of the first one too many is taken off every credit and added to `error`,
    so error <= rows / (SIZE + 1). Values seen once without credit go then: an identifier column
    keeps nothing.

    Source: Misra and Gries (1982); its merge by Agarwal et al. (2012), "Mergeable summaries".

    >>> one, two = FrequentValues.of([("a", 3), ("b", 1)]), FrequentValues.of([("b", 4)])
    >>> FrequentValues.merged([one, two]).top
    (('b', 5), ('a', 3))
    """

    top: tuple[tuple[Value, int], ...] = ()
    credits: tuple[int, ...] = ()
    error: int = 0

    @classmethod
    def of(cls, counted: Iterable[tuple[Value, int]], beyond: int = 0) -> FrequentValues:
        """Of distinct values with exact counts, of which at most `SIZE` + 1 are needed.

        `beyond`: the largest count among the values that were left out.
        """
        seen = dict(counted)
        return _kept(seen, dict(seen), 0, beyond)

    @classmethod
    def merged(cls, parts: Sequence[FrequentValues]) -> FrequentValues:
        """The most frequent values of all."""
        seen: dict[Value, int] = {}
        credits: dict[Value, int] = {}
        for part in parts:
            for (value, count), credit in zip(part.top, part.credits, strict=True):
                seen[value] = seen.get(value, 0) + count
                credits[value] = credits.get(value, 0) + credit
        return _kept(seen, credits, sum(part.error for part in parts))

    def to_dict(self) -> dict[str, Any]:
        """Credits are written only where they differ from the counts."""
        exact = self.error == 0
        return {"top": self.top, "credits": () if exact else self.credits, "error": self.error}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> FrequentValues:
        top = tuple((value, int(count)) for value, count in data["top"])
        credits = data["credits"] or [count for _, count in top]
        return cls(top, tuple(map(int, credits)), int(data["error"]))


def _kept(
    seen: dict[Value, int], credits: dict[Value, int], error: int, beyond: int = 0
) -> FrequentValues:
    """The `SIZE` largest credits, after taking off the first credit that has no room."""
    ranked = sorted(seen, key=lambda value: (-credits[value], value))
    paid = max([beyond, *(credits[value] for value in ranked[SIZE : SIZE + 1])])
    kept = ranked[:SIZE]
    if paid or error:
        kept = [v for v in kept if credits[v] > paid or (credits[v] == paid and seen[v] > 1)]
    kept.sort(key=lambda value: (-seen[value], value))
    return FrequentValues(
        tuple((value, seen[value]) for value in kept),
        tuple(credits[value] - paid for value in kept),
        error + paid,
    )
