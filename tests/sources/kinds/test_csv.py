"""CSV: one schema over all files, and a clear word for every bad one."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from mlray.errors import InputError
from mlray.sources import open_rows, reading, sample
from mlray.sources.kinds import csv, text


@pytest.fixture
def traced(project, monkeypatch):
    """All rows with their hidden columns, unreadable ones too, read in this process."""

    def table(**rows) -> pa.Table:
        source = project(rows=rows).sources.rows
        seen = csv._look("rows", source, csv.find(source.path, csv.ENDINGS))
        layout = csv._layout("rows", source, seen)
        pieces = csv._finer(layout, seen)
        return pa.concat_tables(reading._traced("rows", layout.schema, pieces))

    return table


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
    message = refused(project, path="r.csv")
    assert "r.csv (source `rows`) holds text that is not UTF-8" in message
    assert "byte 0xe9 at offset 4, line 2" in message


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


def texts_of(project, monkeypatch, **rows) -> tuple[list[text.Text], pa.Table]:
    """The ranges that a file of the source is cut into, and all rows read from these."""
    monkeypatch.setattr(text, "RANGE_BYTES", 5000)
    monkeypatch.setattr(text, "_SCAN_BYTES", 7001)
    source = project(rows=rows).sources.rows
    seen = csv._look("rows", source, csv.find(source.path, csv.ENDINGS))
    layout = csv._layout("rows", source, seen)
    pieces = csv._finer(layout, seen)
    tables = [
        table for piece in pieces for table in reading._traced("rows", layout.schema, [piece])
    ]
    return [piece.read.args[1] for piece in pieces], pa.concat_tables(tables)


def test_a_large_file_is_read_by_several_tasks(project, tmp_path, monkeypatch):
    write(tmp_path / "r.csv", "a,y\n" + "".join(f"{i},{i % 7}\n" for i in range(9999)) + "9999,0")
    texts, table = texts_of(project, monkeypatch, path="r.csv")
    assert len(texts) > 10
    assert not any(t.quoted for t in texts)
    assert table["a"].to_pylist() == list(range(10_000))
    assert table["__position"].to_pylist() == list(range(10_000))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_large_file_with_quotes_is_cut_between_rows_only(project, tmp_path, monkeypatch, newline):
    values = ["plain", '"quoted"', '"a, b"', '"line\nbreak"', '"say ""yes"""', '""', '"""\n"""', ""]
    lines = [f"{i},{values[i % len(values)]},{i % 7}" for i in range(4000)]
    lines[100:100] = ["", ""]  # empty lines are no rows
    text = newline.join(['"a",b,y', *lines])
    (tmp_path / "r.csv").write_bytes(text.encode())
    texts, table = texts_of(project, monkeypatch, path="r.csv")
    assert len(texts) > 10
    whole = csv.open_source("rows", project(rows={"path": "r.csv"}).sources.rows, "").table()
    assert reading.visible(table).equals(whole)
    assert table["a"].to_pylist() == list(range(4000))
    assert table["__position"].to_pylist() == list(range(4000))


@pytest.mark.parametrize("odd", ['x "inside" x', '"open', ' "after a space"', '"closed"x', "\r2,3"])
def test_a_large_file_whose_quotes_prove_nothing_is_not_cut(project, tmp_path, monkeypatch, odd):
    write(tmp_path / "r.csv", "a,y\n" + "line,1\n" * 2000)
    with open(tmp_path / "r.csv", "a", newline="") as file:
        file.write(f"1,{odd}")
    source = project(rows={"path": "r.csv"}).sources.rows
    [place] = csv.find(source.path, csv.ENDINGS)
    monkeypatch.setattr(text, "RANGE_BYTES", 5000)
    assert len(text.ranges(text.text_of("rows", place, "utf-8"), ",")) == 1


def test_small_files_share_reading_tasks_and_large_ones_give_several_blocks(
    project, tmp_path, ray_cluster, monkeypatch
):
    for number in range(20):
        write(tmp_path / f"d/{number:02}.csv", "a,y\n" + f"{number},1\n" * 100)
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 2000)
    monkeypatch.setattr(reading, "_TASK_BYTES", 2000)
    lazy = open_rows(project(rows={"path": "d"})).dataset
    lazy.context.execution_options.preserve_order = True
    rows = lazy.materialize()
    assert rows.num_blocks() >= 4
    assert rows.count() == 2000


@pytest.mark.parametrize("block", [60, 1 << 20])
def test_ragged_lines_are_set_aside_with_text_and_place(traced, tmp_path, monkeypatch, block):
    monkeypatch.setattr(csv, "_READ_BYTES", block)
    lines = [f"{i},t{i}" for i in range(100)]
    lines[0], lines[50], lines[51], lines[99] = "0", '50,"a,b",c', "51,x,y", "99"
    write(tmp_path / "r.csv", "a,t\n" + "\n".join(lines) + "\n")
    table = traced(path="r.csv", unreadable="quarantine")
    assert table["__position"].to_pylist() == list(range(100))
    aside = table.filter(table["__unreadable"].is_valid())
    assert aside["__position"].to_pylist() == [0, 50, 51, 99]
    assert aside["__raw"].to_pylist() == [b"0", b'50,"a,b",c', b"51,x,y", b"99"]
    assert aside["__unreadable"].to_pylist()[:2] == [
        "1 values where 2 belong",
        "3 values where 2 belong",
    ]
    kept = table.filter(table["__unreadable"].is_null())
    assert kept["a"].to_pylist() == [i for i in range(100) if i not in (0, 50, 51, 99)]


