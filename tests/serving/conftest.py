"""Real bundles behind the HTTP API, and ports that are free."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from small_bundles import bundle_of, flights_table

from mlray.serving.served import Champion, Served


@pytest.fixture(scope="session")
def flights_bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a binary model: a number, a whole number, a text and a time."""
    folder = tmp_path_factory.mktemp("bundles") / "flights"
    leave = ("origin", "arrival")
    return bundle_of(flights_table(), "late", str(folder), leave=leave, positive="yes").folder


@pytest.fixture(scope="session")
def flights(flights_bundle: str) -> Served:
    return Served.load("flights", Champion("1", flights_bundle), ".")


@pytest.fixture(scope="session")
def other_tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Served]:
    """A multiclass and a regression model."""
    folder, table = tmp_path_factory.mktemp("bundles"), flights_table()
    targets = {"multiclass": "origin", "regression": "arrival"}
    served = {}
    for task, target in targets.items():
        leave = tuple({"late", "origin", "arrival"} - {target})
        place = str(Path(folder) / task)
        bundle_of(table, target, place, name="other", leave=leave)
        served[task] = Served.load("other", Champion("1", place), ".")
    return served


@pytest.fixture
def free_port() -> int:
    return _free_port()


@pytest.fixture(scope="module")
def module_port() -> int:
    return _free_port()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
