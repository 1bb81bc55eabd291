"""The whole chain of one version: data, features, code, environment, run, model, deployment.

It is put together from what the registry keeps, so it can be asked for on any machine; only the
journal of promotions lies in the storage folder, and tags stand in where that is elsewhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlray import storage
from mlray.errors import TrackingError
from mlray.registry import CHAMPION, Registry, Version

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mlray.ancestry.comparing import Changes

PLACE = "mlray.lineage"
"""Tag of a version: where its record lies among its run's artifacts."""
_TOLD = {"promoted": "mlray.promoted", "rolled back": "mlray.rolled_back"}


@dataclass(frozen=True)
class Lineage:
    """Where one version comes from and what became of it."""

    version: Version
    record: Mapping[str, Any] = field(default_factory=dict)
    """What the run wrote: model, data, features, code, environment, settings, run. Empty for a
    version that was not registered by `mlray run`."""
    deployment: tuple[Mapping[str, Any], ...] = ()
    """Changes of champion that it took part in, oldest first: when, who, what, from, to, why."""

    @property
    def name(self) -> str:
        return f"{self.version.name}@{self.version.number}"

    @property
    def is_champion(self) -> bool:
        return CHAMPION in self.version.aliases

    def part(self, name: str) -> Mapping[str, Any]:
        """A section of the record; empty if it is not there."""
        found: Mapping[str, Any] = self.record.get(name) or {}
        return found

    def since(self, before: Lineage) -> Changes:
        """What changed from `before` to this version."""
        from mlray.ancestry.comparing import changes

        return changes(before, self)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        version = self.version
        return {
            "name": version.name,
            "version": version.number,
            "registered_at": version.created_at,
            "aliases": list(version.aliases),
            "champion": self.is_champion,
            "run_id": version.run_id,
            "digest": version.digest,
            "metrics": version.metrics,
            **self.record,
            "deployment": [dict(event) for event in self.deployment],
        }

    def __rich__(self) -> RenderableType:
        from mlray.ancestry.showing import render

        return render(self)


def lineage_of(registry: Registry, version: Version) -> Lineage:
    """Read what the registry knows of a version's origin.

    Raises:
        TrackingError: the store does not answer, or the record is gone or damaged.
    """
    return Lineage(version, _record(registry, version), _deployment(registry, version))


def _record(registry: Registry, version: Version) -> Mapping[str, Any]:
    place = version.tags.get(PLACE)
    if not place:
        return {}
    try:
        found: Mapping[str, Any] = json.loads(registry.beside(version, place))
    except ValueError as error:
        raise TrackingError(
            f"the lineage of {version.name} version {version.number} is damaged ({error})",
            value=place,
            do="put back the run's artifacts from a copy",
        ) from None
    return found


def _deployment(registry: Registry, version: Version) -> tuple[Mapping[str, Any], ...]:
    journal = registry.journal(version.name)
    known = not storage.is_remote(registry.home) and os.path.exists(journal.path)
    told = [
        {
            "when": entry.when,
            "who": entry.who,
            "what": entry.what,
            "from": entry.before,
            "to": entry.after,
            "why": list(entry.why),
        }
        for entry in (journal.entries() if known else [])
        if version.number in (entry.before, entry.after)
    ]
    return tuple(told or _from_tags(version))


def _from_tags(version: Version) -> list[dict[str, Any]]:
    """What the version itself says; a journal of another machine knows when and by whom."""
    return [
        {"when": None, "who": None, "what": what, "why": [version.tags[tag]]}
        for what, tag in _TOLD.items()
        if tag in version.tags
    ]
