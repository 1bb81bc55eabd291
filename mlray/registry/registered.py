"""Register a bundle, move the champion, go back: every call to the MLflow registry."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import EllipsisType
from typing import Any

from mlray import storage
from mlray.config import Project
from mlray.errors import BundleError, GateError, TrackingError
from mlray.registry import version as reading
from mlray.registry.gate import Decision
from mlray.registry.journal import Entry, Journal, earlier_champions
from mlray.registry.version import CHAMPION, Version
from mlray.tracking import Tracker, store

_BUNDLES = "bundle"


@dataclass
class Registry:
    """The registered models of one MLflow store.

    Making one costs nothing; MLflow is loaded by the first call that writes, or that reads from
    anything but a SQLite store. Every method raises `TrackingError` when the store refuses.
    """

    uri: str
    home: str
    _connected: Any = field(default=None, repr=False)

    @classmethod
    def open(cls, project: Project, home: str) -> Registry:
        """The registry that the project's `tracking` section names."""
        return cls(store.address(project.tracking.uri, home, project.folder), home)

    @classmethod
    def at(cls, home: str) -> Registry:
        """The registry of a storage folder, or the one that `$MLFLOW_TRACKING_URI` names."""
        return cls(store.address(None, home, os.getcwd()), home)

    @classmethod
    def of(cls, tracker: Tracker) -> Registry:
        """The registry of a tracker's store, on the tracker's connection."""
        return cls(tracker.uri, tracker.home, tracker.client)

    def register(
        self,
        run_id: str,
        bundle_folder: str,
        name: str,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Version:
        """Copy a bundle to the run's artifacts and give it the next version number.

        Called again for the same run and bundle, as after a crash, it returns the version that is
        there.

        Args:
            run_id: the run that made it.
            bundle_folder: what `write_bundle` wrote.
            name: of the model.
            tags: more tags of the version.
            metrics: on the test part; `Version.metrics` gives them back.

        Raises:
            BundleError: the folder is no bundle, or is damaged.
        """
        from mlray.models.bundle import load_bundle

        digest = load_bundle(bundle_folder).digest
        for known in self.versions(name):
            if (known.run_id, known.digest) == (run_id, digest):
                return known
        about = {reading.DIGEST: digest, reading.METRICS: json.dumps(dict(metrics or {}))}
        with store.explained(self.uri, f"register a version of {name}"):
            source = self._log(run_id, bundle_folder, f"{_BUNDLES}/{digest[:16]}")
            self._create_model(name)
            made = self._client.create_model_version(
                name, source, run_id, tags={**(tags or {}), **about}
            )
        return self.version(name, int(made.version))

    def names(self) -> list[str]:
        """Names of all registered models, sorted."""
        path = store.sqlite_path(self.uri)
        found = reading.read_names(path) if path else None
        return self._ask_names() if found is None else found

    def versions(self, name: str) -> list[Version]:
        """All versions of a model, newest first; none if there is no such model."""
        path = store.sqlite_path(self.uri)
        found = reading.read_sqlite(path, name) if path else None
        return self._ask_versions(name) if found is None else found

    def version(self, name: str, number: int) -> Version:
        """One version; `TrackingError` listing the newest if there is none of this number."""
        known = self.versions(name)
        for found in known:
            if found.number == number:
                return found
        raise TrackingError(
            f"{name} has no such version",
            value=number,
            allowed=", ".join(str(v.number) for v in known[:20]) or "none is registered",
            do="`mlray models` lists them",
        )

    def named(self, name: str, version: int | str | None = None) -> Version:
        """The version of a number or alias; None for the champion, or the newest without one.

        Raises:
            TrackingError: there is none; the message says what there is.
        """
        if version is not None and str(version).isdecimal():
            return self.version(name, int(version))
        known = self.versions(name)
        wanted = CHAMPION if version is None else str(version)
        for found in known:
            if wanted in found.aliases:
                return found
        if known and version is None:
            return known[0]
        names = sorted({alias for v in known for alias in v.aliases})
        raise TrackingError(
            f"{name} has no version" + (f" of this alias: {wanted}" if known else ""),
            allowed=", ".join([*(str(v.number) for v in known[:20]), *names]) if known else None,
            do="`mlray models` lists what is registered",
        )

    def champion(self, name: str, alias: str = CHAMPION) -> Version | None:
        """The version that serving follows; None if there is none yet."""
        path = store.sqlite_path(self.uri)
        found = reading.read_sqlite(path, name) if path else None
        if found is None:
            return self._ask_champion(name, alias)
        return next((v for v in found if alias in v.aliases), None)

    def promote(
        self,
        version: Version,
        decision: Decision,
        against: Version | EllipsisType | None = ...,
    ) -> Version:
        """Make a version champion and write the journal.

        Args:
            version: the candidate.
            decision: what the gate said about it.
            against: the champion (or None) that the gate compared it with, if it is to be sure
                that no other process has promoted a better one meanwhile.

        Raises:
            GateError: the gate refused it, or the champion is no longer `against`.
        """
        if not decision.promote:
            raise GateError(
                f"version {version.number} of {version.name} stays a candidate",
                value="; ".join(decision.reasons),
                do="improve the model or change registry.promote",
            )
        journal = self.journal(version.name)
        with journal.alone():
            before = self._settled(journal)
            if before == version.number:
                return self.version(version.name, version.number)
            if not isinstance(against, EllipsisType):
                _refuse_if_changed(version, against, before)
            self._move(version.name, version.number)
            journal.append(Entry.now("promoted", before, version.number, decision.reasons))
        self._tag(version, "mlray.promoted", "; ".join(decision.reasons))
        return self.version(version.name, version.number)

    def rollback(self, name: str, why: str = "asked for") -> Version:
        """Make the champion before the present one champion again.

        Repeated, it goes back further. A version that was deleted since is passed over.

        Raises:
            GateError: there is no earlier champion.
        """
        journal = self.journal(name)
        with journal.alone():
            before = self._settled(journal)
            known = {v.number: v for v in self.versions(name)}
            earlier = [n for n in earlier_champions(journal.entries()) if n in known]
            if not earlier:
                raise GateError(
                    f"{name} has no earlier champion to go back to",
                    value=f"champion: {'none' if before is None else f'version {before}'}",
                    do="promote another version, or train a new one",
                )
            self._move(name, earlier[-1])
            journal.append(Entry.now("rolled back", before, earlier[-1], [why]))
        if before in known:
            self._tag(known[before], "mlray.rolled_back", why)
        return self.version(name, earlier[-1])

    def journal(self, name: str) -> Journal:
        """Every change of champion of a model."""
        return Journal(self.home, name)

    def local_path(self, version: Version) -> str:
        """A local folder with the version's bundle, unchanged since it was registered.

        No copy is made where the artifact store is a disk of this machine; else the bundle is
        downloaded once to `home/cache/bundles`.

        Raises:
            BundleError: the bundle is gone, incomplete or was changed.
        """
        source = _local(version.source)
        if source is None:
            return self._downloaded(version)
        if not os.path.isdir(source):
            raise BundleError(
                f"the bundle of {version.uri} is gone",
                value=source,
                do="put the storage folder back where it was, or register the model again",
            )
        _check_digest(source, version)
        return source

    def beside(self, version: Version, path: str) -> bytes:
        """A file that the run of a version keeps among its artifacts, in `path` below their top.

        Raises:
            TrackingError: it is not there, or the store does not answer.
        """
        address = storage.join(version.source.rpartition(f"/{_BUNDLES}/")[0], path)
        with store.explained(self.uri, f"read {path} of {version.uri}"):
            if (local := _local(address)) is not None:
                return Path(local).read_bytes()
            from mlflow.artifacts import download_artifacts

            with tempfile.TemporaryDirectory() as folder:
                found = download_artifacts(
                    artifact_uri=address, dst_path=folder, tracking_uri=self.uri
                )
                return Path(found).read_bytes()

    @property
    def _client(self) -> Any:
        if self._connected is None:
            self._connected = store.connect(self.uri)
        return self._connected

    def _log(self, run_id: str, folder: str, place: str) -> str:
        """Copy a bundle to a run's artifacts; returns its address there."""
        self._client.log_artifacts(run_id, folder, place)
        address = storage.join(self._client.get_run(run_id).info.artifact_uri, place)
        if (copy := _local(address)) is not None:
            for file in Path(copy).iterdir():
                file.chmod(0o444)  # a version never changes
        return address

    def _create_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _ask_names(self) -> list[str]:
        with store.explained(self.uri, "read the names of models"):
            return sorted(m.name for m in _pages(self._client.search_registered_models))

    def _ask_champion(self, name: str, alias: str) -> Version | None:
        """One call to a server; a follower must not hang for minutes when it is away."""
        from mlflow.exceptions import MlflowException

        client = self._client
        if store.sqlite_path(self.uri) is None:
            store.probe(self.uri)
        with store.explained(self.uri, f"read the {alias} of {name}"):
            try:
                found = client.get_model_version_by_alias(name, alias)
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None  # no such model, or none of its versions has this alias
                raise
        return reading.from_mlflow(found, dict.fromkeys(found.aliases, found.version))

    def _ask_versions(self, name: str) -> list[Version]:
        from mlflow.exceptions import MlflowException

        with store.explained(self.uri, f"read the versions of {name}"):
            try:
                aliases = self._client.get_registered_model(name).aliases
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return []
                raise
            pages = _pages(self._client.search_model_versions, f"name = '{name}'")
            found = [reading.from_mlflow(v, aliases) for v in pages]
        return sorted(found, key=lambda v: -v.number)

    def _settled(self, journal: Journal) -> int | None:
        """The champion's number, after the journal has learnt of a change made without it."""
        champion = self.champion(journal.name)
        now = champion.number if champion else None
        if now != journal.last():
            why = ["the alias was moved by something that keeps no journal"]
            journal.append(Entry.now("found", journal.last(), now, why))
        return now

    def _move(self, name: str, number: int) -> None:
        with store.explained(self.uri, f"make version {number} of {name} champion"):
            self._client.set_registered_model_alias(name, CHAMPION, str(number))

    def _tag(self, version: Version, key: str, value: str) -> None:
        with store.explained(self.uri, f"tag version {version.number} of {version.name}"):
            self._client.set_model_version_tag(version.name, str(version.number), key, value)

    def _downloaded(self, version: Version) -> str:
        from mlflow.artifacts import download_artifacts

        from mlray.models.bundle import load_bundle

        cache = Path(self.home) / "cache" / "bundles"
        folder = cache / f"{version.name}-{version.number}-{version.digest[:16]}"
        with store.locked(f"{folder}.lock"):
            if not folder.is_dir():
                with tempfile.TemporaryDirectory(dir=cache) as temporary:
                    with store.explained(self.uri, f"download {version.uri}"):
                        inner = download_artifacts(
                            artifact_uri=version.source, dst_path=temporary, tracking_uri=self.uri
                        )
                    _check_digest(inner, version)
                    load_bundle(inner)
                    os.rename(inner, folder)
        return str(folder)


def _pages(search: Callable[..., Any], *arguments: str) -> Iterator[Any]:
    """All that one of MLflow's searches finds, page by page."""
    token = None
    while True:
        page = search(*arguments, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _local(address: str) -> str | None:
    """The path that an artifact's address names on this machine; None if it is elsewhere.

    >>> _local("file:///a%20b/c"), _local("/a/c"), _local("mlflow-artifacts:/1/c")
    ('/a b/c', '/a/c', None)
    """
    parts = urllib.parse.urlsplit(address)
    if parts.scheme == "file":
        return urllib.request.url2pathname(parts.path)
    return None if parts.scheme else address


def _refuse_if_changed(version: Version, against: Version | None, before: int | None) -> None:
    if before != (against.number if against else None):
        raise GateError(
            f"version {version.number} of {version.name} was measured against another champion",
            value=f"champion by now: {'none' if before is None else f'version {before}'}",
            do="run the gate again",
        )


def _check_digest(folder: str, version: Version) -> None:
    """The list of sums is the one that was registered; `load_bundle` holds each file to it."""
    sums = Path(folder) / "SHA256SUMS"
    found = hashlib.sha256(sums.read_bytes()).hexdigest() if sums.is_file() else ""
    if found != version.digest:
        raise BundleError(
            f"the bundle of {version.uri} was changed after it was registered",
            value=folder,
            do="do not serve it; roll back, or register the model again",
        )
