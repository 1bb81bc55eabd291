"""Steps of the `sources` section on clean rows, as the predictor applies them to requests."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from mlray import usercode
from mlray.errors import InputError
from mlray.models.predictor import transformed as apply


def wide(table: pa.Table, transform: str | None, folder: str) -> pa.Table:
    """Raw columns and those that the transform makes, since both can be asked about."""
    if transform is None:
        return table
    made = transformed(table, transform, folder)
    for name in table.column_names:
        if name not in made.column_names:
            made = made.append_column(name, table[name])
    return made


def transformed(table: pa.Table, transform: str | None, folder: str) -> pa.Table:
    """The section's transform applied; it must give a row for every row.

    Raises:
        InputError: the function failed or changed the number of rows.
    """
    if transform is None:
        return table
    try:
        return apply(usercode.resolve(transform, folder), table)
    except InputError as error:
        if error.__cause__ is None:
            raise
        cause = error.__cause__
        raise InputError(
            f"`{transform}` failed ({type(cause).__name__}: {cause})",
            allowed=f"columns it is given: {', '.join(table.column_names)}",
            do="`mlray check FILE` runs it on a few rows",
        ) from cause


@dataclass(frozen=True)
class Transform:
    """`transformed` as a value that travels to workers."""

    path: str | None
    folder: str

    def __call__(self, table: pa.Table) -> pa.Table:
        return transformed(table, self.path, self.folder)
