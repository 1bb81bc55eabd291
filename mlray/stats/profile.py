"""A mergeable summary of a table: read once, known for ever.

`Profile.of` scans a table once; `merge` joins the profiles of blocks that were scanned anywhere.
Counts, missing, minimum, maximum, longest string are exact; mean and variance to rounding; the
most frequent values while there are at most 1,000, distinct while under 2,048; quantiles while a
column has at most 3,264 values, then within `ColumnProfile.rank_error`. Same tables merged in the
same order: same JSON, on any machine.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from itertools import islice
from typing import Any, Literal, overload

import numpy as np
import pyarrow as pa

from mlray.errors import InputError
from mlray.stats.distinct import DistinctSketch
from mlray.stats.frequent import FrequentValues, Value
from mlray.stats.sketch import Floats, QuantileSketch

Kind = Literal["numeric", "boolean", "time", "string", "other"]

_FORMAT = 1
_AT_ONCE = 32
"""Profiles that `Profile.merged` joins in one step: fewer steps, smaller errors of rank."""


@dataclass(frozen=True)
class ColumnProfile:
    """What is known of one column. Times are UTC epoch seconds; strings count in characters."""

    name: str
    type: str
    """The Arrow type, as text."""
    kind: Kind
    """`other` has counts and nothing else: binary, lists, structs, durations, all null."""
    rows: int
    missing: int
    """Null or NaN."""
    nonfinite: int = 0
    """Plus or minus infinity; not missing, and in none of the numbers below."""
    minimum: float | str | None = None
    maximum: float | str | None = None
    mean: float = 0.0
    m2: float = 0.0
    """Sum of squared differences from the mean; stops at the largest double."""
    mean_length: float = 0.0
    max_length: int = 0
    frequent: FrequentValues = field(default_factory=FrequentValues, repr=False)
    hashes: DistinctSketch = field(default_factory=DistinctSketch, repr=False)
    ranks: QuantileSketch = field(default_factory=QuantileSketch, repr=False)

    @property
    def present(self) -> int:
        """Rows with a usable value: not missing, not infinite."""
        return self.rows - self.missing - self.nonfinite

    @property
    def missing_frac(self) -> float:
        return self.missing / self.rows if self.rows else 0.0

    @property
    def std(self) -> float:
        """Standard deviation of the present rows, sqrt(m2 / n); 0 without rows, always finite.

        Where m2 is past the largest double, its upper bound: half the range (Popoviciu 1935).
        """
        if self.m2 >= sys.float_info.max:
            return float(self.maximum or 0) / 2 - float(self.minimum or 0) / 2
        return math.sqrt(self.m2 / self.present) if self.present else 0.0

    @property
    def distinct(self) -> int:
        """Different values among the present rows; an estimate unless `distinct_is_exact`."""
        return min(self.hashes.count, self.present)

    @property
    def distinct_is_exact(self) -> bool:
        return self.hashes.is_exact

    @property
    def top(self) -> tuple[tuple[Value, int], ...]:
        """Values with their counts, most frequent first, at most 1,000.

        A count is exact if `top_error` is 0, else short by at most `top_error` rows.
        """
        return self.frequent.top

    @property
    def top_error(self) -> int:
        """No value outside `top` has more rows than this; 0 when `top` is complete."""
        return self.frequent.error

    @property
    def rank_error(self) -> float:
        """How far `quantile` and `cdf` can be off in rank, as a share of the present rows."""
        return self.ranks.rank_error

    @overload
    def quantile(self, q: float) -> float: ...
    @overload
    def quantile(self, q: Floats) -> Floats: ...
    def quantile(self, q: float | Floats) -> float | Floats:
        """The smallest value with at least a share `q` (0 to 1) of the present rows at or below it.

        Raises `InputError` if the column has no numbers.
        """
        low, high = self._ends()
        found = np.where(np.asarray(q) <= 0, low, self.ranks.quantile(q))
        found = np.where(np.asarray(q) >= 1, high, found)
        return float(found) if found.ndim == 0 else found

    @overload
    def cdf(self, x: float) -> float: ...
    @overload
    def cdf(self, x: Floats) -> Floats: ...
    def cdf(self, x: float | Floats) -> float | Floats:
        """Share (0 to 1) of the present rows at or below `x`; `InputError` without numbers."""
        self._ends()
        share = self.ranks.cdf(x)
        return float(share) if share.ndim == 0 else share

    def merge(self, other: ColumnProfile) -> ColumnProfile:
        """The profile of the rows of both."""
        return ColumnProfile.merged([self, other])

    @classmethod
    def merged(cls, parts: Sequence[ColumnProfile]) -> ColumnProfile:
        """The profile of the rows of all (one or more); `InputError` where types do not agree."""
        like = reduce(_common_type, parts)
        present = [part.present for part in parts]
        mean, m2 = _moments(parts)
        return cls(
            name=like.name,
            type=like.type,
            kind=like.kind,
            rows=sum(part.rows for part in parts),
            missing=sum(part.missing for part in parts),
            nonfinite=sum(part.nonfinite for part in parts),
            minimum=_outermost(min, [part.minimum for part in parts]),
            maximum=_outermost(max, [part.maximum for part in parts]),
            mean=mean,
            m2=m2,
            mean_length=_weighted([part.mean_length for part in parts], present),
            max_length=max(part.max_length for part in parts),
            frequent=FrequentValues.merged([part.frequent for part in parts]),
            hashes=DistinctSketch.merged([part.hashes for part in parts]),
            ranks=QuantileSketch.merged([part.ranks for part in parts]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold."""
        plain = {item.name: getattr(self, item.name) for item in fields(self)}
        return plain | {
            "frequent": self.frequent.to_dict(),
            "hashes": self.hashes.to_json(),
            "ranks": self.ranks.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ColumnProfile:
        sketches = {
            "frequent": FrequentValues.from_dict(data["frequent"]),
            "hashes": DistinctSketch.from_json(data["hashes"]),
            "ranks": QuantileSketch.from_dict(data["ranks"]),
        }
        return cls(**data | sketches)

    def _ends(self) -> tuple[float, float]:
        if isinstance(self.minimum, str) or self.minimum is None:
            raise InputError(
                f"column {self.name!r} has no numbers to rank",
                value=f"{self.kind} column, {self.present} values",
                allowed="numeric, boolean and time columns with at least one value",
                do="choose another column, or give it a type under sources",
            )
        return float(self.minimum), float(self.maximum or 0.0)


@dataclass(frozen=True)
class Profile:
    """Summary of a table: its rows and one `ColumnProfile` per column.

    >>> left = Profile.of(pa.table({"x": [1, 2, None], "c": ["a", "b", "a"]}))
    >>> both = left.merge(Profile.of(pa.table({"x": [3, 6]})))
    >>> both.rows, both.columns["x"].mean, both.columns["x"].missing, both.columns["c"].missing
    (5, 3.0, 1, 2)
    >>> both.columns["c"].top
    (('a', 2), ('b', 1))
    """

    rows: int = 0
    columns: dict[str, ColumnProfile] = field(default_factory=dict)

    @classmethod
    def of(cls, table: pa.Table) -> Profile:
        """One pass over a table, a column at a time."""
        from mlray.stats.columns import profile_column

        pairs = zip(table.column_names, table.columns, strict=True)
        return cls(table.num_rows, {name: profile_column(name, column) for name, column in pairs})

    @classmethod
    def merged(cls, profiles: Iterable[Profile]) -> Profile:
        """All `profiles` as one, in order, many at a time; rows without a column are missing."""
        whole, rest = cls(), iter(profiles)
        while some := list(islice(rest, _AT_ONCE)):
            parts = [whole, *some] if whole.columns or whole.rows else some
            names = dict.fromkeys(name for part in parts for name in part.columns)
            rows = sum(part.rows for part in parts)
            whole = cls(rows, {name: _column(name, parts, rows) for name in names})
        return whole

    def merge(self, other: Profile) -> Profile:
        """The profile of the rows of both; rows of a table without a column count as missing."""
        return Profile.merged([self, other])

    def to_json(self) -> str:
        columns = [column.to_dict() for column in self.columns.values()]
        return json.dumps(
            {"format": _FORMAT, "rows": self.rows, "columns": columns}, allow_nan=False
        )

    @classmethod
    def from_json(cls, text: str) -> Profile:
        data = json.loads(text)
        if data["format"] != _FORMAT:
            raise InputError(
                "profile of an unknown format",
                value=data["format"],
                allowed=str(_FORMAT),
                do="make it anew with this version of mlray",
            )
        columns = [ColumnProfile.from_dict(column) for column in data["columns"]]
        return cls(data["rows"], {column.name: column for column in columns})


def _column(name: str, profiles: Sequence[Profile], rows: int) -> ColumnProfile:
    """One column of all `profiles`, which have `rows` rows in all."""
    parts = [profile.columns[name] for profile in profiles if name in profile.columns]
    if absent := rows - sum(part.rows for part in parts):
        parts.append(ColumnProfile(name, parts[0].type, parts[0].kind, absent, missing=absent))
    return parts[0] if len(parts) == 1 else ColumnProfile.merged(parts)


def _moments(parts: Sequence[ColumnProfile]) -> tuple[float, float]:
    """Mean and m2 of all parts, written so that nothing overflows to NaN.

    m2 = sum of m2_i + n_i (mean_i - mean)^2: Chan, Golub, LeVeque (1979).
    """
    rows = [part.present for part in parts]
    mean = _weighted([part.mean for part in parts], rows)
    m2 = 0.0
    for part, n in zip(parts, rows, strict=True):
        apart = (part.mean - mean) * math.sqrt(n)
        m2 += part.m2 + apart * apart
    return mean, min(m2, sys.float_info.max)


def _weighted(values: Sequence[float], rows: Sequence[int]) -> float:
    """Mean of `values`, each for so many `rows`; shares first, for values near the largest."""
    total = sum(rows)
    pairs = zip(values, rows, strict=True)
    mean = sum(value * (n / total) for value, n in pairs) if total else 0.0
    return min(max(mean, -sys.float_info.max), sys.float_info.max)  # shares can add up to 1 + 2e-16


def _outermost(choose: Any, ends: Sequence[float | str | None]) -> float | str | None:
    held = [end for end in ends if end is not None]
    found: float | str | None = choose(held) if held else None
    return found


def _common_type(a: ColumnProfile, b: ColumnProfile) -> ColumnProfile:
    """Whichever has a type and kind that hold the values of both."""
    if a.type == b.type or b.type == "null":
        return a
    if a.type == "null":
        return b
    if a.kind != b.kind or a.kind == "other":
        raise InputError(
            f"column {a.name!r} has two types",
            value=f"{a.type} and {b.type}",
            allowed="one type in every file",
            do=f"set `types: {{{a.name}: ...}}` under sources",
        )
    whole = {a.type.removeprefix("u")[:3], b.type.removeprefix("u")[:3]} == {"int"}
    zone = ", tz=UTC" if "tz=" in a.type + b.type else ""
    widest = {"numeric": "int64" if whole else "double", "time": f"timestamp[us{zone}]"}
    return replace(a, type=widest.get(a.kind, "string"))
