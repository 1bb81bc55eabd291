"""Batch predictions to every kind of place: read back they equal, and nothing is there twice."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr
from registry import real_bundle

import mlray.config
from mlray import sinks
from mlray.config.sections import Prediction
from mlray.errors import ConfigError, InputError
from mlray.models.bundle import load_bundle
from mlray.models.predictor import Predictor
from mlray.prediction import score
from mlray.registry import Decision, Registry
from mlray.sinks import Parts
from mlray.tracking import Tracker

ROWS = 600


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A storage folder with a champion, and rows."""
    folder = tmp_path_factory.mktemp("home")
    real_bundle.write(str(folder / "bundle"), "late")
    table = real_bundle.flights(ROWS).append_column("row", pa.array(range(ROWS)))
    pq.write_table(table.drop_columns(["late"]), folder / "rows.parquet", row_group_size=200)
    made = project_at(folder, folder)
    tracker = Tracker.open(made, str(folder))
    registry = Registry.of(tracker)
    version = registry.register(tracker.start("flights"), str(folder / "bundle"), "flights")
    tracker.end()
    registry.promote(version, Decision(True, ("by hand",)), against=None)
    return folder


def project_at(home: Path, folder: Path, **prediction):
    file = folder / "flights.yaml"
    sections = {
        "name": "flights",
        "sources": {"rows": {"path": str(home / "rows.parquet")}},
        "model": {"target": "late"},
        "storage": {"path": str(home)},
        "prediction": prediction,
    }
    file.write_text(json.dumps(sections))
    return mlray.config.load(file)


@pytest.fixture
def write(home, tmp_path, ray_cluster):
    """Scores the rows as a `prediction` section says."""

    def run(**prediction):
        return score(project_at(home, tmp_path, **prediction), str(home))

    return run


@pytest.fixture(scope="module")
def expected(home) -> dict[int, tuple[float, bool]]:
    """Score and label of each row."""
    table = pq.read_table(home / "rows.parquet")
    found = Predictor(load_bundle(str(home / "bundle"))).predict(table)
    return {
        i: (float(s), b) for i, (s, b) in enumerate(zip(found.scores, found.labels, strict=True))
    }


def assert_scored(rows: list[dict], expected) -> None:
    """Every row once, with all that it had and what the model says."""
    assert len(rows) == ROWS
    found = {row["row"]: (row["score"], bool(row["label"])) for row in rows}
    assert {i: (pytest.approx(s, abs=1e-7), b) for i, (s, b) in expected.items()} == found
    assert {row["model_version"] for row in rows} == {1}
    assert len({row["batch"] for row in rows}) == 1
    assert {"distance", "carrier", "origin", "predicted_at"} <= set(rows[0])


def assert_nothing_is_left(*folders: Path) -> None:
    assert not [p for folder in folders for p in folder.glob("**/.*.tmp*")]


@pytest.mark.parametrize("name", ["scores", "scores.csv", "scores.jsonl"])
def test_files_hold_every_row_and_are_replaced_at_once(write, tmp_path, home, expected, name):
    place = tmp_path / name
    assert write(path=name).where == str(place)
    with pytest.raises(InputError, match=r"empty folder|a file already"):
        write(path=name)
    assert write(path=name, mode="replace").rows == ROWS
    read = {"scores": pq.read_table, "scores.csv": pacsv.read_csv}.get(name, lines)
    assert_scored(read(place).to_pylist(), expected)
    assert_nothing_is_left(tmp_path, home)


def lines(file: str | Path) -> pa.Table:
    return pa.Table.from_pylist([json.loads(line) for line in Path(file).read_text().splitlines()])


def test_a_batch_that_is_appended_again_takes_its_own_place(write, tmp_path, home, expected):
    write(path="all", mode="append")
    write(path="all", mode="append")
    assert_scored(pq.read_table(tmp_path / "all").to_pylist(), expected)
    with pytest.raises(InputError, match="nothing is appended"):
        write(path="all.csv", mode="append")


