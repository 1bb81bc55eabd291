"""Which messages a run takes: real offsets of a mock cluster, real versions in an MLflow store."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import mlray
from mlray.config import Project
from mlray.config.rows import KafkaSource
from mlray.errors import InputError, QualityError, TrainingError
from mlray.pipeline import offsets
from tests.services.kafka import Kafka, broker

names = (f"sales-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    with broker() as running:
        yield running


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without any model; making one takes seconds, copying it none."""
    from mlray.tracking import Tracker

    folder = tmp_path_factory.mktemp("store")
    file = folder / "none.yaml"
    file.write_text("name: none\nsources: {rows: {path: a.csv}}\nmodel: {target: y}\n")
    Tracker.open(mlray.load(file), str(folder))
    return folder / "mlflow.db"


@pytest.fixture
def home(tmp_path: Path) -> str:
    return str(tmp_path / "home")


@pytest.fixture
def make_champion(empty_store: Path, home: str) -> Callable[[Project], int]:
    """What the registry does at the end of a promoted run, without the bundle."""
    from mlflow import MlflowClient

    from mlray.registry import Registry

    def promote(project: Project) -> int:
        if not Path(home, "mlflow.db").exists():
            Path(home).mkdir(exist_ok=True)
            shutil.copy(empty_store, Path(home, "mlflow.db"))
        client = MlflowClient(Registry.open(project, home).uri)
        if not client.search_registered_models():
            client.create_registered_model("sales")
        version = client.create_model_version("sales", "/nowhere", tags=offsets.tags(project))
        client.set_registered_model_alias("sales", "champion", version.version)
        return int(version.version)

    return promote


@pytest.fixture
def topic(kafka: Kafka) -> str:
    """Two partitions, of 10 and 20 messages."""
    name = next(names)
    kafka.topic(name, 2)
    send(kafka, name, (10, 20))
    return name


@pytest.fixture
def project(kafka: Kafka, topic: str, tmp_path: Path) -> Callable[..., Project]:
    """A project over the topic; keyword arguments are fields of its source."""

    def make(**fields: Any) -> Project:
        rows = {"kind": "kafka", "servers": kafka.servers, "topic": topic, "timeout": "3s"}
        document = {"name": "sales", "sources": {"rows": {**rows, **fields}}}
        file = tmp_path / "sales.yaml"
        file.write_text(yaml.safe_dump({**document, "model": {"target": "y"}}))
        return mlray.load(file)

    return make


def send(kafka: Kafka, topic: str, counts: tuple[int, ...]) -> None:
    kafka.send(topic, ((p, {"id": i, "y": 1}) for p, n in enumerate(counts) for i in range(n)))


def taken(project: Project) -> tuple[Any, Any]:
    rows = project.sources.rows
    assert isinstance(rows, KafkaSource)
    return rows.start, rows.stop


def test_the_first_run_takes_all_there_is_and_nothing_that_comes_later(project, kafka, topic, home):
    first = offsets.pinned(project(), home)
    assert taken(first) == ({0: 0, 1: 0}, {0: 10, 1: 20})
    send(kafka, topic, (5, 5))
    again = offsets.pinned(project(), home)
    assert taken(again) == taken(first), "a run that was killed reads the same interval"
    assert again.sources == first.sources
    afresh = offsets.pinned(project(), home, afresh=True)
    assert taken(afresh)[1] == {0: 15, 1: 25}


def test_a_dry_run_remembers_nothing(project, home):
    offsets.pinned(project(), home, keep=False)
    assert not Path(home).exists()


def test_a_run_takes_what_came_since_the_champion_also_after_a_rollback(
    project, kafka, topic, home, make_champion
):
    first = offsets.pinned(project(), home)
    make_champion(first)
    with offsets.until_the_end(first, home, whole=True):
        send(kafka, topic, (5, 0))
    second = offsets.pinned(project(), home)
    assert taken(second) == ({0: 10, 1: 20}, {0: 15, 1: 20})
    number = make_champion(second)
    with offsets.until_the_end(second, home, whole=True):
        pass
    with pytest.raises(InputError) as caught:
        offsets.pinned(project(), home)
    assert f"since the data of the champion, version {number}" in str(caught.value)
    assert "`start: {0: 10, 1: 20}` and `stop: {0: 15, 1: 20}`" in str(caught.value)
    back(project(), home, number - 1)
    assert taken(offsets.pinned(project(), home)) == ({0: 10, 1: 20}, {0: 15, 1: 20})


