"""The stages around clean rows: which sources there are, the split, the encoded shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mlray import splits, storage
from mlray.config import Project
from mlray.derive import Derived, derive
from mlray.models.encoder import Encoder
from mlray.models.roles import Left, Role, choose_roles
from mlray.models.target import Target
from mlray.pipeline.outputs import clean_files, plan_of, profile_of
from mlray.pipeline.passes import results, sparingly
from mlray.pipeline.preparing import Assigning, Prepared, steps_of
from mlray.pipeline.stages import Done, Work
from mlray.stats.profile import Profile


def note_sources(work: Work) -> dict[str, Any]:
    """What there is to read; its fingerprint is part of every later key."""
    found = work.services["found"]
    return {
        "fingerprint": found.fingerprint,
        "inputs": [asdict(file) for file in found.inputs],
        "summary": _files_in_words(len(found.inputs), sum(f.size_bytes for f in found.inputs)),
    }


def _files_in_words(files: int, size_bytes: int) -> str:
    return f"{files} file{'s' if files != 1 else ''}, {size_bytes / 1e6:,.1f} MB"


# --- split --------------------------------------------------------------------------------------


def clean_dataset(quality_stage: Done) -> Any:
    """The clean rows as a Ray Dataset, in source order."""
    import ray.data

    return ray.data.read_parquet(clean_files(quality_stage))


def derived_project(project: Project, quality_stage: Done) -> Derived:
    """The project with nothing left open, from the profile of its clean rows."""
    return derive(project, profile_of(quality_stage))


@dataclass(frozen=True)
class _Parting:
    """Counts a block's parts and profiles what the network may learn from. Runs in workers."""

    assign: Assigning
    prepared: Prepared

    def __call__(self, table: pa.Table) -> tuple[Any, Profile]:
        parts = self.assign(table)
        train = table.filter(pa.array(parts == splits.TRAIN))
        profile = Profile.of(self.prepared(train))
        return np.bincount(parts, minlength=len(splits.PARTS)), profile


def split_rows(work: Work) -> dict[str, Any]:
    """Decide which rows train, validate and test; profile the training rows."""
    project = work.project
    before = work.before["quality"]
    plan = splits.plan(project.split, profile_of(before), known_at=project.model.label_known_at)
    counts = np.zeros(len(splits.PARTS), dtype=np.int64)
    steps = steps_of(project)
    parting = _Parting(Assigning(plan, steps), Prepared(steps, project.model.target))

    tell = sparingly(work.say)

    def profiles() -> Iterator[Profile]:
        """Merged as they come: a profile of each block is more than the driver should hold."""
        for counted, profile in results(f"{project.name}-split", clean_dataset(before), parting):
            counts[:] += counted
            tell(f"{counts.sum():,} rows")
            yield profile

    train = Profile.merged(profiles())
    plan.check(counts.tolist())
    storage.write_bytes(work.path("plan.json"), plan.to_json().encode())
    storage.write_bytes(work.path("profile.json"), train.to_json().encode())
    parts = dict(zip(splits.PARTS, counts.tolist(), strict=True))
    told = ", ".join(f"{n:,} {part}" for part, n in parts.items() if n)
    return {"parts": parts, "reasons": list(plan.reasons), "summary": told}


# --- encode -------------------------------------------------------------------------------------


def encode_rows(work: Work) -> dict[str, Any]:
    """Fit the encoder on the training profile, and write encoded shards in one pass."""
    from mlray.training.shards import write_shards

    project, parts = work.project, work.before["split"]
    encoder, roles, left = fitted_encoder(
        project, profile_of(parts), profile_of(work.before["quality"])
    )
    storage.write_bytes(work.path("encoder.json"), encoder.to_json().encode())
    steps, rows = steps_of(project), clean_dataset(work.before["quality"])
    rows.set_name(f"{project.name}-encode")
    write_shards(
        rows,
        encoder,
        work.path("shards"),
        Assigning(plan_of(parts), steps),
        transform=Prepared(steps, project.model.target),
        expected_rows=work.before["quality"].result["clean"],
    )
    inputs = encoder.inputs()
    return {
        "roles": [asdict(role) for role in roles],
        "left": [asdict(out) for out in left],
        "summary": f"{len(inputs.numeric)} numeric and {len(inputs.category)} categorical features"
        f" of {len(roles)} columns; {len(left)} left out",
    }


def fitted_encoder(
    project: Project, train: Profile, whole: Profile
) -> tuple[Encoder, list[Role], list[Left]]:
    """The encoder, and which columns it reads or leaves out and why.

    Args:
        project: with nothing left open.
        train: profile of the training rows after the steps: centres, scales, categories.
        whole: profile of all clean rows: which classes there are at all.
    """
    model = project.model
    times = [t for t in (model.label_known_at, project.sources.rows.time) if t]
    if project.split.by == "time" and project.split.column:
        times.append(project.split.column)
    set_aside = [project.split.column] if project.split.by in ("group", "column") else []
    roles, left = choose_roles(
        train,
        model.target,
        times=[t for t in times if t in train.columns],
        kinds=model.kinds,
        ignore=[*model.ignore, *(c for c in set_aside if c and c in train.columns)],
        features=model.features,
    )
    of = train if model.task == "regression" else whole
    target, _ = Target.fit(of.columns[model.target], model.task, model.positive)
    return Encoder.fit(train, roles, target), roles, left
