"""`mlray serve` as a supervisor runs it: up until SIGTERM, then gone without a trace."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

import mlray


@pytest.mark.usefixtures("ray_cluster")
def test_serve_answers_until_it_is_asked_to_end(
    project_file: Callable[..., Path], own_home: Path
) -> None:
    file = project_file()
    mlray.run(file, ["training.budget=1 epochs"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlray", "serve", str(file), f"serving.port={port}"]
    process = subprocess.Popen(
        command,
        env={**os.environ, "MLRAY_HOME": str(own_home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    url = f"http://127.0.0.1:{port}"
    wait_until_ready(url, process)
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert f"churn version 1 answers at {url}" in told
    assert "Traceback" not in told
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


def wait_until_ready(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        try:
            urllib.request.urlopen(f"{url}/health/ready", timeout=5).read()
            time.sleep(1)  # the welcome is printed just after
            return
        except OSError:
            time.sleep(0.3)
    raise TimeoutError(url)
