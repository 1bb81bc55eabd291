"""Kafka: the messages of an interval of offsets, each of them once, or an error.

`start` and `stop` become offsets when a source is opened; a run pins them before (see
`mlray.pipeline.offsets`), so that the same interval is read however often it is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from mlray.config.rows import KafkaSource
from mlray.errors import ConfigError, InputError
from mlray.sources.kinds.avro import AvroValues, schema_id
from mlray.sources.kinds.broker import Broker, gone
from mlray.sources.kinds.records import Fields, Misfit, refuse, set_aside
from mlray.sources.opened import Opened, SourceFile
from mlray.sources.reading import POSITION, Piece, marked, opened

Interval = tuple[int, int]
"""First offset, and the offset to end before."""

_TASK_BYTES = 8 << 20
_SAMPLE_MESSAGES = 2_000
"""Over all partitions, half of them from the start and half from the end of each."""
_EXTRA = pa.schema(
    {
        "_key": pa.string(),
        "_partition": pa.int64(),
        "_offset": pa.int64(),
        "_timestamp": pa.timestamp("us", tz="UTC"),
    }
)


@dataclass(frozen=True)
class _Task:
    """An interval of one partition, ready to be read. Travels to the task that reads it."""

    name: str
    source: KafkaSource
    fields: Fields
    avro: AvroValues | None
    partition: int
    start: int
    stop: int

    def __call__(self) -> Iterator[pa.Table]:
        """Tables of the interval's messages in order. Runs in a Ray worker."""
        decode = _decoder(self.avro)
        with Broker.connected(self.name, self.source) as broker:
            for messages in broker.messages(self.partition, self.start, self.stop):
                yield self._table(messages, decode)

    def _table(self, messages: Sequence[Any], decode: Callable[[bytes], Any]) -> pa.Table:
        records = [_record(m.value(), decode) for m in messages]
        given = {c: _about(c, messages, self) for c in _EXTRA.names if c in self._asked}
        table, misfits = self.fields.table(records, given)
        if misfits and self.source.unreadable == "stop":
            row = min(misfits)
            where = f"partition {self.partition}, offset {messages[row].offset():,}"
            raise refuse(self.name, where, misfits[row])
        offsets = pa.array([m.offset() for m in messages], pa.int64())
        table = marked(table, set_aside(misfits, lambda row: messages[row].value() or b""))
        return table.append_column(POSITION, offsets)

    @property
    def _asked(self) -> list[str]:
        return self.source.columns or []


