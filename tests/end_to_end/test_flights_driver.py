"""The demo's driver on the real flights: what it returns is what it showed."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent.parent


def driver() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "flights_driver", ROOT / "configs" / "flights_driver.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.usefixtures("ray_cluster")
def test_the_demo_promotes_serves_and_sees_the_traffic_drift(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    watched = driver().main("training.budget=1 epochs", f"serving.port={port}")
    assert list(watched) == ["October", "December", "shifted on purpose"]
    for seen in watched.values():
        assert seen.window.rows > 9_000
    alarms = {name: {d.feature for d in seen.alarms} for name, seen in watched.items()}
    assert {"temp", "wind_speed"} <= alarms["shifted on purpose"]
    assert "temp" in alarms["December"], "winter was not in the training rows of autumn"
    told = capsys.readouterr().out
    for words in ("flights version 1: champion", "answers:", "MLflow run:", "report.html"):
        assert words in told
