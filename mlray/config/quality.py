"""Sections about what rows must be: rules, personal data, labels."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from mlray.config.fields import Duration, Frac, ImportPath, Section


class ExistsIn(Section):
    """Another source's column that values must exist in."""

    source: str
    """Name of the source."""
    column: str
    """Its column."""


class Rule(Section):
    """One rule. A rule about single rows sets aside those that break it; a rule about the whole
    table (nulls, monotonic, fresh, rows, like) stops the run. Missing values are judged by
    `required` and `nulls` only."""

    column: str | None = None
    """The column the rule is about."""
    columns: list[str] | None = None
    """Several columns: each for itself, or together for `unique`."""
    name: str | None = None
    """Name in reports; derived from column and check."""
    required: bool | None = None
    """The column must exist and no value may be missing."""
    type: str | None = None
    """Arrow type that the values must have or convert to without loss."""
    range: tuple[float | str | None, float | str | None] | None = None
    """Lowest and highest value, both allowed; null for no bound; dates as text."""
    allowed: list[Any] | None = None
    """The only values allowed (missing ones are not judged)."""
    matches: str | None = None
    """Regular expression (RE2) that the whole text must match, e.g. `[A-Z]{2}[0-9]{4}`."""
    length: tuple[int | None, int | None] | None = None
    """Least and greatest number of characters."""
    unique: bool | None = None
    """No value, or no combination of the columns' values, may occur twice among the rows that keep
    the other rules; the first row in source order stays."""
    holds: str | None = None
    """Expression over columns that must be true of every row, e.g. `arrived >= departed`; a row
    where it cannot be told (a value is missing) is not judged."""
    exists_in: ExistsIn | None = None
    """Values must exist in a column of another source, which need not be joined."""
    function: ImportPath | None = None
    """`module:function` on an Arrow table that returns a boolean array, true for good rows."""
    nulls: Frac | None = None
    """Largest share of missing values in the whole column."""
    monotonic: Literal["increasing", "decreasing", "strictly increasing", "strictly decreasing"] | (
        None
    ) = None
    """The order that the values have from row to row, in source order; a row after which the order
    starts anew breaks it."""
    fresh: Duration | None = None
    """The newest time of the column is not older than this."""
    rows: tuple[int | None, int | None] | None = None
    """Least and greatest number of rows of the table."""
    like: str | None = None
    """Reference that the column's distribution must be close to: `champion` for the training data
    of the model in use, or a profile.json file."""
    psi: float = 0.2
    """With `like`: largest population stability index."""
    at_most: Frac | None = None
    """Share of rows that may break the rule before `warn` is told or `stop` ends the run, none by
    default; with `quarantine`, share of rows that may be set aside by it before the run stops."""
    severity: Literal["warn", "quarantine", "stop"] | None = None
    """warn: report only. quarantine: set rows aside. stop: end the run. By default quarantine for
    rules about single rows, stop for rules about the whole table."""


class Labels(Section):
    """Search for wrong labels and poisoned rows, by a model trained on the other folds, by what
    single sources and batches do, by flooding with near copies, and by planted triggers."""

    action: Literal["off", "report", "quarantine", "stop"] = "off"
    """report: findings in the report. quarantine: suspected training rows do not train, and lie in
    quarantine with score and reason. stop: findings above the limits end the run. Rows are never
    changed; validation and test rows stay as they are."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Parts; each is judged by a network that was trained on the others."""
    origin: str | None = None
    """Column that says who delivered a row; suppliers are compared with one another."""
    batch: str | None = None
    """Column that says in which batch or on which day a row came; batches are compared in order."""
    max_suspects: Frac = 0.02
    """Largest share of wrong labels, at the lower end of its estimate; more is above the limits.
    Where classes overlap everywhere, part of the overlap counts as wrong labels."""


class Quality(Section):
    """What a row must be to count."""

    rules: list[Rule] = []
    """Rules, all checked in one pass."""
    max_quarantined: Frac = 0.05
    """The run stops if a larger share of rows breaks a rule."""
    personal: Literal["off", "warn", "stop"] = "warn"
    """What is done about columns that look like personal data (names, e-mails, card, phone and id
    numbers) and are not marked `pii`."""
    labels: Labels = Labels()
    """Search for wrong labels and poisoned rows."""
