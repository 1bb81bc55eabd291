"""The quality stage: one pass reads, joins and checks; clean rows to Parquet, broken ones aside.

Tasks write their own files and hand back one small row about them, so that no data passes through
the driver, and a task that Ray repeats leaves only a file that nobody names.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlray import quality, storage
from mlray.errors import InputError
from mlray.pipeline.outputs import CLEAN
from mlray.pipeline.passes import records
from mlray.pipeline.preparing import wide
from mlray.pipeline.stages import Work
from mlray.stats.profile import Profile

QUARANTINE = "quarantine"


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
    for record in records(name, quality.mark_repeats(rows.dataset, rules), cleaning):
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
