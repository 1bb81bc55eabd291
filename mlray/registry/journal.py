"""What was champion when, and why: one line of JSON per change, only ever appended."""

from __future__ import annotations

import json
import os
import socket
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from mlray import storage
from mlray.errors import StorageError
from mlray.tracking.provenance import user
from mlray.tracking.store import locked

What = Literal["promoted", "rolled back", "restored", "found"]


@dataclass(frozen=True)
class Entry:
    """One change of champion."""

    when: str
    """UTC, ISO 8601."""
    who: str
    """user@host."""
    what: What
    """found: the alias had been moved by something that keeps no journal."""
    before: int | None
    """Version that was champion before; None for none."""
    after: int | None
    """Version that is champion since."""
    why: tuple[str, ...]

    @classmethod
    def now(cls, what: What, before: int | None, after: int | None, why: Sequence[str]) -> Entry:
        """A change that this process makes now."""
        when = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(when, f"{user()}@{socket.gethostname()}", what, before, after, tuple(why))

    def to_json(self) -> str:
        values = asdict(self)
        values["from"], values["to"] = values.pop("before"), values.pop("after")
        return json.dumps(values)

    @classmethod
    def from_json(cls, line: str) -> Entry:
        values: dict[str, Any] = json.loads(line)
        values["before"], values["after"] = values.pop("from"), values.pop("to")
        return cls(**{**values, "why": tuple(values["why"])})


def earlier_champions(entries: Sequence[Entry]) -> list[int]:
    """Versions to fall back to, nearest last: a rollback takes away what it went back over.

    >>> def change(what, before, after): return Entry("", "", what, before, after, ())
    >>> earlier_champions([change("promoted", None, 1), change("promoted", 1, 2),
    ...                    change("promoted", 2, 3), change("rolled back", 3, 2)])
    [1]
    """
    stack: list[int] = []
    for entry in entries:
        if entry.what == "rolled back":
            while stack and stack.pop() != entry.after:
                continue
        elif entry.before is not None:
            stack.append(entry.before)
    return stack


@dataclass(frozen=True)
class Journal:
    """The journal of one model: `home/journal/NAME.jsonl`."""

    home: str
    name: str

    @property
    def path(self) -> str:
        return storage.join(self.home, "journal", f"{self._file}.jsonl")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process changes this model's champion while the block runs."""
        if storage.is_remote(self.home):
            raise StorageError(
                "the journal must be on a disk that all nodes share",
                value=self.path,
                do="mount the store, or set storage.path to a shared path",
            )
        with locked(storage.join(self.home, "journal", f"{self._file}.lock")):
            yield

    def entries(self) -> list[Entry]:
        """All changes, oldest first.

        A last line without its end was never acknowledged, so it does not count.

        Raises:
            StorageError: a line is damaged; the message says which.
        """
        if not os.path.exists(self.path):
            return []
        complete = Path(self.path).read_text(encoding="utf-8").rpartition("\n")[0]
        return [self._entry(i, line) for i, line in enumerate(complete.splitlines(), start=1)]

    def append(self, entry: Entry) -> None:
        """Add a change; it is on the disk when this returns. Call it inside `alone()`."""
        path = Path(self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(path, "ab+") as file:
                self._drop_unfinished(file)
                file.write(entry.to_json().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(
                f"cannot write the journal ({error.strerror})",
                value=self.path,
                do="free space on that disk or make it writable, then repeat the command",
            ) from error

    def last(self) -> int | None:
        """The champion as the journal knows it."""
        entries = self.entries()
        return entries[-1].after if entries else None

    @property
    def _file(self) -> str:
        return urllib.parse.quote(self.name, safe="")

    def _entry(self, number: int, line: str) -> Entry:
        try:
            return Entry.from_json(line)
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"line {number} of the journal is damaged",
                value=self.path,
                do="mend or remove that line; the others stay true",
            ) from error

    @staticmethod
    def _drop_unfinished(file: Any) -> None:
        """Cut off what a process wrote that died before its line was whole."""
        file.seek(0)
        written = file.read()
        file.truncate(written.rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)
