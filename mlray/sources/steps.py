"""Steps on columns: rename, cast, derive, filter, select, and a function of the user.

The same steps run in the pipeline and, but for `filter`, in the predictor on every request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mlray import usercode
from mlray.config.rows import Shaping
from mlray.errors import ConfigError, InputError
from mlray.expressions import Expression, compile_expression
from mlray.sources import reading
from mlray.sources.opened import did_you_mean
from mlray.sources.types import arrow_type

_DECLARED = ("rename", "cast", "derive", "select")


@dataclass(frozen=True)
class Shown:
    """One step and what it made."""

    place: str
    """In the project file: `sources.derive.speed`."""
    says: str
    table: pa.Table
    column: str | None = None
    """The column it is about, if it is one."""


@dataclass(frozen=True)
class Steps:
    """What a `Shaping` section says, ready to run. Travels to Ray workers."""

    who: str
    """Where it stands in the project file: `sources.rows`, or `sources`."""
    folder: str | None
    """Of the project file, where the user's module is found."""
    rename: Mapping[str, str] = field(default_factory=dict)
    cast: Mapping[str, str] = field(default_factory=dict)
    derive: Mapping[str, str] = field(default_factory=dict)
    filter: str | None = None
    select: tuple[str, ...] | None = None
    transform: str | None = None

    @classmethod
    def of(cls, shaping: Shaping, who: str, folder: str | None) -> Steps:
        """The steps of a section.

        Raises:
            ConfigError: an expression or a type is none, or a name cannot be.
        """
        select = None if shaping.select is None else tuple(shaping.select)
        steps = cls(
            who,
            folder,
            shaping.rename,
            shaping.cast,
            shaping.derive,
            shaping.filter,
            select,
            shaping.transform,
        )
        steps._check()
        return steps

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], who: str, folder: str | None) -> Steps:
        """What `to_dict` gave.

        Raises:
            ConfigError: it does not hold steps.
        """
        return cls.of(Shaping(**values), who, folder)

    def to_dict(self) -> dict[str, Any]:
        """All steps that a request takes but the function, as JSON has it."""
        given = {name: getattr(self, name) for name in _DECLARED}
        return {
            name: list(value) if name == "select" else dict(value)
            for name, value in given.items()
            if value is not None and (value or name == "select")
        }

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.declared and self.filter is None and self.transform is None

    @property
    def declared(self) -> bool:
        """Whether a request takes any step but the function."""
        return bool(self.rename or self.cast or self.derive or self.select is not None)

    # --- rows -----------------------------------------------------------------------------------

    def apply(self, table: pa.Table) -> pa.Table:
        """All steps. Hidden columns of traced rows stay with their rows.

        Raises:
            InputError: a column is missing, a value does not convert, or the function failed.
        """
        table = self._made(table)
        if self.filter is not None:
            table = table.filter(self._mask(table))
        return self._called(self._selected(table))

    def tried(self, table: pa.Table) -> pa.Table:
        """All steps on the first rows of a source, which show its columns: rows that are filtered
        out stand for others if all of them are."""
        table = self._made(table)
        kept = table if self.filter is None else table.filter(self._mask(table))
        return self._called(self._selected(kept if kept.num_rows else table))

    def rowwise(self, table: pa.Table) -> pa.Table:
        """All steps but `filter`: a row out for each row in.

        Raises:
            InputError: as `apply`; or the function changed the number of rows. What the message
                says of values stands in `value` alone.
        """
        return self._finished(self._made(table))

    def _finished(self, made: pa.Table) -> pa.Table:
        result = self._called(self._selected(made))
        if result.num_rows != made.num_rows:
            raise InputError(
                f"`{self.transform}` made {result.num_rows} rows of {made.num_rows}",
                allowed=f"a function that keeps every row in its place ({self.who}.transform)",
                do="drop rows by `filter` or a quality rule, or in sources.rows",
            )
        return result

    def kept(self, table: pa.Table) -> pa.Table:
        """The rows that `filter` keeps, all columns as they were before any step."""
        if self.filter is None:
            return table
        mask = self._mask(self.until(self._filter.columns)._made(table))
        if reading.UNREADABLE in table.column_names:  # such rows go to quarantine
            mask = pc.or_(mask, pc.is_valid(table[reading.UNREADABLE]))
        return table.filter(mask)

    def wide(self, table: pa.Table) -> pa.Table:
        """Columns after the steps (but `filter`), and those on the way and before that are gone
        since: what is not selected can still be split by, or be the target."""
        if self.empty:
            return table
        made = self._made(table)
        result = self._finished(made)
        for earlier in (made, table):
            for name in earlier.column_names:
                if name not in result.column_names:
                    result = result.append_column(earlier.schema.field(name), earlier[name])
        return result

    def having(self, table: pa.Table, names: Iterable[str]) -> pa.Table:
        """The table with at least the named columns as they are after the steps, or as they were
        before them where the steps leave them out."""
        names = list(names)
        made = {*self.derive, *self.cast, *self.rename.values()}
        here = set(table.column_names)
        if made.isdisjoint(names) and here.issuperset(names):
            return table
        if self.needs(names) <= here:
            return self.until(names).rowwise(table)
        return self.wide(table)

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Columns after the steps, for steps without a function.

        Raises:
            InputError: a column is missing.
            ConfigError: types do not fit.
        """
        return replace(self, transform=None).apply(schema.empty_table()).schema

    def shown(self, table: pa.Table) -> Iterator[Shown]:
        """Each step with the table after it, one after the other."""
        for name in ("rename", "cast", "derive"):
            for key, value in getattr(self, name).items():
                table = self._only(**{name: {key: value}})._made(table)
                column = value if name == "rename" else key
                yield Shown(f"{self.who}.{name}.{key}", value, table, column)
        if self.filter is not None:
            table = table.filter(self._mask(table))
            yield Shown(f"{self.who}.filter", self.filter, table)
        if self.select is not None:
            table = self._selected(table)
            yield Shown(f"{self.who}.select", ", ".join(self.select), table)
        if self.transform is not None:
            yield Shown(f"{self.who}.transform", self.transform, self._called(table))

    def _made(self, table: pa.Table) -> pa.Table:
        """After rename, cast and derive."""
        if self.rename:
            table = self._renamed(table)
        for name, kind in self.cast.items():
            table = self._cast(table, name, kind)
        for name, expression in self._derived:
            values = expression.evaluate(table)
            at = table.schema.get_field_index(name)
            if at < 0:
                table = table.append_column(name, values)
            else:
                table = table.set_column(at, name, values)
        return table

    def _renamed(self, table: pa.Table) -> pa.Table:
        names = table.column_names
        for old in self.rename:
            _require(old, names, f"{self.who}.rename")
        new = [self.rename.get(name, name) for name in names]
        if twice := sorted({name for name in new if new.count(name) > 1}):
            raise ConfigError(
                f"{self.who}.rename gives names that other columns have",
                value=twice,
                do="rename or leave out the other column too",
            )
        return table.rename_columns(new)

    def _cast(self, table: pa.Table, name: str, kind: str) -> pa.Table:
        _require(name, table.column_names, f"{self.who}.cast")
        wanted, column = arrow_type(kind), table[name]
        if column.type == wanted:
            return table
        try:
            values = column.cast(wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(
                f"{self.who}.cast.{name}: a value does not convert from {column.type} to {kind}",
                value=str(error).splitlines()[0],
                do="set aside such rows by a quality rule, or derive the column: int(), float(), "
                "date() and others make what does not convert missing",
            ) from None
        return table.set_column(table.schema.get_field_index(name), name, values)

    def _mask(self, table: pa.Table) -> pa.Array:
        """True for rows to keep."""
        kind = self._filter.type(table.schema)
        if kind != pa.bool_():
            raise ConfigError(
                f"{self.who}.filter must be true or false, this is {kind}",
                value=self.filter,
                do="compare it with something",
            )
        return pc.fill_null(self._filter.evaluate(table), False)

    def _selected(self, table: pa.Table) -> pa.Table:
        if self.select is None:
            return table
        for name in self.select:
            _require(name, table.column_names, f"{self.who}.select")
        hidden = [n for n in table.column_names if n in reading.HIDDEN]
        return table.select([*self.select, *hidden])

    def _called(self, table: pa.Table) -> pa.Table:
        if self.transform is None:
            return table
        plain = reading.visible(table)
        try:
            result = usercode.resolve(self.transform, self.folder)(plain)
        except (ConfigError, InputError):
            raise
        except Exception as error:  # the user's code may raise anything; its text may hold values
            raise InputError(
                f"`{self.transform}` ({self.who}.transform) failed ({type(error).__name__})",
                value=error,
                allowed=f"columns it is given: {', '.join(plain.column_names)}",
                do="`mlray check FILE` runs it on a few rows",
            ) from error
        if not isinstance(result, pa.Table):
            raise InputError(
                f"`{self.transform}` ({self.who}.transform) must return a pyarrow.Table, not "
                f"{type(result).__name__}"
            )
        return _retraced(result, table)

    # --- columns --------------------------------------------------------------------------------

    def needs(self, wanted: Iterable[str]) -> set[str]:
        """Columns before the steps that the wanted ones are made of; without a function only."""
        old = {new: old for old, new in self.rename.items()}
        return {old.get(name, name) for name in self._traced_back(wanted)[1]}

    def until(self, wanted: Iterable[str]) -> Steps:
        """The steps that wanted columns need, without a function: a request lacks what only the
        target is made of. Other columns may come along as they are."""
        derive, needed = self._traced_back(wanted)
        return self._only(
            rename={old: new for old, new in self.rename.items() if new in needed},
            cast={name: kind for name, kind in self.cast.items() if name in needed},
            derive={name: text for name, text in self.derive.items() if name in derive},
        )

    def _traced_back(self, wanted: Iterable[str]) -> tuple[set[str], set[str]]:
        """Columns to derive, and those that must be there before any is, for the wanted ones."""
        needed, derive = set(wanted), set()
        for name, expression in reversed(self._derived):
            if name in needed:
                derive.add(name)
                needed = (needed - {name}) | expression.columns
        return derive, needed

    def able(self, available: Iterable[str]) -> Steps:
        """The steps that can be taken with the columns that there are, and the function.

        What the others would have made is left out: a column that is there is then not what the
        function and the encoder know under its name.
        """
        here = list(available)
        rename = {old: new for old, new in self.rename.items() if old in here}
        names = dict.fromkeys(rename.get(name, name) for name in here)
        cast = {name: kind for name, kind in self.cast.items() if name in names}
        derive = {}
        for name, expression in self._derived:
            if expression.columns <= names.keys():
                derive[name] = expression.text
                names[name] = None
            else:
                names.pop(name, None)
        select = (
            tuple(names) if self.select is None else tuple(n for n in self.select if n in names)
        )
        steps = self._only(rename=rename, cast=cast, derive=derive)
        return replace(steps, select=select, transform=self.transform)

    def _only(self, **steps: Any) -> Steps:
        return Steps(self.who, self.folder, **steps)

    # --- what the project file says -------------------------------------------------------------

    @cached_property
    def _derived(self) -> tuple[tuple[str, Expression], ...]:
        return tuple(
            (name, compile_expression(text, f"{self.who}.derive.{name}"))
            for name, text in self.derive.items()
        )

    @cached_property
    def _filter(self) -> Expression:
        return compile_expression(str(self.filter), f"{self.who}.filter")

    def _check(self) -> None:
        """`ConfigError` for what can be seen without rows."""
        for name, kind in self.cast.items():
            try:
                arrow_type(kind)
            except ConfigError as error:
                raise ConfigError(
                    f"{self.who}.cast.{name}: {error.what}", value=kind, allowed=error.allowed
                ) from None
        expressions = [expression for _, expression in self._derived]
        expressions += [self._filter] if self.filter is not None else []
        made = [*self.rename.values(), *self.derive]
        read = [column for expression in expressions for column in expression.columns]
        if hidden := sorted(n for n in [*made, *read, *self.rename] if n.startswith("__")):
            raise ConfigError(f"{self.who}: names that begin with __ belong to mlray", value=hidden)
        if self.select is not None and len(set(self.select)) < len(self.select):
            twice = sorted({n for n in self.select if self.select.count(n) > 1})
            raise ConfigError(f"{self.who}.select names a column twice", value=twice)


def _require(name: str, names: list[str], where: str) -> None:
    if name not in names:
        shown = [n for n in names if n not in reading.HIDDEN]
        raise InputError(f"{where}: there is no column `{name}`", do=did_you_mean(name, shown))


def _retraced(result: pa.Table, before: pa.Table) -> pa.Table:
    """Hidden columns for what a function returned: row by row if it kept their number, else of
    the first row, without a position."""
    hidden = [n for n in before.column_names if n in reading.HIDDEN]
    if not hidden:
        return result
    if result.num_rows == before.num_rows:
        for name in hidden:
            result = result.append_column(before.schema.field(name), before[name])
        return result
    origin = before[reading.ORIGIN][0].as_py() if before.num_rows else ""
    return reading.with_trace(result, origin, None)
