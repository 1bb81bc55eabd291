"""Rules of a project file, checked against the columns they are about and ready to run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from mlray.config.fields import duration_s
from mlray.config.quality import ExistsIn, Rule
from mlray.errors import EXAMPLES, ConfigError
from mlray.quality import kernels
from mlray.quality.bounds import allowed_values, bounds
from mlray.quality.keys import KeySet
from mlray.quality.report import RuleReport, Severity
from mlray.quality.values import Block, Mask, is_text
from mlray.sources.opened import require_columns
from mlray.sources.types import arrow_type, is_time

ROW_CHECKS = ("required", "type", "range", "allowed", "matches", "length", "exists_in", "unique",
              "holds", "function")  # fmt: skip
TABLE_CHECKS = ("nulls", "monotonic", "fresh", "rows", "like")


@dataclass(frozen=True)
class CompiledRule:
    """One check of one column, of several for `unique`, or of the row."""

    name: str
    check: str
    columns: tuple[str, ...]
    """What it is about, for examples; all that an expression reads for `holds`."""
    severity: Severity
    says: str = ""
    """What a value that breaks it is, e.g. `not in [0, 6000]`."""
    broken: Callable[[Block], Mask | None] | None = None
    """Rows of a block that break it. None: no block alone can tell (`unique`, table rules)."""
    at_most: float | None = None
    wants: Any = None
    """What a rule about the whole table asks for, as plain data."""
    private: bool = False
    """Its values are shown nowhere: a column of it holds personal data."""

    @property
    def alone(self) -> bool:
        """Whether a block and nothing else shows which rows break it."""
        return self.broken is not None and self.check != "exists_in"

    def report(self, **found: Any) -> RuleReport:
        """Its line of a report."""
        return RuleReport(
            name=self.name, severity=self.severity, check=self.check, columns=self.columns,
            at_most=self.at_most, wants=self.wants, **found,
        )  # fmt: skip


@dataclass(frozen=True)
class _Place:
    """A rule of the project file, and what its checks need to know."""

    where: str
    rule: Rule
    schema: pa.Schema
    folder: str
    keys: Mapping[tuple[str, str, str], KeySet]
    private: Collection[str]

    def made(self, check: str, columns: Sequence[str], says: str = "", **more: Any) -> CompiledRule:
        """A rule of this place, its severity and threshold allowed for such a check."""
        table = check in TABLE_CHECKS
        rule = self.rule
        severity: Severity = rule.severity or ("stop" if table else "quarantine")
        if table and severity == "quarantine":
            raise ConfigError(
                f"{self.where}: `{check}` is about the whole table, so no row can be set aside",
                value="severity: quarantine",
                allowed="warn, stop",
            )
        if table and check != "monotonic" and rule.at_most is not None:
            raise ConfigError(
                f"{self.where}: `{check}` counts no rows that break it",
                value=f"at_most: {rule.at_most:g}",
                do="remove at_most",
            )
        shown = ", ".join(columns) if check != "holds" else str(rule.holds)
        name = rule.name or (f"{shown}: {check}" if shown else check)
        private = bool(set(columns) & set(self.private)) or (
            check == "function" and bool(self.private)
        )
        return CompiledRule(
            name, check, tuple(columns), severity, says,
            at_most=rule.at_most, private=private, **more,
        )  # fmt: skip

    def kind(self, column: str) -> pa.DataType:
        kind = self.schema.field(column).type
        return kind.value_type if pt.is_dictionary(kind) else kind

    def wrong(self, check: str, column: str, fits: str) -> ConfigError:
        kind = str(self.schema.field(column).type)
        return ConfigError(f"{self.where}: {check} is for {fits}, but `{column}` is", value=kind)


def compile_rules(
    rules: Sequence[Rule],
    schema: pa.Schema,
    *,
    folder: str = "",
    keys: Mapping[tuple[str, str, str], KeySet] | None = None,
    private: Collection[str] = (),
) -> list[CompiledRule]:
    """Rules of a project file, checked against the columns they are about.

    Args:
        rules: of `quality.rules`.
        schema: of the rows, hidden columns aside.
        folder: of the project file, where the user's functions are found.
        keys: what `exists_in` looks up: (source, its column, type of the rows' column) -> values;
            without it such rules compile, but cannot be checked.
        private: columns whose values are shown nowhere.

    Raises:
        InputError: a column is not there.
        ConfigError: a rule says nothing, contradicts itself, or does not fit the column's type.
    """
    compiled: list[CompiledRule] = []
    for number, rule in enumerate(rules):
        place = _Place(f"quality.rules[{number}]", rule, schema, folder, keys or {}, private)
        compiled += _compile(place)
    names = [c.name for c in compiled]
    return [
        dataclasses.replace(c, name=f"{c.name} #{names[:i].count(c.name) + 1}")
        if names[:i].count(c.name)
        else c
        for i, c in enumerate(compiled)
    ]


def wanted_keys(rules: Sequence[Rule], schema: pa.Schema) -> list[tuple[str, str, pa.DataType]]:
    """What `exists_in` rules look up: source, its column, and the type of the rows' column."""
    found: dict[tuple[str, str, str], pa.DataType] = {}
    for rule in rules:
        for column in _columns(rule) if rule.exists_in else ():
            require_columns([column], schema, "`rows`, to which `exists_in` applies,")
            kind = schema.field(column).type
            kind = kind.value_type if pt.is_dictionary(kind) else kind
            assert rule.exists_in is not None
            found[rule.exists_in.source, rule.exists_in.column, str(kind)] = kind
    return [(source, column, kind) for (source, column, _), kind in found.items()]


def _columns(rule: Rule) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*(rule.columns or ()), *((rule.column,) if rule.column else ()))))


