"""The quality stage: one pass reads, joins and checks; clean rows to Parquet, broken ones aside."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlray import quality, storage
from mlray.errors import InputError
from mlray.pipeline import personal, references
from mlray.pipeline.blocks import Cleaning, Done
from mlray.pipeline.outputs import CLEAN, QUALITY_PAGE
from mlray.pipeline.passes import results, sparingly
from mlray.pipeline.preparing import steps_of
from mlray.pipeline.repeating import without_repeats
from mlray.pipeline.stages import Work
from mlray.quarantine import Repairs, folder_of
from mlray.report.words import size
from mlray.sources.fingerprint import Content
from mlray.sources.personal import keys_of
from mlray.stats.profile import Profile


@dataclass
class _Passed:
    """What the pass over the rows came to."""

    files: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    report: quality.QualityReport | None = None
    filtered: int = 0
    peak_bytes: int = 0

    def add(self, done: Done) -> None:
        self.report = done.report if self.report is None else self.report.merge(done.report)
        self.files += [done.file] if done.file else []
        self.aside += [done.aside] if done.aside else []
        self.filtered += done.filtered
        self.peak_bytes = max(self.peak_bytes, done.peak_bytes)


@dataclass
class _Facts:
    """What is known of clean rows beside their profile."""

    content: Content | None = None
    looks: list[personal.Looks] = field(default_factory=list)

    def profiles(self, cleaning: Cleaning, files: list[str]) -> Iterator[Profile]:
        """Of one file after the other, so that the driver never holds them all."""
        for file in files:
            told = cleaning.facts_of(file)
            content = Content.from_text(told["content"])
            self.content = content if self.content is None else self.content + content
            self.looks.append(told["personal"])
            yield Profile.from_json(told["profile"])


def clean_rows(work: Work) -> dict[str, Any]:
    """One pass: read, join, check; clean rows to Parquet, broken ones to quarantine."""
    from mlray.sources import open_rows

    project = work.project
    spilled = _spilled_bytes()
    rows = open_rows(project, traced=True)
    cleaning = _cleaning(work, rows)
    passed = _pass(work, rows.dataset, cleaning)
    if passed.report is None:
        raise InputError("the sources have no rows", value=[f.path for f in rows.inputs])
    done = without_repeats(cleaning, passed.files, passed.report)
    _remove_unnamed(cleaning.clean, done.files)
    _remove_unnamed(cleaning.quarantine, [*passed.aside, *done.aside])
    facts = _Facts()
    profile = Profile.merged(facts.profiles(cleaning, done.files))
    unmarked = personal.unmarked(project, facts.looks, rows.protected)
    known = references.profiles(work, project.quality.rules)
    report = quality.settled(done.report, now=datetime.now(UTC), profile=profile, references=known)
    _write_outputs(work, report, profile, done.files)
    _write_page(work, report, profile, cleaning.quarantine, rows.protected, unmarked)
    findings = quality.decide(report, project.quality)
    personal.check(project, unmarked)
    memory = {"peak_bytes": passed.peak_bytes, "spilled_bytes": _spilled_bytes() - spilled}
    return {
        "rows": report.rows,
        "clean": profile.rows,
        "filtered": passed.filtered,
        "columns": rows.schema.names,
        "protected": dict(rows.protected),
        "pii_key": keys.id if (keys := keys_of(project)) else None,
        "quarantine": cleaning.quarantine if report.quarantined else None,
        "findings": [*findings, *unmarked],
        "content": facts.content.text if facts.content else None,
        "memory": memory,
        "summary": _summary(profile.rows, report.quarantined, passed.filtered, memory),
    }


def _cleaning(work: Work, rows: Any) -> Cleaning:
    """What every task does, with everything it looks up."""
    project = work.project
    rules = quality.compile_rules(
        project.quality.rules,
        rows.schema,
        folder=project.folder,
        keys=references.keys(project, rows.schema),
        private=tuple(rows.protected),
    )
    return Cleaning(
        tuple(rules),
        steps_of(project),
        clean=_emptied(work.path(CLEAN)),
        quarantine=_emptied(folder_of(work.home, project.name, work.key)),
        beside=_emptied(storage.join(work.scratch, "beside")),
        repairs=Repairs.of(work.home, project.name),
    )


def _pass(work: Work, dataset: Any, cleaning: Cleaning) -> _Passed:
    passed, tell, rows = _Passed(), sparingly(work.say), 0
    for done in results(f"{work.project.name}-quality", dataset, cleaning):
        passed.add(done)
        rows += done.rows
        tell(f"{rows:,} rows")
    return passed


def _write_outputs(
    work: Work, report: quality.QualityReport, profile: Profile, files: list[str]
) -> None:
    storage.write_bytes(work.path("profile.json"), profile.to_json().encode())
    storage.write_json(work.path("report.json"), report.to_dict())
    storage.write_json(work.path("files.json"), files)


def _write_page(
    work: Work,
    report: quality.QualityReport,
    profile: Profile,
    quarantine: str,
    private: Collection[str],
    findings: Sequence[str],
) -> None:
    """Beside the run's report too, and before anything stops the run: that is when it is read."""
    from mlray.report.quality import QualityPage, render_quality

    page = render_quality(
        QualityPage(
            project=work.project.name,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            report=report.to_dict(),
            profile=profile,
            quarantine=quarantine if report.quarantined else "",
            max_quarantined=work.project.quality.max_quarantined,
            private=private,
            findings=findings,
            examples=references.quarantined_examples(quarantine),
        )
    ).encode()
    storage.write_bytes(work.path(QUALITY_PAGE), page)
    if folder := work.services.get("folder"):
        storage.write_bytes(storage.join(folder, QUALITY_PAGE), page)


def _remove_unnamed(folder: str, files: list[str]) -> None:
    """Files that were written anew, and what repeated tasks left."""
    kept = set(files)
    for file in Path(folder).glob("*.parquet"):
        if file.name not in kept:
            file.unlink()


def _summary(clean: int, quarantined: int, filtered: int, memory: dict[str, int]) -> str:
    parts = [f"{clean:,} clean rows"]
    parts += [f"{quarantined:,} in quarantine"] if quarantined else []
    parts += [f"{filtered:,} filtered out"] if filtered else []
    parts.append(f"at most {size(memory['peak_bytes'])} a task")
    parts += [f"{size(memory['spilled_bytes'])} spilled"] if memory["spilled_bytes"] else []
    return ", ".join(parts)


def _spilled_bytes() -> int:
    """What this cluster's object store has written to disk so far."""
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    state = get_state_from_address(ray.get_runtime_context().gcs_address)
    return int(get_memory_info_reply(state).store_stats.spilled_bytes_total)


def _emptied(folder: str) -> str:
    storage.remove(folder)
    Path(folder).mkdir(parents=True)
    return folder
