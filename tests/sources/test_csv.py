"""CSV: one schema over all files, and a clear word for every bad one."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from mlray.errors import InputError
from mlray.sources import csv, open_rows, reading, sample


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refused(make, **rows) -> str:
    with pytest.raises(InputError) as caught:
        sample(make(rows=rows))
    return str(caught.value)


def test_types_are_unified_over_files(project, tmp_path):
    write(tmp_path / "d/1.csv", "a,b,c,d\n1,x,2013-01-01,true\n")
    write(tmp_path / "d/2.csv", "a,b,c,d\n1.5,2,2013-01-01T10:00:00,false\n")
    schema = sample(project(rows={"path": "d"})).schema
    assert schema.field("a").type == pa.float64()
    assert schema.field("b").type == pa.string()
    assert schema.field("c").type == pa.timestamp("us")
    assert schema.field("d").type == pa.bool_()


def test_all_blocks_of_all_files_have_one_schema(project, tmp_path, ray_cluster, collect):
    write(tmp_path / "d/1.csv", "a,b\n1,NA\n")
    write(tmp_path / "d/2.csv", "b,a\nx,2.5\n")
    rows = open_rows(project(rows={"path": "d/*.csv"}))
    table = collect(rows.dataset)
    assert table.schema.equals(rows.schema)
    assert table.to_pydict() == {"a": [1.0, 2.5], "b": [None, "x"]}


def test_times_in_a_zone_are_utc_microseconds(project, tmp_path):
    write(tmp_path / "r.csv", "at,y\n2013-01-01T12:00:00.123456789+02:00,1\n2013-01-01T10:00Z,2\n")
    at = sample(project(rows={"path": "r.csv"}))["at"]
    assert at.type == pa.timestamp("us", tz="UTC")
    assert at.cast(pa.string()).to_pylist()[0] == "2013-01-01 10:00:00.123456Z"


def test_a_file_that_lacks_a_column_is_named(project, tmp_path):
    for number in (1, 2):
        write(tmp_path / f"d/{number}.csv", "a,b,y\n1,2,3\n")
    write(tmp_path / "d/3.csv", "a,y\n1,3\n")
    message = refused(project, path="d")
    assert "3.csv (source `rows`) lacks columns that other files have: b" in message
    assert "1.csv has: a, b, y" in message


def test_only_named_columns_must_be_in_every_file(project, tmp_path):
    write(tmp_path / "d/1.csv", "a,b,y\n1,2,3\n")
    write(tmp_path / "d/2.csv", "a,y\n1,3\n")
    assert sample(project(rows={"path": "d", "columns": ["a", "y"]})).column_names == ["a", "y"]


def test_a_value_that_does_not_convert_is_named_with_the_fix(project, tmp_path):
    write(tmp_path / "r.csv", "y,age\n1,12\n2,twelve\n")
    message = refused(project, path="r.csv", types={"age": "int64"})
    assert "r.csv (source `rows`): a value of column `age` is not int64" in message
    assert "twelve" in message
    assert "types: {age: string}" in message


def test_a_value_after_the_inferred_head_is_named(project, tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "_WHOLE_BYTES", 100)
    monkeypatch.setattr(csv, "_HEAD_BYTES", 1000)
    write(tmp_path / "r.csv", "y,age\n" + "1,12\n" * 1000 + "2,twelve\n")
    with pytest.raises(InputError, match="column `age` is not int64") as caught:
        csv.open_source("rows", project(rows={"path": "r.csv"}).sources.rows, "").table()
    assert caught.value.value == "twelve"


def test_the_error_of_a_worker_reaches_the_driver_as_itself(
    project, tmp_path, ray_cluster, collect
):
    write(tmp_path / "r.csv", "y,age\n" + "1,12\n" * 1000 + "2,twelve\n")
    with pytest.raises(InputError) as caught:
        collect(open_rows(project(rows={"path": "r.csv", "types": {"age": "int64"}})).dataset)
    assert type(caught.value) is InputError
    assert "column `age` is not int64" in str(caught.value)


def test_a_column_of_all_nulls_is_text(project, tmp_path):
    write(tmp_path / "r.csv", "y,empty\n1,NA\n2,\n")
    table = sample(project(rows={"path": "r.csv"}))
    assert table.schema.field("empty").type == pa.string()
    assert table["empty"].null_count == 2


def test_infinities_and_the_largest_numbers_are_read(project, tmp_path):
    write(tmp_path / "r.csv", "y,x\n1,inf\n2,-inf\n3,1e308\n4,1e309\n5,NaN\n")
    x = sample(project(rows={"path": "r.csv"}))["x"].to_pylist()
    assert x == [float("inf"), float("-inf"), 1e308, float("inf"), None]


def test_an_empty_file_is_refused(project, tmp_path):
    write(tmp_path / "r.csv", "")
    assert "r.csv (source `rows`) is empty" in refused(project, path="r.csv")


def test_a_source_without_rows_is_refused(project, tmp_path):
    write(tmp_path / "r.csv", "a,y\n")
    assert "source `rows` has no rows" in refused(project, path="r.csv")


def test_one_file_without_rows_among_others_is_read(project, tmp_path):
    write(tmp_path / "d/1.csv", "a,y\n")
    write(tmp_path / "d/2.csv", "a,y\n1,2\n")
    assert sample(project(rows={"path": "d"})).to_pylist() == [{"a": 1, "y": 2}]


def test_a_line_with_too_many_values_is_named(project, tmp_path):
    write(tmp_path / "r.csv", "a,y\n1,2\n1,2,3\n")
    message = refused(project, path="r.csv")
    assert "too many or too few values" in message
    assert "Expected 2 columns, got 3" in message


def test_text_that_is_not_utf8_is_named(project, tmp_path):
    (tmp_path / "r.csv").write_bytes(b"a,y\n\xe9,2\n")
    assert "not UTF-8, in column: a" in refused(project, path="r.csv")


def test_a_column_named_twice_is_refused(project, tmp_path):
    write(tmp_path / "r.csv", "a,a,y\n1,2,3\n")
    assert "names columns twice in its header: a" in refused(project, path="r.csv")


def test_types_of_a_column_that_is_not_there_are_refused(project, tmp_path):
    write(tmp_path / "r.csv", "tailnum,y\n1,2\n")
    message = refused(project, path="r.csv", types={"tailnumber": "string"})
    assert "source `rows` has no column: tailnumber" in message
    assert "did you mean `tailnum`?" in message


def test_gzip_zip_and_plain_text_give_the_same_rows(project, tmp_path):
    text = 'a,y\n"x\ny",1\nz,2\n'
    write(tmp_path / "r.csv", text)
    with gzip.open(tmp_path / "g.csv.gz", "wt") as file:
        file.write(text)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("inner/z.csv", text)
    tables = [sample(project(rows={"path": p})) for p in ("r.csv", "g.csv.gz", "z.zip")]
    assert tables[0].to_pydict() == {"a": ["x\ny", "z"], "y": [1, 2]}
    assert tables[1].equals(tables[0])
    assert tables[2].equals(tables[0])


def test_a_large_file_without_quotes_is_read_by_several_tasks(project, tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "_TASK_BYTES", 5000)
    write(tmp_path / "r.csv", "a,y\n" + "".join(f"{i},{i % 7}\n" for i in range(9999)) + "9999,0")
    source = project(rows={"path": "r.csv"}).sources.rows
    opened = csv.open_source("rows", source, "")
    assert len(csv._ranges(csv._look("rows", source, csv.find(source.path, csv.ENDINGS))[0])) > 10
    assert opened.table()["a"].to_pylist() == list(range(10_000))


def test_a_large_file_with_a_quote_is_not_split(project, tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "_TASK_BYTES", 5000)
    write(tmp_path / "r.csv", "a,y\n" + '"line\nbreak",1\n' * 2000)
    source = project(rows={"path": "r.csv"}).sources.rows
    seen = csv._look("rows", source, csv.find(source.path, csv.ENDINGS))
    assert len(csv._ranges(seen[0])) == 1
    assert csv.open_source("rows", source, "").table().num_rows == 2000


def test_small_files_share_reading_tasks_and_large_ones_give_several_blocks(
    project, tmp_path, ray_cluster, monkeypatch
):
    for number in range(20):
        write(tmp_path / f"d/{number:02}.csv", "a,y\n" + f"{number},1\n" * 100)
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 2000)
    rows = open_rows(project(rows={"path": "d"})).dataset.materialize()
    assert rows.num_blocks() >= 4
    assert rows.count() == 2000
