"""A starter set of rules from rows that are believed to be good.

Every rule is kept by the rows it was made from, and has room for what they did not show: bounds lie
half a range outside, a set of values counts as closed only if each was seen often and all along.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from mlray.config.quality import Rule
from mlray.quality.kernels import out_of_order
from mlray.quality.shapes import pattern_of
from mlray.quality.values import Values
from mlray.sources.repeats import repeated_in
from mlray.stats.profile import ColumnProfile, Profile

LEAST_ROWS = 100
"""Fewer rows show nothing but their types."""
CLOSED_SET = 20
"""A text with more different values is not called a closed set."""
SEEN = 10
"""Rows that each value of a closed set must have, and be spread over."""
PARTS = 3
_KEY_ROWS = 1000
_KEY_NAME = re.compile(r"(^|_)(id|key|uuid|guid|code|number|no)$", re.I)
_FRESH_DAYS = 45


@dataclass(frozen=True)
class Suggestion:
    """A rule, and why."""

    rule: Rule
    why: str


def suggest(
    rows: pa.Table, now: datetime, *, whole: bool = True, private: Collection[str] = ()
) -> list[Suggestion]:
    """Rules that `rows` keep.

    Args:
        rows: that are believed to be good, in source order.
        now: with a zone; what is fresh is measured from it.
        whole: these are all rows there are, so their number says something.
        private: columns whose values stand in no rule.
    """
    if rows.num_rows < LEAST_ROWS:
        return []
    profile = Profile.of(rows)
    columns = list(profile.columns.values())
    found = [*_required(columns, rows.num_rows), *_nulls(columns)]
    for column in columns:
        if column.name not in private and column.present:
            found += _of_column(column, rows, now)
    if whole:
        least = int(_outward(rows.num_rows / 10, up=False))
        why = f"a tenth of the {rows.num_rows:,} rows here; fewer mean a source half read"
        found.append(Suggestion(Rule(rows=(least, None)), why))
    return found


def to_yaml(suggestions: Sequence[Suggestion], about: str) -> str:
    """Text to paste into a project file, each rule under a comment that says why.

    >>> print(to_yaml([Suggestion(Rule(column="x", range=(0, None)), "never negative")], "2 rows"))
    # Suggested from 2 rows. Rules about single rows set aside the rows that break them.
    quality:
      rules:
        # never negative
        - {column: x, range: [0, null]}
    <BLANKLINE>
    """
    lines = [
        f"# Suggested from {about}. Rules about single rows set aside the rows that break them.",
        "quality:",
        "  rules:" if suggestions else "  rules: []",
    ]
    for each in suggestions:
        told = each.rule.model_dump(exclude_defaults=True)
        text = yaml.safe_dump(
            {name: _plain(value) for name, value in told.items()},
            default_flow_style=True, sort_keys=False, width=math.inf, allow_unicode=True,
        ).strip()  # fmt: skip
        lines += [f"    # {each.why}", f"    - {text}"]
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> Any:
    """Lists in place of tuples, and whole numbers without a point."""
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _required(columns: Sequence[ColumnProfile], rows: int) -> Iterator[Suggestion]:
    names = [c.name for c in columns if not c.missing]
    if names:
        why = f"no value is missing in {rows:,} rows"
        yield Suggestion(Rule(columns=names, required=True), why)


def _nulls(columns: Sequence[ColumnProfile]) -> Iterator[Suggestion]:
    """Columns with gaps, by how many they may have: twice as many and 2 % more."""
    groups: dict[float, list[ColumnProfile]] = {}
    for column in columns:
        limit = math.ceil(100 * (2 * column.missing_frac + 0.02)) / 100
        if column.missing and limit <= 0.9:
            groups.setdefault(limit, []).append(column)
    for limit, held in sorted(groups.items()):
        most = max(column.missing_frac for column in held)
        why = f"at most {most:.2%} missing here; twice that and 2 % more may be"
        yield Suggestion(Rule(columns=[c.name for c in held], nulls=limit), why)


def _of_column(column: ColumnProfile, rows: pa.Table, now: datetime) -> Iterator[Suggestion]:
    values = rows.column(column.name)
    if column.kind in ("numeric", "string") and _is_key(column, rows):
        why = f"all {column.present:,} values differ: a key"
        yield Suggestion(Rule(column=column.name, unique=True), why)
    if column.kind == "numeric":
        yield from _of_number(column, values)
    elif column.kind == "string":
        yield from _of_text(column, values)
    elif column.kind == "time":
        yield from _of_time(column, values, now)


def _of_number(column: ColumnProfile, values: pa.ChunkedArray) -> Iterator[Suggestion]:
    low, high = float(column.minimum or 0), float(column.maximum or 0)
    if {low, high} == {0.0, 1.0} and column.distinct_is_exact and column.distinct == 2:
        if _is_closed(column, values):
            yield Suggestion(Rule(column=column.name, allowed=[0, 1]), "0 or 1 in every row")
        return
    span = high - low
    if span <= 0 or column.nonfinite or not math.isfinite(span):
        return
    whole = pa.types.is_integer(values.type)
    bounds = (
        _lower(low, span, whole),
        None if _is_rising(column, values) else _upper(low, high, span),
    )
    why = f"{_shown(low)} to {_shown(high)} here, and half of that range as room"
    yield Suggestion(Rule(column=column.name, range=bounds), why)


def _lower(low: float, span: float, whole: bool) -> float:
    """0 is a natural bound of counts and codes, and of what comes near it but never below."""
    if 0 <= low <= 0.05 * span or (whole and low >= 0 > low - span / 2):
        return 0.0
    return _outward(low - span / 2, up=False)


def _upper(low: float, high: float, span: float) -> float:
    if low < 0 and -0.05 * span <= high <= 0:
        return 0.0
    return _outward(high + span / 2, up=True)


def _is_rising(column: ColumnProfile, values: pa.ChunkedArray) -> bool:
    """A counter has no greatest value."""
    return out_of_order(Values(values), order="increasing")[0] == 0


def _of_text(column: ColumnProfile, values: pa.ChunkedArray) -> Iterator[Suggestion]:
    if column.distinct_is_exact and column.distinct <= CLOSED_SET and _is_closed(column, values):
        named = sorted(str(value) for value, _ in column.top)
        why = f"a closed set: each of {len(named)} values is frequent, from the first rows on"
        yield Suggestion(Rule(column=column.name, allowed=named), why)
        return
    if (pattern := pattern_of(values)) is not None:
        why = f"all of {_about(column)} different values look like this"
        yield Suggestion(Rule(column=column.name, matches=pattern), why)
    elif column.max_length <= 200:
        shortest = pc.min(pc.utf8_length(values)).as_py()
        most = int(_outward(2 * column.max_length, up=True))
        same = shortest == column.max_length
        why = f"{shortest if same else f'{shortest} to {column.max_length}'} characters here"
        yield Suggestion(Rule(column=column.name, length=(min(shortest, 1), most)), why)


def _of_time(column: ColumnProfile, values: pa.ChunkedArray, now: datetime) -> Iterator[Suggestion]:
    first = datetime.fromtimestamp(float(column.minimum or 0), UTC)
    newest = datetime.fromtimestamp(float(column.maximum or 0), UTC)
    room = timedelta(days=max(365, 2 * (newest - first).days))
    if first.year > 1902 and (first - room).year > 1:
        why = f"from {first:%Y-%m-%d} on here; much earlier is a mistake, such as 1970-01-01"
        yield Suggestion(Rule(column=column.name, range=(f"{first - room:%Y-%m-%d}", None)), why)
    if column.distinct > SEEN and out_of_order(Values(values), order="increasing")[0] == 0:
        why = "in order here; told, but no reason to stop"
        yield Suggestion(Rule(column=column.name, monotonic="increasing", severity="warn"), why)
    age = (now - newest).total_seconds() / 86_400
    if 0 <= age <= _FRESH_DAYS and newest > first:
        days = max(2, math.ceil(2 * age))
        why = f"the newest is {max(age, 0):.1f} days old; twice that may be"
        yield Suggestion(Rule(column=column.name, fresh=f"{days}d", severity="warn"), why)


def _is_closed(column: ColumnProfile, values: pa.ChunkedArray) -> bool:
    """Whether a value never seen before is unlikely: the share of such rows is about that of the
    values seen once (Good 1953, "The population frequencies of species"), so each must be frequent,
    and in every part of the rows, since sets grow with time."""
    names = {value for value, _ in column.top}
    if column.top_error or min(count for _, count in column.top) < SEEN:
        return False
    size = -(-len(values) // PARTS)
    parts = (values.slice(part * size, size) for part in range(PARTS))
    return all(len(part.drop_null().unique()) >= len(names) for part in parts)


def _is_key(column: ColumnProfile, rows: pa.Table) -> bool:
    """Whether no value occurs twice, and that is no accident."""
    kind = rows.schema.field(column.name).type
    if column.missing or not (pa.types.is_integer(kind) or column.kind == "string"):
        return False
    if column.distinct < 0.8 * column.rows or repeated_in(rows.select([column.name])).any():
        return False
    if _KEY_NAME.search(column.name):
        return True
    if column.kind == "string":
        return column.rows >= _KEY_ROWS
    span = float(column.maximum or 0) - float(column.minimum or 0) + 1
    return column.rows >= _KEY_ROWS and column.rows**2 / (2 * span) > 10  # a birthday problem


def _about(column: ColumnProfile) -> str:
    return f"{'' if column.distinct_is_exact else 'about '}{column.distinct:,}"


def _outward(value: float, *, up: bool) -> float:
    """Two significant digits, away from the data.

    >>> _outward(4983.2, up=True), _outward(-0.0312, up=False)
    (5000.0, -0.032)
    """
    if value == 0:
        return 0.0
    digits = 1 - math.floor(math.log10(abs(value)))
    scaled: Any = np.ceil if up else np.floor
    return float(round(float(scaled(round(value * 10.0**digits, 6))) / 10.0**digits, digits))


def _shown(value: float) -> str:
    return f"{int(value):,}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
