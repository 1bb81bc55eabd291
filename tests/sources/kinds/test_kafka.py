"""Kafka: every message of an interval once, or an error; against librdkafka's mock cluster."""

from __future__ import annotations

import io
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlray.config import Project
from mlray.config.rows import KafkaSource
from mlray.errors import ConfigError, InputError
from mlray.sources import open_rows
from mlray.sources.kinds import files, open_source
from mlray.sources.kinds.broker import Broker
from mlray.sources.reading import ORIGIN, POSITION, RAW, UNREADABLE, visible
from tests.services.kafka import Kafka, broker, refusing_broker

names = (f"topic-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    with broker() as running:
        yield running


@pytest.fixture
def topic(kafka: Kafka) -> str:
    """A new topic of two partitions, with 50 messages each."""
    name = next(names)
    kafka.topic(name, 2)
    kafka.send(name, ((i % 2, {"id": i, "at": {"x": i / 4}}) for i in range(100)))
    return name


@pytest.fixture
def opened(kafka: Kafka, topic: str) -> Callable[..., Any]:
    """The topic as an opened source; keyword arguments are its fields."""

    def open_it(**fields: Any) -> Any:
        given = {"servers": kafka.servers, "topic": topic, "timeout": "2s", **fields}
        return open_source("rows", KafkaSource(kind="kafka", **given), "")

    return open_it


def refused(opened: Callable[..., Any], **fields: Any) -> str:
    began = time.monotonic()
    with pytest.raises((InputError, ConfigError)) as caught:
        opened(**fields).table()
    assert time.monotonic() - began < 10, "no error may take much longer than the timeout"
    return str(caught.value)


def test_every_message_is_a_row_that_knows_its_partition_and_offset(
    project, kafka, topic, ray_cluster, collect
):
    described = project(rows={"kind": "kafka", "servers": kafka.servers, "topic": topic})
    table = collect(open_rows(described, traced=True).dataset)
    assert visible(table).schema == pa.schema({"id": pa.int64(), "at.x": pa.float64()})
    found = {(r[ORIGIN], r[POSITION]): (r["id"], r["at.x"]) for r in table.to_pylist()}
    place = f"kafka://{kafka.servers}/{topic}"
    assert found == {(f"{place}/{i % 2}", i // 2): (i, i / 4) for i in range(100)}
    known = files("rows", described.sources.rows, "")
    assert [(f.path, f.modified) for f in known] == [
        (f"{place}/0", "offsets 0-50"),
        (f"{place}/1", "offsets 0-50"),
    ]


def test_an_interval_by_offsets_is_read_and_other_partitions_are_not(opened):
    assert opened(start={0: 10}).table()["id"].to_pylist() == list(range(20, 100, 2))
    both = opened(start={0: 10, 1: 0}, stop={0: 12, 1: 1})
    assert both.table()["id"].to_pylist() == [20, 22, 1]
    assert [f.modified for f in both.files] == ["offsets 10-12", "offsets 0-1"]
    assert opened(stop={1: 2}).head(5)["id"].to_pylist() == [1, 3]


def test_what_the_broker_knows_of_a_message_is_a_column_if_asked_for(opened, kafka, topic):
    kafka.send(topic, [(1, {"id": 100})], key="k-é")
    table = opened(start={1: 49}, columns=["_key", "id", "_partition", "_offset", "_timestamp"])
    first, last = table.table().to_pylist()
    assert (first["_key"], first["id"], first["_partition"], first["_offset"]) == (None, 99, 1, 49)
    assert (last["_key"], last["id"], last["_offset"]) == ("k-é", 100, 50)
    assert abs(last["_timestamp"].timestamp() - time.time()) < 60
    kafka.send(topic, [(1, {"id": 101})], key=b"\xff\xfe")
    fields = {"start": {1: 51}, "columns": ["_key"]}
    assert "not UTF-8" in refused(opened, **fields)
    assert opened(**fields, types={"_key": "binary"}).table()["_key"].to_pylist() == [b"\xff\xfe"]


def test_200k_messages_in_parallel_tasks_equal_the_same_rows_from_parquet(
    project, kafka, tmp_path, ray_cluster, collect
):
    name, each = next(names), 51_000
    kafka.topic(name, 4)
    rows = [
        {"id": i, "at": f"2024-01-01T00:00:{i % 60:02d}Z", "v": i / 8, "y": "ab"[i % 2]}
        for i in range(4 * each)
    ]
    kafka.send(name, ((i // each, row) for i, row in enumerate(rows)))
    table = pa.Table.from_pylist(rows)
    table = table.set_column(1, "at", table["at"].cast(pa.timestamp("us", tz="UTC")))
    pq.write_table(table, tmp_path / "same.parquet")
    described = project(rows={"kind": "kafka", "servers": kafka.servers, "topic": name})
    dataset = open_rows(described).dataset
    dataset.context.execution_options.preserve_order = True
    held = dataset.materialize()
    same = collect(open_rows(project(rows={"path": "same.parquet"})).dataset)
    assert same.num_rows == 204_000
    assert collect(held).equals(same)
    told = re.search(r"Kafka.*: (\d+) tasks executed", held.stats())
    assert told is not None
    assert int(told[1]) >= 2


BAD = {
    50: b"{not json",
    51: None,
    52: b"[1, 2]",
    53: json.dumps({"id": "text", "at": {"x": 1}}).encode(),
    54: json.dumps({"id": 5, "new": 1}).encode(),
}


def test_bad_messages_are_set_aside_with_their_bytes_partition_and_offset(
    project, kafka, topic, ray_cluster, collect
):
    kafka.send(topic, ((0, {"id": 0, "at": {"x": 0.5}}) for _ in range(4000)))
    ends = {0: 4050}
    kafka.send(topic, ((1, {"id": 0, "at": {"x": 0.5}}) for _ in range(4000)))
    kafka.send(topic, ((0, value) for value in BAD.values()))
    kafka.send(topic, ((0, {"id": 0, "at": {"x": 0.5}}) for _ in range(4000)))
    described = project(rows={"kind": "kafka", "servers": kafka.servers, "topic": topic})
    table = collect(open_rows(described, traced=True).dataset)
    aside = table.filter(table[UNREADABLE].is_valid()).to_pylist()
    assert [r[POSITION] - ends[0] + 50 for r in aside] == list(BAD)
    assert [r[RAW] for r in aside] == [value or b"" for value in BAD.values()]
    assert {r[ORIGIN] for r in aside} == {f"kafka://{kafka.servers}/{topic}/0"}
    reasons = [r[UNREADABLE] for r in aside]
    assert "the message is not JSON" in reasons[0]
    assert reasons[1:] == [
        "the message has no value (a tombstone)",
        "the record is not a JSON object",
        "field `id` holds text where int64 is expected",
        "field `new` is not among the columns, which were settled from the first records",
    ]
    assert table.num_rows == 100 + 12_000 + 5
    assert open_rows(described).schema == visible(table).schema
    assert collect(open_rows(described).dataset).num_rows == 100 + 12_000


def test_a_bad_message_ends_the_run_if_that_is_asked_for(opened, kafka, topic):
    kafka.send(topic, [(1, b"no json")])
    assert opened().table().num_rows == 100
    text = refused(opened, unreadable="stop")
    assert "source `rows`, partition 1, offset 50: the message is not JSON" in text


# --- Avro ---------------------------------------------------------------------------------------

SCHEMA = {
    "type": "record", "name": "Sale", "fields": [
        {"name": "id", "type": "long"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "price", "type": ["null", "double"], "default": None},
        {"name": "shop", "type": {"type": "record", "name": "Shop", "fields": [
            {"name": "land", "type": "string"},
            {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}}]}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "more", "type": {"type": "map", "values": "long"}},
        {"name": "cost", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9,
                                  "scale": 2}},
        {"name": "key", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "before", "type": ["null", "Sale"], "default": None}],
}  # fmt: skip
UUID = "12345678-1234-5678-1234-567812345678"


def as_avro(record: dict[str, Any], frame: bytes = b"") -> bytes:
    from fastavro import parse_schema, schemaless_writer

    stream = io.BytesIO()
    schemaless_writer(stream, parse_schema(SCHEMA), record)
    return frame + stream.getvalue()


def sale(number: int) -> dict[str, Any]:
    shop = {"land": "NL", "kind": "AB"[number % 2]}
    price = None if number % 3 else number / 2
    at = 1_700_000_000_000 + number
    plain = {"id": number, "at": at, "price": price, "shop": shop, "tags": ["x", "y"]}
    return {**plain, "more": {"a": 1}, "cost": Decimal("1.25"), "key": UUID, "before": None}


@pytest.fixture
def avro_schema(tmp_path) -> str:
    (tmp_path / "sale.avsc").write_text(json.dumps(SCHEMA))
    return str(tmp_path / "sale.avsc")


@pytest.mark.parametrize(
    ("values", "frame"), [("avro", b""), ("confluent", b"\0\0\0\0\7")], ids=["bare", "confluent"]
)
def test_avro_values_have_the_types_of_their_schema(opened, kafka, avro_schema, values, frame):
    name = next(names)
    kafka.topic(name, 1)
    bad = [b"\xff" * 3, as_avro(sale(1), frame) + b"!", as_avro(sale(1), b"\0\0\0\0\x08")]
    kafka.send(name, ((0, as_avro(sale(i), frame)) for i in range(2000)))
    kafka.send(name, ((0, value) for value in bad))
    kafka.send(name, ((0, as_avro(sale(i), frame)) for i in range(2000)))
    table = opened(topic=name, values=values, avro_schema=avro_schema).table()
    assert table.num_rows == 4000
    assert {f.name: str(f.type) for f in table.schema} == {
        "id": "int64",
        "at": "timestamp[us, tz=UTC]",
        "price": "double",
        "shop.land": "string",
        "shop.kind": "string",
        "tags": "string",
        "more": "string",
        "cost": "decimal128(9, 2)",
        "key": "string",
        "before": "string",
    }
    row = table.slice(2, 1).drop_columns(["at"]).to_pylist()[0]
    assert row == {
        "id": 2, "price": None, "shop.land": "NL", "shop.kind": "A", "tags": '["x","y"]',
        "more": '{"a":1}', "cost": Decimal("1.25"), "key": UUID, "before": None,
    }  # fmt: skip
    assert table["at"].cast(pa.int64())[3].as_py() == 1_700_000_000_003_000


def test_avro_without_a_schema_and_of_two_schemas_is_refused(opened, kafka, topic, avro_schema):
    assert "set `avro_schema`" in refused(opened, values="avro")
    assert "no Avro schema" in refused(opened, values="avro", avro_schema=__file__)
    for frame in (b"\0\0\0\0\7", b"\0\0\0\1\0"):
        kafka.send(topic, [(0, as_avro(sale(1), frame))])
    text = refused(opened, values="confluent", avro_schema=avro_schema, start={0: 50})
    assert "several schemas, by id: 7 (1 of 2 looked at), 256 (1 of 2 looked at)" in text


# --- what is refused ----------------------------------------------------------------------------


def test_offsets_that_are_gone_or_not_there_yet_are_refused(opened, kafka, topic):
    kafka.delete_before(topic, 0, 20)
    text = refused(opened, start={0: 10, 1: 0})
    assert "no longer has offset 10; the oldest message there is has offset 20" in text
    assert "set `start: earliest`" in text
    assert "has no offset 60 yet: it ends at 50" in refused(opened, start={0: 20}, stop={0: 60})
    assert "does not exist\n  Allowed: 0, 1" in refused(opened, start={7: 0})
    assert "`start` lies behind `stop`" in refused(opened, start={1: 9}, stop={1: 4})
    assert "different partitions" in refused(opened, start={0: 30, 1: 9}, stop={1: 14})
    assert "no messages to read" in refused(opened, start={1: 50})
    assert opened().table().num_rows == 80


def test_messages_that_are_deleted_while_they_are_read_are_told(opened, kafka, topic):
    waiting = opened()
    kafka.delete_before(topic, 1, 30)
    with pytest.raises(InputError, match="no longer has offset 0"):
        waiting.table()


def test_a_short_read_is_refused(opened, kafka):
    name = next(names)
    kafka.topic(name, 1)
    kafka.send(name, ((0, {"id": i}) for i in range(1000)), batch=2)
    whole = opened(topic=name)
    assert whole.table().num_rows == 1000
    kafka.end_fetches_at(name, 0, 0, 2)  # a broker with wrong watermarks
    with pytest.raises(InputError) as caught:
        whole.table()
    assert "gave nothing for 2s: offsets 0 to 3 of 0 to 999 were read" in str(caught.value)


def test_no_broker_no_topic_and_no_such_option_are_told_apart(opened, topic):
    text = refused(opened, servers="127.0.0.1:9")
    assert "127.0.0.1:9 (source `rows`) does not answer within 2s" in text
    assert f"did you mean `{topic}`?" in refused(opened, topic=f"{topic}s")
    text = refused(opened, options={"sasl.pasword": "hunter22"})
    assert 'No such configuration property: "sasl.pasword"' in text
    assert "hunter22" not in text


def test_a_wrong_password_is_told_at_once_and_not_shown(opened):
    secrets = {"sasl.username": "mlray", "sasl.password": "wrong-pass-word"}
    plain = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}
    with refusing_broker() as servers:
        began = time.monotonic()
        text = refused(opened, servers=servers, options={**plain, **secrets}, timeout="30s")
    assert time.monotonic() - began < 8
    assert "refused us: " in text
    assert "Invalid username or password" in text
    assert "wrong-pass-word" not in text


def test_a_broker_that_goes_away_ends_in_an_error_and_not_in_fewer_rows():
    with broker() as running:
        running.topic("t", 1)
        running.send("t", ((0, {"id": i}) for i in range(500)))
        given = KafkaSource(kind="kafka", servers=running.servers, topic="t", timeout="1s")
        waiting = open_source("rows", given, "")
        running.stop_answering()
        with pytest.raises(InputError, match="none of the offsets 0 to 499 was read"):
            waiting.table()


# --- what a mock cluster cannot be made to do -----------------------------------------------------


@dataclass
class _Message:
    number: int
    end: bool = False

    def error(self) -> Any:
        return self if self.end else None

    def name(self) -> str:
        return "_PARTITION_EOF"

    def offset(self) -> int:
        return self.number

    def partition(self) -> int:
        return 0


@dataclass
class _Script:
    """A consumer that is handed these messages; the mock cluster knows no compaction."""

    messages: list[_Message]

    def assign(self, places: Any) -> None:
        pass

    def unassign(self) -> None:
        pass

    def consume(self, count: int, timeout: float) -> list[_Message]:
        taken, self.messages = self.messages[:count], self.messages[count:]
        return taken

    def get_watermark_offsets(self, place: Any, timeout: float) -> tuple[int, int]:
        return (0, 2)


def scripted(*messages: _Message, **fields: Any) -> Broker:
    given = {"servers": "x", "topic": "t", "timeout": "0.1s", **fields}
    return Broker("rows", KafkaSource(kind="kafka", **given), _Script(list(messages)))


def offsets(read: Iterator[list[Any]]) -> list[int]:
    return [message.offset() for some in read for message in some]


def test_offsets_without_a_message_are_refused_unless_they_are_normal() -> None:
    came = [_Message(0), _Message(1), _Message(5), _Message(7), _Message(8, end=True)]
    with pytest.raises(InputError, match="no message at offsets: 2 to 4"):
        offsets(scripted(*came).messages(0, 0, 8))
    assert offsets(scripted(*came, gaps="allow").messages(0, 0, 8)) == [0, 1, 5, 7]
    with pytest.raises(InputError, match="no message at offsets: 1 to 3"):
        offsets(scripted(_Message(0), _Message(4, end=True)).messages(0, 0, 4))
    ending = scripted(_Message(0), _Message(4, end=True), gaps="allow")
    assert offsets(ending.messages(0, 0, 4)) == [0]
    early = scripted(_Message(0), _Message(2, end=True), gaps="allow")
    with pytest.raises(InputError, match="offsets 0 to 1 of 0 to 3 were read"):
        offsets(early.messages(0, 0, 4))


def test_a_broker_that_names_a_wrong_end_is_found_out() -> None:
    with pytest.raises(InputError, match=r"has a message at offset 2, but .* ends: at 2"):
        scripted(_Message(2)).refuse_wrong_ends({0: 2})
    scripted(_Message(1)).refuse_wrong_ends({0: 1})  # it came since: the end has moved on
    scripted(_Message(2, end=True)).refuse_wrong_ends({0: 2})


def test_a_project_with_kafka_is_described_without_its_secrets(project: Callable[..., Project]):
    described = project(
        rows={
            "kind": "kafka",
            "servers": "h:9092",
            "topic": "t",
            "options": {"sasl.password": "pw"},
        }
    )
    assert described.sources.rows.where == "kafka://h:9092/t"
    assert "pw" not in str(described.sources.rows)
