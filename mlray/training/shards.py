"""The encoded matrix on disk: written once by Ray Data, memory-mapped by every worker.

    folder/manifest.json          counts, widths, file hashes
    folder/train/00000.arrow      uncompressed Arrow IPC, one record batch, in source order
    folder/validation/00000.arrow

Legend: N rows, F numeric features, C categorical features.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlray import storage
from mlray.errors import InputError, MlrayError, TrainingError
from mlray.splits import PARTS

WRITTEN = PARTS[:2]
"""Part codes are places in `PARTS`; only train and validation are written as shards."""

_NOT_SAVED = {"name": "", "bytes": 0, "sha256": ""}

Parts = npt.NDArray[np.int8]
Assign = Callable[[pa.Table], Parts]
Transform = Callable[[pa.Table], pa.Table]


class Encodes(Protocol):
    """What `write_shards` needs of `mlray.models.encoder.Encoder`."""

    @property
    def target(self) -> Any: ...

    def encode(self, table: pa.Table) -> Any: ...

    def encode_target(self, column: pa.ChunkedArray) -> npt.NDArray[Any]: ...


@dataclass(frozen=True)
class ShardFile:
    """One file of shards."""

    name: str
    """Path inside the folder."""
    part: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a folder of shards holds."""

    counts: dict[str, int]
    """Rows per part, all four of `PARTS`; their sum is the number of rows that came in."""
    files: tuple[ShardFile, ...]
    digest: str
    """SHA-256 over the contents: equal shards, equal digest."""

    @property
    def rows(self) -> int:
        return sum(self.counts.values())

    @classmethod
    def read(cls, folder: str) -> Manifest:
        values = storage.read_json(storage.join(folder, "manifest.json"))
        files = tuple(ShardFile(**f) for f in values["files"])
        return cls(values["counts"], files, values["digest"])


@dataclass(frozen=True)
class Rows:
    """Encoded rows: numeric float32 (N, F), category int32 (N, C), label (N,)."""

    numeric: npt.NDArray[np.float32]
    category: npt.NDArray[np.int32]
    label: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        return self.numeric, self.category, self.label

    @classmethod
    def concatenate(cls, pieces: list[Rows]) -> Rows:
        if len(pieces) == 1:
            return pieces[0]
        columns = zip(*(p.arrays for p in pieces), strict=True)
        return cls(*(np.concatenate(arrays) for arrays in columns))


# --- writing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Writer:
    """What turns one table of raw rows into shard files; runs in Ray Data's workers."""

    encoder: Encodes
    assign: Assign
    transform: Transform | None
    folder: str

    def write(self, table: pa.Table) -> list[dict[str, Any]]:
        """Write the table's rows by part; one record per part: what was counted and written."""
        if table.num_rows == 0:
            return []
        parts = self.assign(table)
        return [
            {
                "part": PARTS[code],
                "rows": int(count),
                **(self._save(table.filter(pa.array(parts == code))) if code < 2 else _NOT_SAVED),
            }
            for code, count in enumerate(np.bincount(parts, minlength=len(PARTS)))
            if count
        ]

    def _save(self, table: pa.Table) -> dict[str, Any]:
        name = f"{uuid.uuid4().hex}.arrow"
        path = os.path.join(self.folder, name)
        write_arrow(path, self._encode(table))
        return {"name": name, "bytes": os.path.getsize(path), "sha256": storage.sha256(path)}

    def _encode(self, table: pa.Table) -> Rows:
        target, known = self.encoder.target.column, table
        if self.transform is not None:
            before, table = table.num_rows, self.transform(table)
            if table.num_rows != before:
                raise InputError(
                    f"the transform made {table.num_rows} rows of {before}",
                    allowed="a transform that keeps every row in its place",
                    do="drop rows in sources.rows.transform or by a quality rule",
                )
        encoded = self.encoder.encode(table)
        label = self.encoder.encode_target(
            (table if target in table.column_names else known).column(target)
        )
        return Rows(encoded.numeric, encoded.category, label)


