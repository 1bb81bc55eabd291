"""Rows in: one file per kind of source, joined to one `ray.data.Dataset`."""

from mlray.sources.opened import Opened, SourceFile, plain_errors
from mlray.sources.rows import Found, Rows, find, open_files, open_rows, pinned, sample
from mlray.sources.types import arrow_type

__all__ = [
    "Found",
    "Opened",
    "Rows",
    "SourceFile",
    "arrow_type",
    "find",
    "open_files",
    "open_rows",
    "pinned",
    "plain_errors",
    "sample",
]