def back(project: Project, home: str, number: int) -> None:
    from mlflow import MlflowClient

    from mlray.registry import Registry

    client = MlflowClient(Registry.open(project, home).uri)
    client.set_registered_model_alias("sales", "champion", str(number))


def test_a_refused_run_leaves_its_messages_to_the_next_one(project, kafka, topic, home):
    first = offsets.pinned(project(), home)
    with (
        pytest.raises(QualityError),
        offsets.until_the_end(first, home, whole=True),
    ):
        raise QualityError("too many rows broke a rule")
    send(kafka, topic, (1, 1))
    assert taken(offsets.pinned(project(), home)) == ({0: 0, 1: 0}, {0: 11, 1: 21})


@pytest.mark.parametrize("whole", [True, False])
def test_a_run_that_failed_or_stopped_half_way_is_taken_up_with_its_interval(
    project, kafka, topic, home, whole
):
    first = offsets.pinned(project(), home)
    if whole:
        with pytest.raises(TrainingError), offsets.until_the_end(first, home, whole=True):
            raise TrainingError("a worker died")
    else:
        with offsets.until_the_end(first, home, whole=False):
            pass
    send(kafka, topic, (1, 1))
    assert taken(offsets.pinned(project(), home)) == taken(first)


def test_a_run_killed_right_after_its_promotion_is_finished_first(
    project, kafka, topic, home, make_champion
):
    first = offsets.pinned(project(), home)
    make_champion(first)
    send(kafka, topic, (1, 1))
    assert taken(offsets.pinned(project(), home)) == taken(first)


def test_another_champion_makes_an_unfinished_interval_void(
    project, kafka, topic, home, make_champion
):
    offsets.pinned(project(), home)
    other = offsets.pinned(project(stop={0: 4, 1: 4}), f"{home}-other")
    make_champion(other)
    assert taken(offsets.pinned(project(), home)) == ({0: 4, 1: 4}, {0: 10, 1: 20})


def test_another_topic_begins_at_its_start(project, kafka, topic, home, make_champion):
    make_champion(offsets.pinned(project(), home))
    other = next(names)
    kafka.topic(other, 3)
    send(kafka, other, (1, 2, 3))
    expected = ({0: 0, 1: 0, 2: 0}, {0: 1, 1: 2, 2: 3})
    assert taken(offsets.pinned(project(topic=other), home)) == expected
    assert taken(offsets.pinned(project(start="earliest"), home))[0] == {0: 0, 1: 0}


def test_messages_deleted_before_they_were_taken_are_an_error(
    project, kafka, topic, home, make_champion
):
    first = offsets.pinned(project(), home)
    make_champion(first)
    with offsets.until_the_end(first, home, whole=True):
        send(kafka, topic, (20, 20))
    kafka.delete_before(topic, 1, 30)
    with pytest.raises(InputError, match=r"no longer has offset 20; the oldest .* has offset 30"):
        offsets.pinned(project(), home)


def test_offsets_given_by_hand_stay_and_are_recorded(project, home):
    given = project(start={0: 3}, stop={0: 7})
    assert offsets.pinned(given, home) is given
    (tag,) = offsets.tags(given).values()
    told = json.loads(tag)["rows"]
    assert (told["start"], told["stop"]) == ({"0": 3}, {"0": 7})


def test_a_project_without_kafka_is_left_as_it_is(tmp_path, home):
    file = tmp_path / "plain.yaml"
    file.write_text("name: p\nsources: {rows: {path: a.csv}}\nmodel: {target: y}\n")
    plain = mlray.load(file)
    assert offsets.pinned(plain, home) is plain
    assert offsets.tags(plain) == {}
