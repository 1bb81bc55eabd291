"""Sources with personal data: marked columns are protected in the task that reads them, and what
goes wrong there is told without any value.

A line with one comma too many puts an e-mail into the column of ages, so an error about any column
of such a source may show personal data. Of texts that were not written by mlray, and of values
that do not stand in the project file, nothing is told; rows that cannot be read keep their reason
and place, but not their text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

import pyarrow as pa

from mlray.config import Project
from mlray.config.rows import AnySource
from mlray.errors import ConfigError, InputError, MlrayError
from mlray.sources import kinds, reading
from mlray.sources.opened import Opened
from mlray.sources.personal import Protection, keys_of

_PUSHED = {"csv", "parquet", "json", "excel", "sql", "delta", "iceberg"}
"""Kinds that can leave columns out, and that may be opened twice at no price: dropped columns of
these are not read. Of others they are read and forgotten in the same task."""
_HIDDEN = "(not shown)"
_QUOTED = re.compile(r"'.*'|\".*\"", re.S)
_MARKED = re.compile(r"`([^`]*)`")
_FOREIGN = re.compile(r"\((?!source `|line \d|row \d|rows \d).*\)", re.S)
_WHY = "texts are shortened, since this source holds personal data"


def open_source(name: str, project: Project) -> Opened:
    """Open one source of a project, its personal data protected.

    Raises:
        ConfigError: `pii` names a column that is not there or cannot be hashed, or the key is
            missing or short.
        InputError: the source cannot be read; no value is told if it holds personal data.
    """
    source, folder = project.sources.tables[name], project.folder
    if not source.pii:
        return kinds.open_source(name, source, folder)
    guard = _Guard(name, Protection.of(source, keys_of(project)), _known(source))
    pushed = kinds.kind_of(name, source) in _PUSHED
    with guard:
        opened = kinds.open_source(name, _bare(source) if pushed else source, folder)
    _check_names(name, source, opened.schema)
    if pushed:
        kept = [c for c in source.columns or opened.schema.names if source.pii.get(c) != "drop"]
        types = {c: t for c, t in source.types.items() if c in kept}
        read = source.model_copy(update={"columns": kept, "types": types})
        with guard:
            opened = kinds.open_source(name, read, folder)
    return replace(guard, known=(*guard.known, *opened.schema.names)).over(opened)


def protect(name: str, protection: Protection, open_it: Callable[[], Opened]) -> Opened:
    """What `open_it` opens, with columns protected; those that it lacks are no error."""
    if protection.empty:
        return open_it()
    guard = _Guard(name, protection, ())
    with guard:
        opened = open_it()
    return replace(guard, known=tuple(opened.schema.names)).over(opened)


@dataclass(frozen=True)
class _Guard:
    """Protects tables where they are read, and errors where they are raised."""

    name: str
    protection: Protection
    known: tuple[str, ...]
    """Texts of the project file, which may be shown."""

    def __enter__(self) -> None:
        """Errors of the block are told without values."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            self._tell(error)

    def _tell(self, error: Exception) -> NoReturn:
        raise without_values(self.name, error, self.known) from None

    def over(self, opened: Opened) -> Opened:
        """The source with this guard around everything that is read from it."""
        schema = self.protection.schema(opened.schema)
        if opened.through is not None:
            inner = opened.through(self.read, schema)
            return replace(inner, table=self._guarded(inner.table), head=self._guarded(inner.head))
        return replace(
            opened,
            schema=schema,
            dataset=partial(self._mapped, opened.dataset),
            table=lambda: self.table(self._guarded(opened.table)()),
            head=lambda rows: self.table(self._guarded(opened.head)(rows)),
        )

    def read(self, read: Callable[[], Iterator[pa.Table]]) -> Iterator[pa.Table]:
        """Tables of a piece, protected. Runs in a Ray worker, or in the driver for small tables."""
        try:
            for table in read():
                yield self.table(table)
        except Exception as error:
            self._tell(error)

    def table(self, table: pa.Table) -> pa.Table:
        """One table, protected; of rows that cannot be read the text is left out."""
        table = self.protection.apply(table)
        if reading.UNREADABLE not in table.column_names:
            return table
        told = (*self.known, self.name)
        reasons = [_reason(r, told) for r in table[reading.UNREADABLE].to_pylist()]
        table = _replaced(table, reading.UNREADABLE, pa.array(reasons, pa.string()))
        if reading.RAW not in table.column_names:
            return table
        return _replaced(table, reading.RAW, pa.nulls(len(table), pa.binary()))

    def _guarded(self, function: Callable[..., pa.Table]) -> Callable[..., pa.Table]:
        def call(*arguments: Any) -> pa.Table:
            with self:
                return function(*arguments)

        return call

    def _mapped(self, dataset: Callable[..., Any], traced: bool = False) -> Any:
        return dataset(traced=traced).map_batches(
            self.table, batch_format="pyarrow", batch_size=None, zero_copy_batch=True
        )


