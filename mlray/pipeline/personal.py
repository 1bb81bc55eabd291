"""Columns that look like personal data and are not marked: warned about, or the end of the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from mlray.config import Project
from mlray.errors import QualityError
from mlray.stats import personal

Looks = Mapping[str, Mapping[str, Any]]
"""Evidence by column, as plain data that JSON can hold."""


def look(table: pa.Table) -> Looks:
    """What a few values of each column of a table look like; holds no value."""
    return {name: asdict(found) for name, found in personal.look(table).items()}


def unmarked(project: Project, looks: Iterable[Looks], protected: Iterable[str]) -> list[str]:
    """One sentence for each column that looks like personal data and is not protected.

    Args:
        project: whose `quality.personal` says whether to look.
        looks: of all blocks of rows.
        protected: columns that hold hashes or tokens.
    """
    if project.quality.personal == "off":
        return []
    evidence = personal.merged(
        {name: personal.Evidence(**found) for name, found in one.items()} for one in looks
    )
    return [f"{found} (not marked `pii`)" for found in personal.findings(evidence, protected)]


def check(project: Project, sentences: list[str]) -> None:
    """`QualityError` if there are any, and the project file says to stop."""
    if sentences and project.quality.personal == "stop":
        raise QualityError(
            "columns look like personal data and are not marked",
            value=sentences,
            do="mark them in `pii` of their source (drop, hash or token); if they are something "
            "else, set quality.personal to warn",
        )
