"""The stages from rows to encoded shards: sources, quality, split, encode.

Each is one streaming pass of Ray Data. Tasks write their own files and hand back one small row
about them, so that no data passes through the driver, and a task that Ray repeats leaves only a
file that nobody names.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlray import quality, splits, storage, usercode
from mlray.config import Project
from mlray.derive import Derived, derive
from mlray.errors import InputError
from mlray.models.encoder import Encoder
from mlray.models.predictor import transformed as apply
from mlray.models.roles import Left, Role, choose_roles
from mlray.models.target import Target
from mlray.pipeline.outputs import CLEAN, clean_files, plan_of, profile_of
from mlray.pipeline.stages import Done, Work
from mlray.stats.profile import Profile

QUARANTINE = "quarantine"


def note_sources(work: Work) -> dict[str, Any]:
    """What there is to read; its fingerprint is part of every later key."""
    found = work.services["found"]
    return {
        "fingerprint": found.fingerprint,
        "inputs": [asdict(file) for file in found.inputs],
        "summary": _files_in_words(len(found.inputs), sum(f.size_bytes for f in found.inputs)),
    }


def _files_in_words(files: int, size_bytes: int) -> str:
    return f"{files} file{'s' if files != 1 else ''}, {size_bytes / 1e6:,.1f} MB"


# --- quality ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cleaning:
    """Checks one block, writes its clean and its broken rows, and profiles the clean ones.

    Runs in Ray workers.
    """

    rules: Any
    transform: str | None
    code_folder: str
    clean: str
    quarantine: str

    def __call__(self, table: pa.Table) -> pa.Table:
        if table.num_rows == 0:
            return _NO_RECORD
        checked = quality.check(table, self.rules)
        profile = Profile.of(wide(checked.clean, self.transform, self.code_folder))
        return _record(
            file=_write(checked.clean, self.clean),
            broken=_write(checked.quarantined, self.quarantine),
            rows=table.num_rows,
            profile=profile.to_json(),
            report=json.dumps(checked.report.to_dict(), default=str),
        )


_RECORD = pa.schema(
    {"file": "string", "broken": "string", "rows": "int64", "profile": "string", "report": "string"}
)
_NO_RECORD = _RECORD.empty_table()


def _record(**values: Any) -> pa.Table:
    return pa.Table.from_pylist([values], schema=_RECORD)


def _write(table: pa.Table, folder: str) -> str:
    """A Parquet file of its own name; empty name for no rows."""
    if table.num_rows == 0:
        return ""
    name = f"{uuid.uuid4().hex}.parquet"
    temporary = os.path.join(folder, f".{name}.tmp")
    pq.write_table(table, temporary, compression="zstd", compression_level=1)
    os.replace(temporary, os.path.join(folder, name))
    return name


def clean_rows(work: Work) -> dict[str, Any]:
    """One pass: read, join, transform, check; clean rows to Parquet, broken ones to quarantine."""
    from mlray.sources import open_rows

    project = work.project
    rows = open_rows(project)
    rules = quality.compile_rules(project.quality.rules, rows.schema)
    quarantine = _emptied(storage.join(work.home, QUARANTINE, f"{project.name}-{work.key}"))
    clean = _emptied(work.path(CLEAN))
    cleaning = _Cleaning(rules, project.sources.transform, project.folder, clean, quarantine)
    profiles, reports, files = [], [], []
    name = f"{project.name}-quality"
    for record in _records(name, quality.mark_repeats(rows.dataset, rules), cleaning):
        profiles.append(Profile.from_json(record["profile"]))
        reports.append(quality.QualityReport.from_dict(json.loads(record["report"])))
        files += [record["file"]] if record["file"] else []
        work.say(f"{sum(r.rows for r in reports):,} rows")
    if not reports:
        raise InputError("the sources have no rows", value=[f.path for f in rows.inputs])
    report = reduce(quality.QualityReport.merge, reports)
    findings = quality.decide(report, project.quality)
    profile = Profile.merged(profiles)
    storage.write_bytes(work.path("profile.json"), profile.to_json().encode())
    storage.write_json(work.path("report.json"), report.to_dict())
    storage.write_json(work.path("files.json"), files)
    aside = f", {report.quarantined:,} in quarantine" if report.quarantined else ""
    return {
        "rows": report.rows,
        "clean": profile.rows,
        "columns": rows.schema.names,
        "quarantine": quarantine if report.quarantined else None,
        "findings": list(findings),
        "summary": f"{profile.rows:,} clean rows{aside}",
    }


def _emptied(folder: str) -> str:
    storage.remove(folder)
    Path(folder).mkdir(parents=True)
    return folder


def _records(
    name: str, dataset: Any, function: Callable[[pa.Table], pa.Table]
) -> Iterator[dict[str, Any]]:
    """Run `function` on every block; yields the small rows that it returned, in source order.

    `name` is what Ray's dashboard shows.
    """
    from mlray.sources import plain_errors

    dataset.set_name(name)
    with plain_errors():
        done = dataset.map_batches(
            function, batch_format="pyarrow", batch_size=None, zero_copy_batch=True
        )
        for batch in done.iter_batches(batch_format="pyarrow", batch_size=None):
            yield from batch.to_pylist()


def wide(table: pa.Table, transform: str | None, folder: str) -> pa.Table:
    """Raw columns and those that the transform makes, since both can be asked about."""
    if transform is None:
        return table
    made = transformed(table, transform, folder)
    for name in table.column_names:
        if name not in made.column_names:
            made = made.append_column(name, table[name])
    return made


def transformed(table: pa.Table, transform: str | None, folder: str) -> pa.Table:
    """The section's transform applied; it must give a row for every row.

    Raises:
        InputError: the function failed or changed the number of rows.
    """
    if transform is None:
        return table
    try:
        return apply(usercode.resolve(transform, folder), table)
    except InputError as error:
        if error.__cause__ is None:
            raise
        cause = error.__cause__
        raise InputError(
            f"`{transform}` failed ({type(cause).__name__}: {cause})",
            allowed=f"columns it is given: {', '.join(table.column_names)}",
            do="`mlray check FILE` runs it on a few rows",
        ) from cause


# --- split --------------------------------------------------------------------------------------


def clean_dataset(quality_stage: Done) -> Any:
    """The clean rows as a Ray Dataset, in source order."""
    import ray.data

    return ray.data.read_parquet(clean_files(quality_stage))


def derived_project(project: Project, quality_stage: Done) -> Derived:
    """The project with nothing left open, from the profile of its clean rows."""
    return derive(project, profile_of(quality_stage))


@dataclass(frozen=True)
class _Parting:
    """Counts a block's parts and profiles what the network may learn from. Runs in workers."""

    plan: splits.SplitPlan
    transform: str | None
    code_folder: str

    def __call__(self, table: pa.Table) -> pa.Table:
        parts = self.plan.assign(table)
        train = table.filter(pa.array(parts == splits.TRAIN))
        profile = Profile.of(transformed(train, self.transform, self.code_folder))
        counts = np.bincount(parts, minlength=len(splits.PARTS)).tolist()
        return pa.Table.from_pylist([{"counts": counts, "profile": profile.to_json()}])


