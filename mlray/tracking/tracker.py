"""One tracked run at a time: parameters, metrics, data, artifacts, and how it ended."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from mlray import storage
from mlray.config import Project
from mlray.errors import TrackingError
from mlray.tracking import store
from mlray.tracking.provenance import Driver, tags

Status = Literal["FINISHED", "FAILED", "KILLED"]
KEY, ENDED = "mlray.key", "mlray.ended"
# MLflow's limits; a longer value is refused, so it is cut here.
_KEY_CHARS, _PARAM_CHARS, _TAG_CHARS, _DIGEST_CHARS = 250, 6000, 8000, 36
_PARAMS_PER_CALL, _METRICS_PER_CALL = 100, 1000
_T = TypeVar("_T")


@dataclass
class Tracker:
    """Writes one run at a time to an MLflow store, always from the driver process.

    No call touches MLflow's global state: the user's own `mlflow.*` calls are not disturbed.
    Every method raises `TrackingError` when the store refuses or no longer answers.
    """

    uri: str
    home: str
    experiment: str
    experiment_id: str
    folder: str
    client: Any = field(repr=False)
    run_id: str | None = None

    @classmethod
    def open(cls, project: Project, home: str) -> Tracker:
        """Reach the store, creating what is not there yet, and end what dead drivers left running.

        Args:
            project: its `tracking` section says where.
            home: the storage folder; a SQLite store and artifacts live in it by default.

        Raises:
            TrackingError: the address does not answer within `store.PROBE_S` seconds.
            ConfigError: the address is none.
        """
        uri = store.address(project.tracking.uri, home, project.folder)
        client = store.connect(uri)
        name = project.tracking.experiment or project.name
        identifier = _experiment(client, uri, home, name)
        tracker = cls(uri, home, name, identifier, project.folder, client)
        tracker.stale()
        return tracker

    def start(self, name: str, key: str = "", tags: Mapping[str, str] | None = None) -> str:
        """Begin a run, or go on with the one that was killed while it worked on the same key.

        Args:
            name: what people call the run.
            key: identifies the work; a run of this key that ended as KILLED is taken up again.
            tags: more tags.

        Returns:
            The run's id, which `resume` takes.
        """
        wanted = self._tags(tags or {}) | ({KEY: key} if key else {})
        with self._alone(), store.explained(self.uri, "start a run"):
            interrupted = self._killed_with(key) if key else None
            if interrupted:
                return self._take_up(interrupted, wanted)
            run = self.client.create_run(self.experiment_id, tags=wanted, run_name=name)
            self.run_id = str(run.info.run_id)
            return self.run_id

    def resume(self, run_id: str) -> str:
        """Go on with a run of this or another process, also with one that had ended.

        Raises:
            TrackingError: there is no such run, or another live driver writes to it.
        """
        with self._alone(), store.explained(self.uri, "resume the run"):
            run = self.client.get_run(run_id)
            driver = Driver.of(run.data.tags)
            if run.info.status == "RUNNING" and driver and not self._may_follow(driver):
                raise TrackingError(
                    "another live process writes to this run",
                    value=f"{run_id}, process {driver.pid} on {driver.host}",
                    do="wait for it or end it; or start a run of another key",
                )
            return self._take_up(run_id, self._tags({}))

    def params(self, values: Mapping[str, Any]) -> None:
        """Record what the run was given; nested mappings become `outer.inner`.

        What MLflow has no room for is cut, marked with length and hash, and kept whole in the
        artifact `params.json`. MLflow lets no parameter change: where a resumed run is given
        another value, the first one stays and the tag `mlray.changed.NAME` holds the new one.
        """
        from mlflow.entities import Param

        texts = {name: _text(value) for name, value in _flat(values)}
        given = {_name(n): _fitted(t, _PARAM_CHARS) for n, t in texts.items()}
        with store.explained(self.uri, "record parameters"):
            known = self.client.get_run(self._run).data.params
            new = [Param(n, t) for n, t in given.items() if n not in known]
            for some in _batches(new, _PARAMS_PER_CALL):
                self.client.log_batch(self._run, params=some)
            if any(len(t) > _PARAM_CHARS or _name(n) != n for n, t in texts.items()):
                self.client.log_dict(self._run, texts, "params.json")
        self.tag({f"mlray.changed.{n}"[:_KEY_CHARS]: t for n, t in given.items()
                  if known.get(n, t) != t})  # fmt: skip

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record numbers at a step (epoch), in as few calls as MLflow allows."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        metrics = [Metric(_name(n), float(v), now_ms, step) for n, v in values.items()]
        with store.explained(self.uri, "record metrics"):
            for some in _batches(metrics, _METRICS_PER_CALL):
                self.client.log_batch(self._run, metrics=some)

    def steps(self, metric: str) -> set[int]:
        """Steps of the open run at which a metric was recorded already, as before a crash."""
        with store.explained(self.uri, "read the run's metrics"):
            history = self.client.get_metric_history(self._run, _name(metric))
        return {int(point.step) for point in history}

    def dataset(
        self, name: str, source: str, fingerprint: str, rows: int | None, context: str
    ) -> None:
        """Record which rows the run saw.

        Args:
            name: of the table.
            source: path or address that it came from.
            fingerprint: changes when the rows do; MLflow shows its first 36 characters.
            rows: their number, if it is known.
            context: what for: training, validation, test; or source, for what they came from.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        about = json.dumps({"rows": rows, "fingerprint": fingerprint})
        where = json.dumps({"uri": store.shown(source)})
        entry = Dataset(name, fingerprint[:_DIGEST_CHARS], "mlray", where, profile=about)
        used = DatasetInput(entry, tags=[InputTag("mlflow.data.context", context)])
        with store.explained(self.uri, "record the data set"):
            self.client.log_inputs(self._run, datasets=[used])

    def artifact(self, path: str, folder: str | None = None) -> None:
        """Copy a local file, or all that is in a local folder, to the run's artifacts.

        Args:
            path: what to copy.
            folder: where to, below the run's artifacts; by default their top.
        """
        with store.explained(self.uri, f"store the artifact {Path(path).name}"):
            if os.path.isdir(path):
                self.client.log_artifacts(self._run, path, folder)
            else:
                self.client.log_artifact(self._run, path, folder)

    def tag(self, values: Mapping[str, str]) -> None:
        """Set tags of the run."""
        from mlflow.entities import RunTag

        tags = [RunTag(n, _fitted(str(v), _TAG_CHARS)) for n, v in values.items()]
        with store.explained(self.uri, "set tags"):
            for some in _batches(tags, _PARAMS_PER_CALL):
                self.client.log_batch(self._run, tags=some)

    def end(self, status: Status = "FINISHED") -> None:
        """End the run; a second call does nothing."""
        if self.run_id is None:
            return
        with store.explained(self.uri, "end the run"):
            self.client.set_terminated(self.run_id, status)
        self.run_id = None

    def stale(self) -> list[str]:
        """End, as KILLED, the experiment's running runs whose driver is surely dead.

        Returns:
            Ids of the runs that were ended. Runs of other hosts, of processes that live and of
            other programs are left alone.
        """
        here = Driver.here()
        ended = []
        with self._alone(), store.explained(self.uri, "look for abandoned runs"):
            wanted = f"attributes.status = 'RUNNING' and tags.`mlray.driver.host` = '{here.host}'"
            for run in self._search(wanted):
                driver = Driver.of(run.data.tags)
                if driver and driver != here and self._may_follow(driver):
                    why = f"process {driver.pid} on {driver.host} is gone"
                    self.client.set_tag(run.info.run_id, ENDED, why)
                    self.client.set_terminated(run.info.run_id, "KILLED")
                    ended.append(str(run.info.run_id))
        return ended

    @property
    def started_ms(self) -> int:
        """When the open run began, in milliseconds since 1970."""
        with store.explained(self.uri, "read the run"):
            return int(self.client.get_run(self._run).info.start_time)

    @property
    def _run(self) -> str:
        if self.run_id is None:
            raise TrackingError("no run is open", do="call start(...) or resume(run_id) first")
        return self.run_id

    def _may_follow(self, driver: Driver) -> bool:
        """Whether this process may take over from a driver: it is this one, or surely dead."""
        here = Driver.here()
        is_file = store.sqlite_path(self.uri) is not None
        return driver == here or driver.is_gone(here, one_machine=is_file)

    def _tags(self, more: Mapping[str, str]) -> dict[str, str]:
        every = tags(self.folder) | Driver.here().tags() | dict(more)
        return {name: _fitted(str(value), _TAG_CHARS) for name, value in every.items()}

    def _killed_with(self, key: str) -> str | None:
        found = self._search(f"attributes.status = 'KILLED' and tags.`{KEY}` = '{key}'")
        return next((str(run.info.run_id) for run in found), None)

    def _search(self, wanted: str) -> Iterator[Any]:
        token = None
        while True:
            page = self.client.search_runs([self.experiment_id], wanted, page_token=token)
            yield from list(page)
            token = page.token
            if not token:
                return

    def _take_up(self, run_id: str, wanted: Mapping[str, str]) -> str:
        self.run_id = run_id
        self.tag({**wanted, ENDED: ""})  # the new driver is named before the run counts as running
        self.client.update_run(run_id, status="RUNNING")
        return run_id

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No two processes of one storage folder sweep and take up runs at once."""
        remote = storage.is_remote(self.home)
        with store.locked(f"{tempfile.gettempdir() if remote else self.home}/tracking.lock"):
            yield


def _experiment(client: Any, uri: str, home: str, name: str) -> str:
    """Id of the experiment, which is created if it is not there; two may try at once."""
    from mlflow.exceptions import MlflowException

    with store.explained(uri, f"open the experiment {name}"):
        found = client.get_experiment_by_name(name)
        if found is None:
            # A server decides itself where artifacts live.
            place = None if store.is_http(uri) else _artifacts(home, name)
            try:
                return str(client.create_experiment(name, artifact_location=place))
            except MlflowException:
                found = client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                "this experiment was deleted",
                value=name,
                do="restore it in MLflow, or set tracking.experiment to another name",
            )
        return str(found.experiment_id)


def _artifacts(home: str, experiment: str) -> str:
    place = storage.join(home, "artifacts", re.sub(r"[^\w.-]", "_", experiment))
    return place if storage.is_remote(home) else Path(place).absolute().as_uri()


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple, Mapping)):
        return json.dumps(value, default=str)
    return str(value)


def _name(text: str) -> str:
    """`text` as MLflow allows names; one that had to change carries a hash, so none collide.

    >>> _name("recall"), _name("recall@5")
    ('recall', 'recall_5-801910')
    """
    clean = re.sub(r"[^\w.\- :/]", "_", text)
    clean = re.sub(r"/{2,}", "/", clean).strip("/") or "_"
    if clean == text and len(text) <= _KEY_CHARS and ".." not in text.split("/"):
        return text
    clean = clean.replace("..", "_")[: _KEY_CHARS - 7]
    return f"{clean}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _fitted(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    mark = f" ... [{len(text)} characters, sha256 {digest}]"
    return text[: limit - len(mark)] + mark


def _batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
