"""Kinds of sources by name: one module each, imported when a project uses it.

Every module has `open_source(name, source, folder) -> Opened`, and `files(name, source, folder)`,
which says without Ray, and without reading rows, what there is to read.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from mlray.config.rows import AnySource, Source
from mlray.errors import ConfigError
from mlray.sources import resolve
from mlray.sources.kinds import csv, excel, json, parquet
from mlray.sources.opened import Opened, SourceFile, did_you_mean

KINDS = (
    "csv", "parquet", "json", "excel", "sql", "rest", "kafka", "delta", "iceberg", "images",
)  # fmt: skip
"""Each is a module of this package; besides, `module:function` names a function of the user."""
ENDINGS: dict[str, Sequence[str]] = {
    "csv": csv.ENDINGS,
    "parquet": parquet.ENDINGS,
    "json": json.ENDINGS,
    "excel": excel.ENDINGS,
}
"""Endings of files that show their kind."""


def open_source(name: str, source: AnySource, folder: str) -> Opened:
    """Open one source; nothing but its head is read.

    Args:
        name: of the source in the project file.
        source: its section.
        folder: of the project file.
    """
    opened: Opened = _module(kind_of(name, source)).open_source(name, source, folder)
    return opened


def files(name: str, source: AnySource, folder: str) -> tuple[SourceFile, ...]:
    """What stands for a source in fingerprints and lineage, found without Ray."""
    found: tuple[SourceFile, ...] = _module(kind_of(name, source)).files(name, source, folder)
    return found


def pinned(name: str, source: AnySource, found: Sequence[SourceFile]) -> AnySource:
    """The source held at what `files` found, if its kind has versions; else as it is."""
    hold = getattr(_module(kind_of(name, source)), "pinned", None)
    held: AnySource = source if hold is None else hold(source, found)
    return held


def kind_of(name: str, source: AnySource) -> str:
    """The kind of a source, declared or shown by the ending of its path.

    Raises:
        ConfigError: there is neither, or no such kind.
    """
    kind = source.kind
    if not isinstance(source, Source):
        return str(kind)
    if kind is not None and ":" in kind:
        return kind
    if not source.path:
        raise ConfigError(
            f"sources.{name} has no path",
            do="set `path`, or `kind: module:function` for rows from a function",
        )
    kind = kind or resolve.kind_of(source.path, ENDINGS)
    if kind not in KINDS:
        raise ConfigError(
            f"sources.{name}.kind is not known",
            value=kind,
            allowed=f"{', '.join(KINDS)}, module:function",
            do=did_you_mean(kind, KINDS),
        )
    return kind


def _module(kind: str) -> Any:
    module = "function" if ":" in kind else kind
    return importlib.import_module(f"mlray.sources.kinds.{module}")
