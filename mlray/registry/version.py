"""A registered version, and reading versions without loading MLflow where that can be had.

MLflow costs 2 s to import and open; a follower or `mlray run` with nothing to do asks only for a
few rows. From a SQLite store they are read directly (1 ms); a test holds both ways equal.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")
CHAMPION = "champion"
METRICS, DIGEST = "mlray.metrics", "mlray.bundle"


@dataclass(frozen=True)
class Version:
    """One version of a model: a bundle that never changes."""

    name: str
    number: int
    run_id: str
    created_at: str
    """UTC, ISO 8601."""
    source: str
    """Where the artifact store keeps the bundle."""
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """The name that MLflow's own tools take."""
        return f"models:/{self.name}/{self.number}"

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics on the test part, as they were when the version was registered."""
        return dict(json.loads(self.tags.get(METRICS, "{}")))

    @property
    def digest(self) -> str:
        """SHA-256 of the bundle's SHA256SUMS; empty for a version that mlray did not register."""
        return self.tags.get(DIGEST, "")


def moment(created_ms: int) -> str:
    """
    >>> moment(1_700_000_000_000)
    '2023-11-14T22:13:20+00:00'
    """
    return datetime.fromtimestamp(created_ms / 1000, UTC).isoformat(timespec="seconds")


def from_mlflow(found: Any, aliases: Mapping[str, Any]) -> Version:
    """An MLflow `ModelVersion` and its model's aliases as a `Version`."""
    number = int(found.version)
    return Version(
        found.name,
        number,
        found.run_id or "",
        moment(found.creation_timestamp),
        found.source,
        tuple(sorted(a for a, n in aliases.items() if int(n) == number)),
        dict(found.tags),
    )


def read_sqlite(path: str, name: str) -> list[Version] | None:
    """All versions of a model, newest first; None if MLflow itself must be asked.

    Args:
        path: file of the SQLite store; a file that is not there holds no versions.
        name: of the model.
    """
    return _read(path, lambda connection: _versions(connection, name))


def read_names(path: str) -> list[str] | None:
    """Names of all models of a SQLite store, sorted; None if MLflow itself must be asked."""
    query = "select name from registered_models where workspace = 'default' order by name"
    return _read(path, lambda connection: (row[0] for row in connection.execute(query)))


def _read(path: str, rows: Callable[[sqlite3.Connection], Iterable[_T]]) -> list[_T] | None:
    if not Path(path).exists():
        return []
    address = f"{Path(path).absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=20)) as connection:
            return list(rows(connection))
    except sqlite3.Error:
        return None  # a layout of another MLflow, or a damaged file: MLflow says which


def _versions(connection: sqlite3.Connection, name: str) -> Iterator[Version]:
    model = (name,)
    wanted = "where name = ? and workspace = 'default'"
    tags: dict[int, dict[str, str]] = {}
    query = f"select version, key, value from model_version_tags {wanted}"
    for number, key, value in connection.execute(query, model):
        tags.setdefault(number, {})[key] = value
    aliases: dict[int, list[str]] = {}
    query = f"select version, alias from registered_model_aliases {wanted} order by alias"
    for number, alias in connection.execute(query, model):
        aliases.setdefault(number, []).append(alias)
    columns = "version, run_id, creation_time, source"
    # A deleted version keeps its row, for ever out of sight.
    query = f"select {columns} from model_versions {wanted} and current_stage != 'Deleted_Internal'"
    for number, run_id, created_ms, source in connection.execute(
        f"{query} order by version desc", model
    ):
        named = tuple(aliases.get(number, ()))
        at = moment(created_ms)
        yield Version(name, number, run_id or "", at, source, named, tags.get(number, {}))
