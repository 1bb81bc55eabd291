"""Left joins: rows in = rows out, in order, and every wrong join is said before it runs."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlray.config.rows import Join, Source
from mlray.errors import ConfigError, InputError
from mlray.sources import open_rows, sample
from mlray.sources.join import prepare

HEADER = "key,at,y\n"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "rows.csv").write_text(
        "key,at,y\na,2013-01-02T00:00:00Z,1\nb,2013-01-03T00:00:00Z,2\n"
        "NA,2013-01-03T00:00:00Z,3\na,NA,4\nz,2013-01-03T00:00:00Z,5\n"
    )
    (tmp_path / "sizes.csv").write_text("key,size,y\nb,20,x\na,10,y\n")
    (tmp_path / "past.csv").write_text(
        "key,seen,value\na,2013-01-01T00:00:00Z,1\na,2013-01-02T00:00:00Z,2\n"
        "a,2013-01-02T00:00:00Z,22\na,2013-01-02T00:00:01Z,3\nb,2013-01-01T00:00:00Z,4\n"
    )
    return tmp_path


def joined(project, join, **others):
    return sample(project(rows={"path": "rows.csv"}, join=[join], **others))


def test_a_plain_join_adds_columns_and_keeps_rows_and_order(project, files):
    table = joined(project, {"with": "sizes", "on": "key"}, sizes={"path": "sizes.csv"})
    assert table["y"].to_pylist() == [1, 2, 3, 4, 5]
    assert table["size"].to_pylist() == [10, 20, None, 10, None]
    assert table.column_names == ["key", "at", "y", "size", "sizes_y"]


def test_a_prefix_names_all_joined_columns(project, files):
    table = joined(
        project, {"with": "sizes", "on": "key", "prefix": "s_"}, sizes={"path": "sizes.csv"}
    )
    assert table.column_names[-2:] == ["s_size", "s_y"]


def test_names_that_still_clash_are_refused(project, files):
    with pytest.raises(InputError, match="columns that are already there: y"):
        joined(project, {"with": "sizes", "on": "key", "prefix": ""}, sizes={"path": "sizes.csv"})


def test_as_of_takes_the_last_row_at_or_before_and_the_newest_of_ties(project, files):
    past = {"path": "past.csv", "time": "seen"}
    table = joined(project, {"with": "past", "on": "key", "as_of": "at"}, past=past)
    assert table["value"].to_pylist() == [22, 4, None, None, None]


def test_as_of_ignores_what_is_older_than_the_tolerance(project, files):
    past = {"path": "past.csv", "time": "seen"}
    join = {"with": "past", "on": "key", "as_of": "at", "tolerance": "1d"}
    assert joined(project, join, past=past)["value"].to_pylist() == [22, None, None, None, None]


def test_as_of_without_a_time_on_the_other_source_is_refused(project, files):
    with pytest.raises(ConfigError) as caught:
        joined(project, {"with": "past", "on": "key", "as_of": "at"}, past={"path": "past.csv"})
    assert "that source declares no time" in str(caught.value)
    assert "set sources.past.time" in str(caught.value)


def test_as_of_needs_times_of_one_kind(project, files):
    (files / "past.csv").write_text("key,seen,value\na,2013-01-01T00:00:00,1\n")
    past = {"path": "past.csv", "time": "seen"}
    with pytest.raises(InputError, match="compares a time in a zone with one without"):
        joined(project, {"with": "past", "on": "key", "as_of": "at"}, past=past)
    with pytest.raises(InputError, match=r"needs times, but rows\.y is: int64"):
        joined(project, {"with": "past", "on": "key", "as_of": "y"}, past=past)


def test_a_source_that_is_not_declared_is_refused(project, files):
    with pytest.raises(ConfigError, match="a source that is not declared: size"):
        joined(project, {"with": "size", "on": "key"}, sizes={"path": "sizes.csv"})


def test_a_key_that_is_missing_on_the_left_is_named(project, files):
    with pytest.raises(InputError) as caught:
        joined(project, {"with": "sizes", "on": "size"}, sizes={"path": "sizes.csv"})
    assert "`rows`, joined with `sizes`, has no column: size" in str(caught.value)


def test_a_key_that_is_missing_on_the_right_is_named(project, files):
    with pytest.raises(InputError) as caught:
        joined(project, {"with": "sizes", "on": "at"}, sizes={"path": "sizes.csv"})
    assert "source `sizes` has no column: at" in str(caught.value)


def test_keys_that_occur_twice_on_the_right_of_a_plain_join_are_refused(project, files):
    with pytest.raises(InputError) as caught:
        joined(project, {"with": "past", "on": "key"}, past={"path": "past.csv"})
    assert "source `past` has 1 keys that occur more than once (key): a" in str(caught.value)
    assert "as_of" in str(caught.value)


def test_keys_of_different_types_meet(project, files):
    (files / "rows.csv").write_text("key,year,y\n7,2001,1\n8,2002.5,2\n")
    (files / "sizes.csv").write_text("key,year,size\n7,2001,10\nx8,2002,20\n")
    table = joined(project, {"with": "sizes", "on": ["key", "year"]}, sizes={"path": "sizes.csv"})
    assert table["size"].to_pylist() == [10, None]
    assert table.schema.field("key").type == pa.int64()


def test_a_transform_of_the_other_source_runs_before_the_join(project, files, module):
    name = module("def newest(table):\n    return table.slice(3, 2)\n")
    past = {"path": "past.csv", "transform": f"{name}:newest"}
    table = joined(project, {"with": "past", "on": "key"}, past=past)
    assert table["value"].to_pylist() == [3, 4, None, 3, None]


def test_joins_on_ray_equal_joins_in_one_process(project, tmp_path, ray_cluster, collect):
    source = random.Random(0)
    times = [f"2013-01-{1 + i % 28:02}T{i % 24:02}:00:00Z" for i in range(2000)]
    keys = [source.choice("abcdef") for _ in times]
    (tmp_path / "d").mkdir()
    for part in range(4):
        lines = zip(keys[part::4], times[part::4], range(500), strict=True)
        text = HEADER + "".join(f"{k},{t},{y}\n" for k, t, y in lines)
        (tmp_path / f"d/{part}.csv").write_text(text)
    past = [(k, f"2013-01-{d:02}T05:30:00Z", d) for k in "abcde" for d in range(1, 29)]
    source.shuffle(past)
    (tmp_path / "past.csv").write_text(
        "key,seen,value\n" + "".join(f"{k},{t},{v}\n" for k, t, v in past)
    )
    described = project(
        rows={"path": "d"},
        past={"path": "past.csv", "time": "seen"},
        join=[{"with": "past", "on": "key", "as_of": "at"}],
    )
    table = collect(open_rows(described).dataset)
    assert table.equals(sample(described, 10_000))
    for row in table.slice(0, 500).to_pylist():
        stamp = row["at"].strftime("%Y-%m-%dT%H:%M:%SZ")
        known = [v for k, t, v in past if k == row["key"] and t <= stamp]
        assert row["value"] == (max(known) if known else None)


def test_a_join_onto_no_rows_of_a_block_gives_no_rows(project, files, module):
    name = module(
        "import pyarrow.compute as pc\n"
        "def none(table):\n    return table.filter(pc.greater(table['y'], 99))\n"
    )
    rows = {"path": "rows.csv", "transform": f"{name}:none"}
    past = {"path": "past.csv", "time": "seen"}
    join = [{"with": "past", "on": "key", "as_of": "at"}]
    table = sample(project(rows=rows, past=past, join=join))
    assert (table.num_rows, table.column_names[-1]) == (0, "value")


def test_a_transform_that_returns_no_table_is_refused(project, files, module):
    name = module("def prepare(table):\n    return table.to_pydict()\n")
    with pytest.raises(InputError) as caught:
        sample(project(rows={"path": "rows.csv", "transform": f"{name}:prepare"}))
    assert (
        f"`{name}:prepare` (sources.rows.transform) must return a pyarrow.Table, not dict"
        in str(caught.value)
    )


def test_a_transform_that_fails_is_named_with_its_columns(project, files, module):
    name = module("def prepare(table):\n    return table['nonesuch']\n")
    with pytest.raises(InputError) as caught:
        sample(project(rows={"path": "rows.csv", "transform": f"{name}:prepare"}))
    assert "(sources.rows.transform) failed (KeyError)" in str(caught.value)
    assert "columns it is given: key, at, y" in str(caught.value)


def test_a_transform_with_changing_columns_is_refused(project, files, module, ray_cluster, collect):
    (files / "rows.csv").write_text("key,y\n" + "a,1\n" * 300)
    name = module(
        "def prepare(table):\n"
        "    return table if table.num_rows == 200 else table.drop_columns(['key'])\n"
    )
    rows = open_rows(project(rows={"path": "rows.csv", "transform": f"{name}:prepare"}))
    with pytest.raises(InputError, match="does not always return the same columns: key"):
        collect(rows.dataset)


keys = st.one_of(st.none(), st.sampled_from("abc"))
moments = st.one_of(st.none(), st.integers(0, 12))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(keys, moments), max_size=20),
    st.lists(st.tuples(keys, moments), max_size=20),
    st.sampled_from([None, 3]),
)
def test_as_of_equals_looking_at_every_right_row(left, right, tolerance):
    def timed(pairs, key, time):
        kind = pa.timestamp("s", tz="UTC")
        columns = {key: pa.array([k for k, _ in pairs], pa.string())}
        return columns | {time: pa.array([t for _, t in pairs], kind)}

    rows = pa.table(timed(left, "key", "at"))
    known = pa.table({**timed(right, "key", "seen"), "value": list(range(len(right)))})
    described = Join.model_validate(
        {"with": "past", "on": "key", "as_of": "at", "tolerance": tolerance and f"{tolerance}s"}
    )
    ready = prepare(described, Source(time="seen"), known, rows.schema)
    found = ready.apply(rows)["value"].to_pylist()
    for (key, at), value in zip(left, found, strict=True):
        fitting = [
            (t, number)
            for number, (k, t) in enumerate(right)
            if None not in (key, at, k, t) and k == key and t <= at
            if tolerance is None or at - t <= tolerance
        ]
        assert value == (max(fitting)[1] if fitting else None)
