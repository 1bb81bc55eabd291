"""JSON files as lines, one for each record, be they lines or documents."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from mlray.errors import InputError
from mlray.sources.kinds.text import Text, codec, opened_text, ranges, refuse_encoding

LINES = (".jsonl", ".ndjson")
"""Endings of files that hold one record a line, whatever they look like."""
_SAMPLE_BYTES = 1 << 20
_SAMPLES = 8
_READ_BYTES = 8 << 20
_RECORDS_AT_ONCE = 1 << 14


def is_document(text: Text, records: str | None) -> bool:
    """Whether a file is one JSON value, rather than a line for each record."""
    if records is not None:
        return True
    plain = text.address.partition("::")[0].lower()
    if codec(text.address):
        plain = plain.rpartition(".")[0]
    if plain.endswith(LINES):
        return False
    with opened_text(text) as stream:
        start = _without_mark(stream.read(_SAMPLE_BYTES)).lstrip()
    line, ended, _ = start.partition(b"\n")
    if not start or start.startswith(b"["):
        return bool(start)
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return bool(ended) or len(start) < _SAMPLE_BYTES
    return False


def blocks(text: Text, document: bool, records: str | None, name: str) -> Iterator[bytes]:
    """Whole lines of JSON, about `_READ_BYTES` at a time."""
    with opened_text(text) as stream:
        if document:
            yield from _lines_of(text, _without_mark(stream.read()), records, name)
            return
        begun: list[bytes] = []  # a line may be longer than what is read at once
        marked = text.start == 0
        while chunk := stream.read(_READ_BYTES):
            chunk = _without_mark(chunk) if marked else chunk
            marked = False
            whole, broken, rest = chunk.rpartition(b"\n")
            if broken:
                yield b"".join([*begun, whole, broken])
                begun = []
            begun.append(rest)
        if any(begun):
            yield b"".join(begun)


def _without_mark(start: bytes) -> bytes:
    return start.removeprefix(b"\xef\xbb\xbf")


def _lines_of(text: Text, document: bytes, records: str | None, name: str) -> Iterator[bytes]:
    """The records of a document as lines."""
    where = f"{text.address} (source `{name}`)"
    try:
        value = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        if "UTF-8" in error.msg:
            refuse_encoding(name, text.address, text.encoding)
        raise InputError(
            f"{where} is not JSON",
            value=f"{error.msg} at line {error.lineno}, column {error.colno}",
            do="mend the file; a file with one record a line should end in .jsonl",
        ) from None
    for key in records.split(".") if records else ():
        if not isinstance(value, dict) or key not in value:
            raise InputError(
                f"{where} has no `{key}` on the way to its records",
                value=records,
                allowed=f"it has: {', '.join(value)}" if isinstance(value, dict) else None,
                do="set `records` to the keys that lead to the list, e.g. data.items",
            )
        value = value[key]
    listed = value if isinstance(value, list) else [value]
    for start in range(0, len(listed), _RECORDS_AT_ONCE):
        yield b"\n".join(map(orjson.dumps, listed[start : start + _RECORDS_AT_ONCE]))


def samples(text: Text) -> Iterator[bytes]:
    """Whole lines from the start of a file, and from places all over it if it can be cut."""
    with opened_text(text) as stream:
        yield _without_mark(stream.read(_SAMPLE_BYTES)).rpartition(b"\n")[0]
    if len(parts := ranges(text, None)) > 1:
        step = max(1, len(parts) // _SAMPLES)
        for part in parts[step::step]:
            with opened_text(part) as stream:
                yield stream.read(_SAMPLE_BYTES).rpartition(b"\n")[0]
