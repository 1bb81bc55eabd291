"""A service on a real Ray cluster, following a real registry."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from small_bundles import bundle_of, flights_table

from mlray.config import Project
from mlray.errors import InputError, ServingError
from mlray.registry import Decision, Registry
from mlray.serving import Service, serve
from mlray.serving.app import wanted_replicas
from mlray.tracking import Tracker

BETTER = Decision(True, ("asked for by a test",))


def project_of(port: int, **serving: Any) -> Project:
    return Project.model_validate(
        {
            "name": "flights",
            "sources": {"rows": {"path": "flights.parquet"}},
            "model": {"target": "late"},
            "serving": {"port": port, "follow": "0.5s", **serving},
            "monitoring": {"flush": "0.5s"},
        }
    )


class House:
    """A storage folder with a tracker and a registry, and versions made at will."""

    def __init__(self, home: Path, project: Project):
        self.home, self.project = str(home), project
        self.tracker = Tracker.open(project, self.home)
        self.registry = Registry.of(self.tracker)

    def promote(self, seed: int, spoil: Callable[[Path], None] | None = None) -> str:
        """Register a bundle of other weights and make it champion; returns its number."""
        leave = ("origin", "arrival")
        folder = f"{self.home}/made/{seed}"
        bundle_of(flights_table(), "late", folder, leave=leave, positive="yes", seed=seed)
        run_id = self.tracker.start(f"run-{seed}")
        version = self.registry.register(run_id, folder, "flights")
        self.tracker.end()
        if spoil is not None:
            spoil(Path(self.registry.local_path(version)))
        self.registry.promote(version, BETTER)
        return str(version.number)


def flip_a_byte(folder: Path) -> None:
    file = folder / "model.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)


@pytest.fixture(scope="module")
def port(module_port: int) -> int:
    return module_port


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, port: int) -> House:
    return House(tmp_path_factory.mktemp("home"), project_of(port))


@pytest.fixture(scope="module")
def service(ray_cluster: None, house: House) -> Iterator[Service]:
    house.promote(1)
    service = serve(house.project, house.home)
    yield service
    service.stop()


@pytest.fixture
def row() -> dict[str, Any]:
    return {"delay": 3.5, "distance": 700, "carrier": "UA", "decided_at": "2013-10-01T05:15:00Z"}


def until(condition: Callable[[], bool], seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


class Load:
    """Threads that ask without a pause; what came back, by status and version."""

    def __init__(self, service: Service, row: dict[str, Any], threads: int = 4):
        self._stopping = threading.Event()
        self.failed: list[str] = []
        self.versions: set[str] = set()
        self.answered = 0
        self._threads = [
            threading.Thread(target=self._ask, args=(service, row)) for _ in range(threads)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, service: Service, row: dict[str, Any]) -> None:
        with httpx.Client(base_url=service.url, timeout=10) as client:
            while not self._stopping.is_set():
                try:
                    answer = client.post("/predict", json={"rows": [row]})
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))
                    continue
                if answer.status_code != 200:
                    self.failed.append(answer.text)
                    continue
                self.answered += 1
                self.versions.add(answer.json()["version"])


def test_a_service_predicts_and_says_its_version(service: Service, row: dict[str, Any]) -> None:
    assert service.version == "1"
    (prediction,) = service.predict([row])
    assert 0 <= prediction["score"] <= 1
    with pytest.raises(InputError, match="carrier"):
        service.predict([{k: v for k, v in row.items() if k != "carrier"}])


def test_it_listens_on_loopback_only(service: Service, port: int) -> None:
    assert service.url == f"http://127.0.0.1:{port}"
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    addresses = {s[1].split(":")[0] for s in listening if s[3] == "0A" and _port(s[1]) == port}
    assert addresses == {"0100007F"}


def _port(address: str) -> int:
    return int(address.split(":")[1], 16)


def test_the_application_has_a_readable_name(service: Service) -> None:
    from ray import serve as ray_serve

    applications = ray_serve.status().applications
    assert list(applications) == ["mlray-flights"]
    assert list(applications["mlray-flights"].deployments) == ["flights"]


def test_a_port_in_use_is_refused_before_anything_starts(
    service: Service, house: House, tmp_path: Path
) -> None:
    from ray import serve as ray_serve

    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        other = project_of(number).model_copy(update={"name": "other"})
        with pytest.raises(ServingError, match=f"port {number} .*in use"):
            serve(other, str(tmp_path))
    assert list(ray_serve.status().applications) == ["mlray-flights"]


def test_a_model_without_champion_is_refused(
    service: Service, free_port: int, tmp_path: Path
) -> None:
    empty = project_of(free_port).model_copy(update={"name": "empty"})
    Tracker.open(empty, str(tmp_path))
    with pytest.raises(ServingError, match="no champion"):
        serve(empty, str(tmp_path))


def test_more_replicas_than_the_cluster_can_hold_are_refused(
    house: House, service: Service
) -> None:
    many = project_of(house.project.serving.port, replicas=1000)
    with pytest.raises(ServingError, match="replicas cannot run"):
        serve(many, house.home)


def test_a_new_champion_is_served_in_seconds_and_no_request_fails(
    service: Service, house: House, row: dict[str, Any]
) -> None:
    before = service.predict([row])
    with Load(service, row) as load:
        number = house.promote(2)
        assert until(lambda: service.version == number)
        time.sleep(0.3)
    assert load.failed == []
    assert load.answered > 100
    assert {"1", number} <= load.versions
    assert service.predict([row]) != before


def test_a_version_with_a_flipped_byte_is_never_served(
    service: Service, house: House, row: dict[str, Any]
) -> None:
    good = service.version
    with Load(service, row) as load:
        bad = house.promote(3, spoil=flip_a_byte)
        ready = f"{service.url}/health/ready"
        assert until(lambda: "refused" in httpx.get(ready).json())
        refused = httpx.get(ready).json()["refused"]
        time.sleep(1)
    assert refused["version"] == bad
    assert "model.onnx" in refused["reason"]
    assert (load.failed, load.versions) == ([], {good})
    house.registry.rollback("flights")
    next_good = house.promote(4)
    assert until(lambda: service.version == next_good)
    assert "refused" not in httpx.get(ready).json()


def test_a_version_whose_golden_rows_differ_is_never_served(
    service: Service, house: House, row: dict[str, Any]
) -> None:
    good = service.version

    def other_graph(folder: Path) -> None:
        """Another version's graph, with sums that are right for it."""
        import hashlib

        for name in ("model.onnx", "SHA256SUMS"):
            (folder / name).chmod(0o644)
        shutil.copy(f"{house.home}/made/1/model.onnx", folder / "model.onnx")
        digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
        lines = (folder / "SHA256SUMS").read_text().splitlines()
        sums = [f"{digest}  model.onnx" if line.endswith("model.onnx") else line for line in lines]
        (folder / "SHA256SUMS").write_text("\n".join(sums) + "\n")

    bad = house.promote(5, spoil=other_graph)
    ready = f"{service.url}/health/ready"
    assert until(lambda: httpx.get(ready).json().get("refused", {}).get("version") == bad)
    assert service.version == good
    house.registry.rollback("flights")