def write_shards(
    rows: Any,
    encoder: Encodes,
    folder: str,
    assign: Assign,
    *,
    transform: Transform | None = None,
    expected_rows: int | None = None,
) -> Manifest:
    """Encode all rows in one pass and write train and validation shards atomically.

    Args:
        rows: a ray.data.Dataset of clean raw rows (one Ray Data pass), or Arrow tables.
        encoder: turns a table into matrices and labels.
        folder: appears when all is written; on several nodes, on a disk that all of them share.
        assign: part of each raw row: 0 train, 1 validation, 2 test, 3 later.
        transform: applied to rows before encoding, after `assign` saw them.
        expected_rows: number of rows that must arrive, where it is known.

    Raises:
        InputError: the encoder or transform refused rows, or train or validation is empty.
        TrainingError: rows were lost on the way.
    """
    with storage.new_folder(folder) as temporary:
        writer = _Writer(encoder, assign, transform, temporary)
        records = _written(rows, writer)
        manifest = _arrange(temporary, records)
        _require_rows(manifest, expected_rows)
        write_manifest(temporary, manifest)
    return manifest


def _written(rows: Any, writer: _Writer) -> list[dict[str, Any]]:
    if not hasattr(rows, "map_batches"):
        return [record for table in _tables(rows) for record in writer.write(table)]
    try:
        with _in_order(rows.context):
            written = rows.map_batches(
                _write_block,
                batch_format="pyarrow",
                batch_size=None,
                zero_copy_batch=True,
                fn_kwargs={"writer": writer},
            )
            return list(written.take_all())
    except Exception as error:
        raise _cause(error) from error


@contextmanager
def _in_order(context: Any) -> Iterator[None]:
    """Blocks come back in source order, so that the same rows are the same matrix however many
    blocks and CPUs there are; and errors come back as they were raised."""
    options = context.execution_options
    before = options.preserve_order, context.raise_original_map_exception
    options.preserve_order, context.raise_original_map_exception = True, True
    try:
        yield
    finally:
        options.preserve_order, context.raise_original_map_exception = before


