"""A Delta Lake table: all parts in one commit, which names the batch."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import pyarrow as pa

from mlray import secrets, storage
from mlray.config.sections import Prediction
from mlray.errors import InputError
from mlray.sinks.sink import Parts, write_parquet

_APP = "mlray-predict-"


@dataclass(frozen=True)
class DeltaSink:
    """A table, local or in an object store."""

    path: str
    mode: str
    options: tuple[tuple[str, str], ...] = ()

    ending = ".parquet"

    @classmethod
    def of(cls, section: Prediction) -> DeltaSink:
        if importlib.util.find_spec("deltalake") is None:
            raise InputError(
                "writing Delta needs a library that is not installed",
                do="pip install 'mlray[delta]'",
            )
        options = {name: value.get_secret_value() for name, value in section.options.items()}
        return cls(section.place, section.mode, tuple(options.items()))

    def __repr__(self) -> str:
        return f"DeltaSink({self.where!r}, {self.mode!r})"

    @property
    def where(self) -> str:
        return secrets.without_credentials(self.path) if "://" in self.path else self.path

    def staging(self, home: str, batch: str) -> str:
        return storage.join(home, "predictions", f".{batch}.tmp")

    def check(self) -> None:
        from deltalake import DeltaTable

        if self.mode == "error" and DeltaTable.is_deltatable(self.path, dict(self.options)):
            raise InputError(
                "there is a table already", value=self.where, do="set prediction.mode=append"
            )

    def write_part(self, table: pa.Table, file: str) -> None:
        write_parquet(table, file)

    def publish(self, parts: Parts) -> None:
        from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
        from deltalake.exceptions import DeltaError

        options, app = dict(self.options), f"{_APP}{parts.batch}"
        there = DeltaTable.is_deltatable(self.path, options)
        if there and self.mode == "append":
            known = DeltaTable(self.path, storage_options=options or None)
            if known.transaction_version(app) is not None:
                return  # this batch was committed by a run that was killed afterwards
        try:
            write_deltalake(
                self.path,
                parts.reader(),
                mode={"replace": "overwrite"}.get(self.mode, self.mode),
                schema_mode="overwrite" if self.mode == "replace" else None,
                storage_options=options or None,
                commit_properties=CommitProperties(app_transactions=[Transaction(app, 1)]),
            )
        except DeltaError as error:
            raise InputError(
                f"{self.where} did not take the rows ("
                f"{secrets.redacted(str(error), dict(self.options).values())})",
                do="write to a table with the same columns, or set prediction.mode=replace",
            ) from None
