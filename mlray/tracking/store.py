"""The way to an MLflow store: its address, its first creation, its migration, is it there.

MLflow is imported inside functions: it takes 1.4 s of a core, and 0.7 s more for a database.
"""

from __future__ import annotations

import http.client
import os
import queue
import re
import socket
import sqlite3
import ssl
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlray import storage
from mlray.errors import ConfigError, StorageError, TrackingError

PROBE_S = 10.0
"""An http address that says nothing for so long counts as unreachable."""
LOCK_S = 120.0
"""Longest wait for another process that creates or migrates the same store."""
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_SCHEMES = ("sqlite", "http", "https", "databricks", *_PORTS)
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # nothing leaves this machine unasked
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout belongs to the command line
}


def address(configured: str | None, home: str, folder: str) -> str:
    """The absolute address of the store.

    In order: `configured` (the project file's `tracking.uri`), `$MLFLOW_TRACKING_URI`, SQLite in
    `home`. A relative SQLite path starts at `folder`.

    >>> address(None, "/h", "/p"), address("sqlite:///runs/m.db", "/h", "/p")
    ('sqlite:////h/mlflow.db', 'sqlite:////p/runs/m.db')

    Raises:
        ConfigError: an address of no kind that MLflow 3 keeps runs in.
    """
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        if storage.is_remote(home):
            raise ConfigError(
                "a SQLite store cannot live in an object store",
                value=home,
                do="set tracking.uri to the address of an MLflow server",
            )
        return f"sqlite:///{Path(home).absolute()}/mlflow.db"
    if uri.split(":")[0].split("+")[0] not in _SCHEMES:
        raise ConfigError(
            "tracking.uri is no address of a store",
            value=shown(uri),
            allowed="sqlite:///FILE, http(s)://HOST:PORT, or a database address that MLflow takes",
            do="leave it out for SQLite inside the storage folder",
        )
    if (path := sqlite_path(uri)) is not None:
        return f"sqlite:///{os.path.normpath(os.path.join(folder, path))}"
    return uri.rstrip("/")


def sqlite_path(uri: str) -> str | None:
    """The file of a SQLite address, None for any other.

    >>> sqlite_path("sqlite:////a/b.db"), sqlite_path("http://h:5000")
    ('/a/b.db', None)
    """
    return uri.removeprefix("sqlite:///") if uri.startswith("sqlite:///") else None


def is_http(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def shown(uri: str) -> str:
    """`uri` without user and password, for messages.

    >>> shown("postgresql://me:secret@db/x")
    'postgresql://***@db/x'
    """
    return re.sub(r"://[^/@]*@", "://***@", uri)


@contextmanager
def locked(path: str, timeout_s: float = LOCK_S) -> Iterator[None]:
    """Only one process at a time is inside, over all that name the same lock file.

    Raises:
        StorageError: another process is inside for longer than `timeout_s`.
    """
    from filelock import FileLock, Timeout

    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path).acquire(timeout=timeout_s)
    except Timeout:
        raise StorageError(
            f"another process has held this lock for {timeout_s:.0f} s",
            value=path,
            do="see what that process does; end it if it hangs",
        ) from None
    except OSError as error:
        raise StorageError(
            f"cannot lock ({error.strerror})", value=path, do="make its folder writable"
        ) from error
    with lock:
        yield


@contextmanager
def explained(uri: str, what: str) -> Iterator[None]:
    """A store's errors as `TrackingError`: what was tried, at which address, and why it failed."""
    try:
        yield
    except _failures() as error:
        reason = shown(str(error)).strip().partition("\n")[0] or type(error).__name__
        raise TrackingError(f"cannot {what} ({reason})", value=shown(uri)) from error


def _failures() -> tuple[type[Exception], ...]:
    """What MLflow lets through: its own errors, those of files and sockets, those of databases."""
    from mlflow.exceptions import MlflowException

    database = sys.modules.get("sqlalchemy.exc")
    more = (database.SQLAlchemyError,) if database else ()
    return (MlflowException, OSError, ImportError, *more)


