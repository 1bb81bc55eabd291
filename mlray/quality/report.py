"""What checking found, in numbers that merge, and whether the run may go on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from mlray.config.quality import Quality
from mlray.errors import EXAMPLES, QualityError
from mlray.quality.kernels import is_ordered

Severity = Literal["warn", "quarantine", "stop"]
READABLE = "readable"
"""The rule that every row keeps which could be read at all."""


@dataclass(frozen=True)
class RuleReport:
    """How often one rule was broken."""

    name: str
    severity: Severity
    broken: int = 0
    """Rows; with `nulls` missing values, with `monotonic` rows out of order."""
    examples: tuple[str, ...] = ()
    """At most five values that broke it."""
    check: str = ""
    columns: tuple[str, ...] = ()
    at_most: float | None = None
    """Share of rows that may break it; None: the default of its severity."""
    wants: Any = None
    """What a rule about the whole table asks for."""
    seen: dict[str, Any] = field(default_factory=dict)
    """What such a rule remembers of the blocks: `first`, `last`, `newest`."""
    finding: str = ""
    """Of `fresh` and `like`: how the rule is broken; see `settled`."""

    def merge(self, later: RuleReport) -> RuleReport:
        """Of this block and the rows that come after it."""
        edge, seen = self._joined(later.seen)
        examples = tuple(dict.fromkeys(self.examples + later.examples))[:EXAMPLES]
        broken = self.broken + later.broken + edge
        return dataclasses.replace(self, broken=broken, examples=examples, seen=seen)

    def _joined(self, after: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Rows out of order at the seam of two blocks, and what is remembered of both."""
        mine = self.seen
        if not mine or not after:
            return 0, mine or after
        if self.check == "fresh":
            return 0, {"newest": max(mine["newest"], after["newest"])}
        broken = not is_ordered(mine["last"], after["first"], self.wants)
        return int(broken), {"first": mine["first"], "last": after["last"]}


@dataclass(frozen=True)
class QualityReport:
    """What checking found; reports of blocks merge, in source order, into that of the whole."""

    rows: int
    quarantined: int
    rules: tuple[RuleReport, ...]
    unreadable: int = 0
    """Rows in quarantine because they could not be read."""
    reasons: tuple[str, ...] = ()
    """At most five reasons why not."""

    @property
    def share(self) -> float:
        """Share of rows that were quarantined, 0 to 1."""
        return self.quarantined / self.rows if self.rows else 0.0

    @property
    def readable(self) -> int:
        """Rows that the rules looked at."""
        return self.rows - self.unreadable

    def merge(self, later: QualityReport) -> QualityReport:
        return QualityReport(
            self.rows + later.rows,
            self.quarantined + later.quarantined,
            tuple(a.merge(b) for a, b in zip(self.rules, later.rules, strict=True)),
            self.unreadable + later.unreadable,
            tuple(dict.fromkeys(self.reasons + later.reasons))[:EXAMPLES],
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with `breach` of every rule in words beside its numbers."""
        plain = dataclasses.asdict(self)
        for told, rule in zip(plain["rules"], self.rules, strict=True):
            told["breach"] = breach(rule, self.readable)
        return plain

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> QualityReport:
        known = {f.name for f in dataclasses.fields(RuleReport)}
        rules = tuple(_rule({k: v for k, v in r.items() if k in known}) for r in values["rules"])
        more = values.get("unreadable", 0), tuple(values.get("reasons", ()))
        return cls(values["rows"], values["quarantined"], rules, *more)


def _rule(told: dict[str, Any]) -> RuleReport:
    fields = dict(told)
    for name in ("examples", "columns"):
        fields[name] = tuple(told.get(name, ()))
    return RuleReport(**fields)


def breach(rule: RuleReport, rows: int) -> str:
    """How a rule is broken, in a sentence without values; empty if it is kept.

    A rule about single rows is broken by one row, unless `at_most` allows a share of them.

    >>> breach(RuleReport("x: range", "warn", broken=2, at_most=0.1), rows=100)
    ''
    >>> breach(RuleReport("x: range", "warn", broken=20, at_most=0.1), rows=100)
    'x: range: broken by 20 rows (20.0%), 10.0% may be'
    """
    share = rule.broken / rows if rows else 0.0
    if rule.check == "nulls":
        said = f"{rule.name}: {share:.1%} of the values are missing, {rule.wants:.1%} may be"
        return said if rule.broken > rule.wants * rows else ""
    if rule.check == "rows":
        return _wrong_number(rule, rows)
    if rule.check in ("fresh", "like"):
        return rule.finding and f"{rule.name}: {rule.finding}"
    if rule.broken <= (rule.at_most or 0.0) * rows:
        return ""
    one = "row" if rule.broken == 1 else "rows"
    told = f"{rule.name}: broken by {rule.broken:,} {one}"
    return told if rule.at_most is None else f"{told} ({share:.1%}), {rule.at_most:.1%} may be"


def decide(report: QualityReport, quality: Quality) -> tuple[str, ...]:
    """Whether the run may go on; returns what was found, in sentences.

    Raises:
        QualityError: a rule that stops the run is broken, more rows broke a rule than its
            `at_most` allows, or too large a share of the rows was quarantined.
    """
    told = [(rule, breach(rule, report.readable)) for rule in report.rules]
    found = [_with_examples(text, rule.examples) for rule, text in told if text]
    if report.unreadable:
        reasons = "; ".join(report.reasons)
        found.insert(0, f"{READABLE}: {report.unreadable:,} rows could not be read ({reasons})")
    stops = [_with_examples(text, rule.examples) for rule, text in told if text and _stops(rule)]
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


def _stops(rule: RuleReport) -> bool:
    """A rule that sets rows aside stops the run only past a share of its own."""
    return rule.severity == "stop" or (rule.severity == "quarantine" and rule.at_most is not None)


def _with_examples(text: str, examples: tuple[str, ...]) -> str:
    return f"{text} (e.g. {'; '.join(examples)})" if examples else text


def _wrong_number(rule: RuleReport, rows: int) -> str:
    least, greatest = rule.wants
    if (least is None or rows >= least) and (greatest is None or rows <= greatest):
        return ""
    if greatest is None:
        return f"{rule.name}: {rows:,} rows, fewer than {least:,}"
    if least is None:
        return f"{rule.name}: {rows:,} rows, more than {greatest:,}"
    return f"{rule.name}: {rows:,} rows, not between {least:,} and {greatest:,}"
