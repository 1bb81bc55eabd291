"""Which messages a run takes: exactly those that came since the last promoted run.

Before anything else `start: promoted` and `stop: latest` of Kafka sources become offsets. The
version that a run registers bears them as a tag, so whichever version is champion says where the
next run begins, after a rollback too. Until a run ends they lie in `home/offsets/PROJECT.json`, so
that a killed run, taken up again, reads the very same messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mlray import storage
from mlray.config import Project, with_sections
from mlray.config.rows import KafkaSource
from mlray.errors import InputError, MlrayError

TAG = "mlray.offsets"
"""Of a version: by source the topic, and by partition the offsets that it was made from."""
Taken = dict[str, dict[str, Any]]
"""By source: `topic`, `start` and `stop`, the last two by partition (as text, as JSON has it)."""
_REFUSED = 3


def pinned(project: Project, home: str, *, afresh: bool = False, keep: bool = True) -> Project:
    """The project with offsets for all that its Kafka sources leave open.

    Args:
        project: as the user wrote it.
        home: the storage folder.
        afresh: whether the offsets of a run that has not ended are dropped.
        keep: whether the offsets are remembered until the run ends.

    Raises:
        InputError: no message came since the champion's data, messages were deleted before a run
            took them, or the broker does not answer.
    """
    open_ = _left_open(project)
    if not open_:
        return project
    number, before = _of_champion(project, home)
    pending = None if afresh else _pending(project, home)
    if pending is not None and fits(pending, open_, number, before):
        taken = pending["taken"]
    else:
        taken = {name: _now(name, s, before.get(name), number) for name, s in open_.items()}
        if keep:
            storage.write_json(_file(project, home), {"champion": number, "taken": taken})
    held = {name: source.model_copy(update=_offsets(taken[name])) for name, source in open_.items()}
    return with_sections(project, sources=project.sources.model_copy(update=held))


def fits(
    pending: Mapping[str, Any],
    sources: Mapping[str, KafkaSource],
    champion: int | None,
    before: Taken,
) -> bool:
    """Whether the offsets of a run that has not ended are still those to take.

    They are not if another version is champion since, unless this very run was promoted and then
    killed; nor if the project file names other topics or offsets.
    """
    taken = pending["taken"]
    same = set(taken) == set(sources) and all(
        taken[n]["topic"] == s.topic and _agrees(taken[n], s) for n, s in sources.items()
    )
    return same and (pending["champion"] == champion or taken == before)


def tags(project: Project) -> dict[str, str]:
    """What a version is marked with: the offsets that its data were read from."""
    taken = {
        name: _taken(source.topic, source.start, source.stop)
        for name, source in project.sources.tables.items()
        if isinstance(source, KafkaSource)
        and isinstance(source.start, dict)
        and isinstance(source.stop, dict)
    }
    return {TAG: json.dumps(taken)} if taken else {}


@contextmanager
def until_the_end(project: Project, home: str, *, whole: bool) -> Iterator[None]:
    """Forgets the offsets when the run in the block ends: promoted, or refused by gate or quality.

    A run that failed otherwise, or was killed, can be taken up again.

    Args:
        project: that is run.
        home: the storage folder.
        whole: whether the run goes to its last stage.
    """
    try:
        yield
    except MlrayError as error:
        if error.exit_code == _REFUSED:
            storage.remove(_file(project, home))
        raise
    if whole:
        storage.remove(_file(project, home))


def _left_open(project: Project) -> dict[str, KafkaSource]:
    return {
        name: source
        for name, source in project.sources.tables.items()
        if isinstance(source, KafkaSource)
        and not (isinstance(source.start, dict) and isinstance(source.stop, dict))
    }


def _of_champion(project: Project, home: str) -> tuple[int | None, Taken]:
    from mlray.registry import Registry

    champion = Registry.open(project, home).champion(project.name)
    if champion is None:
        return None, {}
    return champion.number, json.loads(champion.tags.get(TAG, "{}"))


def _now(
    name: str, source: KafkaSource, before: dict[str, Any] | None, champion: int | None
) -> dict[str, Any]:
    """What a run that begins now takes of a source."""
    from mlray.sources.kinds import kafka

    since: dict[int, int] = {}
    if source.start == "promoted" and before and before["topic"] == source.topic:
        since = {int(partition): offset for partition, offset in before["stop"].items()}
    found = kafka.intervals(name, source, since)
    if since and before and all(start >= stop for start, stop in found.values()):
        raise InputError(
            f"no message came to topic {source.topic} (source `{name}`) since the data of the"
            f" champion, version {champion}",
            do="wait for messages; to train on the same ones again, set"
            f" `start: {_short(before['start'])}` and `stop: {_short(before['stop'])}`",
        )
    starts = {p: start for p, (start, _) in found.items()}
    return _taken(source.topic, starts, {p: stop for p, (_, stop) in found.items()})


def _taken(topic: str, starts: Mapping[int, int], stops: Mapping[int, int]) -> dict[str, Any]:
    start, stop = ({str(p): offset for p, offset in of.items()} for of in (starts, stops))
    return {"topic": topic, "start": start, "stop": stop}


def _offsets(taken: Mapping[str, Any]) -> dict[str, dict[int, int]]:
    return {side: {int(p): o for p, o in taken[side].items()} for side in ("start", "stop")}


def _agrees(taken: Mapping[str, Any], source: KafkaSource) -> bool:
    offsets = _offsets(taken)
    given = {"start": source.start, "stop": source.stop}
    return all(given[s] == offsets[s] for s in given if isinstance(given[s], dict))


def _short(offsets: Mapping[str, int]) -> str:
    return "{" + ", ".join(f"{p}: {offset}" for p, offset in offsets.items()) + "}"


def _pending(project: Project, home: str) -> dict[str, Any] | None:
    path = _file(project, home)
    found: dict[str, Any] | None = storage.read_json(path) if storage.exists(path) else None
    return found


def _file(project: Project, home: str) -> str:
    return storage.join(home, "offsets", f"{project.name}.json")
