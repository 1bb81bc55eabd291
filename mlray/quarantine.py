"""Rows that broke a rule: look at them, take them out for repair, hand the repaired ones back.

A quarantined row carries `_id`, a hash of its values. A repaired row with the same `_id` takes its
place in the next run, at the same spot, if it keeps the rules now; originals are never changed.
"""

from __future__ import annotations

import re
import uuid
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mlray import storage
from mlray.config import Project
from mlray.errors import InputError
from mlray.sources.rows import protection

FOLDER = "quarantine"
"""Of the storage folder: one folder for each project and key of its quality stage."""
ABOUT = ("_rule", "_reason", "_source", "_position", "_raw", "_id", "_score")
"""Columns that say why and from where; all others are the row's own."""
_REPAIRED = "repaired"


@dataclass(frozen=True)
class Quarantine:
    """What the last run of a project set aside."""

    folder: str
    rows: pa.Table

    @cached_property
    def rules(self) -> dict[str, int]:
        """Rows by the rules that they broke, most first."""
        return dict(Counter(self.rows["_rule"].to_pylist()).most_common())

    def __str__(self) -> str:
        lines = [f"{self.rows.num_rows:,} rows in quarantine: {self.folder}"]
        lines += [f"  {count:>9,}  {rule}" for rule, count in self.rules.items()]
        return "\n".join(lines)


def folder_of(home: str, project: str, key: str) -> str:
    """Where the rows go that a run of the quality stage sets aside."""
    return storage.join(home, FOLDER, f"{project}-{key}")


def latest(home: str, project: str) -> Quarantine:
    """What the last run set aside, whether or not it went on.

    Raises:
        InputError: it set no rows aside, or there was none.
    """
    import pyarrow.parquet as pq

    named = re.compile(rf"{re.escape(project)}-[0-9a-f]{{16}}")
    folders = [
        Path(storage.join(home, FOLDER, name))
        for name in storage.names(storage.join(home, FOLDER))
        if named.fullmatch(name)
    ]
    folder = max(folders, key=lambda f: f.stat().st_mtime, default=None)
    files = sorted(folder.glob("*.parquet")) if folder else []
    if not files:
        raise InputError(
            "no rows are in quarantine",
            value=project,
            do="the last run set none aside, or there was none: `mlray run FILE`",
        )
    tables = [pq.read_table(file) for file in files]
    return Quarantine(str(folder), pa.concat_tables(tables, promote_options="default"))


def export(held: Quarantine, out: str) -> str:
    """Write the rows to one file to be repaired: .csv or .parquet, with `_id` and the reasons.

    Raises:
        InputError: another ending.
    """
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    path = Path(out).absolute()
    if path.suffix == ".csv":
        shown = held.rows.drop_columns([n for n in ("_raw",) if n in held.rows.column_names])
        pacsv.write_csv(_as_text(shown), path)
    elif path.suffix == ".parquet":
        pq.write_table(held.rows, path)
    else:
        raise InputError("rows are written to a .csv or .parquet file, not", value=out)
    return str(path)


def resubmit(home: str, project: Project, file: str) -> int:
    """Hand in repaired rows; returns how many. They take part from the next run on.

    Args:
        home: the storage folder.
        project: whose quarantine they are from; its columns marked `pii` are protected.
        file: .csv or .parquet with the rows' own columns and `_id`; reasons may be left out.

    Raises:
        InputError: a column is missing, a value does not convert, or a row is not in quarantine.
    """
    import pyarrow.parquet as pq

    held = latest(home, project.name).rows
    repaired = protection(project).apply(_read(file, held.schema))
    strange = set(repaired["_id"].to_pylist()) - set(held["_id"].to_pylist())
    if strange:
        raise InputError(
            "rows whose `_id` is not in quarantine",
            value=sorted(strange),
            do="repair rows that `mlray quarantine FILE --out` wrote, and leave `_id` as it is",
        )
    _refuse_doubtful(repaired)
    folder = Path(storage.join(home, _REPAIRED, project.name))
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{uuid.uuid4().hex}.parquet"
    pq.write_table(repaired, folder / f".{name}.tmp")
    (folder / f".{name}.tmp").rename(folder / name)
    return int(repaired.num_rows)


@dataclass(frozen=True)
class Repairs:
    """Repaired rows of a project; travels to the tasks that check rows."""

    rows: pa.Table | None

    @classmethod
    def of(cls, home: str, project: str) -> Repairs:
        """All that were handed in; of two repairs of one row the later counts."""
        import pyarrow.parquet as pq

        files = sorted(_files(home, project), key=lambda f: f.stat().st_mtime)
        if not files:
            return cls(None)
        rows = pa.concat_tables([pq.read_table(f) for f in files], promote_options="default")
        last = {row: number for number, row in enumerate(rows["_id"].to_pylist())}
        return cls(rows.take(pa.array(sorted(last.values()))))

    def __bool__(self) -> bool:
        return self.rows is not None

    def replacing(self, table: pa.Table, ids: Any) -> pa.Table:
        """The table with repaired rows in the place of those whose `_id` they bear.

        Args:
            table: raw rows, with or without hidden columns, which stay.
            ids: int64 (N,), of each row.
        """
        if self.rows is None:
            return table
        found = pc.index_in(pa.array(ids), value_set=self.rows["_id"].combine_chunks())
        hit = found.is_valid()
        if not pc.any(hit).as_py():
            return table
        columns = []
        for field in table.schema:
            column = table[field.name]
            if field.name in self.rows.column_names:
                mended = self.rows[field.name].combine_chunks().cast(field.type).take(found)
                column = pc.if_else(hit, mended, column)
            elif field.name in ("__unreadable", "__raw"):
                column = pc.if_else(hit, pa.scalar(None, field.type), column)
            columns.append(column)
        return pa.Table.from_arrays(columns, schema=table.schema)


def version(home: str, project: str) -> str:
    """Changes when repaired rows are handed in: part of the quality stage's key."""
    return ",".join(sorted(file.name for file in _files(home, project)))


def _files(home: str, project: str) -> list[Path]:
    return list(Path(storage.join(home, _REPAIRED, project)).glob("[!.]*.parquet"))


def _read(file: str, schema: pa.Schema) -> pa.Table:
    """Repaired rows with the types of the quarantined ones."""
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    wanted = pa.schema([f for f in schema if f.name not in ABOUT or f.name == "_id"])
    try:
        if file.endswith(".csv"):
            types = pacsv.ConvertOptions(column_types=wanted, strings_can_be_null=True)
            table = pacsv.read_csv(file, convert_options=types)
        else:
            table = pq.read_table(file)
        missing = [name for name in wanted.names if name not in table.column_names]
        if missing:
            raise InputError("the repaired rows lack columns", value=missing)
        return table.select(wanted.names).cast(wanted)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"repaired rows cannot be read ({error})", value=file) from error


def _refuse_doubtful(repaired: pa.Table) -> None:
    """Rows of one `_id` had the same values; two different repairs of them cannot both be right."""
    distinct = repaired.group_by(repaired.column_names).aggregate([])
    counts = Counter(distinct["_id"].to_pylist())
    if doubtful := [number for number, count in counts.items() if count > 1]:
        raise InputError(
            "rows with one `_id` were equal, but are repaired in different ways", value=doubtful
        )


def _as_text(table: pa.Table) -> pa.Table:
    """Lists and structs as text, which is all that CSV holds."""
    columns = [
        pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())
        if pa.types.is_nested(column.type) or pa.types.is_binary(column.type)
        else column
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)
