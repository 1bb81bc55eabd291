"""What databases and drivers complain about, in the words of the project file, without secrets."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from mlray import secrets
from mlray.errors import InputError, MlrayError

_TABLE = (
    r"relation \"?([\w.]+)\"? does not exist|no such table: ([\w.]+)|[Tt]able '([\w.]+)' doesn't"
)
_COLUMN = (
    r"column \"?([\w.\" ]+?)\"? does not exist|no such column: ([\w.]+)|Unknown column '([\w.]+)'"
)
_KNOWN = [
    (
        r"password authentication failed|no password supplied|Access denied for user|"
        r"role \"[^\"]*\" does not exist|no pg_hba.conf entry|authentication failed",
        "refused the login",
        "check user and password in `url`, and the environment variable or file they come from",
    ),
    (
        r"database \"[^\"]*\" does not exist|Unknown database",
        "has no such database",
        "check the last part of `url`",
    ),
    (
        r"invalid integer value|invalid port|invalid percent-encoded|in URI|missing \"=\" after",
        "is not understood as an address",
        "quote special characters of the password in `url`: @ is %40, / is %2F, : is %3A",
    ),
    (
        r"could not translate host name|Connection refused|timeout expired|No route to host|"
        r"[Nn]etwork is unreachable|failed to resolve|Can't connect|connection timeout",
        "cannot be reached",
        "check host and port in `url`, and that the server runs",
    ),
    (
        r"canceling statement due to|interrupted|max_statement_time|maximum statement execution",
        "was cut off in the middle of a query",
        "give it more time with `timeout`",
    ),
    (
        r"invalid snapshot identifier|could not import the requested snapshot|"
        r"source process with PID|source transaction is not running",
        "no longer has the state that this run reads",
        "run again: the server was restarted, or it ended the connection that held the state",
    ),
    (
        r"terminating connection|server closed the connection|connection (?:is|was) lost|"
        r"connection (?:is|was) closed|[Ll]ost connection|no connection to the server|"
        r"could not receive data|gone away|"
        r"shutting down|starting up|SSL connection has been closed|Connection reset",
        "ended the connection while rows were read",
        "run again when the server is up",
    ),
    (_TABLE, "has no such table", "check `table` or `query`; a schema stands before a dot"),
    (_COLUMN, "has no such column", "check `columns`, `partition` or `query`"),
    (
        r"syntax error|error in your SQL syntax",
        "does not understand the query",
        "check `query`: it is one SELECT",
    ),
    (r"permission denied|command denied", "does not permit this", "grant SELECT to the user"),
    (
        r"read-only transaction|readonly database|query_only|data-modifying statement",
        "is only read from: the query wants to write",
        "make `query` a SELECT",
    ),
    (r"file is not a database|disk image is malformed", "is no sound SQLite file", "check `url`"),
    (r"database is locked", "is locked by a writer", "run again when the writer is done"),
]


def complaint(name: str, where: str, text: str, hidden: Iterable[str]) -> InputError:
    """The error for what a driver said.

    Args:
        name: of the source.
        where: the database's address without credentials.
        text: the driver's words.
        hidden: secrets that may be in them.

    >>> str(complaint("rows", "postgresql://db/shop", "FATAL: password authentication failed", []))
    ... # doctest: +ELLIPSIS
    'postgresql://db/shop (source `rows`) refused the login: FATAL: password authentication...
    """
    said = secrets.redacted(_first_lines(text), hidden)
    for pattern, what, do in _KNOWN:
        if re.search(pattern, text):
            return InputError(f"{where} (source `{name}`) {what}", value=said, do=do)
    return InputError(f"{where} (source `{name}`) reports an error", value=said)


def missing_table(text: str) -> str | None:
    """The table that a driver says is not there."""
    match = re.search(_TABLE, text)
    return next(filter(None, match.groups()), None) if match else None


def _first_lines(text: str) -> str:
    """A driver's words without the query that it repeats, nor the address of a manual."""
    kept = re.split(r"\n\s*Query was:|\nquery:|\n\[SQL:|\(Background on|\nCONTEXT:", text)[0]
    lines = [line.strip() for line in kept.splitlines() if line.strip(" ^\t")]
    return " ".join(lines)[:400]


class Clock:
    """Cuts off what a database takes too long for. Only time in which it is waited for counts."""

    def __init__(self, limit_s: float, cancel: Callable[[], None], error: Callable[[], InputError]):
        self.limit_s, self.left_s = limit_s, limit_s
        self._cancel, self._error = cancel, error

    @contextmanager
    def running(self) -> Iterator[None]:
        """The time of the block counts; when none is left the query is cancelled.

        Raises:
            InputError: it took too long.
        """
        over = threading.Event()

        def cut() -> None:
            over.set()
            self._cancel()

        timer = threading.Timer(max(self.left_s, 0.001), cut)
        timer.daemon = True
        timer.start()
        started = time.monotonic()
        try:
            yield
        except Exception:
            if over.is_set():
                raise self._error() from None
            raise
        finally:
            timer.cancel()
            self.left_s -= time.monotonic() - started
        if self.left_s <= 0:
            raise self._error()


def too_slow(name: str, where: str, limit_s: float) -> InputError:
    """The error for a query that was cut off."""
    return InputError(
        f"{where} (source `{name}`) was cut off after {limit_s:g} s in the middle of a query",
        do="give it more time with `timeout`, or make the ranges smaller with `tasks`",
    )


@contextmanager
def said_to_writer(where: str, url: str) -> Iterator[None]:
    """Raise what a driver says while it writes in our words, without secrets."""
    try:
        yield
    except MlrayError:
        raise
    except Exception as error:
        # Drivers share no class of errors, and some put the whole address into theirs.
        said = secrets.redacted(_first_lines(str(error)), secrets.of_address(url))
        for pattern, what, do in _KNOWN:
            if re.search(pattern, str(error)):
                raise InputError(f"{where} {what}", value=said, do=do) from None
        raise InputError(
            f"{where} did not take the rows",
            value=said,
            do="write to a table with the same columns, or to one that is not there yet",
        ) from None
