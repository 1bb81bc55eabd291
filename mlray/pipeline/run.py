"""Run a project: stages in order, what is unchanged skipped, a killed run taken up again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlray import storage
from mlray.cluster import connected
from mlray.config import Project
from mlray.pipeline import offsets
from mlray.pipeline.data import derived_project
from mlray.pipeline.outputs import bundle_folder, rows_of_part
from mlray.pipeline.preparing import steps_of
from mlray.pipeline.stages import Done, Stage, checked_name, finished, forget, keys, perform
from mlray.pipeline.state import State, locked
from mlray.pipeline.view import View, for_terminal
from mlray.registry import check_rules
from mlray.stats.metrics import NAMES

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Run:
    """What a run came to."""

    project: Project
    """With every derived value."""
    folder: str
    stages: tuple[Done, ...]
    run_id: str = ""
    """MLflow's."""
    planned: tuple[str, ...] = ()
    """Of a dry run: stages that would run."""
    derived: Mapping[str, str] = field(default_factory=dict)
    """Why each value that the project file left open is what it is, by dotted field."""
    _told: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def skipped(self) -> tuple[str, ...]:
        """Stages that were found done."""
        return tuple(stage.name for stage in self.stages if stage.skipped)

    @property
    def version(self) -> int | None:
        """Number of the registered version."""
        return self._told.get("version")

    @property
    def promoted(self) -> bool:
        """Whether the gate made this version champion."""
        return bool(self._told.get("promoted"))

    @property
    def reasons(self) -> tuple[str, ...]:
        """The gate's."""
        return tuple(self._told.get("reasons", ()))

    @property
    def report(self) -> str | None:
        """Path of the HTML report."""
        return self._told.get("report")

    @property
    def metrics(self) -> dict[str, float]:
        """On the test part."""
        return dict(self._told.get("metrics", {}))

    @property
    def exit_code(self) -> int:
        """0 done, 3 refused by the gate."""
        return 3 if self._told and not self.promoted else 0

    def stage(self, name: str) -> Done:
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def request_columns(self) -> list[str]:
        """Columns that a request to the model must have."""
        from mlray.models.bundle import load_bundle

        folder = bundle_folder(self.stage("evaluate"))
        return list(load_bundle(folder).manifest.request_schema.names)

    def rows(self, part: str) -> Iterator[pa.Table]:
        """The clean raw rows of train, validation, test or later, as a stream of tables."""
        steps = steps_of(self.project)
        return rows_of_part(steps, self.stage("quality"), self.stage("split"), part)

    def summary(self) -> str:
        """What a person wants to know at the end."""
        if self.planned or not self.stages:
            return f"would run: {', '.join(self.planned) or 'nothing, all is up to date'}"
        lines = [*self._chosen(), ""]
        if self.skipped:
            lines.append(f"unchanged, skipped: {', '.join(self.skipped)}")
        if self._told:
            metric = self.project.evaluation.metric
            state = "champion" if self.promoted else "not promoted"
            lines.append(f"{self.project.name} version {self.version}: {state}")
            lines += [f"  {reason}" for reason in self.reasons]
            lines.append(f"test {metric}: {self.metrics.get(metric, float('nan')):.4f}")
            lines.append(f"MLflow run: {self.run_id}")
            lines.append(f"report: {self.report}")
        return "\n".join(lines)

    def _chosen(self) -> list[str]:
        """What mlray decided by itself: settings, and columns that were left out."""
        lines = []
        for name, reason in self.derived.items():
            section, field_name = name.split(".")
            value = getattr(getattr(self.project, section), field_name)
            lines.append(f"derived {name} = {value}: {reason}")
        encoded = [stage for stage in self.stages if stage.name == "encode"]
        for out in encoded[0].result["left"] if encoded else []:
            if out["column"] != self.project.model.target:
                lines.append(f"left out {out['column']}: {out['reason']}")
        return lines


def run(
    project: Project,
    *,
    until: str | None = None,
    from_: str | None = None,
    dry_run: bool = False,
    view: View | None = None,
) -> Run:
    """Run the stages of a project.

    Args:
        project: from `mlray.load`.
        until: last stage to run; all if None.
        from_: this stage and all after it run again even if they are done.
        dry_run: only say what would run.
        view: who is told what happens; by default the terminal.

    Raises:
        MlrayError: with what happened and what to do. Finished stages are kept.
    """
    from mlray.pipeline.line import stages_of
    from mlray.sources import find, pinned

    stages = _up_to(stages_of(project), until)
    home = storage.home(project.storage.path)
    project = offsets.pinned(project, home, afresh=from_ == stages[0].name, keep=not dry_run)
    found = find(project)
    known = keys(stages, project, found.fingerprint)
    if from_ is not None:
        names = [s.name for s in stages]
        first = names.index(checked_name(from_, stages))
        if not dry_run:
            for name in names[first:]:
                forget(home, name, known[name])
    if dry_run:
        missing = tuple(s.name for s in stages if not finished(home, s.name, known[s.name]))
        return Run(project, "", (), planned=missing)
    project = pinned(project, found)
    folder = storage.join(home, "runs", f"{project.name}-{known[stages[-1].name]}")
    with locked(folder), offsets.until_the_end(project, home, whole=until is None):
        return _Driver(project, home, folder, stages, known, found, view or for_terminal()).run()


