"""Rows from a function of the user: `module:function` that returns a ray.data.Dataset."""

from __future__ import annotations

from functools import partial
from typing import Any

import pyarrow as pa

from mlray import usercode
from mlray.config.rows import Source
from mlray.errors import InputError
from mlray.sources.opened import Opened, SourceFile, require_columns
from mlray.sources.reading import with_trace
from mlray.sources.types import arrow_type, declared_table


def open_source(name: str, source: Source, folder: str) -> Opened:
    """Call the function that `kind` names with `options`.

    Raises:
        InputError: it failed, returned something else than a Dataset, or has no rows.
    """
    path = str(source.kind)
    rows = _called(name, path, source, folder)
    schema = _schema(name, path, rows)
    if source.columns:
        require_columns(source.columns, schema, f"source `{name}`")
        rows = rows.select_columns(list(source.columns))
        schema = pa.schema([schema.field(c) for c in source.columns])
    declared = _declared(name, source, schema)
    if not declared.equals(schema):
        rows = rows.map_batches(
            declared_table, batch_format="pyarrow", batch_size=None, fn_args=(name, declared)
        )
    return Opened(
        schema=declared,
        files=files(name, source, folder),
        dataset=partial(_dataset, path, rows),
        table=lambda: _collected(rows, declared),
        head=lambda count: _collected(rows.limit(count), declared),
    )


def files(name: str, source: Source, folder: str) -> tuple[SourceFile, ...]:
    """What stands for the function among the inputs: its module's code."""
    path = str(source.kind)
    return (SourceFile(path, 0, usercode.version(path, folder)),)


def _dataset(path: str, rows: Any, traced: bool = False) -> Any:
    """Traced rows say which function they are from; where in it nobody can say."""
    if not traced:
        return rows
    return rows.map_batches(
        with_trace, batch_format="pyarrow", batch_size=None, fn_args=(path, None)
    )


def _called(name: str, path: str, source: Source, folder: str) -> Any:
    from ray.data import Dataset

    function = usercode.resolve(path, folder)
    try:
        rows = function(dict(source.options))
    except Exception as error:
        raise InputError(
            f"`{path}` (source `{name}`) failed ({type(error).__name__}: {error})",
            do="it is called with one argument, the source's `options`",
        ) from error
    if not isinstance(rows, Dataset):
        raise InputError(
            f"`{path}` (source `{name}`) must return a ray.data.Dataset, not",
            value=type(rows).__name__,
            do="e.g. return ray.data.from_arrow(table)",
        )
    return rows


def _schema(name: str, path: str, rows: Any) -> pa.Schema:
    found = rows.schema()
    if found is None:
        raise InputError(f"source `{name}` has no rows", value=path)
    if isinstance(found.base_schema, pa.Schema):
        return found.base_schema.remove_metadata()
    return pa.schema(dict(zip(found.names, found.types, strict=True)))


def _declared(name: str, source: Source, schema: pa.Schema) -> pa.Schema:
    require_columns(source.types, schema, f"source `{name}`")
    kinds = {f.name: f.type for f in schema}
    return pa.schema(kinds | {n: arrow_type(t) for n, t in source.types.items()})


def _collected(rows: Any, schema: pa.Schema) -> pa.Table:
    import ray

    tables = ray.get(rows.to_arrow_refs())
    filled = [t.select(schema.names).cast(schema) for t in tables if t.num_rows]
    return pa.concat_tables([schema.empty_table(), *filled])
