"""One Ray session per test process, started by the first test that asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import postgres

for _name, _value in {
    "RAY_AUTH_MODE": "disabled",
    "RAY_DATA_USE_DATASOURCE_V2": "0",
    "RAY_worker_niceness": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
}.items():
    os.environ.setdefault(_name, _value)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray cluster of 4 logical CPUs, shared by all tests of this process."""
    import ray
    from ray.data import DataContext

    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=400 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent.parent)}},
    )
    DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A PostgreSQL server of this test process."""
    with postgres.running() as server:
        yield server


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data sets named by MLRAY_TEST_DATA; tests that need it skip without."""
    folder = os.environ.get("MLRAY_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MLRAY_TEST_DATA names no folder: real data sets are not here")
    return Path(folder)
