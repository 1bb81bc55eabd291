"""Excel: real workbooks by two libraries, and everything in a cell that is no plain value."""

from __future__ import annotations

import datetime as dt
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xlsxwriter

from mlray.errors import InputError
from mlray.sources import open_rows, reading, sample
from mlray.sources.kinds import excel


@pytest.fixture
def rows_of(project):
    """All rows of a source, read in this process."""

    def table(**rows) -> pa.Table:
        return excel.open_source("rows", project(rows=rows).sources.rows, "").table()

    return table


@pytest.fixture
def book(tmp_path) -> Callable[..., Path]:
    """Writes an .xlsx file: sheets by name, each a list of rows."""

    def write(name: str, **sheets: list[list[object]]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        made = xlsxwriter.Workbook(path, {"default_date_format": "yyyy-mm-dd hh:mm:ss"})
        for title, rows in sheets.items():
            sheet = made.add_worksheet(title)
            for number, row in enumerate(rows):
                sheet.write_row(number, 0, row)
        made.close()
        return path

    return write


def refused(rows_of, **rows) -> str:
    with pytest.raises(InputError) as caught:
        rows_of(**rows)
    return str(caught.value)


ROWS = [
    ["n", "x", "t", "day", "at", "flag"],
    [1, 1.5, "a", dt.date(2013, 1, 1), dt.datetime(2013, 1, 1, 10, 30, 5), True],
    [2, 2, None, dt.date(2013, 1, 2), dt.datetime(2013, 1, 2, 10, 30, 5), False],
]
EXPECTED = {
    "n": [1, 2],
    "x": [1.5, 2.0],
    "t": ["a", None],
    "day": [dt.date(2013, 1, 1), dt.date(2013, 1, 2)],
    "at": [dt.datetime(2013, 1, 1, 10, 30, 5), dt.datetime(2013, 1, 2, 10, 30, 5)],
    "flag": [True, False],
}


def by_openpyxl(path: Path) -> None:
    made = openpyxl.Workbook()
    for row in ROWS:
        made.active.append(row)
    made.save(path)


def test_types_are_those_that_were_meant_whoever_wrote_the_file(rows_of, book, tmp_path):
    book("w.xlsx", One=ROWS)
    by_openpyxl(tmp_path / "o.xlsx")
    for name in ("w.xlsx", "o.xlsx"):
        table = rows_of(path=name)
        assert table.to_pydict() == EXPECTED
        assert table.schema.field("at").type == pa.timestamp("us")


def test_sheets_are_chosen_by_name_list_or_star_and_types_unified(rows_of, book):
    book("d/1.xlsx", A=[["a", "b"], [1, 1]], B=[["b", "a"], ["x", 2]])
    book("d/2.xlsx", A=[["a", "b"], [2.5, 3]], B=[["a", "b"], [4, 4]])
    assert rows_of(path="d").to_pydict() == {"a": [1.0, 2.5], "b": [1, 3]}
    every = {"a": [1.0, 2.0, 2.5, 4.0], "b": ["1", "x", "3", "4"]}
    assert rows_of(path="d", sheet="*").to_pydict() == every
    assert rows_of(path="d", sheet=["A", "B"]).to_pydict() == every
    assert rows_of(path="d", sheet="B").to_pydict() == {"a": [2, 4], "b": ["x", "4"]}
    assert "has no sheet: C\n  Do: choose one of: A, B" in refused(rows_of, path="d", sheet="C")


def test_a_star_passes_over_sheets_without_values(rows_of, book):
    book("r.xlsx", A=[["a"], [1]], Empty=[])
    assert rows_of(path="r.xlsx", sheet="*").to_pydict() == {"a": [1]}


def test_the_header_may_stand_below_a_title_and_empty_rows(rows_of, book):
    book("t.xlsx", A=[["A title"], [], ["a", "b"], [1, 2], [], [3, 4]])
    assert rows_of(path="t.xlsx", header=3).to_pydict() == {"a": [1, 3], "b": [2, 4]}
    book("e.xlsx", A=[[], [], ["a"], [1]])
    assert rows_of(path="e.xlsx").to_pydict() == {"a": [1]}
    assert "row 2 is empty; values start in row 3" in refused(rows_of, path="e.xlsx", header=2)


def test_headers_that_name_nothing_or_two_columns_are_refused(rows_of, book):
    book("n.xlsx", A=[["a", None], [1, 2]])
    assert "column B has values and no name" in refused(rows_of, path="n.xlsx")
    book("t.xlsx", A=[["a", "a", "b_1"], [1, 2, 3]])
    assert "`a` names two columns" in refused(rows_of, path="t.xlsx")
    book("f.xlsx", A=[["a", "a_1"], [1, 2]])
    assert rows_of(path="f.xlsx").column_names == ["a", "a_1"]


def test_texts_for_missing_values_leave_numbers_numbers_and_text_text(rows_of, book):
    rows = [["n", "day", "zip"], [1, dt.date(2013, 1, 1), "007"], ["NA", "NA", "NA"]]
    book("m.xlsx", A=[*rows, [2.5, dt.date(2013, 1, 2), "010"]])
    assert rows_of(path="m.xlsx").to_pydict() == {
        "n": [1.0, None, 2.5],
        "day": [dt.date(2013, 1, 1), None, dt.date(2013, 1, 2)],
        "zip": ["007", None, "010"],
    }


def test_a_column_of_mixed_values_is_text(rows_of, book):
    book("m.xlsx", A=[["a", "b"], [1, dt.date(2013, 1, 1)], ["x", 5], [2.5, 6]])
    assert rows_of(path="m.xlsx").to_pydict() == {
        "a": ["1", "x", "2.5"],
        "b": ["2013-01-01 00:00:00", "5", "6"],
    }


def test_times_of_day_are_text_and_durations_seconds(rows_of, tmp_path):
    made = xlsxwriter.Workbook(tmp_path / "t.xlsx")
    sheet = made.add_worksheet()
    sheet.write_row(0, 0, ["t", "d"])
    clock = made.add_format({"num_format": "hh:mm:ss"})
    length = made.add_format({"num_format": "[h]:mm:ss"})
    sheet.write_datetime(1, 0, dt.time(10, 20, 30), clock)
    sheet.write_datetime(1, 1, dt.timedelta(hours=30), length)
    made.close()
    assert rows_of(path="t.xlsx").to_pydict() == {"t": ["10:20:30"], "d": [108000.0]}


@pytest.fixture
def damaged(tmp_path) -> Path:
    """A sheet with errors, a formula that never ran and merged cells, in rows 3, 5, 6 and 7-8."""
    made = openpyxl.Workbook()
    sheet = made.active
    sheet.title = "One"
    for row in (["a", "b"], [1, 10], ["#DIV/0!", 20], [3, 30], [4, "#REF!"], ["=A2*2", 50]):
        sheet.append(row)
    for row in ([6, 60], [7, 70], [8, 80]):
        sheet.append(row)
    sheet.merge_cells("A7:A8")
    made.save(tmp_path / "bad.xlsx")
    return tmp_path / "bad.xlsx"


def test_odd_cells_are_named_with_file_sheet_and_cell(rows_of, damaged):
    message = refused(rows_of, path="bad.xlsx")
    assert "bad.xlsx (source `rows`), sheet `One`: " in message
    for told in (
        "cell A3: #DIV/0!",
        "cell B5: #REF!",
        "cell A6: a formula that was never calculated",
        "cell A7:A8: merged cells",
    ):
        assert told in message


def test_odd_cells_in_columns_that_are_not_read_do_not_matter(rows_of, damaged):
    assert "cell A3" not in refused(rows_of, path="bad.xlsx", columns=["b"])


def test_rows_with_odd_cells_are_set_aside_in_their_places(project, damaged, ray_cluster, collect):
    described = project(rows={"path": "bad.xlsx", "unreadable": "quarantine"})
    table = collect(open_rows(described, traced=True).dataset)
    assert table["__position"].to_pylist() == list(range(8))
    assert table["a"].to_pylist() == [1, None, 3, None, None, None, None, 8]
    aside = table.filter(table["__unreadable"].is_valid())
    assert aside["__unreadable"].to_pylist()[0] == "cell A3: #DIV/0!"
    assert aside["__position"].to_pylist() == [1, 3, 4, 5, 6]
    assert aside["__raw"].to_pylist()[0] == b'{"a":null,"b":20}'
    assert aside["__origin"].to_pylist()[0].endswith("bad.xlsx#One")


def test_merged_cells_in_the_header_are_refused(rows_of, tmp_path):
    made = xlsxwriter.Workbook(tmp_path / "m.xlsx")
    sheet = made.add_worksheet()
    sheet.merge_range(0, 0, 0, 1, "both")
    sheet.write_row(1, 0, [1, 2])
    made.close()
    assert "A1:B1: merged cells" in refused(rows_of, path="m.xlsx")


def test_merged_cells_above_the_header_do_not_matter(rows_of, tmp_path):
    made = xlsxwriter.Workbook(tmp_path / "m.xlsx")
    sheet = made.add_worksheet()
    sheet.merge_range(0, 0, 0, 1, "title")
    sheet.write_row(1, 0, ["a", "b"])
    sheet.write_row(2, 0, [1, 2])
    made.close()
    assert rows_of(path="m.xlsx", header=2).to_pydict() == {"a": [1], "b": [2]}


def test_a_value_that_does_not_convert_is_named_with_its_cell(rows_of, book):
    book("r.xlsx", A=[["a"], [1], [], ["canary"]])
    assert "cell A4: canary is not int64" in refused(rows_of, path="r.xlsx", types={"a": "int64"})
    message = refused(rows_of, path="r.xlsx", types={"a": "int64"}, pii={"a": "drop"})
    assert "cell A4: *** is not int64" in message
    assert "canary" not in message


def test_a_sheet_that_lacks_a_column_is_named(rows_of, book):
    book("r.xlsx", A=[["a", "b"], [1, 2]], B=[["a"], [1]])
    message = refused(rows_of, path="r.xlsx", sheet="*")
    assert "r.xlsx#B (source `rows`) has no column: b" in message
    assert "r.xlsx#A has it" in message
    assert rows_of(path="r.xlsx", sheet="*", columns=["a"]).num_rows == 2


def test_files_that_are_no_workbooks_are_refused(rows_of, book, tmp_path):
    (tmp_path / "junk.xlsx").write_text("not a workbook")
    assert "cannot be read as Excel" in refused(rows_of, path="junk.xlsx")
    whole = book("r.xlsx", A=[["a"], [1]]).read_bytes()
    (tmp_path / "half.xlsx").write_bytes(whole[: len(whole) // 2])
    assert "half.xlsx (source `rows`) cannot be read as Excel" in refused(rows_of, path="half.xlsx")


@pytest.mark.parametrize("rows", [[], [["a", "b"]]])
def test_no_rows_are_refused(rows_of, book, rows):
    book("r.xlsx", A=rows)
    with pytest.raises(InputError, match=r"has no rows|no sheet with values"):
        rows_of(path="r.xlsx")


def test_a_workbook_in_a_zip_or_far_away_is_read(rows_of, project, book, tmp_path):
    import fsspec

    path = book("r.xlsx", A=[["a"], [1]])
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(path, "in/r.xlsx")
    assert rows_of(path="z.zip").to_pydict() == {"a": [1]}
    fsspec.filesystem("memory").pipe_file("/books/r.xlsx", path.read_bytes())
    assert sample(project(rows={"path": "memory://books/r.xlsx"}))["a"].to_pylist() == [1]


def test_200k_rows_are_read_in_parallel_and_equal_parquet(project, tmp_path, ray_cluster, collect):
    count, start = 100_000, dt.datetime(2013, 1, 1)
    made = xlsxwriter.Workbook(tmp_path / "r.xlsx", {"constant_memory": True})
    day = made.add_format({"num_format": "yyyy-mm-dd hh:mm"})
    rows = []
    for title in ("first", "second"):
        sheet = made.add_worksheet(title)
        sheet.write_row(0, 0, ["id", "price", "unit", "at"])
        for number in range(1, count + 1):
            at = start + dt.timedelta(minutes=number)
            row = (len(rows), number / 8, f"u{number % 7}", at)
            sheet.write_number(number, 0, row[0])
            sheet.write_number(number, 1, row[1])
            sheet.write_string(number, 2, row[2])
            sheet.write_datetime(number, 3, at, day)
            rows.append(row)
    made.close()
    columns = dict(zip(("id", "price", "unit", "at"), zip(*rows, strict=True), strict=True))
    pq.write_table(pa.table({n: pa.array(v) for n, v in columns.items()}), tmp_path / "r.parquet")
    described = project(rows={"path": "r.xlsx", "sheet": "*"})
    lazy = open_rows(described, traced=True).dataset
    lazy.context.execution_options.preserve_order = True
    dataset = lazy.materialize()
    assert dataset.num_blocks() >= 2
    read = collect(dataset)
    assert len(read["__origin"].unique()) == 2
    assert read["__position"].to_pylist() == [*range(count)] * 2
    parquet = collect(open_rows(project(rows={"path": "r.parquet"})).dataset)
    assert reading.visible(read).equals(parquet)
