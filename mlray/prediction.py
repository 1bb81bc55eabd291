"""Batch prediction: any rows through a version's predictor on Ray Data, to files or tables."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mlray.config import Project, with_sections
from mlray.config.rows import Source, SourceBase
from mlray.config.sections import Prediction
from mlray.errors import InputError

if TYPE_CHECKING:
    from mlray.models.predictor import Predictor
    from mlray.registry import Registry, Version
    from mlray.sinks import Sink
    from mlray.sources.personal import Keys


@dataclass(frozen=True)
class Scored:
    """What a batch prediction wrote."""

    where: str
    """File, folder or table, without secrets."""
    rows: int
    version: int
    unreadable: int = 0
    """Rows that could not be read, and were not scored."""

    def __str__(self) -> str:
        left = f" ({self.unreadable:,} could not be read)" if self.unreadable else ""
        return f"{self.rows:,} rows scored by version {self.version}: {self.where}{left}"


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
    project: Project,
    home: str,
    rows: str | None = None,
    out: str | None = None,
    version: str | int = "champion",
) -> Scored:
    """Score rows and write them where the `prediction` section says.

    Tasks write parts that nobody sees; when all are there they become visible in one step.

    Args:
        project: names the model, and how its sources are read.
        home: the storage folder.
        rows: files of raw rows to read in place of `sources.rows.path`; joins apply to them too.
            Files that already have every column of the model's request are taken as they are.
        out: in place of `prediction.path`.
        version: champion, or a number.

    Raises:
        InputError: a column is missing, there are no rows, or the place is in use or refuses.
    """
    from mlray.registry import Registry
    from mlray.sinks import Parts, open_sink
    from mlray.sources import plain_errors
    from mlray.sources.personal import keys_of

    registry = Registry.open(project, home)
    found = named_version(registry, project.name, version)
    sink = open_sink(_section(project, out), project.folder)
    sink.check()
    bundle = _Bundle(registry.local_path(found), project.folder, keys_of(project))
    with plain_errors():
        dataset, fingerprint = _dataset(project, rows, bundle)
        batch = _batch(project.name, found.number, fingerprint)
        folder = _emptied(sink.staging(home, batch))
        try:
            stamp = _Stamp(found.number, datetime.now(UTC), batch)
            scoring = _Scoring(bundle, sink, folder, stamp, project.prediction.columns)
            done = dataset.map_batches(scoring, batch_format="pyarrow", batch_size=None)
            records = list(_records(done))
            files = tuple(r["file"] for r in records if r["file"])
            if not files:
                raise InputError("there are no rows to score", value=rows or "sources.rows")
            sink.publish(Parts(batch, folder, files))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    scored, given = (sum(r[name] for r in records) for name in ("rows", "given"))
    return Scored(sink.where, scored, found.number, given - scored)


def _section(project: Project, out: str | None) -> Prediction:
    """The `prediction` section, with another path from the command line."""
    section = project.prediction
    if out is None:
        return section
    kind = "delta" if section.kind == "delta" else None
    return section.model_copy(update={"path": out, "kind": kind, "url": None})


def _batch(name: str, version: int, fingerprint: str) -> str:
    """The name of rows of one content scored by one version."""
    return hashlib.sha256(f"{name} {version} {fingerprint}".encode()).hexdigest()[:16]


def _emptied(folder: str) -> str:
    """A new folder; what a killed run left there goes."""
    shutil.rmtree(folder, ignore_errors=True)
    Path(folder).mkdir(parents=True)
    return folder


def _records(dataset: Any) -> Iterator[dict[str, Any]]:
    for batch in dataset.iter_batches(batch_format="pyarrow", batch_size=None):
        yield from batch.to_pylist()


def _dataset(project: Project, rows: str | None, bundle: _Bundle) -> tuple[Any, str]:
    """Rows as a Dataset: through the project's sources, or as they are if nothing is missing; and
    the fingerprint of their content."""
    from mlray.sources import open_files, open_rows

    if rows is not None:
        opened = open_files(rows, project)
        if set(bundle.predictor.schema.names) <= set(opened.schema.names):
            files = sorted((file.size_bytes, file.modified) for file in opened.files)
            return opened.dataset(), str(files)
        source = _as_files(project.sources.rows, rows)
        project = with_sections(
            project, sources=project.sources.model_copy(update={"rows": source})
        )
    joined = open_rows(project)
    return joined.dataset, joined.fingerprint


def _as_files(source: Any, rows: str) -> Any:
    """The section of `rows` with other files; of another kind of source its steps stay."""
    if isinstance(source, Source):
        return source.model_copy(update={"path": rows, "kind": None})
    shared = {*SourceBase.model_fields} - {"kind", "columns"}
    return Source(path=rows, **{name: getattr(source, name) for name in shared})


@dataclass(frozen=True)
class _Bundle:
    """A version, loaded once by every worker."""

    folder: str
    code_folder: str
    keys: Keys | None

    @property
    def predictor(self) -> Predictor:
        return _predictor(self.folder, self.code_folder, self.keys)


@dataclass(frozen=True)
class _Stamp:
    """What all rows of a batch share."""

    version: int
    at: datetime
    batch: str

    def columns(self, rows: int) -> dict[str, pa.Array]:
        """Columns of so many rows."""
        return {
            "model_version": pa.repeat(pa.scalar(self.version, pa.int64()), rows),
            "predicted_at": pa.repeat(pa.scalar(self.at, pa.timestamp("us", "UTC")), rows),
            "batch": pa.repeat(self.batch, rows),
        }


@dataclass(frozen=True)
class _Scoring:
    """Scores one block and writes it as a part. Runs in Ray workers."""

    bundle: _Bundle
    sink: Sink
    folder: str
    stamp: _Stamp
    columns: list[str] | None

    def __call__(self, table: pa.Table) -> pa.Table:
        from mlray.sources.reading import UNREADABLE, visible

        given = table.num_rows
        if UNREADABLE in table.column_names:
            table = table.filter(table[UNREADABLE].is_null())
        name = ""
        if table.num_rows:
            name = f"{uuid.uuid4().hex}{self.sink.ending}"
            self.sink.write_part(self._scored(visible(table)), f"{self.folder}/{name}")
        return pa.table({"file": [name], "rows": [table.num_rows], "given": [given]})

    def _scored(self, table: pa.Table) -> pa.Table:
        from mlray.models.packing import score_array
        from mlray.sources.opened import require_columns

        table = self.bundle.predictor.protected(table)
        predicted = self.bundle.predictor.predict(table)
        require_columns(self.columns or (), table.schema, "prediction.columns: the table of rows")
        kept = table if self.columns is None else table.select(self.columns)
        made = {"score": score_array(predicted.scores), "label": pa.array(predicted.labels)}
        made |= self.stamp.columns(table.num_rows)
        if taken := [name for name in made if name in kept.column_names]:
            raise InputError(
                "the rows have columns that are called as those of predictions",
                value=taken,
                do="list the columns to write in prediction.columns, without these",
            )
        for column, values in made.items():
            kept = kept.append_column(column, values)
        return kept.replace_schema_metadata(None)


@lru_cache(maxsize=2)
def _predictor(bundle: str, code_folder: str, keys: Keys | None) -> Predictor:
    from mlray.models.bundle import load_bundle
    from mlray.models.predictor import Predictor

    return Predictor(load_bundle(bundle), code_folder, keys=keys)