@pytest.mark.parametrize("block", [60, 1 << 20])
def test_values_that_do_not_convert_are_set_aside_among_ragged_lines(
    traced, tmp_path, monkeypatch, block
):
    monkeypatch.setattr(csv, "_READ_BYTES", block)
    lines = [f"{i},2013-01-{i % 28 + 1:02},t{i}" for i in range(100)]
    lines[10] = "10"
    lines[11] = 'x,2013-01-01,"t, 11"'
    lines[60] = "60,2013-13-01,t60"
    lines[61] = "y,z,t61"
    write(tmp_path / "r.csv", "a,day,t\n" + "\n".join(lines))
    types = {"a": "int64", "day": "date32"}
    table = traced(path="r.csv", types=types, unreadable="quarantine")
    assert table["__position"].to_pylist() == list(range(100))
    aside = table.filter(table["__unreadable"].is_valid())
    assert aside["__position"].to_pylist() == [10, 11, 60, 61]
    assert aside["__unreadable"].to_pylist() == [
        "1 values where 3 belong",
        "column `a`: `x` is not int64",
        "column `day`: `2013-13-01` is not date32[day]",
        "column `day`: `z` is not date32[day]",
    ]
    assert aside["__raw"].to_pylist()[1:3] == [lines[11].encode(), lines[60].encode()]
    kept = table.filter(table["__unreadable"].is_null())
    assert kept["a"].to_pylist() == [i for i in range(100) if i not in (10, 11, 60, 61)]


def test_rows_in_errors_are_counted_in_the_file_not_in_the_task(project, tmp_path, monkeypatch):
    monkeypatch.setattr(text, "RANGE_BYTES", 1000)
    monkeypatch.setattr(csv, "_WHOLE_BYTES", 100)
    monkeypatch.setattr(csv, "_HEAD_BYTES", 1000)
    write(tmp_path / "v.csv", "a,y\n" + "1,1\n" * 3000 + "x,1\n")
    write(tmp_path / "l.csv", "a,y\n" + "1,1\n" * 3000 + "1,1,1\n")
    for name, said in (("v.csv", "is not int64"), ("l.csv", "too many or too few values")):
        source = project(rows={"path": name}).sources.rows
        seen = csv._look("rows", source, csv.find(source.path, csv.ENDINGS))
        layout = csv._layout("rows", source, seen)
        pieces = csv._finer(layout, seen)
        assert len(pieces) > 5
        with pytest.raises(InputError, match=f"{said} in row 3,001 below the header"):
            list(reading._plain("rows", layout.schema, pieces))


def test_set_aside_rows_travel_through_ray(project, tmp_path, ray_cluster, collect):
    write(tmp_path / "r.csv", "a,y\n1,1\nx\n3,3\n")
    described = project(rows={"path": "r.csv", "unreadable": "quarantine"})
    table = collect(open_rows(described, traced=True).dataset)
    assert table["a"].to_pylist() == [1, None, 3]
    assert table["__raw"].to_pylist() == [None, b"x", None]
    assert collect(open_rows(described).dataset)["a"].to_pylist() == [1, 3]


def test_personal_values_stand_in_no_error_and_no_reason(project, traced, tmp_path):
    write(tmp_path / "r.csv", "who,y\n1,1\ncanary,2\ncanary\n")
    wanted = {"path": "r.csv", "types": {"who": "int64"}, "pii": {"who": "drop"}}
    source = project(rows=wanted).sources.rows
    with pytest.raises(InputError) as caught:
        csv.open_source("rows", source, "").table()
    assert "canary" not in str(caught.value)
    write(tmp_path / "r.csv", "who,y\n1,1\ncanary,2\n")
    with pytest.raises(InputError, match=r"row 2 below the header: \*\*\*"):
        csv.open_source("rows", source, "").table()
    table = traced(**wanted, unreadable="quarantine")
    assert "column `who`: *** is not int64" in table["__unreadable"].to_pylist()


def test_byte_order_marks_and_encodings_are_understood(project, tmp_path):
    lines = "é,y\nñ,1\n"
    (tmp_path / "mark.csv").write_bytes(lines.encode("utf-8-sig"))
    (tmp_path / "wide.csv").write_bytes(lines.encode("utf-16"))
    (tmp_path / "big.csv").write_bytes(b"\xfe\xff" + lines.encode("utf-16-be"))
    (tmp_path / "latin.csv").write_bytes(lines.encode("latin-1"))
    for name, more in (
        ("mark.csv", {}),
        ("wide.csv", {}),
        ("big.csv", {}),
        ("latin.csv", {"encoding": "latin-1"}),
        (["mark.csv", "latin.csv"], {"encoding": ["utf-8", "cp1252"]}),
    ):
        table = sample(project(rows={"path": name, **more}))
        assert table.slice(0, 1).to_pydict() == {"é": ["ñ"], "y": [1]}


