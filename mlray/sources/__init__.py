"""Rows in: one file per kind of source, joined to one `ray.data.Dataset`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from mlray import usercode
from mlray.config import Project
from mlray.config.sections import Source
from mlray.errors import ConfigError, InputError
from mlray.sources import csv, function, join, parquet, resolve
from mlray.sources.opened import Opened, SourceFile, did_you_mean, plain_errors
from mlray.sources.types import arrow_type

__all__ = [
    "Found",
    "Opened",
    "Rows",
    "SourceFile",
    "arrow_type",
    "find",
    "open_files",
    "open_rows",
    "plain_errors",
    "sample",
]

KINDS: dict[str, Callable[[str, Source, str], Opened]] = {
    "csv": csv.open_source,
    "parquet": parquet.open_source,
}
"""Kinds of sources by name; besides, `module:function` names a function of the user."""
_ENDINGS: dict[str, Sequence[str]] = {"csv": csv.ENDINGS, "parquet": parquet.ENDINGS}
_SAMPLE_ROWS = 200


@dataclass(frozen=True)
class Found:
    """What there is to read."""

    inputs: tuple[SourceFile, ...]
    """Every file that rows come from, joined ones too."""
    fingerprint: str
    """Changes when the content of an input or the code of a source function does; not with the
    order, folder or time of small local files."""


@dataclass(frozen=True)
class Rows:
    """The joined rows of a project, not read yet."""

    dataset: Any
    """A lazy `ray.data.Dataset` of Arrow blocks with `schema`."""
    schema: pa.Schema
    inputs: tuple[SourceFile, ...]
    fingerprint: str
    """As `Found` has them."""


@dataclass(frozen=True)
class _Preparation:
    """What happens to each block of `rows` after it is read. Runs in Ray workers."""

    transform: str | None
    folder: str
    joins: tuple[join.PreparedJoin, ...]
    schema: pa.Schema

    def __call__(self, table: pa.Table) -> pa.Table:
        table = _transformed(table, "rows", self.transform, self.folder)
        for each in self.joins:
            table = each.apply(table)
        return _agreed(table, self.schema, self.transform)


def find(project: Project) -> Found:
    """Look for all inputs of a project without reading rows; Ray is not needed.

    Raises:
        ConfigError: an unknown kind or source name, or a join that cannot be.
        InputError: a file is missing; the message names the nearest that is there.
    """
    tables = project.sources.tables
    names = _used(project)
    files = tuple(f for n in names for f in _files(n, tables[n], project.folder))
    return Found(files, _fingerprint(project, files))


def open_rows(project: Project) -> Rows:
    """Open the sources of a project: `rows` with its transform, and all joins.

    Joined tables are read here, since every worker needs them whole; `rows` stays lazy. Ray must
    be running.

    Raises:
        ConfigError: an unknown kind, type or source name, or a join that cannot be.
        InputError: what the files hold is not what was declared.
    """
    import ray

    opened, preparation = _prepared(project)
    shared = replace(preparation, joins=tuple(_shared(j, ray.put) for j in preparation.joins))
    dataset = opened["rows"].dataset()
    # Else Ray wraps our errors, and only their text would reach the driver.
    dataset.context.raise_original_map_exception = True
    if shared.transform or shared.joins:
        dataset = dataset.map_batches(
            shared, batch_format="pyarrow", batch_size=None, zero_copy_batch=True
        )
    files = tuple(f for source in opened.values() for f in source.files)
    return Rows(dataset, preparation.schema, files, _fingerprint(project, files))


def open_files(path: str | list[str], project: Project) -> Opened:
    """Files of raw rows as they are: read the way `rows` is, without its transform and joins."""
    rows = project.sources.rows
    bare = rows.model_copy(
        update={"path": path, "kind": None, "types": {}, "columns": None, "transform": None}
    )
    names = _open("rows", bare, project.folder).schema.names
    types = {column: kind for column, kind in rows.types.items() if column in names}
    return _open("rows", bare.model_copy(update={"types": types}), project.folder)


def sample(project: Project, rows: int = _SAMPLE_ROWS) -> pa.Table:
    """The first rows of a project, transformed and joined, read in this process."""
    opened, preparation = _prepared(project)
    return preparation(opened["rows"].head(rows))


def _prepared(project: Project) -> tuple[dict[str, Opened], _Preparation]:
    tables = project.sources.tables
    opened = {name: _open(name, tables[name], project.folder) for name in _used(project)}
    first = _some("rows", opened["rows"].head(_SAMPLE_ROWS))
    path = tables["rows"].transform
    schema = _transformed(first, "rows", path, project.folder).schema
    schema = opened["rows"].schema if path is None else schema.remove_metadata()
    joins: list[join.PreparedJoin] = []
    for each in project.sources.join:
        source = tables[each.with_]
        right = _some(each.with_, opened[each.with_].table())
        right = _transformed(right, each.with_, source.transform, project.folder)
        joins.append(join.prepare(each, source, right, schema))
        schema = joins[-1].schema(schema)
    return opened, _Preparation(path, project.folder, tuple(joins), schema)


def _used(project: Project) -> list[str]:
    """Names of the sources that rows come from: `rows` and all that are joined."""
    join.check_declared(project.sources.join, project.sources.tables)
    return ["rows", *dict.fromkeys(j.with_ for j in project.sources.join)]


def _open(name: str, source: Source, folder: str) -> Opened:
    kind = _kind(name, source)
    return (
        function.open_source(name, source, folder)
        if ":" in kind
        else KINDS[kind](name, source, folder)
    )


def _files(name: str, source: Source, folder: str) -> tuple[SourceFile, ...]:
    kind = _kind(name, source)
    if ":" in kind:
        return function.files(kind, folder)
    places = resolve.find(source.path or [], _ENDINGS[kind])
    return tuple({p.file.path: p.file for p in places}.values())


def _kind(name: str, source: Source) -> str:
    if source.kind is not None and ":" in source.kind:
        return source.kind
    if source.path is None or source.path == []:
        raise ConfigError(
            f"sources.{name} has no path",
            do="set `path`, or `kind: module:function` for rows from a function",
        )
    kind = source.kind or resolve.kind_of(source.path, _ENDINGS)
    if kind not in KINDS:
        raise ConfigError(
            f"sources.{name}.kind is not known",
            value=kind,
            allowed=f"{', '.join(KINDS)}, module:function",
            do=did_you_mean(kind, KINDS),
        )
    return kind


def _some(name: str, table: pa.Table) -> pa.Table:
    if table.num_rows == 0:
        raise InputError(f"source `{name}` has no rows", do="check where it reads from")
    return table


def _transformed(table: pa.Table, name: str, path: str | None, folder: str) -> pa.Table:
    if path is None:
        return table
    try:
        result = usercode.resolve(path, folder)(table)
    except (ConfigError, InputError):
        raise
    except Exception as error:
        raise InputError(
            f"`{path}` failed on rows of source `{name}` ({type(error).__name__}: {error})",
            allowed=f"columns it is given: {', '.join(table.column_names)}",
        ) from error
    if not isinstance(result, pa.Table):
        raise InputError(
            f"`{path}` (source `{name}`) must return a pyarrow.Table, not",
            value=type(result).__name__,
        )
    return result


def _agreed(table: pa.Table, schema: pa.Schema, transform: str | None) -> pa.Table:
    """The same columns and types in every block, as the first rows had them."""
    if table.schema.equals(schema):
        return table.replace_schema_metadata(None)
    if set(table.column_names) != set(schema.names):
        raise InputError(
            f"`{transform}` does not always return the same columns",
            value=sorted(set(table.column_names) ^ set(schema.names)),
        )
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"`{transform}` does not always return the same column types ({error})",
            do="cast the column to one type in the function",
        ) from None


@dataclass(frozen=True)
class _Fetched:
    """The right table of a join, from the object store: no copy but for each process's first."""

    reference: Any

    def __call__(self) -> join.RightTable:
        import ray

        right: join.RightTable = ray.get(self.reference)
        return right


def _shared(prepared: join.PreparedJoin, put: Callable[[Any], Any]) -> join.PreparedJoin:
    return replace(prepared, right=_Fetched(put(prepared.right())))


def _fingerprint(project: Project, inputs: Iterable[SourceFile]) -> str:
    """Stable under the order and the folder of files: only names and contents count."""
    lines = [f"{re.split(r'[/]', f.path)[-1]} {f.size_bytes} {f.modified}" for f in inputs]
    for name, source in project.sources.tables.items():
        if source.transform:
            code = usercode.version(source.transform, project.folder)
            lines.append(f"{name} {source.transform} {code}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
