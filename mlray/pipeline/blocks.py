"""What the quality stage does with one block of rows. Runs in Ray workers.

A task writes its own files and hands back one small row about them, so that no data passes through
the driver, and a task that Ray repeats leaves only files that nobody names.
"""

from __future__ import annotations

import json
import os
import resource
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlray import quality
from mlray.pipeline import personal
from mlray.quality.checking import row_ids, set_aside
from mlray.quarantine import Repairs
from mlray.sources import reading, repeats
from mlray.sources.fingerprint import Content
from mlray.sources.steps import Steps
from mlray.stats.profile import Profile


@dataclass(frozen=True)
class Done:
    """What a task says of its block."""

    file: str
    """Name of its clean file; empty if it has no clean rows."""
    aside: str
    """Name of its file of rows set aside; empty if there are none."""
    rows: int
    filtered: int
    report: quality.QualityReport
    peak_bytes: int
    """The most memory that the task's process ever had."""


Repeats = Sequence[tuple[quality.CompiledRule, repeats.Rows]]
"""`unique` rules and the rows of a clean file that repeat a key."""


@dataclass(frozen=True)
class Cleaning:
    """Checks a block, writes its clean and its broken rows, and sums up the clean ones."""

    rules: tuple[quality.CompiledRule, ...]
    steps: Steps
    """After the joins: which rows count at all, and what the profile sees."""
    clean: str
    """Folder of clean files."""
    quarantine: str
    """Folder of rows set aside."""
    beside: str
    """Folder of what is known of each clean file: facts, key hashes, where its rows came from."""
    repairs: Repairs
    """Rows that were handed in for quarantined ones."""

    def __call__(self, table: pa.Table) -> Done:
        read = table.num_rows
        table = self.steps.kept(table)
        if self.repairs:
            table = self.repairs.replacing(table, row_ids(table))
        checked = quality.check(table, self.rules)
        aside = write_rows(checked.quarantined, self.quarantine)
        file = self._written(checked.clean, self._trace(table, checked.kept))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return Done(file, aside, table.num_rows, read - table.num_rows, checked.report, peak)

    def rewritten(self, file: str, broken: Repeats) -> tuple[str, str]:
        """The new name of a clean file without rows that repeat a key, and of the file of these
        rows, which are set aside."""
        rows = pq.read_table(os.path.join(self.clean, file))
        trace = pq.read_table(os.path.join(self.beside, f"{file}.trace"))
        marks = [(rule, _mask(numbers, len(rows))) for rule, numbers in broken]
        schema = pa.schema([*rows.schema, *trace.schema])
        traced = pa.table([*rows.columns, *trace.columns], schema=schema)
        aside = write_rows(set_aside(traced, marks), self.quarantine)
        kept = ~np.logical_or.reduce([mark for _, mark in marks])
        return self._written(rows.filter(pa.array(kept)), None), aside

    def keys_file(self, file: str, rule: quality.CompiledRule) -> str:
        """Where the hashes of a clean file's keys are."""
        return os.path.join(self.beside, f"{file}.{self.rules.index(rule)}.npy")

    def facts_of(self, file: str) -> dict[str, Any]:
        """What `_facts` found in a clean file."""
        with open(os.path.join(self.beside, f"{file}.json")) as held:
            return dict(json.load(held))

    @property
    def unique(self) -> list[quality.CompiledRule]:
        return [rule for rule in self.rules if rule.check == "unique"]

    def _facts(self, rows: pa.Table) -> dict[str, Any]:
        """What the driver wants to know of clean rows; of all blocks it is merged."""
        return {
            "profile": Profile.of(self.steps.wide(rows)).to_json(),
            "content": Content.of(rows).text,
            "personal": personal.look(rows),
        }

    def _written(self, rows: pa.Table, trace: pa.Table | None) -> str:
        """Clean rows to a file of their own, and what is known of them beside it."""
        file = write_rows(rows, self.clean)
        if not file:
            return ""
        with open(os.path.join(self.beside, f"{file}.json"), "w") as held:
            json.dump(self._facts(rows), held)
        if trace is not None:
            pq.write_table(trace, os.path.join(self.beside, f"{file}.trace"))
            for rule in self.unique:
                repeats.write_hashes(self.keys_file(file, rule), rows, rule.columns)
        return file

    def _trace(self, table: pa.Table, kept: Any) -> pa.Table | None:
        """Where clean rows came from, for the case that one of them repeats a key."""
        if not self.unique:
            return None
        known = [n for n in (reading.ORIGIN, reading.POSITION) if n in table.column_names]
        trace = table.select(known)
        return trace if kept is None else trace.filter(pa.array(kept))


def write_rows(table: pa.Table, folder: str) -> str:
    """A Parquet file of its own name; empty name for no rows."""
    if table.num_rows == 0:
        return ""
    name = f"{uuid.uuid4().hex}.parquet"
    temporary = os.path.join(folder, f".{name}.tmp")
    pq.write_table(table, temporary, compression="zstd", compression_level=1)
    os.replace(temporary, os.path.join(folder, name))
    return name


def repeats_in_range(
    cleaning: Cleaning,
    files: Sequence[str],
    rule: quality.CompiledRule,
    bounds: tuple[int, int],
) -> tuple[dict[int, repeats.Rows], tuple[str, ...]]:
    """Rows of clean files that repeat a key whose hash is in a range, and examples."""

    def keys(number: int) -> pa.Table:
        file = os.path.join(cleaning.clean, files[number])
        return pq.read_table(file, columns=list(rule.columns))

    hashes = [cleaning.keys_file(file, rule) for file in files]
    found = repeats.repeated_rows(hashes, keys, bounds)
    shown = next(iter(found.items()), None)
    if shown is None:
        return {}, ()
    from mlray.quality.checking import examples

    return found, examples(rule, keys(shown[0]).take(pa.array(shown[1][:20])))


def _mask(rows: Iterable[int], count: int) -> Any:
    mask = np.zeros(count, bool)
    mask[np.asarray(rows)] = True
    return mask
