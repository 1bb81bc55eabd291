"""Rules over rows: clean rows, quarantined rows with the rule they broke, a report that merges.

`check` looks at one table (a block) in one pass and runs in Ray workers. What needs all rows is
either summed in the report (`nulls`) or marked beforehand over the whole dataset (`unique`, see
`mark_repeats`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mlray.config.rows import Quality, Rule
from mlray.errors import EXAMPLES, ConfigError, QualityError
from mlray.sources import repeats
from mlray.sources.opened import require_columns
from mlray.sources.types import arrow_type, is_time

Severity = Literal["warn", "quarantine", "stop"]
_REPEATED = "__repeated_{}"


@dataclass(frozen=True)
class CompiledRule:
    """One check of one column (of several columns for `unique`), ready to run."""

    name: str
    check: Literal["required", "type", "nulls", "range", "allowed", "unique"]
    columns: tuple[str, ...]
    severity: Severity
    says: str
    """What a value that breaks it is, e.g. `not in [0, 6000]`."""
    broken: Callable[[pa.Array], pa.Array]
    """Values (N,) -> boolean (N,), true where the rule is broken; never null."""
    share: float = 0.0
    """With `nulls`: the largest share of missing values."""


@dataclass(frozen=True)
class RuleReport:
    """How often one rule was broken."""

    name: str
    severity: Severity
    broken: int = 0
    examples: tuple[str, ...] = ()
    """At most five values that broke it."""
    share: float | None = None
    """With `nulls`: the largest share allowed; `broken` counts missing values."""


@dataclass(frozen=True)
class QualityReport:
    """What checking found; reports of blocks merge into the report of the whole."""

    rows: int
    quarantined: int
    rules: tuple[RuleReport, ...]

    @property
    def share(self) -> float:
        """Share of rows that were quarantined, 0 to 1."""
        return self.quarantined / self.rows if self.rows else 0.0

    def merge(self, other: QualityReport) -> QualityReport:
        rules = tuple(
            dataclasses.replace(
                a, broken=a.broken + b.broken, examples=(a.examples + b.examples)[:EXAMPLES]
            )
            for a, b in zip(self.rules, other.rules, strict=True)
        )
        return QualityReport(self.rows + other.rows, self.quarantined + other.quarantined, rules)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> QualityReport:
        rules = [RuleReport(**{**r, "examples": tuple(r["examples"])}) for r in values["rules"]]
        return cls(values["rows"], values["quarantined"], tuple(rules))


@dataclass(frozen=True)
class Checked:
    """One table, parted."""

    clean: pa.Table
    quarantined: pa.Table
    """All columns of the table, and `_rule` and `_reason`: names of the rules the row broke."""
    report: QualityReport


def compile_rules(rules: Sequence[Rule], schema: pa.Schema) -> list[CompiledRule]:
    """Rules of a project file, checked against the columns they are about.

    Raises:
        InputError: a column is not there.
        ConfigError: a rule says nothing, or what it says does not fit the column's type.
    """
    compiled = [
        each for number, rule in enumerate(rules) for each in _compile(number, rule, schema)
    ]
    names = [c.name for c in compiled]
    return [
        dataclasses.replace(c, name=f"{c.name} #{names[:i].count(c.name) + 1}")
        if names[:i].count(c.name)
        else c
        for i, c in enumerate(compiled)
    ]


def check(table: pa.Table, rules: Sequence[CompiledRule]) -> Checked:
    """Part a table into clean and quarantined rows, in one pass.

    A row that breaks several rules is quarantined once, with the names of all of them. `unique`
    needs the columns that `mark_repeats` adds; they are not in the result.
    """
    marks = [_broken(table, rule) for rule in rules]
    plain = table.select([c for c in table.column_names if not c.startswith("__")])
    setting_aside = [
        (rule, mark)
        for rule, mark in zip(rules, marks, strict=True)
        if rule.severity == "quarantine" and rule.check != "nulls"
    ]
    aside = np.zeros(table.num_rows, bool)
    for _, mark in setting_aside:
        aside |= mark
    reports = tuple(_reported(plain, rule, mark) for rule, mark in zip(rules, marks, strict=True))
    return Checked(
        plain.filter(pa.array(~aside)) if aside.any() else plain,
        _with_reasons(plain, setting_aside, aside),
        QualityReport(table.num_rows, int(aside.sum()), reports),
    )


def decide(report: QualityReport, quality: Quality) -> tuple[str, ...]:
    """Whether the run may go on; returns what was found, in sentences.

    Raises:
        QualityError: a rule that stops the run was broken, a column has too many missing values,
            or too large a share of the rows was quarantined.
    """
    found = [_sentence(rule, report.rows) for rule in report.rules if _is_breach(rule, report.rows)]
    stops = [
        _sentence(rule, report.rows)
        for rule in report.rules
        if _is_breach(rule, report.rows)
        and (rule.severity == "stop" or (rule.share is not None and rule.severity != "warn"))
    ]
    if report.share > quality.max_quarantined:
        stops.append(
            f"{report.quarantined} of {report.rows} rows ({report.share:.1%}) broke a rule, "
            f"more than quality.max_quarantined ({quality.max_quarantined:.1%}): "
            + "; ".join(found)
        )
    if stops:
        raise QualityError(
            "the rows are not good enough to learn from: " + "; ".join(stops),
            do="mend the source, change the rule, or raise quality.max_quarantined",
        )
    return tuple(found)


def mark_repeats(dataset: Any, rules: Sequence[CompiledRule]) -> Any:
    """Add what `check` needs for `unique` rules; see `mlray.sources.repeats`.

    Without a `unique` rule the dataset is returned as it is, not executed.
    """
    columns = {_REPEATED.format(r.name): r.columns for r in rules if r.check == "unique"}
    return repeats.mark(dataset, columns)


def _compile(number: int, rule: Rule, schema: pa.Schema) -> list[CompiledRule]:
    place = f"quality.rules[{number}]"
    columns = tuple(rule.columns or ()) + ((rule.column,) if rule.column else ())
    if not columns:
        raise ConfigError(f"{place} names no column", do="set `column` or `columns`")
    require_columns(columns, schema, f"`rows`, to which {place} applies,")
    compiled = [each for c in columns for each in _compile_column(place, rule, c, schema)]
    if rule.unique:
        name = rule.name or f"{', '.join(columns)}: unique"
        says = "not the first row with this value"
        compiled.append(
            CompiledRule(
                name, "unique", columns, rule.severity or "quarantine", says, _nothing_broken
            )
        )
    if not compiled:
        raise ConfigError(
            f"{place} checks nothing",
            allowed="required, type, nulls, range, allowed, unique",
            do="say what a good value is",
        )
    return compiled


def _compile_column(place: str, rule: Rule, column: str, schema: pa.Schema) -> list[CompiledRule]:
    kind, compiled = schema.field(column).type, []

    def add(what: Any, says: str, broken: Callable[[pa.Array], pa.Array], **more: Any) -> None:
        name = rule.name or f"{column}: {what}"
        compiled.append(
            CompiledRule(name, what, (column,), rule.severity or "quarantine", says, broken, **more)
        )

    if rule.required:
        add("required", "missing", _missing)
    if rule.nulls is not None:
        add("nulls", "missing", _missing, share=rule.nulls)
    if rule.type is not None:
        wanted = arrow_type(rule.type)
        add("type", f"not {rule.type}", partial(_does_not_convert, wanted=wanted))
    if rule.range is not None:
        low, high = _bounds(place, column, rule.range, kind)
        add("range", _outside_in_words(*rule.range), partial(_outside, low=low, high=high))
    if rule.allowed is not None:
        values = _values(place, column, rule.allowed, kind)
        shown = ", ".join(map(str, rule.allowed[:EXAMPLES]))
        shown += ", ..." if len(rule.allowed) > EXAMPLES else ""
        add("allowed", f"none of {shown}", partial(_not_among, among=values))
    return compiled


def _outside_in_words(low: float | str | None, high: float | str | None) -> str:
    """
    >>> _outside_in_words(0.0, 6000.0), _outside_in_words(None, "2013-09")
    ('not in [0, 6000]', 'above 2013-09')
    """
    low, high = (int(v) if isinstance(v, float) and v.is_integer() else v for v in (low, high))
    if low is None:
        return f"above {high}"
    return f"below {low}" if high is None else f"not in [{low}, {high}]"


def _bounds(
    place: str, column: str, bounds: tuple[Any, Any], kind: pa.DataType
) -> tuple[pa.Scalar | None, pa.Scalar | None]:
    if not (pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind) or is_time(kind)):
        raise ConfigError(
            f"{place}: range is for numbers and times, but `{column}` is", value=str(kind)
        )
    convert = _time_bound if is_time(kind) else _number_bound
    try:
        low, high = convert(bounds[0], kind, False), convert(bounds[1], kind, True)
    except (ValueError, TypeError, pa.ArrowInvalid):
        raise ConfigError(
            f"{place}: the bounds of `{column}` are not {kind}", value=list(bounds)
        ) from None
    if low is not None and high is not None and low.as_py() > high.as_py():
        raise ConfigError(f"{place}: the lower bound of `{column}` is above the upper")
    return low, high


def _number_bound(value: Any, kind: pa.DataType, is_high: bool) -> pa.Scalar | None:
    if value is None or (isinstance(value, float) and math.isinf(value)):
        return None
    return pa.scalar(float(value))


def _time_bound(value: Any, kind: pa.DataType, is_high: bool) -> pa.Scalar | None:
    """A day as upper bound is allowed until its end."""
    if value is None:
        return None
    moment = datetime.fromisoformat(str(value))
    if is_high and len(str(value).strip()) == 10:
        moment += timedelta(days=1, microseconds=-1)
    zone = getattr(kind, "tz", None)
    if zone is None and moment.tzinfo is not None:
        raise ValueError("a bound in a zone for times without one")
    naive = pa.scalar(moment, pa.timestamp("us", tz=zone if moment.tzinfo else None))
    return pc.assume_timezone(naive, zone) if zone and moment.tzinfo is None else naive


def _values(place: str, column: str, allowed: list[Any], kind: pa.DataType) -> pa.Array:
    plain = pa.string() if pt.is_dictionary(kind) else kind
    try:
        return pa.array(allowed).cast(plain)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        raise ConfigError(
            f"{place}: allowed values of `{column}` are not {kind}", value=list(allowed)
        ) from None


def _missing(values: pa.Array) -> pa.Array:
    return pc.is_null(values, nan_is_null=True)


def _outside(values: pa.Array, low: pa.Scalar | None, high: pa.Scalar | None) -> pa.Array:
    """Missing values are not judged; infinity lies outside of any bound on its side."""
    bounds = [b for b in (low, high) if b is not None]
    if bounds and pt.is_timestamp(bounds[0].type):
        values = values.cast(bounds[0].type, safe=False)
    out = pa.array(np.zeros(len(values), bool))
    if low is not None:
        out = pc.or_(out, pc.fill_null(pc.less(values, low), False))
    if high is not None:
        out = pc.or_(out, pc.fill_null(pc.greater(values, high), False))
    return out


def _not_among(values: pa.Array, among: pa.Array) -> pa.Array:
    return pc.and_(pc.is_valid(values), pc.invert(pc.is_in(values, among)))


def _does_not_convert(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Only distinct values are tried, halves first: most columns need one cast."""
    distinct = pc.unique(values)
    bad = _unconvertible(distinct, wanted)
    if not bad:
        return pa.array(np.zeros(len(values), bool))
    return pc.and_(pc.is_in(values, pa.concat_arrays(bad)), pc.is_valid(values))


