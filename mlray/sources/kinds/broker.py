"""A Kafka topic, asked for its partitions and offsets, and read from one offset to another.

Ray's own reader is not used: against a broker whose watermarks were wrong it returned 2 of 1000
messages without an error. Here every offset asked for is accounted for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

from mlray.config.fields import duration_s
from mlray.config.rows import KafkaSource
from mlray.errors import ConfigError, InputError
from mlray.sources.opened import did_you_mean

_BATCH = 20_000
"""At most so many messages are handed over at once."""
_TICK_S = 0.5
_METADATA_S = 2.0
"""After so long it is looked whether waiting on for an answer makes sense."""
_OURS = {
    "enable.auto.commit": False,  # what was read is remembered with the model, not by the broker
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "allow.auto.create.topics": False,
    "check.crcs": True,
    "fetch.wait.max.ms": 100,
    "log_level": 0,
}
_AWAY = ("_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_TIMED_OUT", "_TIMED_OUT_QUEUE")
_REFUSED = ("_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "_SSL", "UNSUPPORTED_SASL_MECHANISM")
_FORBIDDEN = ("TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED")
_OUT_OF_RANGE = ("OFFSET_OUT_OF_RANGE", "_AUTO_OFFSET_RESET")


@dataclass
class Broker:
    """One connection to the brokers of a topic."""

    name: str
    """Of the source."""
    source: KafkaSource
    consumer: Any
    said: list[Any] = field(default_factory=list)
    """Errors that the client met, newest last."""

    @classmethod
    @contextmanager
    def connected(cls, name: str, source: KafkaSource) -> Iterator[Broker]:
        """A client that is closed at the end of the block. It joins no group and commits nothing.

        Raises:
            InputError: confluent-kafka is not installed.
            ConfigError: librdkafka does not know an option.
        """
        said: list[Any] = []
        broker = cls(name, source, _consumer(name, source, said), said)
        try:
            yield broker
        finally:
            broker.consumer.close()

    def bounds(self) -> dict[int, tuple[int, int]]:
        """Oldest offset and end (the offset of the next message to come) of every partition.

        Raises:
            InputError: the broker does not answer or refuses us, or there is no such topic.
        """
        from confluent_kafka import KafkaException, TopicPartition

        topic, timeout_s = self.source.topic, duration_s(self.source.timeout)
        found = {}
        for partition in sorted(self._partitions()):
            try:
                place = TopicPartition(topic, partition)
                found[partition] = self.consumer.get_watermark_offsets(place, timeout=timeout_s)
            except KafkaException as error:
                self._explain(error.args[0])
        return found

    def messages(self, partition: int, start: int, stop: int) -> Iterator[list[Any]]:
        """All messages from `start` on and before `stop`, in order, some at a time.

        The end is reached when a message at or behind `stop - 1` came, or when the broker says
        that the partition ends at `stop` or later: offsets that transactions or compaction left
        without a message are then passed, if the source's `gaps` allow them.

        Raises:
            InputError: the offsets are no longer there, one of them has no message, or the broker
                sends nothing for `timeout`.
        """
        from confluent_kafka import TopicPartition

        self.consumer.assign([TopicPartition(self.source.topic, partition, start)])
        position, heard = start, time.monotonic()
        while position < stop:
            batch = self.consumer.consume(min(_BATCH, stop - position), _TICK_S)
            good = []
            for message in batch:
                reached = self._reached(message, partition, start)
                if reached is None or reached <= position or position >= stop:
                    continue
                self._refuse_gap(partition, position, min(_first(message, reached), stop))
                if message.error() is None and message.offset() < stop:
                    good.append(message)
                position, heard = reached, time.monotonic()
            if good:
                yield good
            if position < stop and time.monotonic() - heard > duration_s(self.source.timeout):
                self._refuse_short(partition, position, start, stop)
        self.consumer.unassign()

    def refuse_wrong_ends(self, ends: Mapping[int, int]) -> None:
        """`InputError` if there are messages behind what the broker calls the end of a partition.

        New ones may have come meanwhile; but then it names a later end when it is asked again.
        """
        from confluent_kafka import TopicPartition

        timeout_s = duration_s(self.source.timeout)
        places = {p: TopicPartition(self.source.topic, p, end) for p, end in ends.items()}
        self.consumer.assign(list(places.values()))
        answers: dict[int, Any] = {}
        deadline = time.monotonic() + timeout_s
        while len(answers) < len(places) and time.monotonic() < deadline:
            for message in self.consumer.consume(1, _TICK_S):
                answers.setdefault(message.partition(), message)
        self.consumer.unassign()
        for partition, message in answers.items():
            if message.error() is not None:
                continue
            again = self.consumer.get_watermark_offsets(places[partition], timeout=timeout_s)
            if again[1] <= message.offset():
                raise InputError(
                    f"{self.place(partition)} (source `{self.name}`) has a message at offset"
                    f" {message.offset():,}, but the broker says that it ends",
                    value=f"at {again[1]:,}",
                    do="the broker's watermarks are wrong: mend the broker, or set `stop` by hand",
                )

    def place(self, partition: int) -> str:
        """Address of a partition, without secrets."""
        return f"{self.source.where}/{partition}"

    def _partitions(self) -> list[int]:
        from confluent_kafka import KafkaException

        timeout_s = duration_s(self.source.timeout)
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                topics = self.consumer.list_topics(timeout=min(_METADATA_S, timeout_s)).topics
                break
            except KafkaException as error:
                self.consumer.poll(0)  # hands over what the client met meanwhile
                if time.monotonic() > deadline or self._hopeless():
                    self._explain(error.args[0])
        if self.source.topic not in topics or topics[self.source.topic].error is not None:
            known = sorted(t for t in topics if not t.startswith("__"))
            raise InputError(
                f"{self.source.servers} (source `{self.name}`) has no topic",
                value=self.source.topic,
                do=did_you_mean(self.source.topic, known) if known else "it has none",
            )
        return list(topics[self.source.topic].partitions)

    def _hopeless(self) -> bool:
        return any(error.name() in _REFUSED for error in self.said)

    def _reached(self, message: Any, partition: int, start: int) -> int | None:
        """The offset behind what came; None if it is neither a message nor the partition's end."""
        error = message.error()
        if error is None:
            return int(message.offset()) + 1
        if error.name() == "_PARTITION_EOF":
            return int(message.offset())
        if error.name() in _OUT_OF_RANGE:
            raise gone(self.name, self.place(partition), start)
        if error.name() not in _AWAY:  # of those it recovers, or the timeout tells
            self._explain(error)
        return None

    def _refuse_gap(self, partition: int, position: int, came: int) -> None:
        if came <= position or self.source.gaps == "allow":
            return
        raise InputError(
            f"{self.place(partition)} (source `{self.name}`) has no message at offsets",
            value=f"{position:,} to {came - 1:,}",
            do="if the topic is compacted or written in transactions this is normal: set"
            " `gaps: allow`; else the broker lost messages",
        )

    def _refuse_short(self, partition: int, position: int, start: int, stop: int) -> NoReturn:
        why = f" ({self.said[-1].str()})" if self.said else ""
        raise InputError(
            f"{self.place(partition)} (source `{self.name}`) gave nothing for"
            f" {self.source.timeout}{why}",
            value=f"offsets {start:,} to {position - 1:,} of {start:,} to {stop - 1:,} were read"
            if position > start
            else f"none of the offsets {start:,} to {stop - 1:,} was read",
            do="see whether the broker is well and run again; raise `timeout` if it is only slow",
        )

    def _explain(self, error: Any) -> NoReturn:
        """Raise what librdkafka said in the words of the project file."""
        met = [*self.said, error]
        name = next((e.name() for e in met if e.name() in _REFUSED), error.name())
        text = next((e.str() for e in reversed(met) if e.name() == name), error.str())
        who = f"{self.source.servers} (source `{self.name}`)"
        for names, what, do in _EXPLAINED:
            if name in names:
                what = what.format(timeout=self.source.timeout, topic=self.source.topic)
                raise InputError(f"{who} {what}", value=self._shown(text), do=do) from None
        raise InputError(f"{who} cannot be read", value=self._shown(text)) from None

    def _shown(self, text: str) -> str:
        return without_secrets(text, self.source)