def _tables(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    return iter([tables] if isinstance(tables, pa.Table) else tables)


_RECORD = pa.schema(
    {
        "part": pa.string(),
        "rows": pa.int64(),
        "name": pa.string(),
        "bytes": pa.int64(),
        "sha256": pa.string(),
    }
)


def _write_block(table: pa.Table, writer: _Writer) -> pa.Table:
    return pa.Table.from_pylist(writer.write(table), schema=_RECORD)


def _cause(error: BaseException) -> BaseException:
    """Our own error inside Ray's wrapping, or the error itself."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MlrayError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return error


def _arrange(folder: str, records: list[dict[str, Any]]) -> Manifest:
    """Give the written files their places; files of repeated tasks are removed."""
    counts = dict.fromkeys(PARTS, 0)
    files: list[ShardFile] = []
    for part in WRITTEN:
        os.mkdir(os.path.join(folder, part))
    for record in records:
        part, name = record["part"], record["name"]
        counts[part] += record["rows"]
        if name:
            number = sum(f.part == part for f in files)
            place = f"{part}/{number:05d}.arrow"
            os.replace(os.path.join(folder, name), os.path.join(folder, place))
            files.append(ShardFile(place, part, record["rows"], record["bytes"], record["sha256"]))
    for orphan in Path(folder).glob("*.arrow"):
        orphan.unlink()
    return Manifest(counts, tuple(files), digest(files))


def digest(files: Iterable[ShardFile]) -> str:
    """SHA-256 over the contents of files, in order."""
    hashes = json.dumps([[f.part, f.sha256] for f in files])
    return hashlib.sha256(hashes.encode()).hexdigest()


def _require_rows(manifest: Manifest, expected: int | None) -> None:
    for part in WRITTEN:
        on_disk = sum(f.rows for f in manifest.files if f.part == part)
        if on_disk != manifest.counts[part]:
            raise TrainingError(f"{part}: {manifest.counts[part]} rows came, {on_disk} written")
        if on_disk == 0:
            raise InputError(
                f"no row falls into the {part} part",
                value=manifest.counts,
                do="change `split`: its periods, shares or column",
            )
    if expected is not None and manifest.rows != expected:
        raise TrainingError(
            f"{expected} rows were expected, {manifest.rows} reached the shards",
            value=manifest.counts,
            do="run again; if it repeats, the source changes while it is read",
        )


def write_manifest(folder: str, manifest: Manifest) -> None:
    storage.write_json(
        storage.join(folder, "manifest.json"),
        {
            "counts": manifest.counts,
            "digest": manifest.digest,
            "files": [vars(f) for f in manifest.files],
        },
    )


def write_arrow(path: str, rows: Rows) -> None:
    """One uncompressed Arrow IPC file of one record batch, so that it can be memory-mapped."""
    columns: dict[str, pa.Array] = {}
    for name, matrix in (("numeric", rows.numeric), ("category", rows.category)):
        if matrix.shape[1]:  # Arrow has no lists of length 0: no features, no column
            flat = pa.array(np.ascontiguousarray(matrix).reshape(-1))
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])
    columns["label"] = pa.array(rows.label)
    batch = pa.record_batch(columns)
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


# --- reading ------------------------------------------------------------------------------------


def read_arrow(path: str) -> Rows:
    """The rows of one file as views of the memory map: nothing is read until it is used."""
    with pa.memory_map(path) as source:
        table = pa.ipc.open_file(source).read_all()
    return Rows(
        _matrix(table, "numeric", np.float32),
        _matrix(table, "category", np.int32),
        table.column("label").chunk(0).to_numpy(zero_copy_only=True),
    )


def _matrix(table: pa.Table, name: str, kind: type[np.generic]) -> npt.NDArray[Any]:
    if name not in table.column_names:
        return np.empty((table.num_rows, 0), dtype=kind)
    column = table.column(name).chunk(0)
    flat = column.flatten().to_numpy(zero_copy_only=True)
    matrix: npt.NDArray[Any] = flat.reshape(table.num_rows, column.type.list_size)
    return matrix


@dataclass(frozen=True)
class Shards:
    """All rows of one part, memory-mapped, as one sequence of N rows."""

    files: tuple[Rows, ...]
    starts: npt.NDArray[np.int64] = field(repr=False)
    """Number of the first row of each file, and N at the end."""

    @classmethod
    def open(cls, folder: str, part: str) -> Shards:
        """Map the files of `part`.

        Raises:
            TrainingError: a file is not what the manifest says.
        """
        described = [f for f in Manifest.read(folder).files if f.part == part]
        files = tuple(_opened(folder, f) for f in described)
        starts = np.cumsum([0, *map(len, files)], dtype=np.int64)
        return cls(files, starts)

    @classmethod
    def of(cls, rows: Rows) -> Shards:
        """Rows in memory as shards."""
        return cls((rows,), np.array([0, len(rows)], dtype=np.int64))

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def bytes_per_row(self) -> int:
        return sum(int(a[:1].nbytes) for a in self.files[0].arrays)

    def slice(self, start: int, stop: int) -> Rows:
        """Rows start..stop; a view where they lie in one file, else a copy."""
        first = min(int(np.searchsorted(self.starts, start, side="right")), len(self.files)) - 1
        pieces: list[Rows] = []
        for file, begin in zip(self.files[first:], self.starts[first:].tolist(), strict=False):
            if begin >= stop and pieces:
                break
            low, high = max(start - begin, 0), max(stop - begin, 0)
            pieces.append(Rows(*(a[low:high] for a in file.arrays)))
        return Rows.concatenate(pieces)

    def take(self, indices: npt.NDArray[np.int64]) -> Rows:
        """The rows with these numbers, in this order, as a copy."""
        which = np.searchsorted(self.starts, indices, side="right") - 1
        order = np.argsort(which, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(which[order])) + 1)
        pieces = [
            Rows(
                *(a[indices[g] - self.starts[which[g[0]]]] for a in self.files[which[g[0]]].arrays)
            )
            for g in groups
        ]
        back = np.argsort(order, kind="stable")
        return Rows(*(a[back] for a in Rows.concatenate(pieces).arrays))


def _opened(folder: str, file: ShardFile) -> Rows:
    path = storage.join(folder, file.name)
    if not os.path.exists(path) or os.path.getsize(path) != file.bytes:
        raise TrainingError(
            "a shard is missing or not complete",
            value=path,
            allowed=f"{file.bytes} bytes",
            do="remove the folder of shards and run again",
        )
    return read_arrow(path)
