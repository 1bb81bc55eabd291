"""Iceberg tables in a SQLite catalog and from their metadata file."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlray.errors import InputError
from mlray.sources import find, open_rows, sample
from mlray.sources.fingerprint import Content
from tests.sources.kinds.test_delta import many_rows, reading_tasks

pytest.importorskip("pyiceberg")


@pytest.fixture
def catalog(tmp_path):
    from pyiceberg.catalog import load_catalog

    made = load_catalog(**properties(tmp_path))
    made.create_namespace("ns")
    return made


def properties(folder: Path) -> dict[str, str]:
    return {
        "name": "test",
        "type": "sql",
        "uri": f"sqlite:///{folder}/catalog.db",
        "warehouse": f"file://{folder}/warehouse",
    }


def iceberg(folder: Path, table: str = "ns.t", **more: object) -> dict[str, object]:
    return {"kind": "iceberg", "table": table, "catalog": properties(folder), **more}


@pytest.fixture
def small(catalog):
    """Rows, then a new column and a row, then one row deleted."""
    rows = pa.table({"a": [1, 2, 3], "y": ["x", "", None]})
    table = catalog.create_table("ns.t", schema=rows.schema)
    table.append(rows)
    with table.update_schema() as change:
        change.rename_column("y", "label")
    with table.update_schema() as change:
        change.union_by_name(pa.schema({"late": pa.float64()}))
    table.append(pa.table({"a": [4], "label": ["z"], "late": [1.5]}))
    table.delete("a = 2")
    return table


def test_many_rows_equal_the_same_rows_in_parquet(
    project, tmp_path, catalog, ray_cluster, collect, monkeypatch
):
    rows = many_rows()
    table = catalog.create_table("ns.t", schema=rows.schema)
    for part in range(4):
        table.append(rows.slice(part * 55_000, 55_000))
    pq.write_table(rows, tmp_path / "rows.parquet")
    tasks = reading_tasks(monkeypatch)
    read = collect(open_rows(project(rows=iceberg(tmp_path))).dataset)
    assert tasks[0] >= 2
    same = collect(open_rows(project(rows={"path": "rows.parquet"})).dataset)
    assert read.num_rows == 220_000
    assert read.sort_by("id").equals(same.sort_by("id"))
    assert Content.of(read) == Content.of(same)


def test_snapshots_schema_changes_and_deletes_count(project, tmp_path, small):
    newest = sample(project(rows=iceberg(tmp_path))).sort_by("a")
    assert newest.to_pydict() == {
        "a": [1, 3, 4],
        "label": ["x", None, "z"],
        "late": [None, None, 1.5],
    }
    first = small.snapshots()[0]
    for version in (first.snapshot_id, str(first.snapshot_id)):
        oldest = sample(project(rows=iceberg(tmp_path, version=version)))
        assert oldest.to_pydict() == {"a": [1, 2, 3], "y": ["x", "", None]}
    moment = datetime.fromtimestamp(first.timestamp_ms / 1000, UTC).isoformat()
    assert sample(project(rows=iceberg(tmp_path, version=moment))).num_rows == 3
    found = find(project(rows=iceberg(tmp_path))).inputs[0]
    assert found.path == "ns.t"
    assert found.modified == f"snapshot {small.current_snapshot().snapshot_id}"
    from mlray.sources.kinds.iceberg import pinned

    held = pinned(project(rows=iceberg(tmp_path)).sources.rows, [found])
    assert held.version == small.current_snapshot().snapshot_id


def test_positional_delete_files_are_applied(project, tmp_path, catalog):
    rows = pa.table({"a": list(range(6))})
    table = catalog.create_table("ns.t", schema=rows.schema, properties={"format-version": "2"})
    table.append(rows)
    add_delete_file(table, tmp_path / "deletes.parquet", [1, 4])
    assert sample(project(rows=iceberg(tmp_path)))["a"].to_pylist() == [0, 2, 3, 5]


def add_delete_file(table, where, positions: list[int], content="POSITION_DELETES") -> None:
    """The library writes no delete files itself: one is written and committed by hand."""
    from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestContent
    from pyiceberg.table.snapshots import Operation
    from pyiceberg.table.update.snapshot import _FastAppendFiles
    from pyiceberg.typedef import Record

    class Deletes(_FastAppendFiles):
        def new_manifest_writer(self, spec):
            writer = super().new_manifest_writer(spec)
            writer.content = lambda: ManifestContent.DELETES
            writer._meta["content"] = "deletes"
            return writer

    data = next(iter(table.scan().plan_files())).file
    paths = pa.array([data.file_path] * len(positions))
    pq.write_table(pa.table({"file_path": paths, "pos": positions}), where)
    removed = DataFile.from_args(
        content=DataFileContent[content],
        file_path=f"file://{where}",
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=len(positions),
        file_size_in_bytes=where.stat().st_size,
        equality_ids=[1] if content == "EQUALITY_DELETES" else None,
    )
    removed.spec_id = 0
    with (
        table.transaction() as transaction,
        Deletes(Operation.DELETE, transaction, table.io) as producer,
    ):
        producer._added_data_files.append(removed)


def test_equality_deletes_are_refused_not_ignored(project, tmp_path, catalog):
    rows = pa.table({"a": list(range(6))})
    table = catalog.create_table("ns.t", schema=rows.schema)
    table.append(rows)
    add_delete_file(table, tmp_path / "deletes.parquet", [1], "EQUALITY_DELETES")
    with pytest.raises(InputError, match="cannot read rightly"):
        sample(project(rows=iceberg(tmp_path)))


def test_a_metadata_file_serves_without_a_catalog(project, small):
    file = small.metadata_location.removeprefix("file://")
    table = sample(project(rows={"kind": "iceberg", "path": file, "columns": ["a"]}))
    assert sorted(table["a"].to_pylist()) == [1, 3, 4]


def test_what_is_not_there_is_named(project, tmp_path, small, catalog):
    for table in ("ns.nothing", "other.t"):
        with pytest.raises(InputError, match="has no such table"):
            find(project(rows=iceberg(tmp_path, table)))
    known = str(small.current_snapshot().snapshot_id)
    for version in (5, "2001-01-01"):
        with pytest.raises(InputError, match=f"no such snapshot(.|\n)*{known}"):
            find(project(rows=iceberg(tmp_path, version=version)))
    with pytest.raises(InputError, match="no column: b"):
        sample(project(rows=iceberg(tmp_path, columns=["b"])))
    with pytest.raises(InputError, match="not the metadata file"):
        find(project(rows={"kind": "iceberg", "path": str(tmp_path / "no.metadata.json")}))
    with pytest.raises(InputError, match="needs one of `path` and `table`"):
        find(project(rows={"kind": "iceberg"}))
    catalog.create_table("ns.empty", schema=pa.schema({"a": pa.int64()}))
    with pytest.raises(InputError, match="has no rows"):
        find(project(rows=iceberg(tmp_path, "ns.empty")))


def test_a_data_file_that_is_gone_is_named(project, tmp_path, small):
    for task in small.scan().plan_files():
        Path(task.file.file_path.removeprefix("file://")).unlink()
    with pytest.raises(InputError, match="is gone"):
        sample(project(rows=iceberg(tmp_path)))


def test_a_catalog_that_does_not_answer_is_said_without_the_secret(project):
    catalog = {
        "type": "rest",
        "uri": "http://canary-user:canary-pw@127.0.0.1:9",
        "token": "canary-token",
    }
    with pytest.raises(InputError, match="cannot be read") as caught:
        find(project(rows={"kind": "iceberg", "table": "ns.t", "catalog": catalog}))
    assert not re.search("canary", str(caught.value))
