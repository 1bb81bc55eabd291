"""A Kafka broker for tests: librdkafka's built-in mock cluster in a process of its own.

Run as a script it reads one JSON command a line from stdin and answers each with a line; it ends
when stdin closes. `broker()` starts and ends it.
"""

from __future__ import annotations

import ctypes
import json
import os
import socketserver
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PRODUCER = 0
"""librdkafka's number of a client's kind."""


@dataclass
class Kafka:
    """A running mock cluster of one broker. It keeps at most 5 MB of messages a partition."""

    servers: str
    process: subprocess.Popen[str]

    def topic(self, name: str, partitions: int) -> None:
        self._do("topic", name, partitions)

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """What retention does: older messages are gone."""
        self._do("delete", topic, partition, offset)

    def end_fetches_at(self, topic: str, partition: int, low: int, high: int) -> None:
        """A follower serves the partition from now on, and its watermarks are other ones."""
        self._do("follow", topic, partition, low, high)

    def stop_answering(self) -> None:
        self._do("down")

    def send(
        self,
        topic: str,
        messages: Iterable[tuple[int, Any]],
        key: Any = None,
        batch: int = 10_000,
    ) -> None:
        """Produce (partition, value) messages: dicts as JSON, bytes and None as they are."""
        from confluent_kafka import Producer

        producer = Producer(
            {
                "bootstrap.servers": self.servers,
                "linger.ms": 20,
                "compression.type": "lz4",
                "batch.num.messages": batch,
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 0,
            }
        )
        for partition, value in messages:
            data = json.dumps(value).encode() if isinstance(value, Mapping) else value
            producer.produce(topic, data, partition=partition, key=key)
        assert producer.flush(30) == 0

    def _do(self, *command: Any) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(command), file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "0\n", command


@contextmanager
def broker() -> Iterator[Kafka]:
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield Kafka(process.stdout.readline().strip(), process)
    finally:
        process.stdin.close()
        process.wait(20)


@contextmanager
def refusing_broker() -> Iterator[str]:
    """The address of a server that speaks just enough of Kafka's protocol to refuse a password."""

    class Talk(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while head := self.rfile.read(4):
                asked = self.rfile.read(int.from_bytes(head, "big"))
                kind, version, correlation = struct.unpack(">hhi", asked[:8])
                body = struct.pack(">i", correlation) + _REPLIES[kind](version)
                self.wfile.write(struct.pack(">i", len(body)) + body)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Talk) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(10)


_HANDSHAKE, _VERSIONS, _AUTHENTICATE = 17, 18, 36
_WRONG_PASSWORD = 58


def _versions(version: int) -> bytes:
    known = {3: (0, 8), _HANDSHAKE: (0, 1), _VERSIONS: (0, 3), _AUTHENTICATE: (0, 1)}
    if version < 3:
        rows = [struct.pack(">hhh", kind, *span) for kind, span in known.items()]
        return struct.pack(">hi", 0, len(rows)) + b"".join(rows) + struct.pack(">i", 0)
    rows = [struct.pack(">hhhb", kind, *span, 0) for kind, span in known.items()]
    return struct.pack(">hb", 0, len(rows) + 1) + b"".join(rows) + struct.pack(">ib", 0, 0)


def _text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


_REPLIES = {
    _VERSIONS: _versions,
    _HANDSHAKE: lambda version: struct.pack(">hi", 0, 1) + _text("PLAIN"),
    _AUTHENTICATE: lambda version: (
        struct.pack(">h", _WRONG_PASSWORD)
        + _text("Invalid username or password")
        + struct.pack(">iq", 0, 0)
    ),
}


def _library() -> Any:
    """The librdkafka that confluent-kafka brings along, which can also be the broker."""
    import confluent_kafka

    package = Path(confluent_kafka.__file__).parent
    places = [package.parent / "confluent_kafka.libs", package / ".dylibs"]
    found = next(file for place in places for file in sorted(place.glob("librdkafka*")))
    library = ctypes.CDLL(str(found))
    for name in ("conf_new", "new", "mock_cluster_new"):
        getattr(library, f"rd_kafka_{name}").restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return library


def _serve() -> None:
    library = _library()
    reason = ctypes.create_string_buffer(512)
    conf = ctypes.c_void_p(library.rd_kafka_conf_new())
    library.rd_kafka_conf_set(conf, b"log_level", b"0", reason, 512)
    client = ctypes.c_void_p(library.rd_kafka_new(PRODUCER, conf, reason, 512))
    cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(client, 2))
    print(library.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)
    for line in sys.stdin:
        what, *details = json.loads(line)
        print(_done(library, cluster, what, details), flush=True)
    os._exit(0)  # the cluster's threads need no goodbye


def _done(library: Any, cluster: Any, what: str, details: list[Any]) -> int:
    if what == "down":
        return sum(library.rd_kafka_mock_broker_set_down(cluster, number) for number in (1, 2))
    topic, *numbers = details
    name = topic.encode()
    if what == "topic":
        return int(library.rd_kafka_mock_topic_create(cluster, name, numbers[0], 1))
    partition, *offsets = numbers
    if what == "delete":
        delete = library.rd_kafka_mock_partition_delete_records
        return int(delete(cluster, name, partition, ctypes.c_int64(offsets[0])))
    low, high = map(ctypes.c_int64, offsets)
    follower = library.rd_kafka_mock_partition_set_follower
    marks = library.rd_kafka_mock_partition_set_follower_wmarks
    library.rd_kafka_mock_partition_set_leader(cluster, name, partition, 1)
    return int(follower(cluster, name, partition, 2) + marks(cluster, name, partition, low, high))


if __name__ == "__main__":
    _serve()
