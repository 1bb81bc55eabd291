"""The labels stage: training rows are searched for wrong labels and for poisoning.

It reads what the encode stage wrote. Rows are never changed: with `quarantine` suspected rows lie
beside those that broke a rule, and the network trains on shards without them. Validation and test
rows stay as they are, so that versions are judged on the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlray import quarantine, storage
from mlray.errors import QualityError, TrainingError
from mlray.pipeline.model import training_job
from mlray.pipeline.outputs import clean_files, encoder_of, plan_of
from mlray.pipeline.preparing import Assigning, steps_of
from mlray.pipeline.stages import Work
from mlray.splits import PARTS
from mlray.stats.examination import (
    Delivery,
    Examined,
    Features,
    Judged,
    examine,
    judge,
    searched,
)

if TYPE_CHECKING:
    from mlray.models.encoder import Encoder
    from mlray.training.shards import Shards

RULE = "labels"
"""What quarantined rows bear as `_rule`."""
MOST_LEFT_OUT = 0.5
"""If a larger share of the training rows is suspected, the search is wrong or the data is."""
_READ_ROWS = 1 << 18

Mask = npt.NDArray[np.bool_]


def search_labels(work: Work) -> dict[str, Any]:
    """Out-of-fold scores, findings, and what `quality.labels.action` does about them.

    Raises:
        QualityError: `action: stop` and a finding above the limits; or so many rows are suspected
            that nothing would be left to learn from.
    """
    from mlray.training.folds import out_of_fold
    from mlray.training.shards import Shards

    settings = work.project.quality.labels
    encoder = encoder_of(work.before["encode"])
    job = replace(training_job(work), name=f"{work.project.name}-labels")
    scores = out_of_fold(job, settings.folds, work.say)
    shards = Shards.open(job.shards, "train")
    label = np.concatenate([rows.label for rows in shards.files])
    judged = judge(label, [str(c) for c in encoder.classes], scores)
    work.say("looking for marks of poisoning")
    raw = _Raw.read(work, encoder, label)
    rows = searched(len(label))
    examined = examine(
        _features(encoder, shards, rows),
        rows,
        judged,
        max_suspects=settings.max_suspects,
        origin=raw.delivery(settings.origin),
        batch=raw.delivery(settings.batch),
        seed=work.project.training.seed,
    )
    findings = [finding.to_dict(raw.places) for finding in examined.findings]
    storage.write_json(work.path("findings.json"), findings)
    np.save(work.path("suspicion.npy"), examined.suspicion)
    if settings.action == "stop":
        _refuse(examined)
    aside = examined.set_aside if settings.action == "quarantine" else np.zeros(len(label), bool)
    folder = _leave_out(work, aside, examined, judged) if aside.any() else None
    return {
        "rows": len(label),
        "suspected": int(examined.suspected.sum()),
        "left_out": int(aside.sum()),
        "noise": examined.noise.share if examined.noise else None,
        "findings": findings,
        "quarantine": folder,
        "summary": _summary(len(label), examined, int(aside.sum())),
    }


def _features(encoder: Encoder, shards: Shards, rows: npt.NDArray[np.int64]) -> Features:
    taken = shards.take(rows)
    return Features(
        taken.numeric,
        taken.category,
        tuple(feature.name for feature in encoder.numeric),
        tuple((feature.name, encoder.labels(feature.name)) for feature in encoder.category),
        encoder.to_human,
    )


def _summary(rows: int, examined: Examined, left_out: int) -> str:
    grave = sum(finding.grave for finding in examined.findings)
    told = f"{int(examined.suspected.sum()):,} of {rows:,} labels suspected"
    told += f", {len(examined.findings)} findings" if examined.findings else ", nothing found"
    told += f" ({grave} above the limits)" if grave else ""
    return told + (f"; {left_out:,} rows do not train" if left_out else "")


def _refuse(examined: Examined) -> None:
    grave = [finding.reason for finding in examined.findings if finding.grave]
    if grave:
        raise QualityError(
            "labels look wrong or poisoned",
            value=grave,
            allowed="no finding above the limits (quality.labels.max_suspects and those of "
            "`mlray explain quality.labels`)",
            do="look at these rows at their source; set quality.labels.action to `quarantine` to "
            "train without them, or to `report` if they are right",
        )


# --- raw rows of training rows ------------------------------------------------------------------


def training_rows(work: Work) -> Iterator[tuple[npt.NDArray[np.int64], pa.Table]]:
    """The clean raw rows of the training part, as the shards hold them in order, each with its
    number among all clean rows."""
    assign = Assigning(plan_of(work.before["split"]), steps_of(work.project))
    code, first = PARTS.index("train"), 0
    for file in clean_files(work.before["quality"]):
        for batch in pq.ParquetFile(file).iter_batches(_READ_ROWS):
            table = pa.Table.from_batches([batch])
            held = assign(table) == code
            yield first + np.flatnonzero(held), table.filter(pa.array(held))
            first += table.num_rows


@dataclass(frozen=True)
class _Raw:
    """What is needed of the raw training rows, in the order of the shards."""

    places: npt.NDArray[np.int64]
    """(N,) number of each row among the clean rows."""
    columns: dict[str, pa.ChunkedArray]
    """Of origin and batch."""

    @classmethod
    def read(cls, work: Work, encoder: Encoder, label: npt.NDArray[Any]) -> _Raw:
        """
        Raises:
            InputError: the column of origin or batch is not there.
            TrainingError: raw rows and shards do not belong together.
        """
        settings = work.project.quality.labels
        wanted = [name for name in (settings.origin, settings.batch) if name]
        steps, places, parts, start = steps_of(work.project), [], [], 0
        for numbers, table in training_rows(work):
            made = steps.having(table, [*wanted, encoder.target.column])
            _require_same(encoder, made, label[start : start + table.num_rows])
            start += table.num_rows
            places.append(numbers)
            parts.append(made.select(wanted))
        if start != len(label):
            raise TrainingError(f"{start:,} clean training rows, but {len(label):,} in the shards")
        whole = pa.concat_tables(parts)
        return cls(np.concatenate(places), {name: whole[name] for name in wanted})

    def delivery(self, column: str | None) -> Delivery | None:
        """Numbers and names of a column's values, in their order; times by day."""
        if column is None:
            return None
        values = self.columns[column]
        if pa.types.is_timestamp(values.type):
            values = pc.floor_temporal(values, unit="day").cast(pa.date32())
        known = pc.unique(values.drop_null())
        known = known.take(pc.sort_indices(known))
        numbers = pc.index_in(values, value_set=known).fill_null(-1)
        return Delivery(
            numbers.cast(pa.int64()).to_numpy(), tuple(str(v) for v in known.to_pylist())
        )