@pytest.mark.parametrize("kind", ["postgresql", "postgresql+psycopg", "sqlite", "sqlite+pysqlite"])
def test_databases_take_all_rows_in_one_transaction(write, tmp_path, home, expected, kind, request):
    if kind.startswith("postgresql"):
        server = request.getfixturevalue("postgres_server")
        server.run("drop table if exists scores")
        url = server.url().replace("postgresql", kind)
    else:
        url = f"{kind}:///{tmp_path}/scores.db"
    where = {"url": url, "table": "scores"}
    assert "s3cr3t" not in str(write(**where))
    assert_scored(rows_of(url), expected)
    with pytest.raises(InputError, match="holds rows already"):
        write(**where)
    write(**where, mode="append")
    write(**where, mode="replace")
    assert_scored(rows_of(url), expected)
    with pytest.raises(InputError) as caught:
        write(url=url.replace("scores.db", "no/scores.db").replace("s3cr3t", "wr0ng"), table="x")
    assert "p@ss" not in str(caught.value)
    assert "p%40ss" not in str(caught.value)
    assert_nothing_is_left(tmp_path, home)


def rows_of(url: str) -> list[dict]:
    import sqlalchemy

    url = url.replace("postgresql://", "postgresql+psycopg://")
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        found = connection.exec_driver_sql("select * from scores").mappings()
        rows = [dict(row) for row in found]
    engine.dispose()
    return rows


def test_a_write_that_fails_leaves_the_table_as_it_was(tmp_path):
    file = tmp_path / "scores.db"
    connection = sqlite3.connect(file)
    connection.execute("create table scores (row integer, batch text, other text not null)")
    connection.execute("insert into scores values (1, 'before', 'x')")
    connection.commit()
    section = Prediction(url=SecretStr(f"sqlite:///{file}"), table="scores", mode="replace")
    sink = sinks.open_sink(section, str(tmp_path))
    sink.write_part(pa.table({"row": [1], "batch": ["b"]}), str(tmp_path / "part.parquet"))
    with pytest.raises(InputError, match=r"scores.db/scores did not take the rows"):
        sink.publish(Parts("b", str(tmp_path), ("part.parquet",)))
    assert connection.execute("select * from scores").fetchall() == [(1, "before", "x")]


def test_delta_takes_a_batch_in_one_commit_and_only_once(write, tmp_path, home, expected):
    from deltalake import DeltaTable

    for mode in ("append", "append", "replace"):
        write(kind="delta", path="table", mode=mode)
    table = DeltaTable(str(tmp_path / "table"))
    assert table.version() == 1
    assert_scored(pa.table(table.to_pyarrow_table()).to_pylist(), expected)
    with pytest.raises(InputError, match="a table already"):
        write(kind="delta", path="table")


def test_only_the_columns_that_are_asked_for_are_written(write, tmp_path):
    write(path="few", columns=["row"])
    names = ["row", "score", "label", "model_version", "predicted_at", "batch"]
    assert pq.read_table(tmp_path / "few").column_names == names
    with pytest.raises(InputError, match=r"did you mean `carrier`\?"):
        write(path="none", columns=["carier"])
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_written_to_is_told_before_anything_is_scored(write, tmp_path):
    with pytest.raises(ConfigError, match=r"prediction.url and prediction.table"):
        write(kind="sql")
    with pytest.raises(InputError, match="a disk that all nodes see"):
        write(path="s3://bucket/scores")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="a file, not a folder"):
        write(path="file")


def test_scores_of_several_classes_are_lists_in_files_and_texts_in_databases(tmp_path):
    table = pa.table({"score": pa.array([[0.25, 0.75]], pa.list_(pa.float32(), 2))})
    for section, read in [
        (Prediction(path=str(tmp_path / "a")), pq.read_table),
        (Prediction(path=str(tmp_path / "a.csv")), pacsv.read_csv),
        (Prediction(path=str(tmp_path / "a.jsonl")), lines),
    ]:
        sink = sinks.open_sink(section, str(tmp_path))
        folder = Path(sink.staging(str(tmp_path), "b"))
        folder.mkdir()
        sink.write_part(table, str(folder / f"1{sink.ending}"))
        sink.publish(Parts("b", str(folder), (f"1{sink.ending}",)))
        (value,) = read(section.path)["score"].to_pylist()
        assert (json.loads(value) if isinstance(value, str) else value) == [0.25, 0.75]
