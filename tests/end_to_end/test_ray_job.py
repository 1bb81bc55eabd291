"""The same command through `ray job submit`, against a head with token authentication."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Head:
    """A Ray head that was started apart from the tests' own cluster."""

    address: str
    environment: dict[str, str]

    def submit(self, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
        line = [str(BIN / "ray"), "job", "submit", "--working-dir", str(folder), "--", *command]
        return subprocess.run(
            line, env=self.environment, capture_output=True, text=True, timeout=300, check=False
        )


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def head(tmp_path_factory: pytest.TempPathFactory, own_home: Path) -> Iterator[Head]:
    port, dashboard, agent, grpc, client, metrics = free_ports(6)
    token = secrets.token_hex(16)
    temporary = Path(f"/tmp/mlray-head-{port}")  # Ray's sockets need a short path
    environment = {
        **{k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "MLRAY_HOME": str(own_home),
        "PYTHONPATH": str(ROOT),
        "PATH": f"{BIN}:{os.environ['PATH']}",  # as on a head whose environment is activated
    }
    started = [
        *(str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=4"),
        *(f"--port={port}", f"--dashboard-port={dashboard}", f"--temp-dir={temporary}"),
        *(f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={grpc}"),
        *(f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}"),
        *("--object-store-memory=300000000", "--include-dashboard=true"),
    ]
    log = (tmp_path_factory.mktemp("head") / "head.log").open("w")
    process = subprocess.Popen(started, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_for(f"{address}/api/version", token)
        yield Head(address, {**environment, "RAY_API_SERVER_ADDRESS": address})
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def wait_for(url: str, token: str) -> None:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    deadline = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(request, timeout=5).read()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def test_the_same_command_runs_as_a_job(
    head: Head, project_file: Callable[..., Path], own_home: Path
) -> None:
    file = project_file()
    folder = file.parent / "project"
    folder.mkdir()
    (folder / "churn.yaml").write_text(file.read_text())
    command = ("python", "-m", "mlray", "run", "churn.yaml", "training.budget=2 epochs")
    done = head.submit(folder, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    for stage in ("sources", "quality", "split", "encode", "train", "evaluate", "register"):
        assert f"✓ {stage}" in done.stdout
    assert "churn version 1: champion" in done.stdout
    assert list(own_home.glob("runs/*/report.html"))

    refused = head.submit(folder, *command, "registry.promote={roc_auc: at least 1.1}")
    assert refused.returncode != 0
    assert "not promoted" in refused.stdout
