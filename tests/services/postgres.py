"""A real PostgreSQL server for tests: a folder and a port of its own, ended by its process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PASSWORD = "s3cr3t/p@ss"
_USER = "mlray"


def programs() -> Path:
    """The folder of initdb and postgres.

    Raises:
        RuntimeError: PostgreSQL is not installed.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        raise RuntimeError("tests of SQL need PostgreSQL: apt-get install postgresql")
    return found[-1].parent if found else Path(str(on_path)).parent


@dataclass
class Server:
    """A PostgreSQL server that can be stopped and started again."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def url(
        self, user: str = _USER, password: str = "s3cr3t%2Fp%40ss", db: str = "postgres"
    ) -> str:
        """Address with the password, quoted as an address needs it."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{db}"

    @property
    def where(self) -> str:
        """Address without credentials."""
        return f"postgresql://127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        data = self.folder / "data"
        options = ["-p", str(self.port), "-k", str(self.folder), "-c", "fsync=off"]
        options += ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=50"]
        self.process = _started([str(programs() / "postgres"), "-D", str(data), *options])
        deadline = time.monotonic() + 30
        ready = [str(programs() / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        while subprocess.run(ready).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL did not start")
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server at once, and every connection with it."""
        if self.process is not None:
            os.kill(self._server_pid(), signal.SIGINT)
            self.process.wait(timeout=30)
            self.process = None

    def _server_pid(self) -> int:
        """Of the server itself: `runuser` stands before it."""
        return int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0])

    def run(self, *statements: str) -> list[tuple[object, ...]]:
        """Run statements; what the last one answers."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []


@contextmanager
def running() -> Iterator[Server]:
    """A new server with one user, whose password is asked for."""
    # Not pytest's own folder: the server's user may not enter that.
    folder = Path(tempfile.mkdtemp(prefix="mlray-postgres-"))
    server = Server(folder, _free_port())
    try:
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (folder, secret):
                shutil.chown(path, "postgres")
        initdb = [str(programs() / "initdb"), "-D", str(folder / "data"), "-U", _USER]
        initdb += ["--pwfile", str(secret), "-A", "scram-sha-256", "-E", "UTF8", "--no-sync"]
        _finished([*initdb, "--locale", "C.UTF-8"])
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _as_owner(command: Sequence[str]) -> list[str]:
    """PostgreSQL refuses to run as root."""
    as_root = os.geteuid() == 0
    return ["runuser", "-u", "postgres", "--", *command] if as_root else list(command)


def _finished(command: Sequence[str]) -> None:
    done = subprocess.run(_as_owner(command), capture_output=True, text=True, cwd="/")
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout} {done.stderr}")


def _started(command: Sequence[str]) -> subprocess.Popen[bytes]:
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(_as_owner(command), stdout=nowhere, stderr=nowhere, cwd="/")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
