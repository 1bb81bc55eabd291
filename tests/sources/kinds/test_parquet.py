"""Parquet by row groups, with one schema and our errors; nothing in a file is ever run."""

from __future__ import annotations

import datetime as dt
import pickle
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from mlray.errors import InputError
from mlray.sources import open_rows, reading, sample
from mlray.sources.kinds import parquet


@pytest.fixture
def files(tmp_path):
    (tmp_path / "d").mkdir()
    pq.write_table(pa.table({"a": [1, 2], "y": ["x", None]}), tmp_path / "d/1.parquet")
    pq.write_table(pa.table({"a": [1.5], "y": ["z"], "b": [1]}), tmp_path / "d/2.parquet")
    return tmp_path


def refused(project, **rows) -> str:
    with pytest.raises(InputError) as caught:
        sample(project(rows=rows))
    return str(caught.value)


def test_files_with_other_types_are_unified(project, files, ray_cluster, collect):
    described = project(rows={"path": "d", "columns": ["a", "y"]})
    rows = open_rows(described)
    table = collect(rows.dataset)
    assert table.schema.equals(rows.schema)
    assert table.to_pydict() == {"a": [1.0, 2.0, 1.5], "y": ["x", None, "z"]}
    assert sample(described).equals(table)


def test_a_single_file_and_declared_types(project, files, ray_cluster, collect):
    described = project(rows={"path": "d/1.parquet", "types": {"a": "string"}, "columns": ["a"]})
    assert collect(open_rows(described).dataset).to_pydict() == {"a": ["1", "2"]}


def test_a_file_that_lacks_a_column_is_named(project, files):
    for columns in ({}, {"columns": ["a", "b"]}):
        message = refused(project, path="d", **columns)
        assert "1.parquet (source `rows`) has no column: b" in message
        assert "2.parquet has it; this file has: a, y" in message
    assert "did you mean `a`?" in refused(project, path="d/1.parquet", columns=["aa"])


def test_types_that_do_not_unify_are_refused(project, files):
    pq.write_table(pa.table({"a": [{"k": 1}], "y": ["z"]}), files / "d/3.parquet")
    message = refused(project, path=["d/1.parquet", "d/3.parquet"])
    assert "disagree about a column's type" in message
    assert "`a` is int64 in " in message
    assert "3.parquet" in message


def test_a_damaged_file_is_named(project, files):
    (files / "bad.parquet").write_bytes(b"PAR1 nothing here")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        sample(project(rows={"path": "bad.parquet"}))


def test_no_rows_are_refused(project, files):
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), files / "none.parquet")
    with pytest.raises(InputError, match="source `rows` has no rows"):
        sample(project(rows={"path": "none.parquet"}))


def test_a_column_of_all_nulls_is_text(project, files, ray_cluster, collect):
    pq.write_table(pa.table({"a": [1], "n": pa.nulls(1)}), files / "nulls.parquet")
    rows = open_rows(project(rows={"path": "nulls.parquet"}))
    assert rows.schema.field("n").type == pa.string()
    assert collect(rows.dataset).schema.equals(rows.schema)


def test_parquet_inside_a_zip_is_read(project, files, ray_cluster, collect):
    with zipfile.ZipFile(files / "z.zip", "w") as archive:
        archive.write(files / "d/1.parquet", "in/1.parquet")
    table = collect(open_rows(project(rows={"path": "z.zip"})).dataset)
    assert table.to_pydict() == {"a": [1, 2], "y": ["x", None]}


