"""Delta tables written by the library, and by hand where it does not write a feature itself."""

from __future__ import annotations

import json
import os
import pickle
import struct
import uuid
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlray.errors import InputError
from mlray.sources import find, open_rows, sample
from mlray.sources.fingerprint import Content

deltalake = pytest.importorskip("deltalake")

LONG = {"a": "long", "b x": "string", "p": "date"}


def many_rows(rows: int = 220_000) -> pa.Table:
    random = np.random.default_rng(1)
    return pa.table(
        {
            "id": np.arange(rows),
            "x": pa.array(random.normal(size=rows), mask=random.random(rows) < 0.1),
            "z": random.normal(size=rows),
            "text": [f"row {i * 7919 % rows}" for i in range(rows)],
            "when": pa.array(np.arange(rows) * 1_000_003, pa.timestamp("us", "UTC")),
            "region": np.array(["north, west", "south/east", "ü%20"])[np.arange(rows) % 3],
        }
    )


def reading_tasks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fills with the number of tasks of every source that Ray Data is given to read."""
    import ray.data

    counts: list[int] = []
    given = ray.data.read_datasource

    def counted(source, **options):
        counts.append(len(source.get_read_tasks(2)))
        return given(source, **options)

    monkeypatch.setattr(ray.data, "read_datasource", counted)
    return counts


def by_hand(folder: Path, rows: pa.Table, names: dict[str, str], **action: object) -> Path:
    """A table of one commit with column mapping; `names`: logical to physical column."""
    (folder / "_delta_log").mkdir(parents=True)
    pq.write_table(rows, folder / "f 1.parquet")
    fields = [
        {
            "name": logical,
            "type": LONG[logical],
            "nullable": True,
            "metadata": {
                "delta.columnMapping.id": number,
                "delta.columnMapping.physicalName": physical,
            },
        }
        for number, (logical, physical) in enumerate(names.items(), start=1)
    ]
    features = ["deletionVectors", "columnMapping", *action.pop("features", [])]
    commit = [
        {
            "protocol": {
                "minReaderVersion": 3,
                "minWriterVersion": 7,
                "readerFeatures": features,
                "writerFeatures": features,
            }
        },
        {
            "metaData": {
                "id": str(uuid.uuid4()),
                "format": {"provider": "parquet", "options": {}},
                "schemaString": json.dumps({"type": "struct", "fields": fields}),
                "partitionColumns": ["p"],
                "configuration": {"delta.columnMapping.mode": action.pop("mode", "name")},
                "createdTime": 0,
            }
        },
        {
            "add": {
                "path": "f%201.parquet",
                "partitionValues": {names["p"]: "2020-01-02"},
                "size": os.path.getsize(folder / "f 1.parquet"),
                "modificationTime": 0,
                "dataChange": True,
                **action,
            }
        },
    ]
    (folder / "_delta_log" / f"{0:020}.json").write_text("\n".join(map(json.dumps, commit)))
    return folder


def deletion_vector(rows: list[int]) -> dict[str, object]:
    """An inline deletion vector: a portable 64-bit Roaring bitmap in Z85."""
    inner = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16)
    inner += b"".join(struct.pack("<H", row) for row in rows)
    bitmap = struct.pack("<IQI", 1681511377, 1, 0) + inner
    letters = (
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    )
    padded, text = bitmap + b"\0" * (-len(bitmap) % 4), ""
    for (word,) in struct.iter_unpack(">I", padded):
        text += "".join(letters[word // 85**place % 85] for place in (4, 3, 2, 1, 0))
    return {
        "storageType": "i",
        "pathOrInlineDv": text,
        "sizeInBytes": len(bitmap),
        "cardinality": len(rows),
    }


@pytest.fixture
def small(tmp_path):
    """Three versions: 3 rows, then a column more, then rows deleted."""
    where = str(tmp_path / "table")
    deltalake.write_deltalake(where, pa.table({"a": [1, 2, 3], "y": ["x", "", None]}))
    more = pa.table({"a": [4], "y": ["z"], "late": [1.5]})
    deltalake.write_deltalake(where, more, mode="append", schema_mode="merge")
    deltalake.DeltaTable(where).delete("a = 2")
    return where


def delta(path, **more):
    return {"kind": "delta", "path": str(path), **more}


def test_many_rows_of_a_partitioned_table_equal_the_same_rows_in_parquet(
    project, tmp_path, ray_cluster, collect, monkeypatch
):
    monkeypatch.setattr(
        "mlray.sources.kinds.delta._SPLIT_BYTES", 1 << 20
    )  # row groups are pieces too
    rows = many_rows()
    writer = deltalake.WriterProperties(max_row_group_size=20_000)
    deltalake.write_deltalake(
        tmp_path / "lake", rows, partition_by=["region"], writer_properties=writer
    )
    pq.write_table(rows, tmp_path / "rows.parquet")
    tasks = reading_tasks(monkeypatch)
    read = collect(open_rows(project(rows=delta(tmp_path / "lake"))).dataset)
    assert tasks[0] >= 2
    same = collect(open_rows(project(rows={"path": "rows.parquet"})).dataset)
    assert read.num_rows == 220_000
    assert read.sort_by("id").select(rows.column_names).equals(same.sort_by("id"))
    assert Content.of(read) == Content.of(same)


def test_the_version_is_pinned_by_number_by_time_or_is_the_newest(project, small):
    newest = find(project(rows=delta(small)))
    assert newest.inputs[0].modified.startswith("version 2 of ")
    assert newest.inputs[0].path == small
    described = project(rows=delta(small, version=0))
    assert sample(described).to_pydict() == {"a": [1, 2, 3], "y": ["x", "", None]}
    assert find(described).fingerprint != newest.fingerprint
    now = datetime.now(UTC).isoformat()
    assert find(project(rows=delta(small, version=now))).inputs == newest.inputs
    from mlray.sources.kinds.delta import pinned

    later = pinned(project(rows=delta(small)).sources.rows, newest.inputs)
    assert later.version == 2


def test_a_column_that_came_later_is_missing_in_older_files(project, small):
    table = sample(project(rows=delta(small))).sort_by("a")
    assert table.to_pydict() == {"a": [1, 3, 4], "y": ["x", None, "z"], "late": [None, None, 1.5]}
    assert sample(project(rows=delta(small, columns=["late"]))).column_names == ["late"]


def test_deletion_vectors_and_column_mapping_are_honoured(project, tmp_path, ray_cluster, collect):
    rows = pa.table({"col-1": [1, 2, 3, 4, 5], "col-2": list("abcde")})
    names = {"a": "col-1", "b x": "col-2", "p": "col-3"}
    where = by_hand(
        tmp_path / "t",
        rows,
        names,
        stats=json.dumps({"numRecords": 5}),
        deletionVector=deletion_vector([1, 3]),
    )
    traced = collect(open_rows(project(rows=delta(where)), traced=True).dataset)
    day = date(2020, 1, 2)
    assert traced.select(["a", "b x", "p"]).to_pydict() == {
        "a": [1, 3, 5],
        "b x": ["a", "c", "e"],
        "p": [day, day, day],
    }
    assert traced["__position"].to_pylist() == [0, 2, 4]
    assert traced["__origin"][0].as_py() == f"{where}/f 1.parquet"


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"features": ["rowMagic"]}, "rowMagic"), ({"mode": "id"}, "column mapping by id")],
)
def test_a_table_that_needs_more_is_refused(project, tmp_path, changed, told):
    rows = pa.table({"a": [1], "b": ["x"]})
    where = by_hand(tmp_path / "t", rows, {"a": "a", "b x": "b", "p": "p"}, **changed)
    with pytest.raises(InputError, match=told):
        sample(project(rows=delta(where)))


def test_what_is_not_there_is_named(project, small, tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match="is not a Delta table"):
            find(project(rows=delta(path)))
    for version in (7, -1):
        with pytest.raises(InputError, match=r"no such version.*\n.*up to 2"):
            find(project(rows=delta(small, version=version)))
    with pytest.raises(InputError, match="had no version at this time"):
        find(project(rows=delta(small, version="2001-01-01")))
    with pytest.raises(InputError, match="neither a number nor a time"):
        find(project(rows=delta(small, version="junk")))
    with pytest.raises(InputError, match="no column: b"):
        sample(project(rows=delta(small, columns=["b"])))


def test_a_version_whose_files_were_vacuumed_is_said(project, small):
    table = deltalake.DeltaTable(small)
    table.optimize.compact()
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    with pytest.raises(InputError, match="a data file of version 0 is gone"):
        sample(project(rows=delta(small, version=0)))


def test_a_table_without_rows_is_refused(project, small):
    deltalake.DeltaTable(small).delete()
    with pytest.raises(InputError, match="source `rows` has no rows"):
        sample(project(rows=delta(small)))


def test_a_store_that_does_not_answer_is_said_without_the_secret(project):
    options = {
        "AWS_ACCESS_KEY_ID": "canary-key",
        "AWS_SECRET_ACCESS_KEY": "canary-secret",
        "AWS_ENDPOINT_URL": "http://canary-user:canary-pw@127.0.0.1:9",
        "AWS_REGION": "x",
        "AWS_ALLOW_HTTP": "true",
        "max_retries": "0",
    }
    with pytest.raises(InputError, match="cannot be read") as caught:
        find(project(rows=delta("s3://bucket/table", options=options)))
    assert "canary" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
