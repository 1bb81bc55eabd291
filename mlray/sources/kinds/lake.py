"""What tables of a lake (Delta, Iceberg) share: secrets, versions, schemas and errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import pyarrow as pa
from pydantic import SecretStr

from mlray import secrets
from mlray.config.rows import LakeSource
from mlray.errors import InputError, MlrayError
from mlray.sources.opened import require_columns
from mlray.sources.reading import Piece
from mlray.sources.types import arrow_type

_CLIPPED_CHARS = 400


def revealed(values: Mapping[str, SecretStr]) -> dict[str, str]:
    """Secrets as the plain text that a library must have."""
    return {name: value.get_secret_value() for name, value in values.items()}


@contextmanager
def explained(name: str, source: LakeSource) -> Iterator[None]:
    """Any error of a library as one that a user can act on, without the values of secrets."""
    try:
        yield
    except (MlrayError, ImportError):
        raise
    except Exception as error:
        known = revealed({**source.catalog, **source.options}).values()
        raise InputError(
            f"source `{name}` cannot be read ({_safe(error, list(known))})",
            value=source.where,
            do="check the address, `options` and `catalog`, and that the place can be reached",
        ) from None


def _safe(error: Exception, known: list[str]) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", f"{type(error).__name__}: {error}")
    values = [part for value in known for part in (value, *secrets.of_address(value))]
    text = re.sub(r"://[^/@\s]*@", f"://{secrets.HIDDEN}@", secrets.redacted(text, values))
    return " ".join(text.split())[:_CLIPPED_CHARS]


def version_or_time(name: str, source: LakeSource) -> int | datetime | None:
    """A number, or a point in time (UTC if no zone is said); None for the newest."""
    wanted = source.version
    if wanted is None or isinstance(wanted, int):
        return wanted
    if wanted.strip().isdecimal():
        return int(wanted)
    try:
        at = datetime.fromisoformat(wanted.strip())
    except ValueError:
        raise InputError(
            f"sources.{name}.version is neither a number nor a time",
            value=wanted,
            allowed="7, 2026-03-01, 2026-03-01T12:30:00Z",
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def declared(name: str, source: LakeSource, stored: pa.Schema) -> pa.Schema:
    """The columns that are read, with the types that the project file declares."""
    require_columns(source.columns or [], stored, f"source `{name}`")
    require_columns(source.types, stored, f"source `{name}`")
    fields = [stored.field(c) for c in source.columns or stored.names]
    kinds = {f.name: f.type for f in fields}
    kinds |= {n: arrow_type(t) for n, t in source.types.items() if n in kinds}
    return pa.schema(kinds)


def task_bytes(pieces: Sequence[Piece]) -> int:
    """About so many bytes a task: small tables too are read in parallel, and large ones do not
    fall into countless tasks."""
    total = sum(piece.size_bytes for piece in pieces)
    return min(32 << 20, max(1 << 20, total // 64))


def missing_library(extra: str) -> InputError:
    """The error for an optional library that is not installed."""
    return InputError(
        f"reading {extra} needs a library that is not installed", do=f"pip install 'mlray[{extra}]'"
    )
