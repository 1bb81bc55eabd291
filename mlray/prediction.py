"""Batch prediction: any rows through the champion's predictor on Ray Data, to Parquet files."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlray.config import Project, with_sections
from mlray.errors import InputError

if TYPE_CHECKING:
    from mlray.models.predictor import Predictor
    from mlray.registry import Registry, Version


@dataclass(frozen=True)
class Scored:
    """What a batch prediction wrote."""

    folder: str
    rows: int
    version: int

    def __str__(self) -> str:
        return f"{self.rows:,} rows scored by version {self.version}: {self.folder}"


def named_version(registry: Registry, name: str, version: str | int) -> Version:
    """The champion, or the version of a number.

    Raises:
        InputError: there is no champion yet.
        TrackingError: there is no such version.
    """
    if str(version) != "champion":
        return registry.version(name, int(version))
    champion = registry.champion(name)
    if champion is None:
        raise InputError(
            f"{name} has no champion", do="run `mlray run FILE`; `mlray models` lists versions"
        )
    return champion


def score(
    project: Project, home: str, rows: str | None, out: str, version: str | int = "champion"
) -> Scored:
    """Score rows and write them with `score` and `label` columns.

    Args:
        project: names the model, and how its sources are read.
        home: the storage folder.
        rows: files of raw rows to read in place of `sources.rows.path`; joins apply to them too.
            Files that already have every column of the model's request are taken as they are.
        out: folder of Parquet files; it must be empty or not there.
        version: champion, or a number.

    Raises:
        InputError: a column is missing, or the folder is in use.
    """
    from mlray.registry import Registry
    from mlray.sources import plain_errors

    registry = Registry.open(project, home)
    found = named_version(registry, project.name, version)
    folder = _free_folder(out)
    scoring = _Scoring(registry.local_path(found), project.folder, folder)
    total = 0
    with plain_errors():
        dataset = _dataset(project, rows, scoring)
        done = dataset.map_batches(scoring, batch_format="pyarrow", batch_size=None)
        for record in _rows(done):
            if record["file"]:
                os.replace(f"{folder}/.{record['file']}", f"{folder}/{total:012d}.parquet")
            total += record["rows"]
    return Scored(folder, total, found.number)


def _rows(dataset: Any) -> Iterator[dict[str, Any]]:
    for batch in dataset.iter_batches(batch_format="pyarrow", batch_size=None):
        yield from batch.to_pylist()


def _free_folder(out: str) -> str:
    folder = Path(out).absolute()
    if folder.exists() and any(folder.iterdir()):
        raise InputError(
            "predictions are written to an empty folder, and this one is not",
            value=str(folder),
            do="name another with --out, or remove it",
        )
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def _dataset(project: Project, rows: str | None, scoring: _Scoring) -> Any:
    """Rows as a Dataset: through the project's sources, or as they are if nothing is missing."""
    from mlray.sources import open_files, open_rows

    if rows is None:
        return open_rows(project).dataset
    opened = open_files(rows, project)
    wanted = _predictor(scoring.bundle, scoring.code_folder).schema.names
    if set(wanted) <= set(opened.schema.names):
        return opened.dataset()
    source = project.sources.rows.model_copy(update={"path": rows, "kind": None})
    sources = project.sources.model_copy(update={"rows": source})
    return open_rows(with_sections(project, sources=sources)).dataset


@dataclass(frozen=True)
class _Scoring:
    """Scores one block and writes it; runs in Ray workers, each of which loads the bundle once."""

    bundle: str
    code_folder: str
    folder: str

    def __call__(self, table: pa.Table) -> pa.Table:
        if table.num_rows == 0:
            return pa.table({"file": pa.array([], pa.string()), "rows": pa.array([], pa.int64())})
        from mlray.models.packing import score_array

        predicted = _predictor(self.bundle, self.code_folder).predict(table)
        scored = table.append_column("score", score_array(predicted.scores))
        scored = scored.append_column("label", pa.array(predicted.labels))
        name = f"{uuid.uuid4().hex}.parquet"
        pq.write_table(scored, f"{self.folder}/.{name}")
        return pa.table({"file": [name], "rows": [table.num_rows]})


@lru_cache(maxsize=2)
def _predictor(bundle: str, code_folder: str) -> Predictor:
    from mlray.models.bundle import load_bundle
    from mlray.models.predictor import Predictor

    return Predictor(load_bundle(bundle), code_folder)
