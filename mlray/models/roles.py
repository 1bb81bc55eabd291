"""Which columns a model learns from, and how; each decision with a reason for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mlray.errors import ConfigError
from mlray.stats.profile import ColumnProfile, Profile

Kind = Literal["numeric", "category", "time"]

ID_FRAC = 0.9
"""A text or whole-number column with a larger share of distinct values names rows."""
FREE_TEXT_CHARS = 40.0
"""Longer texts on average, mostly distinct, are prose and not categories."""


@dataclass(frozen=True)
class Role:
    """One column to learn from, how it is encoded, and why."""

    column: str
    kind: Kind
    reason: str


@dataclass(frozen=True)
class Left:
    """One column that was left out, and why."""

    column: str
    reason: str


def choose_roles(
    profile: Profile,
    target: str,
    *,
    times: Sequence[str] = (),
    kinds: Mapping[str, Kind] | None = None,
    ignore: Sequence[str] = (),
    features: Sequence[str] | None = None,
) -> tuple[list[Role], list[Left]]:
    """Which columns to learn from, in the profile's order, and which not; each with its reason.

    Args:
        profile: of the training rows, after all transforms.
        target: never an input.
        times: columns that say when something became known (split, label): never an input.
        kinds: encodings that the user declared; a declared column is always kept.
        ignore: columns to leave out.
        features: the only columns to consider, if given.

    Raises:
        ConfigError: a named column does not exist, or nothing is left to learn from.
    """
    kinds = kinds or {}
    named = {"target": [target], "kinds": kinds, "ignore": ignore, "features": features or ()}
    for key, columns in named.items():
        _must_exist(profile, key, columns)
    roles: list[Role] = []
    left: list[Left] = []
    for name, column in profile.columns.items():
        if reason := _told_to_leave(name, target, times, ignore, features):
            left.append(Left(name, reason))
            continue
        found = _declared(column, kinds) or _derived(column, wanted=features is not None)
        (roles if isinstance(found, Role) else left).append(found)  # type: ignore[arg-type]
    if not roles:
        raise ConfigError(
            "no column is left to learn from",
            value=[f"{item.column} ({item.reason})" for item in left],
            do="name the columns in model.features, or their encoding in model.kinds",
        )
    return roles, left


def _must_exist(profile: Profile, key: str, columns: Iterable[str]) -> None:
    if unknown := [name for name in columns if name not in profile.columns]:
        raise ConfigError(
            f"model.{key} names columns that the rows do not have",
            value=unknown,
            allowed=", ".join(profile.columns),
        )


def _told_to_leave(
    name: str,
    target: str,
    times: Sequence[str],
    ignore: Sequence[str],
    features: Sequence[str] | None,
) -> str | None:
    if name == target:
        return "the target"
    if name in ignore:
        return "named in model.ignore"
    if name in times:
        return "says when something became known; not known of a new row"
    if features is not None and name not in features:
        return "not named in model.features"
    return None


def _declared(column: ColumnProfile, kinds: Mapping[str, Kind]) -> Role | None:
    kind = kinds.get(column.name)
    return Role(column.name, kind, "declared in model.kinds") if kind else None


def _derived(column: ColumnProfile, wanted: bool) -> Role | Left:
    """The role that the values suggest; a column named in model.features is not judged an id."""
    if reason := _empty(column):
        return Left(column.name, reason)
    if not wanted and (reason := _names_rows(column)):
        return Left(column.name, reason)
    if column.kind == "time":
        return Role(column.name, "time", "a time: its calendar features")
    if column.kind == "string":
        return Role(column.name, "category", f"text of {_count(column)} values")
    if column.kind == "boolean":
        return Role(column.name, "numeric", "true or false, as 1 or 0")
    if column.kind == "numeric":
        return Role(column.name, "numeric", f"numbers, {_count(column)} values")
    return Left(column.name, f"type {column.type} has no encoding")


def _empty(column: ColumnProfile) -> str | None:
    """Why a column says nothing; one value and gaps do say something: the gaps."""
    if column.missing >= column.rows:
        return "no row has a value"
    if column.present and column.distinct <= 1 and column.present == column.rows:
        return "constant: every row has the same value"
    return None


def _names_rows(column: ColumnProfile) -> str | None:
    """Why a column only tells rows apart: an id or prose, of which no value comes again."""
    share = column.distinct / max(column.present, 1)
    if column.present < 20 or share < ID_FRAC:
        return None
    if column.kind == "string":
        prose = column.mean_length > FREE_TEXT_CHARS
        what = "free text" if prose else "an id"
        return f"{what}: {_count(column)} different texts in {column.present:,} rows"
    whole = column.type.startswith(("int", "uint"))
    if whole and _dense(column):
        return f"an id: whole numbers, {_count(column)} different ones in {column.present:,} rows"
    return None


def _dense(column: ColumnProfile) -> bool:
    """Whether whole numbers look counted through or drawn at random as ids, and not measured.

    Counted: they fill their range. Random ids: distinct throughout and of a size that no
    measurement of so many rows has without repeating (over 100 times the number of rows).
    """
    span = float(column.maximum or 0) - float(column.minimum or 0) + 1
    counted = column.present >= 100 and span <= 1.5 * column.present
    return counted or (column.present >= 1000 and span > 100 * column.present)


def _count(column: ColumnProfile) -> str:
    return f"{'' if column.distinct_is_exact else 'about '}{column.distinct:,}"
