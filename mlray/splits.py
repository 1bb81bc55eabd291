"""Train, validation and test: which part each row belongs to.

A plan is made once, from the profile; assigning looks at nothing but the row itself, so a row
lands in the same part whatever block, process or run it is met in.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlray.config.sections import Split
from mlray.errors import EXAMPLES, ConfigError, InputError
from mlray.sources.hashing import hash_rows, uniform
from mlray.sources.opened import did_you_mean
from mlray.sources.types import epoch_us, is_time

if TYPE_CHECKING:
    from mlray.stats.profile import Profile

PARTS = ("train", "validation", "test", "later")
TRAIN, VALIDATION, TEST, LATER = range(4)
_DEFAULT_SHARE = 0.15
_NEVER = np.iinfo(np.int64).max
_PERIOD = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?")
_SPELLINGS = {"train": 0, "training": 0, "validation": 1, "valid": 1, "val": 1, "dev": 1,
              "test": 2, "testing": 2, "later": 3}  # fmt: skip
Parts = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Span:
    """A stretch of time in microseconds since 1970 (UTC): `start` belongs to it, `end` not."""

    start_us: int
    end_us: int | None
    """None: without end."""


@dataclass(frozen=True)
class SplitPlan:
    """Which rows train, validate and test; plain data."""

    by: Literal["time", "group", "hash", "column"]
    column: str | None
    """Time, group, key or part column; None: the whole row is hashed."""
    validation: Span | float
    """A stretch of time, or a share of the rows (of the groups, if by group)."""
    test: Span | float
    seed: int
    reasons: tuple[str, ...]
    """How the plan came about, for people."""
    known_at: str | None = None
    """Split by time only: when a row's label became known. A row whose label was not known when
    the next part began is kept apart as `later`, for nobody could have learnt from it by then."""

    def assign(self, table: pa.Table) -> Parts:
        """The part of each row, as its place in `PARTS`; shape (N,).

        Raises:
            InputError: the column is not there, or names a part that does not exist.
        """
        if self.column is not None and self.column not in table.column_names:
            raise InputError(
                "the column to split by is not there",
                value=self.column,
                do=did_you_mean(self.column, table.column_names),
            )
        if self.by == "time":
            return self._by_time(table)
        if self.by == "column":
            return self._by_column(table)
        return self._by_hash(table)

    def check(self, counts: Sequence[int]) -> None:
        """`InputError` if a part that is needed is empty.

        Args:
            counts: rows in each of `PARTS`, over all of the data.
        """
        empty = [part for part, rows in zip(PARTS[:3], counts, strict=False) if not rows]
        if empty:
            found = ", ".join(f"{p} {n}" for p, n in zip(PARTS, counts, strict=False))
            raise InputError(
                f"the split leaves parts without rows (rows: {found}; {'; '.join(self.reasons)})",
                value=empty,
                do="set split.validation and split.test to other shares or periods",
            )

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> SplitPlan:
        plan = json.loads(text)
        for part in ("validation", "test"):
            if isinstance(plan[part], dict):
                plan[part] = Span(**plan[part])
        return cls(**{**plan, "reasons": tuple(plan["reasons"])})

    def _by_time(self, table: pa.Table) -> Parts:
        if not (isinstance(self.validation, Span) and isinstance(self.test, Span)):
            raise TypeError("a plan by time holds two spans")
        column = table.column(self.column)
        if not is_time(column.type):
            raise InputError(
                f"column `{self.column}`, to split by, is not a time", value=str(column.type)
            )
        times = epoch_us(column).fill_null(0).to_numpy()
        parts = np.where(times < self.validation.start_us, TRAIN, LATER).astype(np.int8)
        for number, span in ((VALIDATION, self.validation), (TEST, self.test)):
            inside = times >= span.start_us
            if span.end_us is not None:
                inside &= times < span.end_us
            parts[inside] = number
        parts[pc.is_null(column).to_numpy()] = LATER  # without a time it can honestly go nowhere
        if self.known_at is not None and self.known_at in table.column_names:
            known = epoch_us(table.column(self.known_at)).fill_null(_NEVER).to_numpy()
            parts[(parts == TRAIN) & (known >= self.validation.start_us)] = LATER
            parts[(parts == VALIDATION) & (known >= self.test.start_us)] = LATER
        return parts

    def _by_hash(self, table: pa.Table) -> Parts:
        columns = [self.column] if self.column else sorted(table.column_names)
        place = uniform(hash_rows(table, columns, self.seed))
        test, validation = _share(self.test), _share(self.validation)
        parts = np.where(place < test + validation, VALIDATION, TRAIN)
        return np.where(place < test, TEST, parts).astype(np.int8)

    def _by_column(self, table: pa.Table) -> Parts:
        values = pc.utf8_lower(pc.cast(table.column(self.column), pa.string()))
        place = pc.index_in(values, pa.array(list(_SPELLINGS)))
        unknown = table.column(self.column).filter(pc.is_null(place))
        if len(unknown):
            raise InputError(
                f"column `{self.column}` says the part of each row; these are none",
                value=[str(v) for v in pc.unique(unknown).slice(0, EXAMPLES).to_pylist()],
                allowed=", ".join(PARTS),
                do="mend the values, or split by time, group or hash",
            )
        numbers = np.array(list(_SPELLINGS.values()), np.int8)
        parts: Parts = numbers[place.to_numpy()]
        return parts


def plan(
    split: Split,
    profile: Profile,
    *,
    time_column: str | None = None,
    known_at: str | None = None,
) -> SplitPlan:
    """How to split rows that look like `profile`.

    Args:
        split: the section of the project file.
        profile: of the rows; gives kinds of columns and quantiles of time.
        time_column: time of the rows if `split` names no column.
        known_at: time column at which labels became known.

    Raises:
        ConfigError: what is asked for cannot be.
        InputError: the column is not there or not of the kind that is needed.
    """
    by, column, reason = _how(split, profile, time_column)
    if column is not None and column not in profile.columns:
        raise InputError(
            "split.column is not a column of the rows",
            value=column,
            do=did_you_mean(column, profile.columns),
        )
    if by == "time":
        made = _plan_time(split, profile, str(column), reason)
        return made if known_at is None else dataclasses.replace(made, known_at=known_at)
    if by == "column":
        return SplitPlan("column", column, 0.0, 0.0, split.seed, (reason,))
    shares = _checked_shares(split)
    reasons = [reason, f"{shares[0]:.0%} validate and {shares[1]:.0%} test, seed {split.seed}"]
    if column is not None and (missing := profile.columns[column].missing):
        reasons.append(f"{missing} rows without `{column}` stay together")
    return SplitPlan(by, column, *shares, split.seed, tuple(reasons))


def _how(
    split: Split, profile: Profile, time_column: str | None
) -> tuple[Literal["time", "group", "hash", "column"], str | None, str]:
    """By what, by which column, and why."""
    periods = any(isinstance(v, str) for v in (split.validation, split.test))
    column = split.column
    kind = profile.columns[column].kind if column in profile.columns else None
    if split.by == "time" or (split.by == "auto" and periods):
        return "time", _time_column(column or time_column, profile), "older rows train"
    if periods:
        raise ConfigError(
            f"split.by is {split.by}, but validation or test is a period",
            value=[split.validation, split.test],
            do="set `by: time`, or shares such as 0.15",
        )
    if split.by in ("group", "column") and column is None:
        raise ConfigError(f"split.by is {split.by}, but split.column is not set")
    if split.by == "group":
        return "group", column, f"rows of one `{column}` stay together"
    if split.by == "column":
        return "column", column, f"`{column}` says the part"
    if split.by == "hash":
        return "hash", column, f"by the hash of {f'`{column}`' if column else 'the row'}"
    if kind == "time" or (column is None and time_column in profile.columns):
        return "time", column or time_column, "older rows train: there is a time column"
    if column is not None and _says_parts(profile, column):
        return "column", column, f"`{column}` holds train, validation and test"
    if column is not None:
        return "group", column, f"rows of one `{column}` stay together"
    return "hash", None, "by the hash of the row: no time or group column is named"


def _time_column(named: str | None, profile: Profile) -> str:
    if named is not None:
        return named
    times = [name for name, column in profile.columns.items() if column.kind == "time"]
    if len(times) == 1:
        return times[0]
    raise ConfigError(
        "a split by time needs a time column, and split.column is not set",
        allowed=f"time columns of the rows: {', '.join(times) or 'none'}",
    )


def _says_parts(profile: Profile, column: str) -> bool:
    values = [str(value).lower() for value, _ in profile.columns[column].top]
    return bool(values) and all(v in _SPELLINGS for v in values)


def _share(value: Span | float) -> float:
    if isinstance(value, Span):
        raise TypeError("a plan by hash holds two shares")
    return value


def _checked_shares(split: Split) -> tuple[float, float]:
    shares = [
        _DEFAULT_SHARE if value is None else float(value)
        for value in (split.validation, split.test)
    ]
    if min(shares) <= 0 or sum(shares) >= 1:
        raise ConfigError(
            "split.validation and split.test must be above 0 and together below 1",
            value=shares,
        )
    return shares[0], shares[1]


def _plan_time(split: Split, profile: Profile, column: str, reason: str) -> SplitPlan:
    summary = profile.columns[column]
    if summary.kind != "time":
        raise InputError(
            f"split.column `{column}` is not a time",
            value=summary.type,
            do=f"declare it: types: {{{column}: 'timestamp[us, UTC]'}}",
        )
    test = _test_span(split, profile, column)
    validation = _validation_span(split, profile, column, test)
    if test.start_us <= validation.start_us:
        raise ConfigError(
            "split.test must come after split.validation",
            value=[_shown(validation), _shown(test)],
        )
    reasons = [reason, f"validation {_shown(validation)}", f"test {_shown(test)}"]
    if summary.missing:
        reasons.append(f"{summary.missing} rows without `{column}` are kept apart")
    return SplitPlan("time", column, validation, test, split.seed, tuple(reasons))


def _test_span(split: Split, profile: Profile, column: str) -> Span:
    """A period, the last share of rows, or all that follows the validation period."""
    if isinstance(split.test, str):
        return _period(split.test)
    if isinstance(split.validation, str):
        after = _period(split.validation).end_us
        if after is None:
            raise ConfigError(
                "split.validation gives only its first moment, so split.test must give one too",
                value=split.validation,
            )
        if split.test is None:
            return Span(after, None)
        known = float(profile.columns[column].cdf(after / 1e6))
        end = _quantile_us(profile, column, known + split.test)
        return Span(after, end if known + split.test < 1 else None)
    _, share = _checked_shares(split)
    return Span(_quantile_us(profile, column, 1 - share), None)


def _validation_span(split: Split, profile: Profile, column: str, test: Span) -> Span:
    """A period, or the share of rows just before the test part."""
    if isinstance(split.validation, str):
        span = _period(split.validation)
        end = test.start_us if span.end_us is None else min(span.end_us, test.start_us)
        return Span(span.start_us, max(end, span.start_us))
    share = _DEFAULT_SHARE if split.validation is None else split.validation
    known = float(profile.columns[column].cdf(test.start_us / 1e6))
    if not 0 < share < known:
        raise ConfigError(
            f"split.validation is a share of {share}, but only {known:.3f} of the rows "
            "lie before the test part"
        )
    return Span(_quantile_us(profile, column, known - share), test.start_us)


def _quantile_us(profile: Profile, column: str, q: float) -> int:
    return round(float(profile.columns[column].quantile(min(max(q, 0.0), 1.0))) * 1e6)


def _period(text: str) -> Span:
    """The stretch that a year, month, day or first moment names.

    >>> span = _period("2013-09")
    >>> _shown(span)
    '2013-09-01 00:00 to 2013-10-01 00:00'
    """
    text = text.strip()
    if not _PERIOD.fullmatch(text):
        return Span(_us(_moment(text)), None)
    steps = [int(step) for step in text.split("-")]
    try:
        year, month, day = [*steps, 1, 1][:3]
        start = datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        raise _not_a_period(text) from None
    if len(steps) == 1:
        end = start.replace(year=start.year + 1)
    elif len(steps) == 2:
        end = (start + timedelta(days=32)).replace(day=1)
    else:
        end = start + timedelta(days=1)
    return Span(_us(start), _us(end))


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _not_a_period(text) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _not_a_period(text: str) -> ConfigError:
    return ConfigError(
        "split.validation or split.test is neither a share nor a period",
        value=text,
        allowed="0.15, 2013, 2013-09, 2013-09-15, 2013-09-15T12:00:00",
    )


def _us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _shown(span: Span) -> str:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    ends = [
        (epoch + timedelta(microseconds=us)).strftime("%Y-%m-%d %H:%M") if us is not None else "on"
        for us in (span.start_us, span.end_us)
    ]
    return f"{ends[0]} to {ends[1]}" if span.end_us is not None else f"from {ends[0]} on"