def test_served_rows_are_counted_for_the_version_that_served_them(
    service: Service, house: House, row: dict[str, Any]
) -> None:
    version = service.version
    folder = Path(house.home) / "predictions" / "flights" / version / "counts"

    def rows_counted() -> int:
        lines = [line for file in folder.rglob("*.jsonl") for line in file.read_text().splitlines()]
        return sum(json.loads(line)["rows"] for line in lines)

    time.sleep(1.2)  # what was served before is flushed
    before = rows_counted()
    for _ in range(7):
        service.predict([row] * 3)
    assert until(lambda: rows_counted() == before + 21)


def test_serving_again_replaces_the_replicas_without_a_lost_request(
    service: Service, house: House, row: dict[str, Any]
) -> None:
    with Load(service, row) as load:
        again = serve(house.project, house.home)
        time.sleep(1)
    assert load.failed == []
    assert again.predict([row]) == service.predict([row])


def test_a_killed_replica_comes_back_with_the_last_good_version(
    service: Service, house: House, row: dict[str, Any]
) -> None:
    import os
    import signal
    import subprocess

    good = service.version
    house.promote(6, spoil=flip_a_byte)
    assert until(lambda: "refused" in httpx.get(f"{service.url}/health/ready").json())
    port = house.project.serving.port
    told = subprocess.run(
        ["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=True
    ).stdout
    os.kill(int(told.split("pid=")[1].split(",")[0]), signal.SIGKILL)

    def answers() -> bool:
        try:
            return bool(service.version == good)
        except ServingError:
            return False

    assert until(lambda: not answers(), 3)
    assert until(answers, 40)
    house.registry.rollback("flights")


def test_stop_frees_the_port(ray_cluster: None, house: House, service: Service) -> None:
    from mlray.serving.listener import check_port

    started = time.monotonic()
    service.stop()
    assert time.monotonic() - started < 10
    check_port("127.0.0.1", house.project.serving.port)
    with pytest.raises(ServingError, match="did not answer"):
        service.predict([{}])


def test_replicas_follow_how_busy_they_are() -> None:
    class Context:
        capacity_adjusted_min_replicas, capacity_adjusted_max_replicas = 1, 4

        def __init__(self, *busy: float):
            self.aggregated_metrics = {"busy_frac": dict(enumerate(busy))}

    assert wanted_replicas(Context())[0] == 1
    assert wanted_replicas(Context(0.1))[0] == 1
    assert wanted_replicas(Context(1.0))[0] == 2
    assert wanted_replicas(Context(0.9, 0.9))[0] == 3
    assert wanted_replicas(Context(1.0, 1.0, 1.0, 1.0))[0] == 4
