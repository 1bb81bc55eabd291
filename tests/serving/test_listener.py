"""A port of its own: refused when in use, shared by replicas, left without losing requests."""

from __future__ import annotations

import socket
import threading
import time

import httpx
import pytest

from mlray.errors import ServingError
from mlray.serving.asgi import Api
from mlray.serving.listener import Listener, check_port


def test_a_port_in_use_is_named_with_what_to_do(free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)):
        for attempt in (
            lambda: check_port("127.0.0.1", free_port),
            lambda: Listener(Api("m"), "127.0.0.1", free_port),
        ):
            with pytest.raises(ServingError, match=f"port {free_port} .*in use") as caught:
                attempt()
            assert "serving.port" in str(caught.value)


def test_an_address_of_another_machine_is_refused(free_port: int) -> None:
    with pytest.raises(ServingError, match=r"cannot listen on 203\.0\.113\.7"):
        check_port("203.0.113.7", free_port)


def test_checking_a_port_leaves_it_free(free_port: int) -> None:
    check_port("127.0.0.1", free_port)
    check_port("127.0.0.1", free_port)


def test_a_port_that_a_listener_holds_counts_as_in_use(free_port: int) -> None:
    listener = Listener(Api("m"), "127.0.0.1", free_port)
    listener.start()
    with pytest.raises(ServingError, match="in use"):
        check_port("127.0.0.1", free_port)
    listener.stop()
    assert not listener.alive
    check_port("127.0.0.1", free_port)


def test_two_replicas_share_a_port_and_one_leaves_without_a_lost_request(free_port: int) -> None:
    first, second = (Listener(Api(name), "127.0.0.1", free_port) for name in "ab")
    first.start()
    second.start()
    stopping, failed, models = threading.Event(), [], set()

    def ask() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{free_port}") as client:
            while not stopping.is_set():
                try:
                    models.add(client.get("/").json()["model"])
                except httpx.HTTPError as error:
                    failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    first.stop()
    time.sleep(0.3)
    stopping.set()
    for thread in threads:
        thread.join()
    second.stop()
    assert (failed, models) == ([], {"a", "b"})