def connect(uri: str) -> Any:
    """An `MlflowClient` of a store that is known to answer and has its tables.

    Raises:
        TrackingError: the address does not answer within `PROBE_S`, or the store is damaged or of
            a newer MLflow.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    path = sqlite_path(uri)
    if path is None:
        probe(uri)
        return _client(uri)
    with locked(f"{path}.lock"):
        return _open_sqlite(uri, path)


def probe(uri: str, timeout_s: float = PROBE_S) -> None:
    """Ask a server whether it is there: MLflow itself would go on trying for minutes.

    Of an MLflow server any answer under 500 counts, since one behind a proxy may hide its
    `/health`; of a database, that it takes the connection.

    Raises:
        TrackingError: no answer within `timeout_s`.
    """
    ask = _http_problem if is_http(uri) else _socket_problem
    answers: queue.Queue[str] = queue.Queue()
    # A thread, because no timeout covers the look-up of a name.
    threading.Thread(target=lambda: answers.put(ask(uri, timeout_s)), daemon=True).start()
    try:
        problem = answers.get(timeout=timeout_s + 1)
    except queue.Empty:
        problem = f"no answer in {timeout_s:.0f} s"
    if problem:
        raise TrackingError(
            f"the MLflow store does not answer ({problem})",
            value=shown(uri),
            do="start it, correct tracking.uri, or leave tracking.uri out for a local store",
        )


def _http_problem(uri: str, timeout_s: float) -> str:
    """What is wrong with an MLflow server; empty if nothing is."""
    parts = urllib.parse.urlsplit(uri)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    try:
        urllib.request.urlopen(f"{bare}/health", timeout=timeout_s, context=_tls()).close()
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}" if error.code >= 500 else ""
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    return ""


def _socket_problem(uri: str, timeout_s: float) -> str:
    """What is wrong with a database's address; empty if nothing is, or if it names no host."""
    try:
        parts = urllib.parse.urlsplit(uri)
        port = parts.port or _PORTS.get(parts.scheme.split("+")[0])
        if parts.hostname and port:
            socket.create_connection((parts.hostname, port), timeout=timeout_s).close()
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
    return ""


def _tls() -> ssl.SSLContext:
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in {"true", "1"}:
        return ssl._create_unverified_context()
    return ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))


def _client(uri: str) -> Any:
    from mlflow import MlflowClient

    with explained(uri, "open the MLflow store"):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _open_sqlite(uri: str, path: str) -> Any:
    """Under the lock of the store: MLflow's own creation fails when two processes start it."""
    import logging

    from mlflow.store.db import utils

    logging.getLogger(utils.__name__).setLevel(logging.WARNING)
    try:
        revision = _revision(path)
        if revision and revision != utils._get_latest_schema_revision():
            _migrate(uri, path, revision)
    except sqlite3.DatabaseError as error:
        raise TrackingError(
            f"the MLflow store is damaged ({error})",
            value=path,
            do="put back a copy of it, or move it away to begin a new one",
        ) from error
    return _client(uri)


def _revision(path: str) -> str | None:
    """The schema version of a store; None if there is no store yet."""
    if not os.path.exists(path):
        return None
    with sqlite3.connect(path) as connection:
        query = "select name from sqlite_master where name = 'alembic_version'"
        if connection.execute(query).fetchone() is None:
            return None
        row = connection.execute("select version_num from alembic_version").fetchone()
    connection.close()
    return str(row[0]) if row else None


def _migrate(uri: str, path: str, revision: str) -> None:
    """Bring a store of an older MLflow up to date; the old one is kept beside it."""
    import sqlalchemy
    from alembic.util import CommandError
    from mlflow.store.db import utils

    with sqlite3.connect(path) as old, sqlite3.connect(f"{path}.{revision}") as kept:
        old.backup(kept)
    engine = sqlalchemy.create_engine(uri)
    try:
        utils._upgrade_db(engine)
    except CommandError as error:
        raise TrackingError(
            f"the MLflow store is of a newer MLflow ({error})",
            value=path,
            do="install the MLflow that wrote it, or set storage.path to another folder",
        ) from error
    finally:
        engine.dispose()