_EXPLAINED = (
    (
        _REFUSED,
        "refused us",
        "check security.protocol, sasl.mechanism, sasl.username and sasl.password in `options`",
    ),
    (_FORBIDDEN, "does not let us read topic {topic}", "ask for the right to read and describe it"),
    (
        _AWAY,
        "does not answer within {timeout}",
        "check `servers`, start the broker, or raise `timeout`",
    ),
)


def gone(name: str, place: str, offset: int, oldest: int | None = None) -> InputError:
    """The error for an offset that is older than all that the broker keeps."""
    since = "" if oldest is None else f"; the oldest message there is has offset {oldest:,}"
    return InputError(
        f"{place} (source `{name}`) no longer has offset {offset:,}{since}",
        do="messages were deleted before they were read: set `start: earliest` to go on with those"
        " that are left, and keep messages longer (retention.ms)",
    )


def without_secrets(text: str, source: KafkaSource) -> str:
    """A message of librdkafka without the values of the source's options."""
    for option in source.options.values():
        secret = option.get_secret_value()
        if len(secret) > 3 and secret.upper() not in _WORDS:
            text = text.replace(secret, "***")
    return text


_WORDS = {"PLAIN", "SSL", "SASL_SSL", "SASL_PLAINTEXT", "SCRAM-SHA-256", "SCRAM-SHA-512", "TRUE"}
"""Values of options that are no secrets."""


def _first(message: Any, reached: int) -> int:
    return reached if message.error() is not None else int(message.offset())


def _consumer(name: str, source: KafkaSource, said: list[Any]) -> Any:
    try:
        from confluent_kafka import Consumer, KafkaException
    except ImportError:
        raise InputError(
            f"source `{name}` needs confluent-kafka", do="pip install 'mlray[kafka]'"
        ) from None
    options = {key: value.get_secret_value() for key, value in source.options.items()}
    given = {"group.id": "mlray", **options, **_OURS, "bootstrap.servers": source.servers}
    try:
        return Consumer({**given, "error_cb": said.append})
    except KafkaException as error:
        raise ConfigError(
            f"sources.{name}.options are not what librdkafka takes",
            value=without_secrets(error.args[0].str(), source),
            do="see librdkafka's CONFIGURATION.md",
        ) from None
