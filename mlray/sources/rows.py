"""The rows of a project: all of its sources found, opened and joined."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mlray import usercode
from mlray.config import Project, with_sections
from mlray.config.rows import AnySource, Source
from mlray.errors import ConfigError, InputError
from mlray.sources import guarded, join, kinds, personal, reading
from mlray.sources.opened import Opened, SourceFile, did_you_mean
from mlray.sources.steps import Steps

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
    protected: Mapping[str, personal.Action]
    """Columns with personal data, by their names in these rows, and what became of them."""


@dataclass(frozen=True)
class _Preparation:
    """What happens to each block of `rows` after it is read. Runs in Ray workers."""

    steps: Steps
    joins: tuple[join.PreparedJoin, ...]
    schema: pa.Schema
    protected: Mapping[str, personal.Action]

    def __call__(self, table: pa.Table) -> pa.Table:
        aside = None
        if reading.UNREADABLE in table.column_names and table[reading.UNREADABLE].null_count < len(
            table
        ):
            readable = table[reading.UNREADABLE].is_null()
            table, aside = table.filter(readable), table.filter(pc.invert(readable))
        table = self._of_readable(table)
        return table if aside is None else pa.concat_tables([table, _without_values(aside, table)])

    def _of_readable(self, table: pa.Table) -> pa.Table:
        table = self.steps.apply(table)
        for each in self.joins:
            table = each.apply(table)
        return _agreed(table, self.schema, self.steps)


def _without_values(unreadable: pa.Table, like: pa.Table) -> pa.Table:
    """Unreadable rows in the shape of prepared ones: hidden columns kept, all others missing."""
    return pa.Table.from_arrays(
        [
            unreadable[f.name] if f.name in reading.HIDDEN else pa.nulls(len(unreadable), f.type)
            for f in like.schema
        ],
        schema=like.schema,
    )


def find(project: Project) -> Found:
    """Look for all inputs of a project without reading rows; Ray is not needed.

    Raises:
        ConfigError: an unknown kind or source name, or a join that cannot be.
        InputError: a file is missing; the message names the nearest that is there.
    """
    tables = project.sources.tables
    names = dict.fromkeys([*_used(project), *_looked_up(project)])
    personal.keys_of(project)  # a missing or short key is told before anything starts
    files = tuple(
        replace(file, source=name)
        for name in names
        for file in kinds.files(name, tables[name], project.folder)
    )
    return Found(files, _fingerprint(project, files))


def pinned(project: Project, found: Found) -> Project:
    """The project with tables that move on held at the versions that were found, so that all
    stages of a run read the same rows."""
    tables = project.sources.tables
    held = {
        name: kinds.pinned(name, tables[name], [f for f in found.inputs if f.source == name])
        for name in dict.fromkeys(file.source for file in found.inputs)
    }
    return with_sections(project, sources=project.sources.model_copy(update=held))


def open_rows(project: Project, *, traced: bool = False) -> Rows:
    """Open the sources of a project: `rows` with its transform, and all joins.

    Joined tables are read here, since every worker needs them whole; `rows` stays lazy. Ray must
    be running.

    Args:
        project: whose sources are opened.
        traced: blocks carry the hidden columns of `reading.HIDDEN` too, and rows that cannot be
            read come along with their text; else there are only readable rows.

    Raises:
        ConfigError: an unknown kind, type or source name, or a join that cannot be.
        InputError: what the files hold is not what was declared.
    """
    import ray

    opened, preparation = _prepared(project)
    shared = replace(preparation, joins=tuple(_shared(j, ray.put) for j in preparation.joins))
    dataset = opened["rows"].dataset(traced=traced)
    # Else Ray wraps our errors, and only their text would reach the driver.
    dataset.context.raise_original_map_exception = True
    if not shared.steps.empty or shared.joins:
        dataset = dataset.map_batches(
            shared, batch_format="pyarrow", batch_size=None, zero_copy_batch=True
        )
    files = tuple(f for source in opened.values() for f in source.files)
    fingerprint = _fingerprint(project, files)
    return Rows(dataset, preparation.schema, files, fingerprint, preparation.protected)


def open_files(path: str | list[str], project: Project) -> Opened:
    """Files of raw rows: read the way `rows` is, its personal data protected too, but without its
    steps and joins."""
    rows = project.sources.rows
    protection = personal.Protection.of(rows, personal.keys_of(project))
    return guarded.protect("rows", protection, lambda: _as_rows(path, rows, project.folder))


def _as_rows(path: str | list[str], rows: AnySource, folder: str) -> Opened:
    known = rows if isinstance(rows, Source) else Source()
    bare = Source(
        path=path, missing=known.missing, delimiter=known.delimiter, encoding=known.encoding
    )
    names = kinds.open_source("rows", bare, folder).schema.names
    types = {column: kind for column, kind in rows.types.items() if column in names}
    return kinds.open_source("rows", bare.model_copy(update={"types": types}), folder)


def protection(project: Project) -> personal.Protection:
    """What protects joined rows that come from elsewhere: values of before are known and kept."""
    keys = personal.keys_of(project)
    if keys is None:
        return personal.Protection()
    return personal.Protection(_prepared(project)[1].protected, keys)


def sample(project: Project, rows: int = _SAMPLE_ROWS) -> pa.Table:
    """The first rows of a project, transformed and joined, read in this process."""
    opened, preparation = _prepared(project)
    return preparation(opened["rows"].head(rows))


def source_heads(project: Project, rows: int = _SAMPLE_ROWS) -> Iterator[tuple[Steps, pa.Table]]:
    """The steps of each source that has any, and its first rows as they were read."""
    for name in _used(project):
        steps = Steps.of(project.sources.tables[name], f"sources.{name}", project.folder)
        if not steps.empty:
            yield steps, guarded.open_source(name, project).head(rows)


def _prepared(project: Project) -> tuple[dict[str, Opened], _Preparation]:
    tables, folder = project.sources.tables, project.folder
    opened = {name: guarded.open_source(name, project) for name in _used(project)}
    steps = {n: Steps.of(tables[n], f"sources.{n}", folder) for n in opened}
    first = _some("rows", opened["rows"].head(_SAMPLE_ROWS))
    first = steps["rows"].tried(first)
    schema = (opened["rows"].schema if steps["rows"].empty else first.schema).remove_metadata()
    keys = personal.keys_of(project)
    protected = personal.carried("rows", tables["rows"], first, keys)
    joins: list[join.PreparedJoin] = []
    for each in project.sources.join:
        right = steps[each.with_].apply(_some(each.with_, opened[each.with_].table()))
        marked = personal.carried(
            each.with_, tables[each.with_], right.slice(0, _SAMPLE_ROWS), keys
        )
        personal.joined(each, protected, marked)
        protected |= join.renamed(each, marked, schema)
        joins.append(join.prepare(each, tables[each.with_], right, schema))
        schema = joins[-1].schema(schema)
    return opened, _Preparation(steps["rows"], tuple(joins), schema, protected)


def _used(project: Project) -> list[str]:
    """Names of the sources that rows come from: `rows` and all that are joined."""
    join.check_declared(project.sources.join, project.sources.tables)
    return ["rows", *dict.fromkeys(j.with_ for j in project.sources.join)]


def _looked_up(project: Project) -> list[str]:
    """Names of the sources that `exists_in` rules look values up in."""
    known = project.sources.tables
    names = [rule.exists_in.source for rule in project.quality.rules if rule.exists_in]
    for name in names:
        if name not in known:
            raise ConfigError(
                "`exists_in` names a source that is not declared",
                value=name,
                do=did_you_mean(name, known),
            )
    return names


def _some(name: str, table: pa.Table) -> pa.Table:
    if table.num_rows == 0:
        raise InputError(f"source `{name}` has no rows", do="check where it reads from")
    return table


def _agreed(table: pa.Table, schema: pa.Schema, steps: Steps) -> pa.Table:
    """The same columns and types in every block, as the first rows had them; hidden ones stay."""
    hidden = [f for f in table.schema if f.name in reading.HIDDEN]
    wanted = pa.schema([*schema, *hidden])
    if table.schema.equals(wanted):
        return table.replace_schema_metadata(None)
    if set(table.column_names) != set(wanted.names):
        raise InputError(
            f"`{steps.transform}` does not always return the same columns",
            value=sorted(set(table.column_names) ^ set(wanted.names)),
        )
    try:
        return table.select(wanted.names).cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"`{steps.transform}` does not always return the same column types ({error})",
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
