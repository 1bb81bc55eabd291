"""Columns that look like personal data and are not marked: told, or the end of the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pytest

import mlray
from mlray.config import Project
from mlray.errors import QualityError
from mlray.pipeline import personal

PEOPLE = pa.table(
    {
        "id": range(40),
        "mail": [f"person{i}@example.org" for i in range(40)],
        "age": [20 + i % 7 for i in range(40)],
        "y": [i % 2 for i in range(40)],
    }
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Project]:
    pacsv.write_csv(PEOPLE, tmp_path / "people.csv")
    monkeypatch.setenv("MLRAY_HOME", str(tmp_path / "home"))

    def make(lines: str) -> Project:
        file = tmp_path / "people.yaml"
        file.write_text(f"name: people\nmodel: {{target: y}}\n{lines}\n")
        return mlray.load(file)

    return make


SOURCES = "sources: {rows: {path: people.csv}}\n"


def test_a_finding_names_the_column_and_no_value(project: Callable[[str], Project]) -> None:
    looks = [personal.look(PEOPLE.slice(0, 20)), personal.look(PEOPLE.slice(20))]
    (told,) = personal.unmarked(project(SOURCES), looks, [])
    assert told.startswith("`mail` looks like personal data, e-mail address: 100% of the values")
    assert "person" not in told.replace("personal", "")
    assert personal.unmarked(project(SOURCES), looks, ["mail"]) == []
    off = project(SOURCES + "quality: {personal: 'off'}")
    assert personal.unmarked(off, looks, []) == []


def test_check_tells_it_before_anything_is_run(project: Callable[[str], Project]) -> None:
    said = {finding.what: finding for finding in mlray.check(project(SOURCES))}
    assert said["personal"].ok
    assert "`mail` looks like personal data" in said["personal"].saw
    stop = mlray.check(project(SOURCES + "quality: {personal: stop}"))
    assert not stop[-1].ok
    assert "columns look like personal data and are not marked" in stop[-1].saw
    marked = "sources: {rows: {path: people.csv, pii: {mail: drop}}}\nquality: {personal: stop}"
    said = {finding.what: finding for finding in mlray.check(project(marked))}
    assert said["personal"].saw == "no unmarked column looks like personal data"


@pytest.mark.usefixtures("ray_cluster")
def test_a_run_tells_it_or_stops(project: Callable[[str], Project]) -> None:
    found = mlray.run(project(SOURCES), until="quality").stage("quality").result
    assert [text for text in found["findings"] if "`mail` looks like personal data" in text]
    assert found["protected"] == {}
    with pytest.raises(QualityError, match=r"are not marked.*`mail`") as caught:
        mlray.run(project(SOURCES + "quality: {personal: stop}"), until="quality")
    assert caught.value.exit_code == 3