def test_mixed_encodings_are_named_with_file_and_place(project, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/1.csv").write_bytes("a,y\né,1\n".encode())
    (tmp_path / "d/2.csv").write_bytes("a,y\nx,1\né,2\n".encode("cp1252"))
    message = refused(project, path="d")
    assert "d/2.csv (source `rows`) holds text that is not UTF-8" in message
    assert "byte 0xe9 at offset 8, line 3" in message
    table = sample(project(rows={"path": "d", "encoding": ["utf-8", "cp1252"]}))
    assert table["a"].to_pylist() == ["é", "x", "é"]
    message = refused(project, path="d", encoding=["utf-8", "ascii"])
    assert "d/1.csv (source `rows`) is in none of the encodings" not in message
    assert "d/2.csv (source `rows`) is in none of the encodings" in message
    assert "unknown encoding: utf-9" in refused(project, path="d", encoding="utf-9")


def test_a_large_file_of_one_byte_characters_is_cut(project, tmp_path, monkeypatch):
    data = "a,y\n" + "".join(f"é{i},{i}\n" for i in range(3000))
    (tmp_path / "r.csv").write_bytes(data.encode("cp1252"))
    texts, table = texts_of(project, monkeypatch, path="r.csv", encoding="cp1252")
    assert len(texts) > 3
    assert table["a"].to_pylist()[::2999] == ["é0", "é2999"]


def test_a_bad_byte_after_the_head_is_named(project, tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "_WHOLE_BYTES", 100)
    monkeypatch.setattr(csv, "_HEAD_BYTES", 1000)
    (tmp_path / "r.csv").write_bytes(b"a,y\n" + b"x,1\n" * 3000 + b"\xe9,1\n")
    with pytest.raises(InputError, match="not UTF-8: byte 0xe9 at offset 12,004, line 3,002"):
        csv.open_source("rows", project(rows={"path": "r.csv"}).sources.rows, "").table()


@pytest.mark.parametrize("share", [2, 1.01])
def test_a_truncated_gzip_is_refused(project, tmp_path, share):
    data = gzip.compress(b"a,y\n" + b"".join(b"%d,1\n" % i for i in range(5000)))
    (tmp_path / "r.csv.gz").write_bytes(data[: int(len(data) / share)])
    message = refused(project, path="r.csv.gz")
    assert "r.csv.gz (source `rows`) cannot be read to its end" in message


def test_a_spoilt_zip_is_refused(project, tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("z.csv", "a,y\n" + "".join(f"{i},1\n" for i in range(5000)))
    data = bytearray((tmp_path / "z.zip").read_bytes())
    data[500:600] = bytes(100)
    (tmp_path / "z.zip").write_bytes(data)
    assert "cannot be read to its end" in refused(project, path="z.zip")


def test_files_that_go_away_or_shrink_after_the_look_are_named(project, tmp_path, monkeypatch):
    monkeypatch.setattr(text, "RANGE_BYTES", 1000)
    path = write(tmp_path / "r.csv", "a,y\n" + "1,1\n" * 1000)
    source = project(rows={"path": "r.csv"}).sources.rows
    seen = csv._look("rows", source, csv.find(source.path, csv.ENDINGS))
    layout = csv._layout("rows", source, seen)
    pieces = csv._finer(layout, seen)
    write(path, "a,y\n1,1\n")
    with pytest.raises(InputError, match="bytes fewer than when it was opened"):
        list(pieces[-1].read())
    path.unlink()
    with pytest.raises(InputError, match=r"r\.csv \(source `rows`\) is not there any more"):
        list(pieces[0].read())


def test_200k_rows_with_quotes_are_read_in_parallel_and_equal_parquet(
    project, tmp_path, ray_cluster, collect, monkeypatch
):
    count = 200_000
    texts = ["plain", "with, comma", 'with "quotes"', "two\nlines", None]
    table = pa.table(
        {
            "id": range(count),
            "t": [texts[i % 5] for i in range(count)],
            "x": [i / 7 for i in range(count)],
        }
    )
    pacsv.write_csv(table, tmp_path / "r.csv", pacsv.WriteOptions(quoting_style="all_valid"))
    pq.write_table(table, tmp_path / "r.parquet")
    monkeypatch.setattr(text, "RANGE_BYTES", 2 << 20)
    monkeypatch.setattr(csv, "RANGE_BYTES", 2 << 20)
    lazy = open_rows(project(rows={"path": "r.csv"}), traced=True).dataset
    lazy.context.execution_options.preserve_order = True
    rows = lazy.materialize()
    assert rows.num_blocks() >= 2
    read = collect(rows)
    assert read["__position"].to_pylist() == list(range(count))
    parquet = collect(open_rows(project(rows={"path": "r.parquet"})).dataset)
    assert reading.visible(read).equals(parquet)
