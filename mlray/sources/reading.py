"""From pieces to rows: what every kind of source shares in how it is read.

A kind says what there is to read as a list of pieces, each a function that yields tables of one
schema. Here pieces become tasks of Ray Data, and each row learns where it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlray.errors import InputError
from mlray.sources.opened import Opened, SourceFile, Step, refuse_large

ORIGIN, POSITION = "__origin", "__position"
"""Hidden columns of traced rows: the file, table, page or partition that a row came from, and its
number there (rows from 0, Kafka's offset), null where nobody can say."""
UNREADABLE, RAW = "__unreadable", "__raw"
"""Hidden columns of a piece that may meet what it cannot parse: why (null for a good row), and the
text itself. The other columns of such a row are null."""
HIDDEN = (ORIGIN, POSITION, UNREADABLE, RAW)

_TASK_BYTES = 32 << 20
_BLOCK_BYTES, _LARGE_BLOCK_BYTES = 4 << 20, 32 << 20
"""Output blocks come from about so many bytes: small data in small blocks, so that what follows is
parallel; large data in larger ones, since each costs a profile."""
_MANY_BLOCKS = 64
_HIDDEN_FIELDS = {
    ORIGIN: pa.dictionary(pa.int32(), pa.string()),
    POSITION: pa.int64(),
    UNREADABLE: pa.string(),
    RAW: pa.binary(),
}


@dataclass(frozen=True)
class Aside:
    """A row that cannot be read."""

    position: int
    """Its number among all rows of the piece."""
    reason: str
    """Why, without a value of a column marked `pii`."""
    raw: bytes
    """Its text."""


@dataclass(frozen=True)
class Piece:
    """One thing to read, in order. Travels to the task that reads it."""

    read: Callable[[], Iterator[pa.Table]]
    """Yields tables of the source's schema, if it must with UNREADABLE and RAW, or with POSITION
    where rows are not numbered one by one. Picklable; runs in a Ray worker."""
    origin: str
    """Address without secrets: a file, a table, a page, a partition."""
    first: int = 0
    """Number of its first row in `origin`."""
    rows: int | None = None
    """So many rows must come out, if that is known beforehand; a short read is an error."""
    size_bytes: int = 0


def opened(
    name: str,
    schema: pa.Schema,
    files: tuple[SourceFile, ...],
    pieces: Sequence[Piece],
    *,
    kind: str,
    task_bytes: int = _TASK_BYTES,
    finer: Callable[[], Sequence[Piece]] | None = None,
) -> Opened:
    """A source that is read piece by piece.

    Args:
        name: of the source in the project file.
        schema: what all tables have, hidden columns aside.
        files: what stands for the source in fingerprint and lineage.
        pieces: in source order. Small neighbours share a task of up to `task_bytes`; a piece whose
            size is not known (0) has a task of its own.
        kind: shown in Ray's dashboard.
        finer: the same rows in smaller pieces, where these cost a look through large files; called
            when all rows are to be read in parallel.
    """
    cut = cache(finer or (lambda: pieces))

    def dataset(traced: bool = False) -> Any:
        import ray.data

        total = sum(piece.size_bytes for piece in pieces)
        block_bytes = min(max(_BLOCK_BYTES, total // _MANY_BLOCKS), _LARGE_BLOCK_BYTES)
        tasks = _tasks(cut(), max(task_bytes, block_bytes))
        source = _datasource(name, schema, tasks, kind, traced)
        blocks = max(1, len(tasks), -(-total // block_bytes))
        return ray.data.read_datasource(source, override_num_blocks=blocks)

    def through(step: Step, made: pa.Schema) -> Opened:
        def stepped(of: Sequence[Piece]) -> list[Piece]:
            return [replace(piece, read=partial(step, piece.read)) for piece in of]

        again = None if finer is None else lambda: stepped(cut())
        return opened(
            name, made, files, stepped(pieces), kind=kind, task_bytes=task_bytes, finer=again
        )

    return Opened(
        schema=schema,
        files=files,
        dataset=dataset,
        table=lambda: _whole(name, schema, pieces),
        head=lambda rows: _head(name, schema, pieces, rows),
        through=through,
    )


def with_unreadable(
    table: pa.Table, first: int, aside: Sequence[Aside], *, last: bool = False
) -> tuple[pa.Table, Sequence[Aside]]:
    """Readable rows with the unreadable ones between them, each in its place.

    Args:
        table: readable rows, in order.
        first: number of the first row, readable or not, that has not been given yet.
        aside: unreadable rows from there on, in order.
        last: whether no readable row follows.

    Returns:
        The table, and the unreadable rows that come after it.
    """
    inside = 0
    while inside < len(aside) and (
        last or aside[inside].position < first + table.num_rows + inside
    ):
        inside += 1
    if not inside:
        return table, aside
    bad = np.array([row.position - first for row in aside[:inside]])
    good = np.setdiff1d(np.arange(table.num_rows + inside), bad)
    empty = {f.name: pa.nulls(inside, f.type) for f in table.schema}
    told = {
        UNREADABLE: pa.array([row.reason for row in aside[:inside]], pa.string()),
        RAW: pa.array([row.raw for row in aside[:inside]], pa.binary()),
    }
    both = pa.concat_tables([_without_reasons(table), pa.table({**empty, **told})])
    return both.take(np.argsort(np.concatenate([good, bad]))), aside[inside:]


def marked(table: pa.Table, misfits: Mapping[int, tuple[str, bytes]]) -> pa.Table:
    """The table with some rows made unreadable: their reason and text told, all values missing.

    Args:
        table: may hold unreadable rows already.
        misfits: reason and text by number of the row in the table.
    """
    if not misfits:
        return table
    if UNREADABLE not in table.column_names:
        table = _without_reasons(table)
    rows = range(table.num_rows)
    told = {
        UNREADABLE: pa.array([misfits.get(i, (None, None))[0] for i in rows], pa.string()),
        RAW: pa.array([misfits.get(i, (None, None))[1] for i in rows], pa.binary()),
    }
    kept = pa.array([None if i in misfits else i for i in rows], pa.int64())
    columns = [
        pc.coalesce(told[n], table[n]) if n in told else table[n].take(kept)
        for n in table.column_names
    ]
    return pa.table(columns, schema=table.schema)


def _without_reasons(table: pa.Table) -> pa.Table:
    for hidden in (UNREADABLE, RAW):
        empty = pa.nulls(table.num_rows, _HIDDEN_FIELDS[hidden])
        table = table.append_column(pa.field(hidden, _HIDDEN_FIELDS[hidden]), empty)
    return table


def visible(table: pa.Table) -> pa.Table:
    """The table without hidden columns."""
    return table.drop_columns([n for n in table.column_names if n in HIDDEN])


def traced_schema(schema: pa.Schema) -> pa.Schema:
    """A schema with the hidden columns of traced rows."""
    return pa.schema([*schema, *(pa.field(n, t) for n, t in _HIDDEN_FIELDS.items())])


def with_trace(table: pa.Table, origin: str, first: int | None) -> pa.Table:
    """A table of traced rows; hidden columns that it has already stay as they are.

    Args:
        table: rows of one origin.
        origin: where they came from.
        first: number of the first row there; None if that is not known.
    """
    rows = table.num_rows
    made = {
        ORIGIN: pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array([origin])),
        POSITION: pa.nulls(rows, pa.int64())
        if first is None
        else pa.array(np.arange(first, first + rows)),
        UNREADABLE: pa.nulls(rows, pa.string()),
        RAW: pa.nulls(rows, pa.binary()),
    }
    for hidden, column in made.items():
        if hidden not in table.column_names:
            table = table.append_column(pa.field(hidden, _HIDDEN_FIELDS[hidden]), column)
    return table


def _tasks(pieces: Sequence[Piece], task_bytes: int) -> list[list[Piece]]:
    tasks: list[list[Piece]] = []
    filled = task_bytes
    for piece in pieces:
        if not piece.size_bytes or filled + piece.size_bytes > task_bytes:
            tasks.append([])
            filled = 0 if piece.size_bytes else task_bytes
        tasks[-1].append(piece)
        filled += piece.size_bytes
    return tasks


def _datasource(
    name: str, schema: pa.Schema, tasks: list[list[Piece]], kind: str, traced: bool
) -> Any:
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    read = _traced if traced else _plain
    out = traced_schema(schema) if traced else schema

    class Pieces(Datasource):  # type: ignore[misc]
        """One reading task for each list of pieces."""

        def estimate_inmemory_data_size(self) -> int:
            return 2 * sum(piece.size_bytes for task in tasks for piece in task)

        def get_read_tasks(self, parallelism: int, *args: Any, **kwargs: Any) -> list[ReadTask]:
            return [
                ReadTask(
                    partial(read, name, schema, task),
                    BlockMetadata(None, 2 * sum(p.size_bytes for p in task) or None, None, None),
                    schema=out,
                )
                for task in tasks
            ]

        def get_name(self) -> str:
            return kind

    return Pieces()


def _traced(name: str, schema: pa.Schema, pieces: Iterable[Piece]) -> Iterator[pa.Table]:
    """Rows of `pieces` with all hidden columns. Runs in a Ray worker."""
    names = traced_schema(schema).names
    for piece in pieces:
        seen = 0
        for table in piece.read():
            # A piece that gives unreadable rows too counts them: they have places as well.
            yield with_trace(table, piece.origin, piece.first + seen).select(names)
            seen += table.num_rows
        _refuse_short(name, piece, seen)


def _plain(name: str, schema: pa.Schema, pieces: Iterable[Piece]) -> Iterator[pa.Table]:
    """Readable rows of `pieces`. Runs in a Ray worker, or in the driver for small tables."""
    for piece in pieces:
        seen = 0
        for table in piece.read():
            seen += table.num_rows
            if UNREADABLE in table.column_names:
                table = table.filter(table[UNREADABLE].is_null())
            yield table.select(schema.names)
        _refuse_short(name, piece, seen)


def _refuse_short(name: str, piece: Piece, seen: int) -> None:
    if piece.rows is not None and seen != piece.rows:
        raise InputError(
            f"source `{name}` gave {seen:,} of the {piece.rows:,} rows of {piece.origin}",
            do="run again; if it stays so, something removes rows while they are read",
        )


def _whole(name: str, schema: pa.Schema, pieces: Sequence[Piece]) -> pa.Table:
    """All rows; what is too large is refused as soon as that is known."""
    tables, held = [schema.empty_table()], 0
    for table in _plain(name, schema, pieces):
        held += table.nbytes
        refuse_large(name, held)
        tables.append(table)
    return pa.concat_tables(tables)


def _head(name: str, schema: pa.Schema, pieces: Sequence[Piece], rows: int) -> pa.Table:
    taken = schema.empty_table()
    tables = _plain(name, schema, pieces)
    while taken.num_rows < rows and (table := next(tables, None)) is not None:
        taken = pa.concat_tables([taken, table])
    return taken.slice(0, rows)
