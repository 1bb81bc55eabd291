"""Where files end up: beside the place first, and there by a rename."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mlray import storage
from mlray.config.sections import Prediction
from mlray.errors import InputError


@dataclass(frozen=True)
class LocalPlace:
    """A file or a folder on a disk that all nodes see."""

    path: str
    mode: str

    @classmethod
    def of(cls, section: Prediction) -> Self:
        if storage.is_remote(section.place):
            raise InputError(
                "predictions are written to a disk that all nodes see, a database or Delta Lake",
                value=section.place,
                do="name a local path, or set `prediction: {kind: delta}` for an object store",
            )
        return cls(str(Path(section.place.removeprefix("file://")).absolute()), section.mode)

    @property
    def where(self) -> str:
        return self.path

    def staging(self, home: str, batch: str) -> str:
        """Beside the place, so that a rename can publish; hidden from who reads the folder."""
        return f"{os.path.dirname(self.path)}/.{os.path.basename(self.path)}.{batch}.tmp"


@dataclass(frozen=True)
class LocalFile(LocalPlace):
    """One file of all parts, each of whole lines."""

    def check(self) -> None:
        if self.mode == "append":
            raise InputError(
                "a text file is written whole, so nothing is appended to it",
                value=self.path,
                allowed="error, replace",
                do="append to a folder of Parquet files, a database or Delta Lake",
            )
        if os.path.isdir(self.path):
            raise InputError("this is a folder, not a file", value=self.path)
        if self.mode == "error" and os.path.exists(self.path):
            raise InputError(
                "there is a file already",
                value=self.path,
                do="name another with --out, or set prediction.mode=replace",
            )

    def joined(self, files: list[str], folder: str, head: bytes = b"") -> None:
        """All parts behind one head, then in the place of what was there."""
        whole = os.path.join(folder, "whole")
        with open(whole, "wb") as out:
            out.write(head)
            for file in files:
                with open(file, "rb") as part:
                    while block := part.read(1 << 20):
                        out.write(block)
            out.flush()
            os.fsync(out.fileno())
        os.replace(whole, self.path)
