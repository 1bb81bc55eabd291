"""Sources that are functions of the user."""

from __future__ import annotations

import pyarrow as pa
import pytest

from mlray.errors import ConfigError, InputError
from mlray.sources import open_rows

MODULE = """
import pyarrow as pa
import ray.data

def rows(options):
    n = options["n"]
    return ray.data.from_arrow(pa.table({"a": list(range(n)), "y": ["x"] * n}))

def broken(options):
    return [1, 2]

def failing(options):
    raise RuntimeError("no database here")
"""


def test_a_function_gives_rows_types_and_columns(project, module, ray_cluster, collect):
    name = module(MODULE)
    rows = open_rows(
        project(
            rows={
                "kind": f"{name}:rows",
                "options": {"n": 3},
                "types": {"a": "string"},
                "columns": ["a"],
            }
        )
    )
    assert rows.schema.equals(pa.schema({"a": pa.string()}))
    assert collect(rows.dataset).to_pydict() == {"a": ["0", "1", "2"]}
    assert rows.inputs[0].path == f"{name}:rows"


def test_a_function_source_can_be_joined(project, module, tmp_path, ray_cluster, collect):
    (tmp_path / "rows.csv").write_text("a,t\n1,5\n9,6\n")
    name = module(MODULE)
    described = project(
        rows={"path": "rows.csv"},
        other={"kind": f"{name}:rows", "options": {"n": 3}},
        join=[{"with": "other", "on": "a"}],
    )
    assert collect(open_rows(described).dataset)["y"].to_pylist() == ["x", None]


def test_a_function_that_returns_no_dataset_is_refused(project, module, ray_cluster):
    name = module(MODULE)
    with pytest.raises(InputError) as caught:
        open_rows(project(rows={"kind": f"{name}:broken"}))
    assert "must return a ray.data.Dataset, not: list" in str(caught.value)


def test_a_function_that_fails_is_named(project, module, ray_cluster):
    name = module(MODULE)
    with pytest.raises(InputError, match="RuntimeError: no database here"):
        open_rows(project(rows={"kind": f"{name}:failing"}))


def test_a_function_without_rows_is_refused(project, module, ray_cluster):
    name = module(MODULE)
    with pytest.raises(InputError, match="source `rows` has no rows"):
        open_rows(project(rows={"kind": f"{name}:rows", "options": {"n": 0}}))


def test_a_module_that_is_not_there_is_named(project, ray_cluster):
    with pytest.raises(ConfigError, match="no module for `nonesuch:rows`"):
        open_rows(project(rows={"kind": "nonesuch:rows"}))