def _unconvertible(values: pa.Array, wanted: pa.DataType) -> list[pa.Array]:
    try:
        values.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if len(values) == 1:
            return [values]
        half = len(values) // 2
        return _unconvertible(values[:half], wanted) + _unconvertible(values[half:], wanted)
    return []


def _nothing_broken(values: pa.Array) -> pa.Array:
    return pa.array(np.zeros(len(values), bool))


def _broken(table: pa.Table, rule: CompiledRule) -> Any:
    """Boolean (N,)."""
    if rule.check == "unique":
        require_columns([_REPEATED.format(rule.name)], table.schema, "a table with a `unique` rule")
        return table.column(_REPEATED.format(rule.name)).to_numpy()
    return rule.broken(_array(table, rule.columns[0])).to_numpy(zero_copy_only=False)


def _array(table: pa.Table, name: str) -> pa.Array:
    array = table.column(name).combine_chunks()
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array


def _reported(table: pa.Table, rule: CompiledRule, mark: Any) -> RuleReport:
    places = np.flatnonzero(mark)
    share = rule.share if rule.check == "nulls" else None
    examples: tuple[str, ...] = ()
    if len(places) and rule.check not in ("required", "nulls"):
        shown = table.select(list(rule.columns)).take(pa.array(places[: 4 * EXAMPLES])).to_pylist()
        texts = dict.fromkeys(", ".join(str(v) for v in row.values()) for row in shown)
        examples = tuple(texts)[:EXAMPLES]
    return RuleReport(rule.name, rule.severity, len(places), examples, share)


