"""All rules over one block of rows: clean rows, quarantined rows with their reasons, a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mlray.errors import EXAMPLES
from mlray.quality import kernels
from mlray.quality.report import READABLE, QualityReport, RuleReport
from mlray.quality.rules import CompiledRule
from mlray.quality.values import Block, Mask, rows_where
from mlray.sources import reading
from mlray.sources.hashing import hash_rows
from mlray.sources.repeats import repeated_in
from mlray.sources.types import epoch_us

ABOUT = pa.schema(
    {
        "_rule": "string",
        "_reason": "string",
        "_source": "string",
        "_position": "int64",
        "_raw": "binary",
        "_id": "int64",
    }
)
"""What a quarantined row has beside its own values: the rules it broke and why, where it came from
(null where nobody can say), its text if it could not be read, and a hash of its values."""


@dataclass(frozen=True)
class Checked:
    """One table, parted."""

    clean: pa.Table
    """Rows that keep all rules, without hidden columns."""
    quarantined: pa.Table
    """All columns of the table, hidden ones aside, and those of `ABOUT`."""
    report: QualityReport
    kept: Mask | None = None
    """Which rows (N,) of the table are clean; None if all are."""


def check(table: pa.Table, rules: Sequence[CompiledRule], *, whole: bool = False) -> Checked:
    """Part a table into clean and quarantined rows, in one pass.

    A row that breaks several rules is quarantined once, with the names of all of them. Rows that
    could not be read (`reading.UNREADABLE`) break the rule `readable`; no other looks at them.

    Args:
        table: rows, with or without the hidden columns of `reading.HIDDEN`.
        rules: of `compile_rules` for the table's schema.
        whole: the table is all there is, so `unique` is judged too, among the rows that keep all
            other rules; else that is left to `sources.repeats`, over all tables.
    """
    readable, unreadable = _parted(table)
    block = Block(reading.visible(readable))
    marks = [(rule, _marks(rule, block)) for rule in rules]
    aside = _any(m for r, m in marks if r.severity == "quarantine" and r.check != "nulls")
    if whole:
        marks = [(r, _repeats(r, block, aside) if r.check == "unique" else m) for r, m in marks]
        aside = _any(m for r, m in marks if r.severity == "quarantine" and r.check != "nulls")
    quarantined = _set_aside(readable, [] if aside is None else marks, aside)
    if unreadable is not None:
        quarantined = pa.concat_tables([quarantined, _without_text(unreadable)])
    report = QualityReport(
        table.num_rows,
        quarantined.num_rows,
        tuple(_reported(block, rule, mark) for rule, mark in marks),
        *_why_unreadable(unreadable),
    )
    clean = block.table if aside is None else rows_where(block.table, ~aside)
    return Checked(clean, quarantined, report, _kept(table, aside))


def row_ids(table: pa.Table) -> npt.NDArray[np.int64]:
    """The `_id` of each row (N,): a hash of its values, and of its text if it could not be read."""
    names = [n for n in table.column_names if n not in reading.HIDDEN or n == reading.RAW]
    if reading.RAW in names and table[reading.RAW].null_count == len(table):
        names.remove(reading.RAW)
    plain = [n for n in names if n != reading.RAW]
    ids = hash_rows(table, plain)
    if reading.RAW in names:
        raw = table[reading.RAW].is_valid().to_numpy()
        ids = np.where(raw, hash_rows(table, names), ids)
    return ids.view(np.int64)


def set_aside(table: pa.Table, marks: Sequence[tuple[CompiledRule, Mask]]) -> pa.Table:
    """Rows that break one of the rules as `check` would quarantine them.

    Args:
        table: readable rows, with or without hidden columns.
        marks: rules and the rows (N,) that break them.
    """
    return _set_aside(table, marks, _any(mark for _, mark in marks))


def examples(rule: CompiledRule, broken: pa.Table) -> tuple[str, ...]:
    """At most five values, or combinations of them, of rows that break a rule."""
    if rule.private or not rule.columns or rule.check in ("required", "nulls"):
        return ()
    shown = broken.select(list(rule.columns)).slice(0, 4 * EXAMPLES).to_pylist()
    texts = dict.fromkeys(", ".join(str(v) for v in row.values()) for row in shown)
    return tuple(texts)[:EXAMPLES]


def _parted(table: pa.Table) -> tuple[pa.Table, pa.Table | None]:
    """Readable rows, and the others if there are any."""
    if reading.UNREADABLE not in table.column_names:
        return table, None
    why = table[reading.UNREADABLE]
    if why.null_count == len(table):
        return table, None
    return table.filter(why.is_null()), table.filter(why.is_valid())


def _marks(rule: CompiledRule, block: Block) -> Mask | None:
    return rule.broken(block) if rule.broken is not None and len(block) else None


def _any(marks: Any) -> Mask | None:
    found: Mask | None = None
    for mark in marks:
        if mark is not None:
            found = mark if found is None else found | mark
    return found


def _repeats(rule: CompiledRule, block: Block, aside: Mask | None) -> Mask | None:
    keys = block.table.select(list(rule.columns))
    mark = np.zeros(len(block), bool)
    judged = slice(None) if aside is None else ~aside
    mark[judged] = repeated_in(keys if aside is None else keys.filter(pa.array(~aside)))
    return mark if mark.any() else None


def _kept(table: pa.Table, aside: Mask | None) -> Mask | None:
    """Of all rows of the table, unreadable ones included."""
    if reading.UNREADABLE not in table.column_names:
        return None if aside is None else ~aside
    kept = np.asarray(table[reading.UNREADABLE].is_null().to_numpy())
    if aside is not None:
        kept[kept] = ~aside
    return None if kept.all() else kept


def _reported(block: Block, rule: CompiledRule, mark: Mask | None) -> RuleReport:
    if mark is not None:
        places = np.flatnonzero(mark)
        shown = () if not rule.columns else examples(
            rule, block.table.select(list(rule.columns)).take(pa.array(places[: 4 * EXAMPLES]))
        )  # fmt: skip
        return rule.report(broken=len(places), examples=shown)
    if rule.check == "monotonic" and len(block):
        values = block.values(rule.columns[0])
        broken, first, last = kernels.out_of_order(values, order=rule.wants)
        return rule.report(
            broken=broken, seen={} if first is None else {"first": first, "last": last}
        )
    if rule.check == "fresh" and len(block):
        newest = pc.max(epoch_us(block.table.column(rule.columns[0]))).as_py()
        return rule.report(seen={} if newest is None else {"newest": newest / 1e6})
    return rule.report()


def _set_aside(
    table: pa.Table, marks: Sequence[tuple[CompiledRule, Mask | None]], aside: Mask | None
) -> pa.Table:
    """The rows set aside, each with the names of all rules it broke, and why."""
    if aside is None:
        return _about(table.slice(0, 0), [], [])
    rows = table.filter(pa.array(aside))
    names, reasons = [], []
    nothing = pa.scalar(None, pa.string())
    for rule, mark in marks:
        if mark is None or rule.severity != "quarantine" or rule.check == "nulls":
            continue
        hit = pa.array(mark[aside])
        names.append(pc.if_else(hit, rule.name, nothing))
        reasons.append(pc.if_else(hit, _reason(rule, rows), nothing))
    return _about(rows, names, reasons)


def _reason(rule: CompiledRule, rows: pa.Table) -> Any:
    """`distance: 7000 is not in [0, 6000]`; without the value if that is private or too long."""
    if rule.check in ("holds", "function") or rule.private:
        about = ", ".join(rule.columns) if rule.check not in ("holds", "function") else ""
        return f"{about}: {rule.says}" if about else rule.says
    values = [_text(rows.column(c)) for c in rule.columns]
    return pc.binary_join_element_wise(
        f"{', '.join(rule.columns)}:", *values, f"is {rule.says}", " "
    )


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pt.is_nested(column.type) or pt.is_binary(column.type):
        return pa.chunked_array([pa.array(["(a value)"] * len(column), pa.string())])
    return pc.fill_null(pc.cast(column, pa.string()), "")


def _about(rows: pa.Table, names: list[Any], reasons: list[Any]) -> pa.Table:
    """Rows with the columns of `ABOUT`, without hidden ones."""
    count = rows.num_rows
    columns: dict[str, Any] = {"_rule": _joined(names, count), "_reason": _joined(reasons, count)}
    for name, hidden in (
        ("_source", reading.ORIGIN), ("_position", reading.POSITION), ("_raw", reading.RAW)
    ):  # fmt: skip
        if hidden in rows.column_names:
            columns[name] = rows[hidden].cast(ABOUT.field(name).type)
        else:
            columns[name] = pa.nulls(count, ABOUT.field(name).type)
    columns["_id"] = pa.array(row_ids(rows))
    plain = reading.visible(rows)
    return pa.table([*plain.columns, *columns.values()], schema=pa.schema([*plain.schema, *ABOUT]))


def _joined(texts: list[Any], rows: int) -> Any:
    if not texts:
        return pa.nulls(rows, pa.string())
    return pc.binary_join_element_wise(*texts, "; ", null_handling="skip")


def _without_text(unreadable: pa.Table) -> pa.Table:
    """Rows that could not be read, as quarantined ones."""
    names = [pa.array([READABLE] * len(unreadable), pa.string())]
    return _about(unreadable, names, [unreadable[reading.UNREADABLE]])


def _why_unreadable(unreadable: pa.Table | None) -> tuple[int, tuple[str, ...]]:
    if unreadable is None:
        return 0, ()
    reasons = unreadable[reading.UNREADABLE].slice(0, 4 * EXAMPLES).to_pylist()
    return unreadable.num_rows, tuple(dict.fromkeys(map(str, reasons)))[:EXAMPLES]