def _compile(place: _Place) -> list[CompiledRule]:
    rule, columns = place.rule, _columns(place.rule)
    require_columns(columns, place.schema, f"`rows`, to which {place.where} applies,")
    compiled = [each for column in columns for each in _of_column(place, column)]
    if rule.unique:
        _require(place, "unique", columns)
        compiled.append(place.made("unique", columns, "not the first row with this value"))
    compiled += _of_rows(place, columns)
    if compiled:
        return compiled
    if _asks_of_columns(rule):
        raise ConfigError(f"{place.where} names no column", do="set `column` or `columns`")
    raise ConfigError(
        f"{place.where} checks nothing",
        allowed=", ".join((*ROW_CHECKS, *TABLE_CHECKS)),
        do="say what a good value is",
    )


def _asks_of_columns(rule: Rule) -> bool:
    asked = {*ROW_CHECKS, *TABLE_CHECKS} - {"holds", "function", "rows"}
    return any(getattr(rule, check) not in (None, False) for check in asked) or not (
        rule.column or rule.columns
    )


def _require(place: _Place, check: str, columns: tuple[str, ...]) -> None:
    if not columns:
        raise ConfigError(
            f"{place.where}: `{check}` names no column", do="set `column` or `columns`"
        )


def _of_rows(place: _Place, columns: tuple[str, ...]) -> Iterator[CompiledRule]:
    """Checks that are not about one column: holds, function, rows."""
    rule = place.rule
    if rule.holds is not None:
        yield _holds(place, rule.holds)
    if rule.function is not None:
        says = f"refused by {rule.function}"
        judge = partial(kernels.refused, path=rule.function, folder=place.folder)
        made = place.made("function", columns, says, broken=judge)
        yield made if rule.name else dataclasses.replace(made, name=rule.function)
    if rule.rows is not None:
        least, greatest = rule.rows
        if (least is None and greatest is None) or (
            least is not None and greatest is not None and least > greatest
        ):
            raise ConfigError(f"{place.where}: rows are [least, greatest]", value=list(rule.rows))
        yield place.made("rows", (), wants=[least, greatest])


def _holds(place: _Place, text: str) -> CompiledRule:
    from mlray.expressions import compile_expression

    try:
        expression = compile_expression(text)
        kind = expression.type(place.schema)
    except ConfigError as error:
        raise ConfigError(
            f"{place.where}: {error.what}", value=error.value, allowed=error.allowed, do=error.do
        ) from None
    if not pt.is_boolean(kind):
        raise ConfigError(
            f"{place.where}: `{text}` must be true or false of a row, but it is", value=str(kind)
        )
    columns = [name for name in place.schema.names if name in expression.columns]
    judge = partial(kernels.untrue, expression=expression)
    return place.made("holds", columns, f"not {text}", broken=judge)