def _with_reasons(
    table: pa.Table, rules: Sequence[tuple[CompiledRule, Any]], aside: Any
) -> pa.Table:
    """The rows set aside, each with the names of all rules it broke, and why."""
    rows = table.filter(pa.array(aside))
    names, reasons = [], []
    for rule, mark in rules:
        hit = pa.array(mark[aside])
        values = [pc.fill_null(pc.cast(_array(rows, c), pa.string()), "") for c in rule.columns]
        text = pc.binary_join_element_wise(
            f"{', '.join(rule.columns)}:", *values, f"is {rule.says}", " "
        )
        nothing = pa.scalar(None, pa.string())
        names.append(pc.if_else(hit, rule.name, nothing))
        reasons.append(pc.if_else(hit, text, nothing))
    for column, texts in (("_rule", names), ("_reason", reasons)):
        joined = (
            pc.binary_join_element_wise(*texts, "; ", null_handling="skip")
            if texts
            else pa.nulls(rows.num_rows, pa.string())
        )
        rows = rows.append_column(column, joined)
    return rows


def _is_breach(rule: RuleReport, rows: int) -> bool:
    if rule.share is not None:
        return rule.broken > rule.share * rows
    return rule.broken > 0


def _sentence(rule: RuleReport, rows: int) -> str:
    if rule.share is not None:
        part = rule.broken / rows if rows else 0.0
        return f"{rule.name}: {part:.1%} of the values are missing, {rule.share:.1%} may be"
    examples = f" (e.g. {'; '.join(rule.examples)})" if rule.examples else ""
    return f"{rule.name}: broken by {rule.broken} rows{examples}"
