"""Can this machine or cluster run a project? Each check says what it saw and what to fix."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mlray import storage
from mlray.config import Project
from mlray.errors import MlrayError

_PACKAGES = {
    "ray": "2.60",
    "torch": "2.13",
    "pyarrow": "25",
    "mlflow": "3.17",
    "onnxruntime": "1.31",
    "polars": "2",
}
_GIB = 1 << 30
_PROBE_S = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    saw: str
    do: str = ""

    def __str__(self) -> str:
        fix = f"\n    Do: {self.do}" if self.do and not self.ok else ""
        return f"{'✓' if self.ok else '✗'} {self.what}: {self.saw}{fix}"


def examine(project: Project | None = None) -> list[Finding]:
    """Look at the machine, and at what a project needs if one is given. Starts nothing."""
    findings = [_python(), *_packages(), _memory(), _shared_memory(), _gpus()]
    findings.append(_storage(project))
    if project is not None:
        findings += [_cluster(project), _tracking(project), _port(project), _sources(project)]
    return findings


def _python() -> Finding:
    version = platform.python_version()
    return Finding("Python", sys.version_info[:2] == (3, 11), version, "use Python 3.11")


def _packages() -> Iterator[Finding]:
    for name, wanted in _PACKAGES.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, False, "not installed", "pip install -r requirements.lock")
            continue
        fits = found == wanted or found.startswith(f"{wanted}.")
        yield Finding(name, fits, found, f"pip install '{name}=={wanted}.*'")


def _memory() -> Finding:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _GIB
    saw = f"{os.cpu_count()} CPUs, {free:.1f} GiB free memory"
    return Finding("machine", free >= 2, saw, "Ray and one worker want 2 GiB: close something")


def _shared_memory() -> Finding:
    shm = Path("/dev/shm")
    if not shm.is_dir():
        return Finding("/dev/shm", True, "not used on this system")
    free = shutil.disk_usage(shm).free / _GIB
    advice = "give it more (docker run --shm-size=2g): Ray falls back to slow disk"
    return Finding("/dev/shm", free >= 0.5, f"{free:.1f} GiB free", advice)


def _gpus() -> Finding:
    devices = sorted(p.name for p in Path("/dev").glob("nvidia[0-9]*"))
    return Finding("GPUs", True, ", ".join(devices) or "none: training uses the CPU")


def _storage(project: Project | None) -> Finding:
    home = storage.home(project.storage.path if project else None)
    probe = storage.join(home, f".doctor-{os.getpid()}")
    try:
        storage.write_bytes(probe, b"")
        storage.remove(probe)
    except MlrayError as error:
        return Finding("storage", False, str(error), "set storage.path or MLRAY_HOME")
    if storage.is_remote(home):
        return Finding("storage", True, home)
    free = shutil.disk_usage(home).free / _GIB
    return Finding("storage", free >= 1, f"{home}, {free:.0f} GiB free", "free some space")


def _cluster(project: Project) -> Finding:
    address = project.cluster.address or os.environ.get("RAY_ADDRESS")
    if not address or address in {"local", "auto"}:
        return Finding("Ray", True, "a cluster of its own" if address != "auto" else "auto")
    host, _, port = address.removeprefix("ray://").removeprefix("http://").partition(":")
    advice = f"is the head up? try: ray status --address {host}:{port}"
    return _reachable("Ray", host, int(port or 6379), advice)


def _tracking(project: Project) -> Finding:
    uri = project.tracking.uri
    if not uri or "://" not in uri or not uri.startswith("http"):
        return Finding("MLflow", True, uri or "SQLite in the storage folder")
    scheme, rest = uri.split("://", 1)
    host, _, port = rest.split("/")[0].rpartition("@")[2].partition(":")
    default = 443 if scheme == "https" else 80
    return _reachable("MLflow", host, int(port or default), "start the server or fix tracking.uri")


def _reachable(what: str, host: str, port: int, advice: str) -> Finding:
    try:
        with socket.create_connection((host, port), timeout=_PROBE_S):
            return Finding(what, True, f"{host}:{port} answers")
    except OSError as error:
        return Finding(what, False, f"{host}:{port}: {error}", advice)


def _port(project: Project) -> Finding:
    host, port = project.serving.host, project.serving.port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            advice = "end what listens there, or set serving.port"
            return Finding("serving", False, f"{host}:{port}: {error.strerror}", advice)
    return Finding("serving", True, f"{host}:{port} is free")


def _sources(project: Project) -> Finding:
    from mlray.sources import find

    try:
        found = find(project)
    except MlrayError as error:
        return Finding("sources", False, str(error))
    size = sum(file.size_bytes for file in found.inputs) / 1e6
    return Finding("sources", True, f"{len(found.inputs)} files, {size:,.1f} MB")
