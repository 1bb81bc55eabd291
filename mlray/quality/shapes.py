"""The common shape of texts such as `C-1234`, as a regular expression."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

LEAST = 20
"""Different values that must share a shape before it counts as one."""
_LOOKED_AT = 20_000
_RUNS = re.compile(r"[A-Z]+|[a-z]+|[0-9]+|.", re.S)
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")
_CLASSES = {"A": "[A-Z]", "a": "[a-z]", "0": "[0-9]"}


def pattern_of(values: pa.ChunkedArray) -> str | None:
    """A regular expression (RE2) that all values match as a whole; None if they share no shape.

    A shape is a sequence of runs of capitals, small letters or digits, and of other characters. It
    must say something: a fixed length somewhere, or more than one run.

    >>> pattern_of(pa.chunked_array([[f"C-{n}" for n in range(1000, 1100)]]))
    'C-[0-9]{4}'
    >>> pattern_of(pa.chunked_array([["red", "or", "green"] * 50])) is None
    True
    """
    distinct = values.unique().drop_null()
    if len(distinct) < LEAST:
        return None
    step = max(1, len(distinct) // _LOOKED_AT)
    texts = distinct.take(pa.array(range(0, len(distinct), step))).to_pylist()
    first = _runs(texts[0])
    if not first or len(first) > 12:
        return None
    held: list[set[str]] = [set() for _ in first]
    for text in texts:
        runs = _runs(text)
        if [_kind(run) for run in runs] != [_kind(run) for run in first]:
            return None
        for seen, run in zip(held, runs, strict=True):
            seen.add(run)
    pattern = "".join(_part(seen) for seen in held)
    if len(held) == 1 and pattern.endswith("+"):
        return None
    every = pc.match_substring_regex(distinct, rf"\A(?:{pattern})\z")
    return pattern if pc.all(every).as_py() else None


def _runs(text: str) -> list[str]:
    return _RUNS.findall(text)


def _kind(run: str) -> str:
    first = run[0]
    if first.isascii() and first.isalnum():
        return "0" if first.isdigit() else "A" if first.isupper() else "a"
    return first


def _part(seen: set[str]) -> str:
    """One run: as it is if it is always the same, else its class and length."""
    if len(seen) == 1:
        return _SPECIAL.sub(r"\\\g<0>", next(iter(seen)))
    lengths = {len(run) for run in seen}
    count = f"{{{lengths.pop()}}}" if len(lengths) == 1 else "+"
    return f"{_CLASSES[_kind(next(iter(seen)))]}{count}"
