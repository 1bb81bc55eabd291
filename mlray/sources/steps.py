"""Steps on columns: rename, cast, derive, filter, select, and a function of the user.

The same steps run in the pipeline and, but for `filter`, in the predictor on every request.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from mlray import usercode
from mlray.config.rows import Shaping
from mlray.errors import ConfigError, InputError
from mlray.sources import reading


@dataclass(frozen=True)
class Steps:
    """What a `Shaping` section says, ready to run. Travels to Ray workers."""

    who: str
    """For messages: "source `rows`"."""
    folder: str
    """Of the project file, where the user's module is found."""
    transform: str | None = None

    @classmethod
    def of(cls, shaping: Shaping, who: str, folder: str) -> Steps:
        return cls(who, folder, shaping.transform)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return self.transform is None

    def apply(self, table: pa.Table) -> pa.Table:
        """All steps. Hidden columns of traced rows stay with their rows.

        Raises:
            InputError: a column is missing, a value does not convert, or the function failed.
        """
        if self.transform is None:
            return table
        plain = reading.visible(table)
        return _retraced(self._called(self.transform, plain), table)

    def _called(self, path: str, table: pa.Table) -> pa.Table:
        try:
            result = usercode.resolve(path, self.folder)(table)
        except (ConfigError, InputError):
            raise
        except Exception as error:
            raise InputError(
                f"`{path}` failed on rows of {self.who} ({type(error).__name__}: {error})",
                allowed=f"columns it is given: {', '.join(table.column_names)}",
            ) from error
        if not isinstance(result, pa.Table):
            raise InputError(
                f"`{path}` ({self.who}) must return a pyarrow.Table, not",
                value=type(result).__name__,
            )
        return result


def _retraced(result: pa.Table, before: pa.Table) -> pa.Table:
    """Hidden columns for what a function returned: row by row if it kept their number, else of
    the first row, without a position."""
    hidden = [n for n in before.column_names if n in reading.HIDDEN]
    if not hidden:
        return result
    if result.num_rows == before.num_rows:
        for name in hidden:
            result = result.append_column(before.schema.field(name), before[name])
        return result
    origin = before[reading.ORIGIN][0].as_py() if before.num_rows else ""
    return reading.with_trace(result, origin, None)
