"""JSON lines and documents: one type a column, whatever the lines hold."""

from __future__ import annotations

import bz2
import gzip
import json
import random
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlray.errors import InputError
from mlray.sources import open_rows, reading, sample
from mlray.sources.kinds import json as json_source
from mlray.sources.kinds import lines, text


def write(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def rows_of(project):
    """All rows of a source, read in this process."""

    def table(**rows) -> pa.Table:
        return json_source.open_source("rows", project(rows=rows).sources.rows, "").table()

    return table


@pytest.fixture
def traced(project):
    """All rows with their hidden columns, unreadable ones too, read in this process."""

    def table(**rows) -> pa.Table:
        source = project(rows=rows).sources.rows
        schema = json_source.open_source("rows", source, "").schema
        return pa.concat_tables(reading_of(source, schema))

    def reading_of(source, schema):
        found = json_source.find(source.path, json_source.ENDINGS)
        seen = [json_source._look_into("rows", source, True, place) for place in found]
        layout = json_source._layout("rows", source, seen)
        return reading._traced("rows", schema, json_source._finer(layout, seen))

    return table


def refused(rows_of, **rows) -> str:
    with pytest.raises(InputError) as caught:
        rows_of(**rows)
    return str(caught.value)


def test_nested_objects_become_columns_and_lists_stay_lists(rows_of, tmp_path):
    write(
        tmp_path / "r.jsonl",
        {"a": {"b": 1, "c": {"d": "x"}}, "l": [1, 2], "o": [{"x": 1}, {"y": "s"}]},
        {"a": {"b": 2.5}, "l": [], "o": None},
        {"a": None, "l": [1.5]},
    )
    table = rows_of(path="r.jsonl")
    assert table.to_pydict() == {
        "a.b": [1.0, 2.5, None],
        "a.c.d": ["x", None, None],
        "l": [[1.0, 2.0], [], [1.5]],
        "o": [[{"x": 1, "y": None}, {"x": None, "y": "s"}], None, None],
    }


def test_types_are_unified_over_lines_and_files(rows_of, tmp_path):
    write(tmp_path / "d/1.jsonl", {"a": 1, "b": 1, "c": None, "d": True, "e": 1})
    write(tmp_path / "d/2.jsonl", {"a": 1.5, "b": "x", "c": None, "d": 1, "e": {"f": 1}})
    write(tmp_path / "d/3.json", {"z": 1})
    table = rows_of(path="d")
    assert table.schema.names == ["a", "b", "c", "d", "e", "z"]
    assert table["a"].to_pylist() == [1.0, 1.5, None]
    assert table["b"].to_pylist() == ["1", "x", None]
    assert table["c"].type == pa.string()
    assert table["d"].to_pylist() == ["true", "1", None]
    assert [v and json.loads(v) for v in table["e"].to_pylist()] == [1, {"f": 1}, None]


def test_a_type_that_changes_inside_a_file_makes_text(rows_of, tmp_path):
    changing = [{"a": i} for i in range(1000)] + [{"a": "x"}, {"a": [1]}, {"a": {"b": 2}}]
    write(tmp_path / "r.jsonl", *changing)
    values = rows_of(path="r.jsonl")["a"].to_pylist()
    assert values[:2] + values[999:1001] == ["0", "1", "999", "x"]
    assert [json.loads(v) for v in values[1001:]] == [[1], {"b": 2}]


def test_a_type_that_changes_after_the_samples_is_named_with_its_row(
    rows_of, tmp_path, monkeypatch
):
    monkeypatch.setattr(json_source, "_WHOLE_BYTES", 100)
    monkeypatch.setattr(lines, "_SAMPLE_BYTES", 100)
    write(tmp_path / "r.jsonl", *[{"a": i} for i in range(1000)], {"a": "x"}, {"a": 1})
    message = refused(rows_of, path="r.jsonl")
    assert "r.jsonl (source `rows`), row 1,001: column `a`: `x` is not int64" in message
    assert "`unreadable: quarantine`" in message
    assert rows_of(path="r.jsonl", types={"a": "string"})["a"].to_pylist()[-2:] == ["x", "1"]


def test_samples_come_from_all_over_a_large_file(rows_of, tmp_path, monkeypatch):
    monkeypatch.setattr(json_source, "_WHOLE_BYTES", 100)
    monkeypatch.setattr(lines, "_SAMPLE_BYTES", 1000)
    monkeypatch.setattr(text, "RANGE_BYTES", 2000)
    write(tmp_path / "r.jsonl", *[{"a": i if i < 500 else f"x{i}"} for i in range(1000)])
    assert rows_of(path="r.jsonl")["a"].to_pylist()[::999] == ["0", "x999"]


def test_iso_times_become_timestamps_as_in_csv(rows_of, tmp_path):
    write(
        tmp_path / "r.jsonl",
        {"at": "2013-01-01T12:00:00+02:00", "day": "2013-01-01", "mixed": "2013-01-01", "t": "x"},
        {"at": "2013-01-01T10:00Z", "day": None, "mixed": "2013-01-01 10:00:00", "t": "2013-01-01"},
    )
    schema = rows_of(path="r.jsonl").schema
    kinds = [pa.timestamp("us", tz="UTC"), pa.date32(), pa.timestamp("us"), pa.string()]
    assert [schema.field(n).type for n in ("at", "day", "mixed", "t")] == kinds


def test_whole_numbers_beyond_64_bits_keep_their_digits_as_text(rows_of, tmp_path):
    write(tmp_path / "r.jsonl", {"id": 1}, {"id": 18446744073709551615})
    assert rows_of(path="r.jsonl")["id"].to_pylist() == ["1", "18446744073709551615"]


def test_documents_hold_a_list_or_records_under_keys(rows_of, tmp_path):
    (tmp_path / "list.json").write_text(json.dumps([{"a": 1}, {"a": 2}], indent=2))
    (tmp_path / "deep.json").write_text(json.dumps({"data": {"items": [{"a": 1}, {"a": 2}]}}))
    (tmp_path / "one.json").write_text(json.dumps({"a": 1, "b": {"c": 2}}, indent=2))
    assert rows_of(path="list.json").to_pydict() == {"a": [1, 2]}
    assert rows_of(path="deep.json", records="data.items").to_pydict() == {"a": [1, 2]}
    assert rows_of(path="one.json").to_pydict() == {"a": [1], "b.c": [2]}


def test_records_that_are_not_there_are_refused(rows_of, tmp_path):
    (tmp_path / "r.json").write_text('{"data": {"rows": []}}')
    message = refused(rows_of, path="r.json", records="data.items")
    assert "has no `items` on the way to its records: data.items" in message
    assert "it has: rows" in message


def test_a_document_that_is_cut_off_is_named_with_the_place(rows_of, tmp_path):
    (tmp_path / "r.json").write_text('[{"a": 1},\n {"a": 2')
    message = refused(rows_of, path="r.json")
    assert "r.json (source `rows`) is not JSON" in message
    assert "line 2" in message


BAD = ["null", "5", "[1]", '{"a": 1', "oops", '{"a": 1} {"a": 2}', '{"a": "\\ud800"}', "[" * 99999]


@pytest.mark.parametrize("bad", BAD, ids=lambda line: line[:12])
def test_a_line_that_is_no_object_ends_the_run_or_is_set_aside(rows_of, traced, tmp_path, bad):
    write(tmp_path / "r.jsonl", bad, *[{"a": i} for i in range(100)], bad, {"a": 100})
    assert "r.jsonl (source `rows`), row 1: not " in refused(rows_of, path="r.jsonl")
    table = traced(path="r.jsonl", unreadable="quarantine")
    aside = table.filter(table["__unreadable"].is_valid())
    assert aside["__position"].to_pylist() == [0, 101]
    assert aside["__raw"].to_pylist() == [bad.encode()] * 2
    assert aside["a"].null_count == 2
    kept = table.filter(table["__unreadable"].is_null())
    assert kept["a"].to_pylist() == list(range(101))
    assert kept["__position"].to_pylist() == [*range(1, 101), 102]


def test_a_value_that_does_not_convert_is_set_aside_with_the_line(traced, tmp_path):
    write(tmp_path / "r.jsonl", {"d": "2013-01-01"}, {"d": "2013-13-45"}, {"d": None})
    table = traced(path="r.jsonl", types={"d": "date32"}, unreadable="quarantine")
    assert table["__unreadable"].to_pylist() == [
        None,
        "column `d`: `2013-13-45` is not date32[day]",
        None,
    ]
    assert table["__raw"].to_pylist()[1] == b'{"d": "2013-13-45"}'


def test_personal_values_stand_in_no_error(rows_of, traced, tmp_path):
    write(tmp_path / "r.jsonl", {"who": 1}, {"who": "canary"})
    wanted = {"path": "r.jsonl", "types": {"who": "int64"}, "pii": {"who": "drop"}}
    message = refused(rows_of, **wanted)
    assert "row 2: column `who`: *** is not int64" in message
    assert "canary" not in message
    table = traced(**wanted, unreadable="quarantine")
    assert "canary" not in str(table["__unreadable"].to_pylist())


def test_every_compression_and_a_zip_give_the_same_rows(rows_of, tmp_path):
    data = b'{"a": 1}\n{"a": 2}\n'
    (tmp_path / "p.jsonl").write_bytes(data)
    (tmp_path / "g.jsonl.gz").write_bytes(gzip.compress(data))
    (tmp_path / "b.json.bz2").write_bytes(bz2.compress(data))
    for ending, name in (("zst", "zstd"), ("lz4", "lz4")):
        with pa.output_stream(str(tmp_path / f"z.ndjson.{ending}"), compression=name) as out:
            out.write(data)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("in/z.jsonl", data)
    names = ["p.jsonl", "g.jsonl.gz", "b.json.bz2", "z.ndjson.zst", "z.ndjson.lz4", "z.zip"]
    assert [rows_of(path=n).to_pydict() for n in names] == [{"a": [1, 2]}] * 6


def test_marks_and_encodings_are_understood(rows_of, tmp_path):
    line = '{"é": "ñ"}\n'
    (tmp_path / "mark.jsonl").write_bytes(line.encode("utf-8-sig"))
    (tmp_path / "wide.jsonl").write_bytes(line.encode("utf-16"))
    (tmp_path / "latin.jsonl").write_bytes(line.encode("latin-1"))
    assert rows_of(path="mark.jsonl").to_pydict() == {"é": ["ñ"]}
    assert rows_of(path="wide.jsonl").to_pydict() == {"é": ["ñ"]}
    assert rows_of(path="latin.jsonl", encoding="latin-1").to_pydict() == {"é": ["ñ"]}
    assert rows_of(path=["mark.jsonl", "latin.jsonl"], encoding=["utf-8", "latin-1"]).num_rows == 2


def test_text_that_is_not_utf8_is_named_with_its_place(rows_of, tmp_path):
    (tmp_path / "r.jsonl").write_bytes(b'{"a": "x"}\n{"a": "\xe9"}\n')
    message = refused(rows_of, path="r.jsonl")
    assert "holds text that is not UTF-8: byte 0xe9 at offset 18, line 2" in message


def test_a_truncated_gzip_is_refused(rows_of, tmp_path):
    data = gzip.compress(b'{"a": 1}\n' * 1000)
    (tmp_path / "r.jsonl.gz").write_bytes(data[: len(data) // 2])
    assert "r.jsonl.gz (source `rows`) cannot be read to its end" in refused(
        rows_of, path="r.jsonl.gz"
    )


@pytest.mark.parametrize("content", ["", "\n\n", "[]", "{}"])
def test_no_rows_are_refused(rows_of, tmp_path, content):
    (tmp_path / "r.json").write_text(content)
    assert "source `rows` has no rows" in refused(rows_of, path="r.json")


def test_columns_are_chosen_by_their_flat_names(rows_of, tmp_path):
    write(tmp_path / "r.jsonl", {"a": {"b": 1, "c": 2}, "d": 3})
    assert rows_of(path="r.jsonl", columns=["d", "a.c"]).to_pydict() == {"d": [3], "a.c": [2]}
    assert "did you mean `a.b`?" in refused(rows_of, path="r.jsonl", columns=["a_b"])


def test_two_fields_that_make_one_column_are_refused(rows_of, tmp_path):
    write(tmp_path / "r.jsonl", {"a": {"b": 1}, "a.b": 2})
    assert "two fields that make one column: a.b" in refused(rows_of, path="r.jsonl")


def test_a_large_file_is_cut_at_line_breaks(traced, rows_of, tmp_path, monkeypatch):
    rows = [{"a": i, "t": "x\ny" * (i % 5)} for i in range(5000)]
    write(tmp_path / "r.jsonl", *rows[:100], "", "   ", *rows[100:])
    whole = rows_of(path="r.jsonl")
    monkeypatch.setattr(text, "RANGE_BYTES", 5000)
    monkeypatch.setattr(text, "_SCAN_BYTES", 7001)
    table = traced(path="r.jsonl")
    assert reading.visible(table).equals(whole)
    assert table["__position"].to_pylist() == list(range(5000))


def test_what_either_way_of_inference_finds_is_the_same(tmp_path):
    from mlray.sources.kinds.shapes import shape_of
    from mlray.sources.types import unify

    random.seed(0)
    makers = [
        lambda: random.randint(-9, 9),
        random.random,
        lambda: "text",
        lambda: None,
        lambda: [random.choice([1, 1.5, None]) for _ in range(random.randint(0, 3))],
        lambda: {"k": random.choice([1, "x", None])},
    ]
    for _ in range(50):
        maker = random.choice(makers)
        objects = [{"a": maker(), "b": 1} for _ in range(5)]
        block = "\n".join(map(json.dumps, objects)).encode()
        assert json_source._inferred(block).equals(unify([shape_of(objects)]))


def test_200k_rows_are_read_in_parallel_and_equal_parquet(
    project, tmp_path, ray_cluster, collect, monkeypatch
):
    count = 200_000
    table = pa.table(
        {
            "id": pa.array(range(count)),
            "at": pa.array([f"2013-01-{i % 28 + 1:02}T10:00:00" for i in range(count)]),
            "price.value": pa.array([i / 7 for i in range(count)]),
            "price.unit": pa.array([None if i % 11 == 0 else f"u{i % 3}" for i in range(count)]),
            "y": pa.array([i % 2 == 0 for i in range(count)]),
        }
    )
    at = table["at"].cast(pa.timestamp("us"))
    pq.write_table(table.set_column(1, "at", at), tmp_path / "rows.parquet")
    with open(tmp_path / "rows.jsonl", "w") as file:
        for row in table.to_pylist():
            price = {"value": row["price.value"], "unit": row["price.unit"]}
            line = {"id": row["id"], "at": row["at"], "price": price, "y": row["y"]}
            file.write(json.dumps(line) + "\n")
    monkeypatch.setattr(text, "RANGE_BYTES", 4 << 20)
    monkeypatch.setattr(json_source, "RANGE_BYTES", 4 << 20)
    described = project(rows={"path": "rows.jsonl"})
    source = described.sources.rows
    place = json_source.find(source.path, json_source.ENDINGS)[0]
    assert len(text.ranges(text.text_of("rows", place, "utf-8"), None)) >= 4
    lazy = open_rows(described, traced=True).dataset
    lazy.context.execution_options.preserve_order = True
    rows = lazy.materialize()
    assert rows.num_blocks() >= 4
    read = collect(rows)
    assert read["__position"].to_pylist() == list(range(count))
    parquet = collect(open_rows(project(rows={"path": "rows.parquet"})).dataset)
    assert reading.visible(read).equals(parquet)


def test_the_head_is_read_without_ray(project, tmp_path):
    write(tmp_path / "r.jsonl", *[{"a": i} for i in range(500)])
    assert sample(project(rows={"path": "r.jsonl"}), 5)["a"].to_pylist() == [0, 1, 2, 3, 4]