def test_a_file_cut_in_half_or_spoilt_inside_is_named(project, files):
    path = files / "r.parquet"
    pq.write_table(pa.table({"a": range(100_000)}), path)
    whole = path.read_bytes()
    (files / "half.parquet").write_bytes(whole[: len(whole) // 2])
    assert "half.parquet (source `rows`) cannot be read as Parquet" in refused(
        project, path="half.parquet"
    )
    (files / "spoilt.parquet").write_bytes(whole[:1000] + b"\xff" * 100 + whole[1100:])
    assert "spoilt.parquet (source `rows`) cannot be read to its end" in refused(
        project, path="spoilt.parquet"
    )


def test_a_file_that_goes_away_between_look_and_read_is_named(project, files):
    opened = parquet.open_source("rows", project(rows={"path": "d/1.parquet"}).sources.rows, "")
    (files / "d/1.parquet").unlink()
    with pytest.raises(InputError, match=r"1\.parquet \(source `rows`\) is not there any more"):
        opened.table()


def test_a_file_that_is_rewritten_with_fewer_rows_is_refused(project, files):
    opened = parquet.open_source("rows", project(rows={"path": "d/1.parquet"}).sources.rows, "")
    pq.write_table(pa.table({"a": [1], "y": ["x"]}), files / "d/1.parquet")
    with pytest.raises(InputError, match="gave 1 of the 2 rows"):
        opened.table()


def test_folders_named_after_values_give_columns(project, tmp_path, ray_cluster, collect):
    table = pa.table({"year": [2013, 2014], "day": ["2013-01-01", "2013-01-02"], "a": [1, 2]})
    kind = ds.partitioning(pa.schema({"year": pa.int64(), "day": pa.string()}), flavor="hive")
    ds.write_dataset(table, tmp_path / "d", format="parquet", partitioning=kind)
    read = collect(open_rows(project(rows={"path": "d"})).dataset)
    days = [dt.date(2013, 1, 1), dt.date(2013, 1, 2)]
    assert read.to_pydict() == {"a": [1, 2], "year": [2013, 2014], "day": days}
    chosen = sample(project(rows={"path": "d", "columns": ["day"], "types": {"day": "string"}}))
    assert chosen.to_pydict() == {"day": ["2013-01-01", "2013-01-02"]}


def test_a_file_outside_of_the_named_folders_is_refused(project, tmp_path):
    for name in ("d/k=1/a.parquet", "d/b.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"a": [1]}), tmp_path / name)
    assert "d/b.parquet (source `rows`) lies in no folder: k=..." in refused(project, path="d")


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


HOSTILE = [
    "arrow.py_extension_type",
    "ray.data.arrow_pickled_object",
    "ray.data.arrow_tensor",
    "ray.data.arrow_tensor_v2",
    "nobody.knows",
]


@pytest.mark.parametrize("extension", HOSTILE)
def test_a_hostile_extension_type_runs_nothing(project, tmp_path, ray_cluster, collect, extension):
    bomb = pickle.dumps(Bomb(str(tmp_path / "ran")))
    told = {b"ARROW:extension:name": extension.encode(), b"ARROW:extension:metadata": bomb}
    tensor = "tensor" in extension
    kind = pa.list_(pa.int64()) if tensor else pa.large_binary()
    values = pa.array([[1], [2]] if tensor else [bomb, bomb], kind)
    schema = pa.schema([pa.field("a", kind, metadata=told), pa.field("y", pa.int64())])
    pq.write_table(pa.table([values, pa.array([1, 2])], schema=schema), tmp_path / "h.parquet")
    described = project(rows={"path": "h.parquet"})
    if tensor:
        assert "holds a type that is not safe" in refused(project, path="h.parquet")
    else:
        read = collect(open_rows(described).dataset)
        assert read.schema.field("a").type == pa.large_binary()
        assert read["a"].to_pylist() == [bomb, bomb]
    assert not (tmp_path / "ran").exists()


def test_extensions_dictionaries_and_nested_types_are_read_as_plain_ones(project, tmp_path):
    table = pa.table(
        {
            "id": pa.array([b"1" * 16], pa.uuid()),
            "d": pa.array(["x"]).dictionary_encode(),
            "t": pa.array(["long"], pa.large_string()),
            "n": pa.array([{"k": [{"v": 1}]}]),
        }
    )
    pq.write_table(table, tmp_path / "r.parquet")
    read = sample(project(rows={"path": "r.parquet"}))
    assert read.schema.types[:3] == [pa.binary(16), pa.string(), pa.string()]
    assert read["n"].to_pylist() == [{"k": [{"v": 1}]}]


def test_files_without_rows_or_row_groups_are_passed_over(project, files):
    schema = pa.schema({"a": pa.int64(), "y": pa.string()})
    pq.ParquetWriter(files / "none.parquet", schema).close()
    pq.write_table(schema.empty_table(), files / "zero.parquet")
    paths = ["none.parquet", "d/1.parquet", "zero.parquet"]
    assert sample(project(rows={"path": paths}))["a"].to_pylist() == [1, 2]
    assert "has no rows" in refused(project, path=["none.parquet", "zero.parquet"])


def test_files_of_a_web_server_and_of_memory_are_read(project, files, web, ray_cluster, collect):
    import fsspec

    data = (files / "d/1.parquet").read_bytes()
    fsspec.filesystem("memory").pipe_file("/lake/1.parquet", data)
    assert sample(project(rows={"path": "memory://lake/*.parquet"}))["a"].to_pylist() == [1, 2]
    described = project(rows={"path": f"{web}/d/1.parquet"})
    assert collect(open_rows(described).dataset)["a"].to_pylist() == [1, 2]


@pytest.fixture
def web(files) -> Iterator[str]:
    """The address of a web server over the test's folder."""
    serve = partial(SimpleHTTPRequestHandler, directory=str(files))
    server = ThreadingHTTPServer(("127.0.0.1", 0), serve)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_value_that_does_not_convert_is_shown_unless_it_is_personal(project, files):
    pq.write_table(pa.table({"a": ["1", "canary"]}), files / "s.parquet")
    wanted = {"path": "s.parquet", "types": {"a": "int64"}}
    assert "column `a` of source `rows` is not int64" in refused(project, **wanted)
    source = project(rows={**wanted, "pii": {"a": "drop"}}).sources.rows
    with pytest.raises(InputError) as caught:
        parquet.open_source("rows", source, "").table()
    assert "canary" not in str(caught.value)


def test_200k_rows_are_read_in_parallel_in_order(
    project, tmp_path, ray_cluster, collect, monkeypatch
):
    monkeypatch.setattr(parquet, "_TASK_BYTES", 1 << 16)
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 1 << 16)
    count = 200_000
    table = pa.table({"a": range(count), "t": [f"t{i % 9}" for i in range(count)]})
    pq.write_table(table, tmp_path / "r.parquet", row_group_size=50_000)
    opened = parquet.open_source("rows", project(rows={"path": "r.parquet"}).sources.rows, "")
    lazy = opened.dataset(traced=True)
    lazy.context.execution_options.preserve_order = True
    rows = lazy.materialize()
    assert rows.num_blocks() >= 4
    read = collect(rows)
    assert read["__position"].to_pylist() == list(range(count))
    assert reading.visible(read).equals(table)
