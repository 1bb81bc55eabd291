"""What quality rules compare rows with: other sources' values, and earlier profiles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mlray import quality, storage
from mlray.config import Project
from mlray.config.quality import Rule
from mlray.errors import InputError
from mlray.pipeline.passes import results
from mlray.pipeline.stages import Work
from mlray.quality.keys import hashes_of
from mlray.sources import guarded
from mlray.sources.opened import require_columns
from mlray.sources.repeats import Hashes
from mlray.sources.steps import Steps
from mlray.stats.profile import Profile

_EXAMPLES = 20


def keys(project: Project, schema: pa.Schema) -> dict[tuple[str, str, str], quality.KeySet]:
    """What `exists_in` rules look up, hashed by tasks and shared once.

    Raises:
        InputError: it has no such column, or its values are of another type.
    """
    wanted = quality.wanted_keys(project.quality.rules, schema)
    return {(n, c, str(kind)): _keys(project, n, c, kind).shared() for n, c, kind in wanted}


def _keys(project: Project, name: str, column: str, kind: pa.DataType) -> quality.KeySet:
    opened = guarded.open_source(name, project)
    steps = Steps.of(project.sources.tables[name], f"sources.{name}", project.folder)
    dataset = opened.dataset()
    dataset.context.raise_original_map_exception = True
    hashing = _Hashing(name, steps, column, kind)
    return quality.KeySet.of(results(f"{project.name}-keys-of-{name}", dataset, hashing))


@dataclass(frozen=True)
class _Hashing:
    """Distinct keys of a block as hashes. Runs in Ray workers."""

    source: str
    steps: Steps
    column: str
    kind: pa.DataType

    def __call__(self, table: pa.Table) -> Hashes:
        table = self.steps.apply(table)
        who = f"source `{self.source}`, where values must exist in,"
        require_columns([self.column], table.schema, who)
        return hashes_of(table.column(self.column), self.kind)


def profiles(work: Work, rules: Iterable[Rule]) -> dict[str, Profile | None]:
    """What `like` rules name -> the profile; None for `champion` while there is none."""
    names = dict.fromkeys(rule.like for rule in rules if rule.like is not None)
    return {name: _profile(work, name) for name in names}


def _profile(work: Work, name: str) -> Profile | None:
    if name == "champion":
        return _of_champion(work)
    path = name if storage.is_remote(name) else str(Path(work.project.folder) / name)
    if not storage.exists(path):
        raise InputError("the reference of a `like` rule is not there", value=path)
    try:
        return Profile.from_json(storage.read_bytes(path).decode())
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"this is no profile ({error})", value=path) from None


def _of_champion(work: Work) -> Profile | None:
    from mlray.models.bundle import load_bundle
    from mlray.registry import Registry

    registry = Registry.of(work.services["tracker"])
    champion = registry.champion(work.project.name)
    return None if champion is None else load_bundle(registry.local_path(champion)).profile


def quarantined_examples(folder: str) -> pa.Table | None:
    """The first quarantined rows, for people to look at; None if there are none."""
    taken: list[pa.Table] = []
    for file in sorted(Path(folder).glob("*.parquet")):
        taken.append(pq.read_table(file).slice(0, _EXAMPLES))
        if sum(map(len, taken)) >= _EXAMPLES:
            break
    if not taken:
        return None
    return pa.concat_tables(taken, promote_options="permissive").slice(0, _EXAMPLES)