def open_source(name: str, source: KafkaSource, folder: str) -> Opened:
    """Open a topic's interval as a source.

    Raises:
        InputError: the broker does not answer, refuses us or has no such topic; offsets are gone
            or not there yet; or there is no message in the interval.
    """
    avro = _avro(name, source)
    with Broker.connected(name, source) as broker:
        chosen = _chosen(name, source, broker, {})
        if not any(start < stop for start, stop in chosen.values()):
            raise _nothing(name, chosen)
        sample = _sample(broker, chosen, source.stop == "latest")
    if avro is not None and avro.framed:
        avro = replace(avro, identifier=_only_id(name, sample))
    fields = _fields(name, source, avro, sample)
    mean_bytes = max(1, sum(map(len, sample)) // max(1, len(sample)))
    template = _Task(name, source, fields, avro, 0, 0, 0)
    pieces = [
        piece
        for partition, interval in sorted(chosen.items())
        for piece in _pieces(template, partition, interval, mean_bytes)
    ]
    shown = _files(source, chosen)
    return opened(name, fields.schema, shown, pieces, kind="Kafka", task_bytes=_TASK_BYTES)


def files(name: str, source: KafkaSource, folder: str) -> tuple[SourceFile, ...]:
    """The interval of each partition. The broker is asked unless `start` and `stop` are given."""
    return _files(source, intervals(name, source))


def intervals(
    name: str, source: KafkaSource, since: Mapping[int, int] | None = None
) -> dict[int, Interval]:
    """The offsets that are read, by partition.

    Args:
        name: of the source.
        source: its `start` and `stop` say which.
        since: where to start unless `start` says offsets; a partition that is not in it is read
            from its oldest message.

    Raises:
        InputError: the broker does not answer, or does not have these offsets.
    """
    if isinstance(source.start, dict) and isinstance(source.stop, dict):
        return _both(name, source.start, source.stop)
    with Broker.connected(name, source) as broker:
        return _chosen(name, source, broker, since or {})


def _chosen(
    name: str, source: KafkaSource, broker: Broker, since: Mapping[int, int]
) -> dict[int, Interval]:
    bounds = broker.bounds()
    starts, stops = source.start, source.stop
    if not isinstance(starts, dict):
        wanted = stops if isinstance(stops, dict) else bounds
        starts = {p: since.get(p, bounds[p][0] if p in bounds else 0) for p in wanted}
    if not isinstance(stops, dict):
        stops = {p: bounds[p][1] if p in bounds else 0 for p in starts}
    chosen = _both(name, starts, stops)
    for partition, interval in chosen.items():
        _check_there(name, broker.place(partition), interval, bounds.get(partition), bounds)
    return chosen


def _both(name: str, starts: Mapping[int, int], stops: Mapping[int, int]) -> dict[int, Interval]:
    if set(starts) != set(stops):
        raise ConfigError(
            f"sources.{name}: `start` and `stop` name different partitions",
            value=sorted(set(starts) ^ set(stops)),
            do="give both for every partition to read",
        )
    return {p: (starts[p], stops[p]) for p in sorted(starts)}


def _check_there(
    name: str,
    place: str,
    interval: Interval,
    bounds: Interval | None,
    known: Mapping[int, Interval],
) -> None:
    """`InputError` if the broker does not have all offsets of an interval."""
    if bounds is None:
        numbers = ", ".join(map(str, sorted(known)))
        raise InputError(f"{place} (source `{name}`) does not exist", allowed=numbers)
    (start, stop), (oldest, end) = interval, bounds
    if max(start, stop) > end:
        raise InputError(
            f"{place} (source `{name}`) has no offset {max(start, stop):,} yet: it ends at {end:,}",
            do="was the topic made anew? Set `start: earliest`, or offsets that are there",
        )
    if start > stop:
        raise ConfigError(
            f"sources.{name}: `start` lies behind `stop` in partition {place.rpartition('/')[2]}",
            value=f"{start:,} > {stop:,}",
        )
    if start < min(oldest, stop):
        raise gone(name, place, start, oldest)


def _nothing(name: str, chosen: Mapping[int, Interval]) -> InputError:
    return InputError(
        f"source `{name}` has no messages to read",
        value=[f"partition {p}: offsets {a:,} to {b:,}" for p, (a, b) in chosen.items()],
        do="wait for messages, or set `start: earliest`",
    )


def _files(source: KafkaSource, chosen: Mapping[int, Interval]) -> tuple[SourceFile, ...]:
    return tuple(
        SourceFile(f"{source.where}/{partition}", 0, f"offsets {start}-{stop}")
        for partition, (start, stop) in sorted(chosen.items())
    )


# --- what the messages hold ---------------------------------------------------------------------


def _sample(broker: Broker, chosen: Mapping[int, Interval], to_end: bool) -> list[bytes]:
    """Values from both ends of all partitions; the end that the broker names is tried as well."""
    filled = {p: i for p, i in chosen.items() if i[0] < i[1]}
    some = max(2, _SAMPLE_MESSAGES // (2 * len(filled)))
    values: list[bytes] = []
    for partition, (start, stop) in filled.items():
        middle = min(start + some, stop)
        for first, last in ((start, middle), (max(middle, stop - some), stop)):
            for messages in broker.messages(partition, first, last):
                values += [m.value() for m in messages if m.value() is not None]
    if to_end:
        broker.refuse_wrong_ends({p: stop for p, (_, stop) in chosen.items()})
    return values


def _avro(name: str, source: KafkaSource) -> AvroValues | None:
    if source.values == "json":
        return None
    return AvroValues.load(name, source.avro_schema, source.values == "confluent")


def _only_id(name: str, sample: Sequence[bytes]) -> int | None:
    """The one schema that framed values were written with."""
    found = Counter(i for i in map(schema_id, sample) if i is not None)
    if len(found) > 1:
        raise InputError(
            f"source `{name}` holds messages of several schemas, by id",
            value=[f"{i} ({n} of {len(sample)} looked at)" for i, n in found.most_common()],
            do="read them apart: set `start` and `stop` to offsets between which there is one",
        )
    return next(iter(found), None)


def _fields(
    name: str, source: KafkaSource, avro: AvroValues | None, sample: Sequence[bytes]
) -> Fields:
    if avro is None:
        decode = _decoder(None)
        return Fields.settled(name, source, [_record(v, decode) for v in sample], _EXTRA)
    return Fields.chosen(name, source, avro.arrow(), _EXTRA)


def _pieces(
    template: _Task, partition: int, interval: Interval, mean_bytes: int
) -> Iterator[Piece]:
    start, stop = interval
    step = max(1, _TASK_BYTES // mean_bytes)
    for first in range(start, stop, step):
        last = min(first + step, stop)
        yield Piece(
            replace(template, partition=partition, start=first, stop=last),
            f"{template.source.where}/{partition}",
            first,
            None if template.source.gaps == "allow" else last - first,
            (last - first) * mean_bytes,
        )


def _decoder(avro: AvroValues | None) -> Callable[[bytes], Any]:
    return _from_json if avro is None else avro.decoder()


def _from_json(value: bytes) -> Any:
    import orjson

    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        return Misfit(f"the message is not JSON ({error})")


def _record(value: bytes | None, decode: Callable[[bytes], Any]) -> Any:
    if value is None:
        return Misfit("the message has no value (a tombstone)")
    return decode(value)


def _about(column: str, messages: Sequence[Any], task: _Task) -> pa.Array:
    """A column of the messages themselves."""
    kind = task.fields.schema.field(column).type
    if column == "_key":
        return _keys(messages, kind)
    if column == "_timestamp":
        # Kind 0: the message has none. Milliseconds since 1970.
        times = [at if sort else None for sort, at in (m.timestamp() for m in messages)]
        return pa.array(times, pa.timestamp("ms", tz="UTC")).cast(kind)
    numbers = [m.offset() if column == "_offset" else task.partition for m in messages]
    return pa.array(numbers, pa.int64()).cast(kind)


def _keys(messages: Sequence[Any], kind: pa.DataType) -> pa.Array:
    keys = pa.array([m.key() for m in messages], pa.binary())
    try:
        return keys.cast(kind)
    except pa.ArrowInvalid:
        raise InputError(
            "a message's key is not UTF-8 text", do="set `types: {_key: binary}`"
        ) from None
