"""Parquet through Ray Data's reader, with our schema and our errors."""

from __future__ import annotations

import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlray.errors import InputError
from mlray.sources import open_rows, sample


@pytest.fixture
def files(tmp_path):
    (tmp_path / "d").mkdir()
    pq.write_table(pa.table({"a": [1, 2], "y": ["x", None]}), tmp_path / "d/1.parquet")
    pq.write_table(pa.table({"a": [1.5], "y": ["z"], "b": [1]}), tmp_path / "d/2.parquet")
    return tmp_path


def test_files_with_other_types_and_more_columns_are_unified(project, files, ray_cluster, collect):
    described = project(rows={"path": "d"})
    rows = open_rows(described)
    table = collect(rows.dataset)
    assert table.schema.equals(rows.schema)
    assert table.to_pydict() == {"a": [1.0, 2.0, 1.5], "y": ["x", None, "z"]}
    assert sample(described).equals(table)


def test_a_single_file_and_declared_types(project, files, ray_cluster, collect):
    described = project(rows={"path": "d/1.parquet", "types": {"a": "string"}, "columns": ["a"]})
    assert collect(open_rows(described).dataset).to_pydict() == {"a": ["1", "2"]}


def test_a_file_that_lacks_a_column_is_named(project, files):
    with pytest.raises(InputError) as caught:
        sample(project(rows={"path": "d", "columns": ["a", "b"]}))
    assert "1.parquet (source `rows`) has no column: b" in str(caught.value)


def test_types_that_do_not_unify_are_refused(project, files):
    pq.write_table(pa.table({"a": [{"k": 1}], "y": ["z"]}), files / "d/3.parquet")
    with pytest.raises(InputError, match="disagree about a column's type"):
        sample(project(rows={"path": "d"}))


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


def test_the_choice_of_ray_reader_is_left_as_it_was(project, files, ray_cluster):
    from ray.data import DataContext

    before = DataContext.get_current().use_datasource_v2
    open_rows(project(rows={"path": "d"}))
    assert DataContext.get_current().use_datasource_v2 == before
