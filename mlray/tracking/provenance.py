"""Where a run comes from: the code, the environment, the person, the driver process."""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
import re
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import mlray

LOCK_FILES = (
    "uv.lock",
    "poetry.lock",
    "pdm.lock",
    "Pipfile.lock",
    "requirements.lock",
    "requirements.txt",
)
_DRIVER = "mlray.driver."


def tags(folder: str) -> dict[str, str]:
    """What says how a run can be repeated.

    Args:
        folder: the project file's folder; git commit and lock file are looked for from there up.
    """
    found = {
        "mlray.version": mlray.__version__,
        "mlray.host": socket.gethostname(),
        "mlflow.user": user(),
        "mlflow.source.type": "LOCAL",
    }
    return found | _git(folder) | _lock_file(folder)


def environment() -> dict[str, Any]:
    """What a run runs on: `python`, `platform`, and `packages`, every installed one's version."""
    found = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]}
    packages = {re.sub(r"[-_.]+", "-", name).lower(): found[name] for name in sorted(found)}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {**packages, "mlray": mlray.__version__},
    }


def user() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return str(os.getuid())


def _git(folder: str) -> dict[str, str]:
    commit = _run("git", "-C", folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    changed = _run("git", "-C", folder, "status", "--porcelain", "--untracked-files=no")
    dirty = "unknown" if changed is None else str(bool(changed)).lower()
    return {"mlflow.source.git.commit": commit, "mlray.git.dirty": dirty}


def _lock_file(folder: str) -> dict[str, str]:
    here = Path(folder).absolute()
    for place in (here, *here.parents):
        for name in LOCK_FILES:
            if (place / name).is_file():
                digest = hashlib.sha256((place / name).read_bytes()).hexdigest()
                return {"mlray.lock": f"{name} sha256:{digest}"}
        if (place / ".git").exists():
            return {}
    return {}


def _run(*command: str) -> str | None:
    """What a command prints; None if it fails or takes longer than 5 s."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@dataclass(frozen=True)
class Driver:
    """One process of one machine, told from every other, also from a later one of the same pid."""

    host: str
    boot: str
    """Changes with every start of the machine; empty where the system does not say."""
    space: str
    """Pid namespace: two containers on one host do not see each other's processes."""
    pid: int
    started: str
    """When the process started, in the system's own words."""

    @classmethod
    def here(cls) -> Driver:
        """This process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _boot(), _space(), pid, _started(pid) or "")

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> Driver | None:
        """The driver that a run's tags tell of; None if they tell of none."""
        found = {name: tags.get(_DRIVER + name, "") for name in cls.__dataclass_fields__}
        if not found["pid"].isdigit():
            return None
        return cls(
            found["host"], found["boot"], found["space"], int(found["pid"]), found["started"]
        )

    def tags(self) -> dict[str, str]:
        return {_DRIVER + name: str(value) for name, value in asdict(self).items()}

    def is_gone(self, here: Driver, *, one_machine: bool) -> bool:
        """Whether `here` can be sure that this driver no longer lives.

        Args:
            here: the process that asks.
            one_machine: the store is a file of this machine, so a driver of the same host name
                and an earlier boot was this machine's. On a server two machines may bear one
                name; a driver of another boot or container is then never called gone.
        """
        if self.host != here.host:
            return False
        if self.boot != here.boot:
            return one_machine
        return self.space == here.space and _started(self.pid) != self.started


def _boot() -> str:
    file = Path("/proc/sys/kernel/random/boot_id")
    return file.read_text().strip() if file.exists() else ""


def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process started; None if it is not there or only waits to be reaped."""
    if not Path("/proc/self/stat").exists():
        return _run("ps", "-o", "lstart=", "-p", str(pid)) or None
    try:
        # The name, in brackets, may hold anything: fields are counted behind its last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
