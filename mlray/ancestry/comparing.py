"""What changed from one version to another, in sentences that a person can act on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlray.ancestry.files import input_changes
from mlray.ancestry.lineage import Lineage
from mlray.ancestry.showing import short

if TYPE_CHECKING:
    from rich.console import RenderableType

_Part = Mapping[str, Any]
_SHOWN_CHARS = 80


@dataclass(frozen=True)
class Change:
    """One difference."""

    group: str
    """data, features, code, environment, settings, run, model."""
    what: str
    """Name of what changed: a file, a column, a package, a setting, a metric."""
    text: str
    """The sentence."""
    before: Any = None
    after: Any = None


@dataclass(frozen=True)
class Changes:
    """All differences between two versions, and nothing that is the same."""

    before: str
    after: str
    found: tuple[Change, ...]

    def of(self, group: str) -> tuple[Change, ...]:
        return tuple(change for change in self.found if change.group == group)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        found = [asdict(change) for change in self.found]
        return {"before": self.before, "after": self.after, "changes": found}

    def __rich__(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        shown = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
        shown.add_column(style="bold", no_wrap=True)
        shown.add_column(overflow="fold")
        shown.add_row("change", Text(f"from {self.before} to {self.after}"))
        for group in dict.fromkeys(change.group for change in self.found):
            shown.add_row()
            shown.add_row(group, Text("\n".join(change.text for change in self.of(group))))
        if not self.found:
            shown.add_row("", Text("nothing differs"))
        return shown


def changes(before: Lineage, after: Lineage) -> Changes:
    """What differs between two versions, of one model or of two."""
    found: list[Change] = []
    for lineage in (before, after):
        if not lineage.record:
            told = f"{lineage.name} has no record of its origin; only the registry's facts compare"
            found.append(Change("version", lineage.name, told))
    parts: dict[str, Callable[[_Part, _Part], Iterator[Change]]] = {
        "data": _data,
        "features": _features,
        "code": _code,
        "environment": _environment,
        "settings": _settings,
        "run": _run,
    }
    if before.record and after.record:
        for name, compare in parts.items():
            found += compare(before.part(name), after.part(name))
    return Changes(before.name, after.name, (*found, *_model(before, after)))


def _data(before: _Part, after: _Part) -> Iterator[Change]:
    moved = [Change("data", *change) for change in input_changes(before, after)]
    yield from moved
    numbers = {
        "rows": "rows read",
        "clean": "clean rows",
        "filtered": "rows filtered out",
        "quarantined": "rows in quarantine",
        "left_out": "rows left out for suspected labels",
    }
    for name, words in numbers.items():
        yield from _number("data", name, words, before.get(name, 0), after.get(name, 0))
    for part in dict.fromkeys([*before["parts"], *after["parts"]]):
        old, new = before["parts"].get(part, 0), after["parts"].get(part, 0)
        yield from _number("data", f"parts.{part}", f"rows in the {part} part", old, new)
    yield from _content(before, after, bool(moved))
    yield from _pairs("data", before.get("personal", {}), after.get("personal", {}), "column")
    old, new = before.get("pii_key"), after.get("pii_key")
    if old and new and old != new:
        yield Change("data", "pii_key", "personal data is hashed with another key", old, new)
    if before["split"] != after["split"]:
        told = f"the split is another: {'; '.join(after['split'])}"
        yield Change("data", "split", told, before["split"], after["split"])


def _content(before: _Part, after: _Part, moved: bool) -> Iterator[Change]:
    old, new = before["content"], after["content"]
    if old and new and old == new and moved:
        told = "the clean rows hold the very same values all the same"
        yield Change("data", "content", told, old, new)
    elif old and new and old != new and before["clean"] == after["clean"]:
        same_columns = old.rpartition("-")[2] == new.rpartition("-")[2]
        what = "values of the clean rows" if same_columns else "columns or types of the clean rows"
        yield Change("data", "content", f"{what} changed", old, new)
    elif old and new and old.rpartition("-")[2] != new.rpartition("-")[2]:
        yield Change("data", "content", "columns or types of the clean rows changed", old, new)


def _features(before: _Part, after: _Part) -> Iterator[Change]:
    yield from _pairs("features", before["used"], after["used"], "feature")
    for column in sorted(before["left"].keys() & after["left"].keys()):
        old, new = before["left"][column], after["left"][column]
        if old != new:
            told = f"`{column}` is left out for another reason: {new}"
            yield Change("features", column, told, old, new)


def _code(before: _Part, after: _Part) -> Iterator[Change]:
    old, new = before.get("commit"), after.get("commit")
    if old != new:
        look = f"; `git log {old[:12]}..{new[:12]}` lists them" if old and new else ""
        told = f"the commit: {_short(old)} to {_short(new)}{look}"
        yield Change("code", "commit", told, old, new)
    for name, part in (("before", before), ("after", after)):
        if part.get("dirty") == "true":
            told = f"{name} the change there was code that had not been committed"
            yield Change("code", "dirty", told, before.get("dirty"), after.get("dirty"))
    for path in dict.fromkeys([*before["functions"], *after["functions"]]):
        old, new = before["functions"].get(path), after["functions"].get(path)
        if old != new:
            told = (
                f"`{path}` is no longer used"
                if new is None
                else f"`{path}` is new"
                if old is None
                else f"the code of `{path}` changed ({short(old)} to {short(new)})"
            )
            yield Change("code", path, told, old, new)


def _short(commit: str | None) -> str:
    return commit[:12] if commit else "none"


def _environment(before: _Part, after: _Part) -> Iterator[Change]:
    for name, words in (("python", "Python"), ("platform", "the platform"), ("lock", "lock file")):
        old, new = before.get(name), after.get(name)
        if old != new:
            yield Change("environment", name, f"{words}: {old} to {new}", old, new)
    yield from _pairs("environment", before["packages"], after["packages"], "package")


def _settings(before: _Part, after: _Part) -> Iterator[Change]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old != new:
            yield Change("settings", name, f"{name}: {_value(old)} to {_value(new)}", old, new)


def _value(value: Any) -> str:
    if value is None:
        return "not set"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 4]} ..."


def _run(before: _Part, after: _Part) -> Iterator[Change]:
    words = {"who": "run by", "host": "host", "device": "device", "workers": "workers"}
    for name, word in words.items():
        old, new = before.get(name), after.get(name)
        if old != new:
            yield Change("run", name, f"{word}: {old} to {new}", old, new)


def _model(before: Lineage, after: Lineage) -> Iterator[Change]:
    old, new = before.part("model"), after.part("model")
    for name in ("name", "task", "target", "network"):
        if old and new and old[name] != new[name]:
            told = f"{name}: {old[name]} to {new[name]}"
            yield Change("model", name, told, old[name], new[name])
    metrics = before.version.metrics, after.version.metrics
    for metric in dict.fromkeys([*metrics[0], *metrics[1]]):
        was, now = metrics[0].get(metric), metrics[1].get(metric)
        if was is None or now is None:
            there = "no longer measured" if now is None else f"newly measured: {now:.4f}"
            yield Change("model", metric, f"{metric} is {there}", was, now)
        elif was != now:
            told = f"{metric}: {was:.4f} to {now:.4f} ({now - was:+.4f})"
            yield Change("model", metric, told, was, now)
    if old and new and old["promote"] != new["promote"]:
        said = {True: "promote", False: "do not promote"}
        told = f"the gate: {said[old['promote']]}, then {said[new['promote']]}: "
        told += "; ".join(new["reasons"])
        yield Change("model", "gate", told, old["promote"], new["promote"])


def _number(group: str, what: str, words: str, old: int, new: int) -> Iterator[Change]:
    if old != new:
        more = f"{abs(new - old):,} {'more' if new > old else 'fewer'}"
        yield Change(group, what, f"{more} {words} ({old:,} to {new:,})", old, new)


def _pairs(group: str, before: _Part, after: _Part, noun: str) -> Iterator[Change]:
    """Names that came, went, or mean something else."""
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        told = (
            f"{noun} `{name}` is gone ({old})"
            if new is None
            else f"{noun} `{name}` is new ({new})"
            if old is None
            else f"{noun} `{name}`: {old} to {new}"
        )
        yield Change(group, name, told, old, new)
