"""What every kind of source gives when it is opened."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mlray.errors import InputError, MlrayError

Step = Callable[[Callable[[], Iterator[pa.Table]]], Iterator[pa.Table]]
"""Takes a function that reads tables, and yields them changed; picklable."""


@dataclass(frozen=True)
class SourceFile:
    """A file that rows were read from, as it was found."""

    path: str
    """Local path, address, or package://NAME/FILE."""
    size_bytes: int
    modified: str
    """What changes when the content does: the content's hash for small local files, an object
    store's etag, a table's version, offsets, else the time of modification."""
    source: str = ""
    """Name of the source in the project file, once it is known."""


@dataclass(frozen=True)
class Opened:
    """A source that can be read in three ways; nothing but its head has been read so far."""

    schema: pa.Schema
    """What all of its blocks have."""
    files: tuple[SourceFile, ...]
    dataset: Callable[..., Any]
    """The rows as a lazy `ray.data.Dataset`; with `traced=True` with the hidden columns of
    `mlray.sources.reading`, and with rows that cannot be read."""
    table: Callable[[], pa.Table]
    """All rows, in this process."""
    head: Callable[[int], pa.Table]
    """The first rows, in this process."""
    through: Callable[[Step, pa.Schema], Opened] | None = None
    """The same source, its tables passed through a step in the task that reads them, where the
    kind can; the step makes tables of the schema that is given."""

    @property
    def size_bytes(self) -> int:
        return sum(f.size_bytes for f in self.files)


LARGEST_WHOLE_BYTES = 2 << 30
"""A source that every worker holds whole may be so large."""


def refuse_large(name: str, size_bytes: int) -> None:
    """`InputError` for a source that is too large to be held whole."""
    if size_bytes > LARGEST_WHOLE_BYTES:
        raise InputError(
            f"source `{name}` is too large to be joined: every worker holds it whole",
            value=f"{size_bytes / 2**30:.1f} GiB or more",
            allowed=f"at most {LARGEST_WHOLE_BYTES >> 30} GiB",
            do=f"read fewer of its columns (sources.{name}.columns) or fewer rows; make the larger "
            "one `rows`",
        )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest of the `known` names, or all of them.

    >>> did_you_mean("tailnumber", ["carrier", "tailnum"])
    'did you mean `tailnum`?'
    >>> did_you_mean("zzz", ["carrier", "tailnum"])
    'choose one of: carrier, tailnum'
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"choose one of: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"


def require_columns(wanted: Iterable[str], schema: pa.Schema, who: str) -> None:
    """`InputError` for the first of the wanted columns that `who` does not have."""
    for column in wanted:
        if column not in schema.names:
            raise InputError(
                f"{who} has no column", value=column, do=did_you_mean(column, schema.names)
            )


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise the mlray error that a Ray worker met as itself, not wrapped in Ray's."""
    try:
        yield
    except Exception as error:
        found = _mlray_cause(error)
        if found is None or found is error:
            raise
        raise found from None


def _mlray_cause(error: BaseException) -> MlrayError | None:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        if type(current).__module__ == MlrayError.__module__ and isinstance(current, MlrayError):
            return current
        seen.add(id(current))
        waiting += [getattr(current, "cause", None), current.__cause__, current.__context__]
    return None