def _up_to(stages: tuple[Stage, ...], until: str | None) -> tuple[Stage, ...]:
    if until is None:
        return stages
    names = [s.name for s in stages]
    return stages[: names.index(checked_name(until, stages)) + 1]


@dataclass
class _Driver:
    """One process working on one run."""

    project: Project
    home: str
    folder: str
    stages: tuple[Stage, ...]
    keys: dict[str, str]
    found: Any
    view: View
    reasons: dict[str, str] = field(default_factory=dict)

    def run(self) -> Run:
        self.view.begin([stage.name for stage in self.stages])
        state = State.read(self.folder)
        with contextlib.ExitStack() as stack:
            stack.callback(self.view.end)
            services = self._services(state, stack)
            try:
                done = self._all(state, services)
            except Exception:
                self._end(services, "FAILED")
                raise
            except BaseException:
                self._end(services, "KILLED")
                raise
            self._end(services, "FINISHED")
        told = done["register"].result if "register" in done else {}
        stages = tuple(done.values())
        return Run(self.project, self.folder, stages, state.run_id, (), self.reasons, told)

    def _services(self, state: State, stack: contextlib.ExitStack) -> dict[str, Any]:
        """What stages share; the connections are made when the first stage needs them."""
        services: dict[str, Any] = {"found": self.found, "folder": self.folder}
        services["declared"] = self.project
        services["open"] = lambda: self._open(services, state, stack)
        return services

    def _all(self, state: State, services: dict[str, Any]) -> dict[str, Done]:
        done: dict[str, Done] = {}
        for stage in self.stages:
            done[stage.name] = self._one(stage, done, services)
            self._derive(stage, done)
            self._remember(state, done[stage.name])
        return done

    def _one(self, stage: Stage, before: dict[str, Done], services: dict[str, Any]) -> Done:
        key = self.keys[stage.name]
        if kept := finished(self.home, stage.name, key):
            self.view.skipped(stage.name, kept.result.get("summary", ""))
            return kept
        self.view.started(stage.name)
        try:
            if "tracker" not in services:
                services["open"]()
            made = perform(
                stage,
                self.project,
                self.home,
                key,
                before,
                lambda text: self.view.note(stage.name, text),
                services,
            )
        except BaseException:
            self.view.failed(stage.name)
            raise
        self.view.done(stage.name, made.seconds, made.result.get("summary", ""))
        return made

    def _open(self, services: dict[str, Any], state: State, stack: contextlib.ExitStack) -> None:
        """Ray and the MLflow run, at the same time: each takes seconds, mostly of waiting."""
        with ThreadPoolExecutor(1) as pool:
            tracker = pool.submit(self._open_tracker, state)
            try:
                stack.enter_context(connected(self.project))
            finally:
                services["tracker"] = tracker.result()

    def _open_tracker(self, state: State) -> Any:
        from mlray.tracking import Tracker

        tracker = Tracker.open(self.project, self.home)
        if state.run_id:
            tracker.resume(state.run_id)
        else:
            state.run_id = tracker.start(self.project.name, key=self.keys[self.stages[-1].name])
        state.attempts += 1
        state.status = "running"
        state.write(self.folder)
        return tracker

    def _end(self, services: dict[str, Any], status: str) -> None:
        """The MLflow run says how it ended; nothing was opened if all stages were skipped."""
        if "tracker" in services:
            services["tracker"].end(status)

    def _derive(self, stage: Stage, done: dict[str, Done]) -> None:
        """Fill what is open, and refuse a gate that could not judge, before anything is trained."""
        if stage.name != "quality":
            return
        derived = derived_project(self.project, done["quality"])
        self.project = derived.project
        self.reasons = dict(derived.reasons)
        check_rules(self.project.registry.promote, NAMES[self.project.model.task])

    def _remember(self, state: State, done: Done) -> None:
        state.stages[done.name] = {"key": done.key, "seconds": round(done.seconds, 2)}
        if done.name == self.stages[-1].name and not done.skipped:
            state.status = "finished"
        state.write(self.folder)