def _require_same(encoder: Encoder, table: pa.Table, label: npt.NDArray[Any]) -> None:
    """The label tells whether a raw row is the encoded one of the same number."""
    if table.num_rows and not np.array_equal(
        encoder.encode_target(table[encoder.target.column]), label
    ):
        raise TrainingError(
            "clean rows and shards are not in the same order",
            do="run again with `--from encode`",
        )


# --- rows that do not train ---------------------------------------------------------------------


def _leave_out(work: Work, aside: Mask, examined: Examined, judged: Judged) -> str:
    """Shards without the rows, and the rows in quarantine; the folder of these."""
    from mlray.training.filtered import without_rows

    kept = np.bincount(judged.labels[~aside], minlength=len(judged.classes))
    there = np.bincount(judged.labels, minlength=len(judged.classes))
    if aside.mean() > MOST_LEFT_OUT or bool(((kept == 0) & (there > 0)).any()):
        raise QualityError(
            "too many training rows are suspected to leave them out",
            value=f"{int(aside.sum()):,} of {len(aside):,}",
            allowed=f"half of the rows, and some of every class ({', '.join(judged.classes)})",
            do="set quality.labels.action: report, and look at the findings",
        )
    without_rows(work.before["encode"].path("shards"), work.path("shards"), aside)
    return _write_quarantine(work, aside, examined, judged)


def _write_quarantine(work: Work, aside: Mask, examined: Examined, judged: Judged) -> str:
    """All raw columns of the rows, beside those that broke a rule."""
    from mlray.quality.checking import ABOUT, row_ids

    folder = quarantine.folder_of(work.home, work.project.name, work.before["quality"].key)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in storage.names(folder):
        if name.startswith(f"{RULE}-"):  # of an earlier search with other settings
            storage.remove(storage.join(folder, name))
    reasons, scores = examined.reasons(judged), examined.scores()
    start = 0
    for number, (places, table) in enumerate(training_rows(work)):
        rows = start + np.flatnonzero(aside[start : start + table.num_rows])
        held = table.take(pa.array(rows - start))
        about = {
            "_rule": pa.array([RULE] * len(rows), pa.string()),
            "_reason": pa.array([reasons[row] for row in rows.tolist()], pa.string()),
            "_source": pa.array(["clean rows"] * len(rows), pa.string()),
            "_position": pa.array(places[rows - start]),
            "_id": pa.array(row_ids(held)),
        }
        columns = [about.get(f.name, pa.nulls(len(rows), f.type)).cast(f.type) for f in ABOUT]
        held = pa.table([*held.columns, *columns], schema=pa.schema([*held.schema, *ABOUT]))
        held = held.append_column("_score", pa.array(scores[rows], pa.float32()))
        start += table.num_rows
        if len(rows):
            pq.write_table(held, storage.join(folder, f"{RULE}-{number:05d}.parquet"))
    return folder
