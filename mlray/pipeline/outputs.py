"""What finished stages left behind, read back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from mlray import storage
from mlray.pipeline.preparing import Assigning
from mlray.pipeline.stages import Done
from mlray.sources.steps import Steps
from mlray.splits import PARTS, SplitPlan
from mlray.stats.profile import Profile

if TYPE_CHECKING:
    from mlray.evaluation import Evaluation
    from mlray.models.encoder import Encoder

CLEAN, BUNDLE = "clean", "bundle"
QUALITY_PAGE = "quality.html"
"""The page on quality: in the quality stage's folder, and beside the run's report."""
_READ_ROWS = 1 << 18


def profile_of(stage: Done) -> Profile:
    """Of all clean rows (quality) or of the training rows (split)."""
    return Profile.from_json(storage.read_bytes(stage.path("profile.json")).decode())


def plan_of(split: Done) -> SplitPlan:
    return SplitPlan.from_json(storage.read_bytes(split.path("plan.json")))


def encoder_of(encode: Done) -> Encoder:
    from mlray.models.encoder import Encoder

    return Encoder.from_json(storage.read_bytes(encode.path("encoder.json")))


def evaluation_of(evaluate: Done) -> Evaluation:
    from mlray.evaluation import Evaluation

    return Evaluation.from_dict(storage.read_json(evaluate.path("evaluation.json")))


def bundle_folder(evaluate: Done) -> str:
    return evaluate.path(BUNDLE)


def clean_files(quality: Done) -> list[str]:
    """Parquet files of the clean rows, in source order."""
    names = storage.read_json(quality.path("files.json"))
    return [quality.path(CLEAN, name) for name in names]


def rows_of_part(steps: Steps, quality: Done, split: Done, part: str) -> Iterator[pa.Table]:
    """The clean raw rows of a part, as a stream of tables that are never empty."""
    assign, code = Assigning(plan_of(split), steps), PARTS.index(part)
    for file in clean_files(quality):
        for batch in pq.ParquetFile(file).iter_batches(_READ_ROWS):
            table = pa.Table.from_batches([batch])
            held = table.filter(pa.array(assign(table) == code))
            if held.num_rows:
                yield held
