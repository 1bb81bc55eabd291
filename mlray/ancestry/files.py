"""Which inputs of the sources came, went, moved or changed between two versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mlray.ancestry.showing import size, state

_Part = Mapping[str, Any]
_Told = tuple[str, str, Any, Any]
"""What changed, the sentence, before, after."""
_EACH = 5
"""So many inputs of one source are named one by one."""


def input_changes(before: _Part, after: _Part) -> Iterator[_Told]:
    """Differences of the sources, from the records' `data`."""
    old, new = _by_source(before), _by_source(after)
    for name in dict.fromkeys([*old, *new]):
        if name not in new:
            yield name, f"source `{name}` is no longer read", old[name], None
        elif name not in old:
            yield name, f"source `{name}` is new", None, new[name]
        else:
            yield from _asked(name, _source(before, name), _source(after, name))
            yield from _of_source(name, old[name], new[name])


def _by_source(data: _Part) -> dict[str, list[_Part]]:
    found: dict[str, list[_Part]] = {}
    for item in data["inputs"]:
        found.setdefault(item.get("source") or "rows", []).append(item)
    return found


def _source(data: _Part, name: str) -> _Part:
    return next((source for source in data["sources"] if source["name"] == name), {})


def _asked(name: str, before: _Part, after: _Part) -> Iterator[_Told]:
    for what in ("kind", "where", "table", "query", "topic", "column"):
        old, new = before.get(what), after.get(what)
        if old != new:
            words = {"where": "place"}.get(what, what)
            yield f"{name}.{what}", f"source `{name}`: {words} {old} to {new}", old, new


def _of_source(name: str, before: list[_Part], after: list[_Part]) -> Iterator[_Told]:
    old = {item["path"]: item for item in before}
    new = {item["path"]: item for item in after}
    gone, came = _unmatched(old, new)
    changed = [p for p in old if p in new and old[p]["modified"] != new[p]["modified"]]
    yield from _listed(name, "added", [new[p] for p in came], None)
    yield from _listed(name, "removed", [old[p] for p in gone], None)
    yield from _listed(name, "changed", [new[p] for p in changed], old)


def _unmatched(old: Mapping[str, _Part], new: Mapping[str, _Part]) -> tuple[list[str], list[str]]:
    """Paths that are on one side only; a file that was only moved or renamed is on both."""
    gone = [path for path in old if path not in new]
    came = [path for path in new if path not in old]
    waiting: dict[str, list[str]] = {}
    for path in gone:
        waiting.setdefault(old[path]["modified"], []).append(path)
    moved_in = []
    for path in came:
        if same := waiting.get(new[path]["modified"]):
            gone.remove(same.pop())
            moved_in.append(path)
    return gone, [path for path in came if path not in moved_in]


def _listed(
    name: str, what: str, items: list[_Part], old: Mapping[str, _Part] | None
) -> Iterator[_Told]:
    for item in items[:_EACH]:
        path, now = item["path"], item["modified"]
        was = old[path]["modified"] if old else None
        held = f" ({size(item['size_bytes'])})" if item["size_bytes"] and not old else ""
        moved = f": {state(was)} to {state(now)}" if was else held
        yield (
            path,
            f"source `{name}`: {path} {what}{moved}",
            was,
            now if what != "removed" else None,
        )
    if (rest := len(items) - _EACH) > 0:
        yield name, f"source `{name}`: {rest:,} more {what}", None, rest
