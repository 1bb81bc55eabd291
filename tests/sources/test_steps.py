"""Steps on columns: what each does, what they need, and what is refused."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pyarrow as pa
import pytest

from mlray.config.rows import Shaping
from mlray.errors import ConfigError, InputError
from mlray.sources import open_rows, sample
from mlray.sources.reading import POSITION, RAW, UNREADABLE, with_trace
from mlray.sources.steps import Steps

TABLE = pa.table(
    {
        "carrier": ["UA", "DL", None],
        "distance": [100, 200, 300],
        "air_time": [50, 0, None],
        "age": ["7", "8", None],
        "late": ["yes", "no", "no"],
    }
)


def steps(**given: Any) -> Steps:
    return Steps.of(Shaping(**given), "sources", None)


def test_steps_are_taken_in_order() -> None:
    taken = steps(
        rename={"carrier": "airline"},
        cast={"age": "int32"},
        derive={
            "speed": "distance / air_time",
            "fast": "speed > 1",
            "age": "age + 1",
            "code": "lower(airline)",
        },
        filter="age is None or age > 8",
        select=["code", "age", "fast"],
    )
    assert taken.apply(TABLE).to_pylist() == [
        {"code": "dl", "age": 9, "fast": None},
        {"code": None, "age": None, "fast": None},
    ]
    assert taken.rowwise(TABLE).num_rows == 3
    assert taken.schema(TABLE.schema).names == ["code", "age", "fast"]


def test_names_can_be_swapped() -> None:
    table = steps(rename={"late": "age", "age": "late"}).apply(TABLE)
    assert table["age"].to_pylist() == ["yes", "no", "no"]
    assert table["late"].to_pylist() == ["7", "8", None]


def test_hidden_columns_stay_with_their_rows() -> None:
    traced = with_trace(TABLE, "file", 10)
    taken = steps(filter="distance > 100", select=["distance"]).apply(traced)
    assert taken[POSITION].to_pylist() == [11, 12]
    assert taken.column_names[0] == "distance"


def test_the_filter_keeps_rows_as_they_were_and_lets_unreadable_ones_go_to_quarantine() -> None:
    traced = with_trace(TABLE, "file", 0)
    at = traced.schema.get_field_index(UNREADABLE)
    traced = traced.set_column(at, UNREADABLE, pa.array([None, None, "not JSON"]))
    at = traced.schema.get_field_index(RAW)
    traced = traced.set_column(at, RAW, pa.array([None, None, b"{"]))
    taken = steps(rename={"late": "is_late"}, filter="is_late == 'yes'", cast={"age": "int64"})
    kept = taken.kept(traced)
    assert kept["late"].to_pylist() == ["yes", "no"]
    assert kept[UNREADABLE].to_pylist() == [None, "not JSON"]


def test_the_filter_looks_at_no_column_that_it_does_not_need() -> None:
    dirty = TABLE.set_column(3, "age", pa.array(["7", "eight", None]))
    assert steps(cast={"age": "int64"}, filter="distance > 100").kept(dirty).num_rows == 2


def test_a_request_takes_only_the_steps_that_the_model_needs() -> None:
    taken = steps(
        rename={"carrier": "airline"},
        cast={"age": "int64"},
        derive={"speed": "distance / air_time", "target": "late == 'yes'", "old": "age > 7"},
        filter="target",
        select=["airline", "speed", "target"],
    )
    assert taken.needs(["speed", "airline"]) == {"distance", "air_time", "carrier"}
    request = TABLE.select(["carrier", "distance", "air_time"])
    made = taken.until(["speed", "airline"]).rowwise(request)
    assert made["speed"].to_pylist() == [2.0, None, None]
    assert made["airline"].to_pylist() == ["UA", "DL", None]
    able = taken.able(request.column_names)
    assert able.select == ("airline", "speed")
    assert able.rowwise(request).column_names == ["airline", "speed"]


def test_a_column_is_not_mistaken_for_what_a_skipped_step_would_have_made_of_it() -> None:
    taken = steps(derive={"distance": "distance * air_time"}).able(["distance", "carrier"])
    assert taken.rowwise(TABLE.select(["distance", "carrier"])).column_names == ["carrier"]


def test_columns_on_the_way_are_seen_by_the_profile_and_can_be_asked_for() -> None:
    taken = steps(
        rename={"carrier": "airline"}, derive={"far": "distance > 150"}, select=["airline"]
    )
    assert taken.wide(TABLE).column_names == [
        "airline", "distance", "air_time", "age", "late", "far", "carrier"
    ]  # fmt: skip
    assert taken.having(TABLE, ["far"])["far"].to_pylist() == [False, True, True]
    assert taken.having(TABLE, ["late"]) is TABLE


def test_steps_travel_as_json_and_as_pickle() -> None:
    taken = steps(
        rename={"late": "is_late"},
        cast={"age": "int64"},
        derive={"b": "age * 2", "a": "b + 1"},
        select=["is_late", "a"],
        filter="a > 0",
    )
    again = Steps.from_dict(json.loads(json.dumps(taken.to_dict())), "sources", None)
    assert again.rowwise(TABLE).equals(taken.rowwise(TABLE))
    assert pickle.loads(pickle.dumps(taken)).apply(TABLE).equals(taken.apply(TABLE))
    assert steps().to_dict() == {}
    assert steps().empty
    assert not steps(select=["age"]).empty


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"rename": {"carier": "x"}}, "sources.rename: there is no column `carier`"),
        ({"rename": {"age": "late"}}, "gives names that other columns have: late"),
        ({"cast": {"age": "integer"}}, "sources.cast.age: unknown column type: integer"),
        ({"cast": {"late": "int64"}}, "sources.cast.late: a value does not convert from string"),
        ({"cast": {"x": "int64"}}, "sources.cast: there is no column `x`"),
        ({"derive": {"y": "distanc * 2"}}, "sources.derive.y: `distanc * 2`: there is no column"),
        ({"derive": {"y": "late * 2"}}, "sources.derive.y: `late * 2`: * needs a number"),
        ({"derive": {"__y": "1"}}, "names that begin with __ belong to mlray: __y"),
        ({"derive": {"y": "col('__origin')"}}, "belong to mlray: __origin"),
        ({"filter": "distance"}, "sources.filter must be true or false, this is int64"),
        ({"select": ["age", "ages"]}, "sources.select: there is no column `ages`"),
        ({"select": ["age", "age"]}, "names a column twice"),
    ],
)
def test_what_cannot_be_is_told_with_its_place(given: dict[str, Any], says: str) -> None:
    with pytest.raises((ConfigError, InputError)) as caught:
        steps(**given).apply(TABLE)
    assert says in str(caught.value)


def test_a_value_that_does_not_convert_stands_apart_from_the_message() -> None:
    with pytest.raises(InputError) as caught:
        steps(cast={"late": "int64"}).rowwise(TABLE)
    assert "'no'" in str(caught.value)
    assert "'no'" not in caught.value.what


def test_each_step_is_shown_with_what_it_made() -> None:
    taken = steps(
        rename={"late": "is_late"},
        derive={"far": "distance > 150"},
        filter="far",
        select=["is_late"],
    )
    shown = list(taken.shown(TABLE))
    assert [s.place for s in shown] == [
        "sources.rename.late", "sources.derive.far", "sources.filter", "sources.select"
    ]  # fmt: skip
    assert [s.column for s in shown] == ["is_late", "far", None, None]
    assert [s.table.num_rows for s in shown] == [3, 3, 2, 2]


def test_steps_of_sources_come_before_their_joins(project: Any, tmp_path: Any) -> None:
    (tmp_path / "rows.csv").write_text("id,tail,y\n1,A,0\n2,B,1\n3,A,1\n")
    (tmp_path / "planes.csv").write_text("number,year,scrapped\nA,2000,0\nA,2001,1\nB,1990,0\n")
    table = sample(
        project(
            rows={"path": "rows.csv", "filter": "id != 2", "derive": {"tail": "lower(tail)"}},
            planes={
                "path": "planes.csv",
                "rename": {"number": "tail"},
                "derive": {"tail": "lower(tail)", "age": "2013 - year"},
                "filter": "scrapped == 0",
                "select": ["tail", "age"],
            },
            join=[{"with": "planes", "on": "tail"}],
        )
    )
    assert table.to_pydict() == {"id": [1, 3], "tail": ["a", "a"], "y": [0, 1], "age": [13, 13]}


def test_keys_of_a_join_may_have_different_names(project: Any, tmp_path: Any) -> None:
    (tmp_path / "rows.csv").write_text("tail,y\nA,0\nC,1\nB,1\n")
    (tmp_path / "planes.csv").write_text("number,y\nA,2000\nB,1990\n")
    rows, planes = {"path": "rows.csv"}, {"path": "planes.csv"}
    joined = sample(
        project(rows=rows, planes=planes, join=[{"with": "planes", "on": {"tail": "number"}}])
    )
    assert joined.to_pydict() == {
        "tail": ["A", "C", "B"], "y": [0, 1, 1], "planes_y": [2000, None, 1990]
    }  # fmt: skip
    with pytest.raises(InputError, match=r"source `planes` has no column: numbr"):
        sample(
            project(rows=rows, planes=planes, join=[{"with": "planes", "on": {"tail": "numbr"}}])
        )


def test_a_joined_source_that_is_too_large_is_refused_while_it_is_read(
    project: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.csv").write_text("key,y\nA,0\n")
    (tmp_path / "wide.csv").write_text("key,v\n" + "".join(f"{i},{i}\n" for i in range(1000)))
    monkeypatch.setattr("mlray.sources.opened.LARGEST_WHOLE_BYTES", 4_000)
    with pytest.raises(InputError, match=r"source `wide` is too large to be joined"):
        sample(
            project(
                rows={"path": "rows.csv"},
                wide={"path": "wide.csv"},
                join=[{"with": "wide", "on": "key"}],
            )
        )


def test_a_filter_that_drops_the_first_rows_still_shows_the_columns(
    project: Any, tmp_path: Any, ray_cluster: None, collect: Any
) -> None:
    lines = "".join(f"{i},{i % 7}\n" for i in range(2_000))
    (tmp_path / "rows.csv").write_text("id,y\n" + lines)
    rows = open_rows(
        project(
            rows={
                "path": "rows.csv",
                "filter": "id >= 1990",
                "derive": {"double": "id * 2"},
                "cast": {"y": "float64"},
            }
        )
    )
    assert rows.schema.names == ["id", "y", "double"]
    assert collect(rows.dataset)["double"].to_pylist() == list(range(3980, 4000, 2))
