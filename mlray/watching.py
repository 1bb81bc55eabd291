"""A look at served traffic: the counts that replicas keep, against a version's training rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mlray.config import duration_s
from mlray.config.sections import Monitoring
from mlray.models.bundle import load_bundle
from mlray.monitoring.table import render_table, table
from mlray.monitoring.windows import Window, read
from mlray.registry import Registry, Version
from mlray.stats.bins import Reference
from mlray.stats.drift import Drift

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Watched:
    """Drift of one version's traffic in one window."""

    version: Version
    window: Window
    reference: Reference
    drifts: tuple[Drift, ...]
    """Largest first; empty if nothing was served."""

    @property
    def alarms(self) -> tuple[Drift, ...]:
        """Drifts that are both large and significant."""
        return tuple(drift for drift in self.drifts if drift.alarm)

    def top(self, rows: int) -> Table:
        """The table of the prediction and the most drifted features, for rich to show."""
        prediction = self.reference.features[-1].name
        first = [d for d in self.drifts if d.feature == prediction]
        others = [d for d in self.drifts if d.feature != prediction][: rows - len(first)]
        title = f"{self.version.name} version {self.version.number}"
        return render_table([*first, *others], self.reference, self.window, title=title)

    def __rich__(self) -> Table:
        return self.top(len(self.drifts))


def watch(
    registry: Registry,
    version: Version,
    since: str | datetime,
    settings: Monitoring | None = None,
) -> Watched:
    """Read the counts since then (or of a last stretch such as 1h) and compare with training."""
    settings = settings or Monitoring()
    reference = load_bundle(registry.local_path(version)).reference
    until = datetime.now(UTC)
    window = read(
        registry.home,
        version.name,
        str(version.number),
        since if isinstance(since, datetime) else until - timedelta(seconds=duration_s(since)),
        until,
        reference.features,
    )
    drifts = table(reference, window, psi=settings.psi, false_alarms=settings.false_alarms)
    return Watched(version, window, reference, tuple(drifts))
