"""The `unique` rules of a run, over all of its clean files.

No row is held for it: hashes of keys lie beside the clean files; tasks find the hashes that occur
twice, and only the few files that hold repeats are written again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mlray import quality
from mlray.errors import EXAMPLES
from mlray.pipeline.blocks import Cleaning, repeats_in_range
from mlray.sources.repeats import Rows, ranges


@dataclass
class _Found:
    """What a `unique` rule found."""

    rule: quality.CompiledRule
    rows: dict[int, list[Rows]] = field(default_factory=dict)
    """Number of a clean file -> its rows that repeat a key."""
    examples: tuple[str, ...] = ()

    @property
    def broken(self) -> int:
        return sum(len(part) for parts in self.rows.values() for part in parts)


@dataclass(frozen=True)
class Without:
    """Rows without repeats."""

    files: list[str]
    """Clean files, in source order, those with repeats written anew."""
    aside: list[str]
    """Files of the rows taken out of them."""
    report: quality.QualityReport
    """With `unique` rules judged."""


def without_repeats(
    cleaning: Cleaning, files: Sequence[str], report: quality.QualityReport
) -> Without:
    """Judge the `unique` rules, and set rows aside that repeat a key.

    Args:
        cleaning: what wrote the files.
        files: names of clean files, in source order.
        report: of all rows.
    """
    if not cleaning.unique or not files:
        return Without(list(files), [], report)
    rows = report.rows - report.quarantined
    found = [_search(cleaning, files, rule, rows) for rule in cleaning.unique]
    named, held, aside = _rewritten(cleaning, files, found)
    told = {each.rule.name: each for each in found}
    rules = tuple(
        dataclasses.replace(r, broken=told[r.name].broken, examples=told[r.name].examples)
        if r.name in told
        else r
        for r in report.rules
    )
    quarantined = report.quarantined + aside
    return Without(named, held, dataclasses.replace(report, rules=rules, quarantined=quarantined))


def _search(
    cleaning: Cleaning, files: Sequence[str], rule: quality.CompiledRule, rows: int
) -> _Found:
    """One task for each range of hashes, so that none holds more than its part of the keys."""
    import ray

    from mlray.sources import plain_errors

    task = ray.remote(num_cpus=1)(repeats_in_range)
    found = _Found(rule)
    shared = ray.put(cleaning)
    with plain_errors():
        waiting = [task.remote(shared, list(files), rule, bounds) for bounds in ranges(rows)]
        for repeated, examples in (ray.get(reference) for reference in waiting):
            for number, places in repeated.items():
                found.rows.setdefault(number, []).append(places)
            found.examples = (found.examples + examples)[:EXAMPLES]
    return found


def _rewritten(
    cleaning: Cleaning, files: Sequence[str], found: Sequence[_Found]
) -> tuple[list[str], list[str], int]:
    """Names of the clean files, of files of rows taken out of them, and how many rows that are."""
    import ray

    from mlray.sources import plain_errors

    broken: dict[int, list[tuple[quality.CompiledRule, Rows]]] = {}
    for each in found:
        if each.rule.severity == "quarantine":
            for number, parts in each.rows.items():
                broken.setdefault(number, []).append((each.rule, np.concatenate(parts)))
    task = ray.remote(num_cpus=1)(Cleaning.rewritten)
    named, held_aside, aside = list(files), [], 0
    with plain_errors():
        waiting = {n: task.remote(cleaning, files[n], held) for n, held in broken.items()}
        for number, reference in waiting.items():
            named[number], taken = ray.get(reference)
            held_aside.append(taken)
            aside += len(np.unique(np.concatenate([rows for _, rows in broken[number]])))
    return [name for name in named if name], held_aside, aside
