"""Projects over small files, written by the test itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

import mlray.config
from mlray.config import Project

Make = Callable[..., Project]


@pytest.fixture
def project(tmp_path: Path) -> Make:
    """Builds a project from its `sources`; relative paths start in the test's own folder."""

    def make(**sources: Any) -> Project:
        file = tmp_path / "project.yaml"
        file.write_text(
            yaml.safe_dump({"name": "test", "sources": sources, "model": {"target": "y"}})
        )
        return mlray.config.load(file)

    return make


@pytest.fixture
def module(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Writes the user's module beside the project file and returns its name."""

    def write(text: str) -> str:
        name = f"user_{abs(hash(request.node.nodeid)):x}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write  # type: ignore[misc]
    if str(tmp_path) in sys.path:
        sys.path.remove(str(tmp_path))


@pytest.fixture
def collect() -> Callable[[Any], pa.Table]:
    """All rows of a Ray dataset in source order, through `plain_errors`."""
    import ray

    from mlray.sources import plain_errors

    def rows(dataset: Any) -> pa.Table:
        dataset.context.execution_options.preserve_order = True
        with plain_errors():
            return pa.concat_tables(ray.get(dataset.to_arrow_refs()))

    return rows