def split_rows(work: Work) -> dict[str, Any]:
    """Decide which rows train, validate and test; profile the training rows."""
    project = work.project
    before = work.before["quality"]
    plan = splits.plan(project.split, profile_of(before), known_at=project.model.label_known_at)
    counts = np.zeros(len(splits.PARTS), dtype=np.int64)
    profiles = []
    parting = _Parting(plan, project.sources.transform, project.folder)
    for record in _records(f"{project.name}-split", clean_dataset(before), parting):
        counts += record["counts"]
        profiles.append(Profile.from_json(record["profile"]))
    plan.check(counts.tolist())
    storage.write_bytes(work.path("plan.json"), plan.to_json().encode())
    train = Profile.merged(profiles)
    storage.write_bytes(work.path("profile.json"), train.to_json().encode())
    parts = dict(zip(splits.PARTS, counts.tolist(), strict=True))
    told = ", ".join(f"{n:,} {part}" for part, n in parts.items() if n)
    return {"parts": parts, "reasons": list(plan.reasons), "summary": told}


# --- encode -------------------------------------------------------------------------------------


def encode_rows(work: Work) -> dict[str, Any]:
    """Fit the encoder on the training profile, and write encoded shards in one pass."""
    from mlray.training.shards import write_shards

    project, parts = work.project, work.before["split"]
    encoder, roles, left = fitted_encoder(
        project, profile_of(parts), profile_of(work.before["quality"])
    )
    storage.write_bytes(work.path("encoder.json"), encoder.to_json().encode())
    rows = clean_dataset(work.before["quality"])
    rows.set_name(f"{project.name}-encode")
    write_shards(
        rows,
        encoder,
        work.path("shards"),
        plan_of(parts).assign,
        transform=Transform(project.sources.transform, project.folder),
        expected_rows=work.before["quality"].result["clean"],
    )
    inputs = encoder.inputs()
    return {
        "roles": [asdict(role) for role in roles],
        "left": [asdict(out) for out in left],
        "summary": f"{len(inputs.numeric)} numeric and {len(inputs.category)} categorical features"
        f" of {len(roles)} columns; {len(left)} left out",
    }


def fitted_encoder(
    project: Project, train: Profile, whole: Profile
) -> tuple[Encoder, list[Role], list[Left]]:
    """The encoder, and which columns it reads or leaves out and why.

    Args:
        project: with nothing left open.
        train: profile of the training rows after the transform: centres, scales, categories.
        whole: profile of all clean rows: which classes there are at all.
    """
    model = project.model
    times = [t for t in (model.label_known_at, project.sources.rows.time) if t]
    if project.split.by == "time" and project.split.column:
        times.append(project.split.column)
    set_aside = [project.split.column] if project.split.by in ("group", "column") else []
    roles, left = choose_roles(
        train,
        model.target,
        times=[t for t in times if t in train.columns],
        kinds=model.kinds,
        ignore=[*model.ignore, *(c for c in set_aside if c and c in train.columns)],
        features=model.features,
    )
    of = train if model.task == "regression" else whole
    target, _ = Target.fit(of.columns[model.target], model.task, model.positive)
    return Encoder.fit(train, roles, target), roles, left


@dataclass(frozen=True)
class Transform:
    """`transformed` as a value that travels to workers."""

    path: str | None
    folder: str

    def __call__(self, table: pa.Table) -> pa.Table:
        return transformed(table, self.path, self.folder)