def without_values(name: str, error: Exception, known: Iterable[str] = ()) -> MlrayError:
    """An error of a source, with nothing in it that may have come from its rows.

    >>> wrong = InputError("a.csv (source `s`) has no int64 (got 'x@y.org')", value="x@y.org")
    >>> print(without_values("s", wrong))
    a.csv (source `s`) has no int64 (not shown): (not shown)
      Do: texts are shortened, since this source holds personal data

    Args:
        name: of the source.
        error: what was raised while it was opened or read.
        known: texts that may be shown.
    """
    if isinstance(error, ConfigError) or (
        isinstance(error, MlrayError) and not isinstance(error, InputError)
    ):
        return error
    if not isinstance(error, InputError):
        return InputError(f"source `{name}` cannot be read ({type(error).__name__})", do=_WHY)
    if error.do == _WHY:
        return error  # it came through this function already, in a worker
    texts = tuple(known)
    what = _reason(error.what, (*texts, name)) or ""
    return InputError(what, value=_shown(error.value, texts), allowed=None, do=_WHY)


def _reason(text: str | None, known: tuple[str, ...]) -> str | None:
    """A sentence without quoted texts, but for those known, and without what other libraries
    said."""
    if text is None:
        return None
    text = _QUOTED.sub(_HIDDEN, _FOREIGN.sub(_HIDDEN, text))
    unknown = next((m for m in _MARKED.finditer(text) if m[1] not in known), None)
    if unknown is None:
        return text
    # to the last mark, for a value may hold marks of its own
    return text[: unknown.start()] + _HIDDEN + text[text.rindex("`") + 1 :]


def _shown(value: object, known: tuple[str, ...]) -> object:
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        return [_shown(each, known) for each in value[:5]]
    text = str(value)
    return text if any(text in each or text.startswith(each) for each in known) else _HIDDEN


def _known(source: AnySource) -> tuple[str, ...]:
    """Texts of a source's section: names of columns, and places (a file found there starts so)."""
    names = [*(source.columns or []), *source.types, *source.pii, *source.rename]
    path = getattr(source, "path", None)
    places = [path] if isinstance(path, str) else list(path or [])
    return tuple(filter(None, [*names, *places, *(re.split(r"[*?\[]", p)[0] for p in places)]))


def _bare(source: AnySource) -> AnySource:
    """The source with all of its columns, so that a message about names is ours: without a header
    line the names that a file seems to have are values."""
    return source.model_copy(update={"columns": None, "types": {}})


def _check_names(name: str, source: AnySource, schema: pa.Schema) -> None:
    for key, names in {"pii": source.pii, "columns": source.columns, "types": source.types}.items():
        lacking = [c for c in names or [] if c not in schema.names]
        if lacking:
            raise ConfigError(
                f"sources.{name}.{key} names columns that are not read",
                value=lacking,
                do="check the spelling; the columns that are read are not listed, since this "
                "source holds personal data",
            )


def _replaced(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)
