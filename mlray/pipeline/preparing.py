"""Steps of the `sources` section on clean rows, as the predictor applies them to requests."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from mlray.config import Project
from mlray.sources.steps import Steps
from mlray.splits import Parts, SplitPlan


def steps_of(project: Project) -> Steps:
    """The steps after the joins.

    Raises:
        ConfigError: an expression or a type is none, or a name cannot be.
    """
    return Steps.of(project.sources, "sources", project.folder)


@dataclass(frozen=True)
class Prepared:
    """What training learns from: columns after the steps, the target always among them.

    Travels to workers.
    """

    steps: Steps
    target: str

    def __call__(self, table: pa.Table) -> pa.Table:
        made = self.steps.rowwise(table)
        if self.target in made.column_names:
            return made
        return made.append_column(
            self.target, self.steps.having(table, [self.target]).column(self.target)
        )


@dataclass(frozen=True)
class Assigning:
    """Parts of clean rows by a plan whose columns the steps may have made. Travels to workers."""

    plan: SplitPlan
    steps: Steps

    def __call__(self, table: pa.Table) -> Parts:
        """The part of each row, as its place in `splits.PARTS`; shape (N,)."""
        named = [c for c in (self.plan.column, self.plan.known_at) if c]
        if not named:  # by the hash of the row as it was read
            return self.plan.assign(table)
        return self.plan.assign(self.steps.having(table, named))