def _of_column(place: _Place, column: str) -> Iterator[CompiledRule]:
    """Checks of one column, those that most rules ask for first."""
    rule = place.rule

    def row(check: str, says: str, kernel: Any, **limits: Any) -> CompiledRule:
        judge = partial(kernel, column=column, **limits)
        return place.made(check, (column,), says, broken=judge)

    if rule.required:
        yield row("required", "missing", kernels.missing)
    if rule.nulls is not None:
        judge = partial(kernels.missing, column=column)
        yield place.made("nulls", (column,), "missing", broken=judge, wants=rule.nulls)
    if rule.type is not None:
        wanted = _type(place, rule.type)
        yield row("type", f"not {rule.type}", kernels.unconvertible, wanted=wanted)
    if rule.range is not None:
        low, high = bounds(place.where, column, rule.range, place.kind(column))
        yield row("range", _outside(*rule.range), kernels.outside, low=low, high=high)
    if rule.allowed is not None:
        values = allowed_values(place.where, column, rule.allowed, place.kind(column))
        yield row("allowed", _none_of(rule.allowed), kernels.not_among, allowed=values)
    if rule.matches is not None:
        pattern = _pattern(place, column, rule.matches)
        yield row("matches", f"not like {pattern}", kernels.unlike, pattern=pattern)
    if rule.length is not None:
        least, most = _length(place, column, rule.length)
        says = f"not of {_between(least, most)} characters"
        yield row("length", says, kernels.badly_long, least=least, most=most)
    if rule.exists_in is not None:
        keys, says = _keys(place, column, rule.exists_in)
        yield row("exists_in", says, kernels.unknown, keys=keys)
    yield from _of_whole_column(place, column)


def _of_whole_column(place: _Place, column: str) -> Iterator[CompiledRule]:
    rule, kind = place.rule, place.kind(column)
    if rule.monotonic is not None:
        if not (_is_number(kind) or is_time(kind) or is_text(kind)):
            raise place.wrong("monotonic", column, "numbers, times and texts")
        yield place.made("monotonic", (column,), wants=rule.monotonic)
    if rule.fresh is not None:
        if not is_time(kind):
            raise place.wrong("fresh", column, "times")
        wants = {"seconds": duration_s(rule.fresh), "age": rule.fresh}
        yield place.made("fresh", (column,), wants=wants)
    if rule.like is not None:
        wants = {"reference": rule.like, "psi": rule.psi}
        yield place.made("like", (column,), wants=wants)


def _type(place: _Place, text: str) -> pa.DataType:
    try:
        return arrow_type(text)
    except ConfigError as error:
        raise ConfigError(
            f"{place.where}: {error.what}", value=error.value, allowed=error.allowed
        ) from None


def _pattern(place: _Place, column: str, pattern: str) -> str:
    import pyarrow.compute as pc

    if not is_text(place.kind(column)):
        raise place.wrong("matches", column, "texts")
    try:
        pc.match_substring_regex(pa.array([""]), rf"\A(?:{pattern})\z")
    except pa.ArrowInvalid as error:
        raise ConfigError(
            f"{place.where}: this is no regular expression ({error})", value=pattern
        ) from None
    return pattern


def _length(
    place: _Place, column: str, length: tuple[int | None, int | None]
) -> tuple[int | None, int | None]:
    if not is_text(place.kind(column)):
        raise place.wrong("length", column, "texts")
    least, most = length
    if (least is None and most is None) or (least or 0) < 0 or (
        most is not None and most < (least or 0)
    ):  # fmt: skip
        raise ConfigError(f"{place.where}: a length is [least, greatest]", value=list(length))
    return least, most


def _keys(place: _Place, column: str, other: ExistsIn) -> tuple[KeySet | None, str]:
    key = (other.source, other.column, str(place.kind(column)))
    return place.keys.get(key), f"not in {other.column} of {other.source}"


def _is_number(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))


def _none_of(allowed: Sequence[Any]) -> str:
    shown = ", ".join(map(str, allowed[:EXAMPLES]))
    return f"none of {shown}" + (", ..." if len(allowed) > EXAMPLES else "")


def _outside(low: float | str | None, high: float | str | None) -> str:
    """
    >>> _outside(0.0, 6000.0), _outside(None, "2013-09")
    ('not in [0, 6000]', 'above 2013-09')
    """
    low, high = (int(v) if isinstance(v, float) and v.is_integer() else v for v in (low, high))
    if low is None:
        return f"above {high}"
    return f"below {low}" if high is None else f"not in [{low}, {high}]"


def _between(least: int | None, most: int | None) -> str:
    if most is None:
        return f"{least} or more"
    if not least:
        return f"at most {most}"
    return str(least) if least == most else f"{least} to {most}"
