"""Rows set aside are looked at, written out, mended and handed in; the next run takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import yaml

import mlray
from mlray import verbs
from mlray.errors import InputError
from mlray.pipeline import Run
from mlray.quarantine import Repairs, export


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """40 rows, four of which have a negative distance, one of these twice; line 9 is ragged."""
    lines = [f"{i},{-5 if i in (7, 23) else i * 10},{'no' if i % 2 else 'yes'}" for i in range(40)]
    lines[30] = lines[7]
    lines[8] = "8,80,yes,surplus"
    (tmp_path / "rows.csv").write_text("\n".join(["number,distance,late", *lines]) + "\n")
    document: dict[str, Any] = {
        "name": "legs",
        "sources": {"rows": {"path": "rows.csv", "unreadable": "quarantine"}},
        "quality": {"rules": [{"column": "distance", "range": [0, None]}], "max_quarantined": 0.5},
        "model": {"target": "late"},
        "storage": {"path": "home"},
    }
    file = tmp_path / "legs.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def clean(run: Run) -> pa.Table:
    folder = Path(run.stage("quality").folder, "clean")
    return pa.concat_tables(pq.read_table(f) for f in folder.glob("*.parquet"))


@pytest.mark.usefixtures("ray_cluster")
def test_mended_rows_take_the_place_of_broken_ones(project: Path, tmp_path: Path) -> None:
    first = verbs.run(project, until="quality")
    assert clean(first).num_rows == 36
    held = mlray.quarantined(project)
    assert held.rules == {"distance: range": 3, "readable": 1}
    assert "4 rows in quarantine" in str(held)
    mended = pacsv.read_csv(export(held, str(tmp_path / "broken.csv")))
    assert set(mended["_source"].to_pylist()) == {str(tmp_path / "rows.csv")}
    assert sorted(mended["_position"].to_pylist()) == [7, 8, 23, 30]
    values = [
        {**row, "number": row["number"] or 8, "distance": 99, "late": row["late"] or "yes"}
        for row in mended.to_pylist()
    ]
    pacsv.write_csv(pa.Table.from_pylist(values), tmp_path / "mended.csv")

    assert mlray.resubmit(project, str(tmp_path / "mended.csv")) == 4
    second = verbs.run(project, until="quality")

    rows = clean(second).sort_by("number").to_pylist()
    assert len(rows) == 40
    assert [r["number"] for r in rows if r["distance"] == 99] == [7, 7, 8, 23]
    assert second.stage("quality").result["quarantine"] is None
    with pytest.raises(InputError, match="no rows are in quarantine"):
        mlray.quarantined(project)  # not those of the run before
    assert verbs.run(project, until="quality").skipped == ("sources", "quality")
    assert (tmp_path / "rows.csv").read_text().count("-5") == 3


@pytest.mark.usefixtures("ray_cluster")
def test_a_row_that_is_still_broken_stays_in_quarantine(project: Path, tmp_path: Path) -> None:
    verbs.run(project, until="quality")
    rows = [
        row
        for row in mlray.quarantined(project).rows.to_pylist()
        if row["_rule"] == "distance: range" and row["number"] == 23
    ]
    pq.write_table(pa.Table.from_pylist([{**rows[0], "distance": -1}]), tmp_path / "m.parquet")
    mlray.resubmit(project, str(tmp_path / "m.parquet"))
    done = verbs.run(project, until="quality")
    assert clean(done).num_rows == 36
    assert -1 in mlray.quarantined(project).rows["distance"].to_pylist()


@pytest.mark.usefixtures("ray_cluster")
def test_what_cannot_be_handed_in_is_named(project: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rows are in quarantine"):
        mlray.quarantined(project)
    verbs.run(project, until="quality")
    rows = mlray.quarantined(project).rows.to_pylist()
    file = tmp_path / "m.parquet"

    def hand_in(*given: dict[str, Any]) -> None:
        pq.write_table(pa.Table.from_pylist(list(given)), file)
        mlray.resubmit(project, str(file))

    with pytest.raises(InputError, match="not in quarantine: 5"):
        hand_in({**rows[0], "_id": 5})
    with pytest.raises(InputError, match="lack columns: late"):
        hand_in({k: v for k, v in rows[0].items() if k != "late"})
    with pytest.raises(InputError, match="cannot be read"):
        hand_in({**rows[0], "distance": "far"})
    with pytest.raises(InputError, match="different ways"):
        hand_in({**rows[0], "distance": 1}, {**rows[0], "distance": 2})
    with pytest.raises(InputError, match=r"\.csv or \.parquet"):
        export(mlray.quarantined(project), "rows.xlsx")


def test_of_two_repairs_of_one_row_the_later_counts() -> None:
    rows = pa.table({"a": [1, 2], "_id": [7, 8]})
    table = pa.table({"a": [0, 5, 0], "__raw": pa.array([b"x", None, None])})
    mended = Repairs(rows).replacing(table, [7, 9, 8])
    assert mended.to_pydict() == {"a": [1, 5, 2], "__raw": [None, None, None]}
