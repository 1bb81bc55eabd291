"""Sections about rows: where they come from, and how they are shaped.

A source's class follows from its `kind`; see `source_tag`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import ConfigDict, Discriminator, Field, SecretStr, Tag, model_validator

from mlray.config.fields import Duration, ImportPath, Section


class Shaping(Section):
    """Steps on columns, in this order: rename, cast, derive, filter, select, transform."""

    rename: dict[str, str] = {}
    """Old name: new name."""
    cast: dict[str, str] = {}
    """Column: type, in Arrow's words; a value that does not convert is an error."""
    derive: dict[str, str] = {}
    """New column: expression over columns, e.g. `speed: distance / air_time * 60`. See
    `mlray explain expressions`."""
    filter: str | None = None
    """Rows to keep: an expression that is true for them, e.g. `distance > 0 and year >= 2013`."""
    select: list[str] | None = None
    """Columns to keep; all if absent."""
    transform: ImportPath | None = None
    """`module:function` on Arrow tables, applied last."""


class SourceBase(Shaping):
    """What all kinds of sources share. Steps apply to this source before any join, in the pipeline
    only: here a label is made and columns known too late are dropped."""

    kind: str | None = None
    """csv, parquet, json, excel, sql, rest, kafka, delta, iceberg, images, or `module:function`
    that returns a ray.data.Dataset. Of files it is derived from the ending of the path."""
    columns: list[str] | None = None
    """Columns to read; all if absent."""
    types: dict[str, str] = {}
    """Column types that inference should not decide, in Arrow's words: int64, float64, string,
    bool, date32, timestamp[us, UTC]."""
    time: str | None = None
    """Column that says when a row became known; needed for joins with `as_of`."""
    pii: dict[str, Literal["drop", "hash", "token"]] = {}
    """Columns with personal data, and what becomes of them before anything is written. drop: not
    read. hash: a keyed hash (HMAC-SHA-256), the same for the same value, that nobody can turn
    back. token: encrypted with the key (AES-SIV), so that who has the key can turn it back."""
    unreadable: Literal["stop", "quarantine"] = "stop"
    """What becomes of a line or message that cannot be parsed: it ends the run, or is set aside
    with its text, reason and place."""

    @property
    def where(self) -> str:
        """The place in words, without secrets."""
        return str(self.kind)


class Source(SourceBase):
    """Rows from files (csv, parquet, json, excel) or from a function."""

    path: str | list[str] | None = None
    """A file, a folder, a glob or a list of them: local, any fsspec address (s3://...), or
    package://NAME/FILE for a file inside an installed package. A .zip is read in place."""
    missing: list[str] = ["", "NA", "NaN", "nan", "null", "NULL", "None", "?"]
    """Texts that stand for a missing value (CSV, Excel)."""
    delimiter: str = ","
    """What separates values (CSV)."""
    encoding: str | list[str] = "utf-8"
    """Encoding of the text (CSV, JSON), or several: of each file the first that fits all of it. A
    byte order mark is understood anyway."""
    records: str | None = None
    """Where the rows lie in a JSON document, as dotted keys: `data.items`. JSON lines need none."""
    sheet: str | list[str] | None = None
    """Sheets to read (Excel): a name, a list, or `*` for all; by default the first."""
    header: int = 1
    """Row that holds the column names, counted from 1 (Excel)."""
    options: dict[str, Any] = {}
    """Passed on to a source function."""

    @property
    def where(self) -> str:
        """The place in words, without secrets."""
        return str(self.path or self.kind)


class SqlSource(SourceBase):
    """Rows from a database. Exact numbers (NUMERIC) become float64, uuid, json, enum and other
    types become text, times with a zone become UTC, infinite times become missing; `types` says
    otherwise."""

    kind: Literal["sql"]
    """sql"""
    url: SecretStr
    """`postgresql://user:password@host/db`, `sqlite:///file.db` (four slashes for an absolute
    path), or any SQLAlchemy URL; take secrets from `${env:NAME}` or `${file:PATH}`."""
    table: str | None = None
    """Table or view to read: `name` or `schema.name`."""
    query: str | None = None
    """SELECT to read, in place of `table`."""
    partition: str | None = None
    """Column of numbers, dates or times whose ranges are read in parallel. Plain tables of
    PostgreSQL and SQLite need none: ranges of pages or row ids are read."""
    tasks: Annotated[int, Field(ge=1, le=1000)] | None = None
    """So many ranges, each read over a connection of its own; by default one for every 50,000
    rows, at most 32."""
    timeout: Duration = "5m"
    """A query that the database works on for longer is cut off; time in which rows wait to be
    taken does not count."""

    @model_validator(mode="after")
    def _one_of_both(self) -> SqlSource:
        if (self.table is None) == (self.query is None):
            raise ValueError("give `table` or `query`, one of both")
        if self.partition is None and self.tasks is not None and self.query is not None:
            raise ValueError("`tasks` of a query need a `partition` column")
        return self

    @property
    def where(self) -> str:
        """The place in words, without secrets."""
        return self.table or "a query"


def address_shown(url: str) -> str:
    """An HTTP address without user, password and query.

    >>> address_shown("https://me:secret@host:8443/rows?key=1")
    'https://host:8443/rows'
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class Pages(Section):
    """How an API hands out its rows piece by piece."""

    by: Literal["page", "offset", "cursor", "link"]
    """page: a page's number. offset: a row's number. cursor: a value of the last answer. link: the
    `Link` header's or an answer's address of the next page."""
    parameter: str | None = None
    """Query parameter that carries page, offset or cursor; by default it is called so itself."""
    start: int | None = None
    """Number of the first page (by default 1), or first offset (by default 0)."""
    size: int | None = None
    """Rows per page, sent as `size_parameter`; a server may give fewer."""
    size_parameter: str | None = None
    """Query parameter that carries the size."""
    next: str | None = None
    """Where an answer holds the next cursor or address, as dotted keys."""
    total: str | None = None
    """Where the first answer holds the number of rows in all, as dotted keys: a short read is then
    refused, and pages by number or offset are read in parallel."""

    @model_validator(mode="after")
    def _names_the_next_page(self) -> Pages:
        if self.by == "cursor" and not self.next:
            raise ValueError("`by: cursor` needs `next`: where an answer holds the next cursor")
        return self


class RestSource(SourceBase):
    """Rows from an HTTP API that answers in JSON."""

    kind: Literal["rest"]
    """rest"""
    url: Annotated[str, Field(pattern=r"^https?://[^/]")]
    """Address; its query and user part are sent and never shown."""
    parameters: dict[str, Any] = {}
    """Query parameters of every request; sent and never shown."""
    each: Annotated[dict[str, list[Any]], Field(max_length=1)] = {}
    """One parameter and its values: all pages are read for each of them, in parallel."""
    headers: dict[str, SecretStr] = {}
    """Headers of every request; secrets from `${env:NAME}` or `${file:PATH}`."""
    token: SecretStr | None = None
    """Sent as `Authorization: Bearer ...`."""
    records: str | None = None
    """Where an answer holds its rows, as dotted keys: `data.items`; by default the answer is the
    list."""
    pages: Pages | None = None
    """How to ask for the next rows; absent: one request."""
    tasks: Annotated[int, Field(ge=1)] = 8
    """At most so many requests at the same time."""
    rate: Annotated[float, Field(gt=0)] | None = None
    """At most so many requests per second, over all tasks."""
    retries: int = 6
    """Times that a request is tried again after 408, 425, 429, 5xx or a lost connection."""
    timeout: Duration = "30s"
    """A request that takes longer is tried again."""

    @property
    def where(self) -> str:
        """The place in words, without secrets."""
        return address_shown(self.url)


class KafkaSource(SourceBase):
    """Rows from messages of a Kafka topic: exactly those of an interval of offsets."""

    kind: Literal["kafka"]
    """kafka"""
    servers: str
    """Bootstrap servers: host:port,host:port."""
    topic: str
    """Topic to read."""
    columns: list[str] | None = None
    """Columns to read; all fields of the messages if absent. Besides those there are `_key`,
    `_partition`, `_offset` and `_timestamp` of the message itself, read if named here."""
    values: Literal["json", "avro", "confluent"] = "json"
    """What a message's value is. avro: a bare Avro value. confluent: Avro behind the five bytes of
    Confluent's framing (0 and the schema's id)."""
    avro_schema: str | None = None
    """File of the Avro schema that values were written with."""
    start: Literal["promoted", "earliest"] | dict[int, int] = "promoted"
    """promoted: where the data of the champion ended, or earliest without one. earliest: the oldest
    message there is. Or the first offset to read, by partition; others are not read."""
    stop: Literal["latest"] | dict[int, int] = "latest"
    """latest: the end of the topic when the run starts. Or the offset to end before, by partition;
    others are not read."""
    options: dict[str, SecretStr] = {}
    """Settings of librdkafka, such as security.protocol, sasl.username, sasl.password."""
    gaps: Literal["refuse", "allow"] = "refuse"
    """Offsets without a message inside the interval. refuse: messages were lost, an error. allow:
    they are normal, as in compacted topics and with transactions."""
    timeout: Duration = "30s"
    """A broker that sends nothing for so long is an error."""
    unreadable: Literal["stop", "quarantine"] = "quarantine"
    """What becomes of a message that cannot be parsed, or has no value."""

    @property
    def where(self) -> str:
        """The place in words, without secrets."""
        return f"kafka://{self.servers}/{self.topic}"


class LakeSource(SourceBase):
    """Rows from a Delta Lake or Iceberg table, at one version."""

    kind: Literal["delta", "iceberg"]
    """delta or iceberg"""
    path: str | None = None
    """Folder or address of the table (Delta), or of its metadata file (Iceberg)."""
    table: str | None = None
    """`namespace.table` in the catalog (Iceberg)."""
    catalog: dict[str, SecretStr] = {}
    """Properties of the catalog (Iceberg): name (default: `default`), type, uri, warehouse,
    credential ..."""
    version: int | str | None = None
    """Delta version or Iceberg snapshot id, or a time (the version of that time); by default the
    newest when the run starts."""
    options: dict[str, SecretStr] = {}
    """Storage options: keys, regions, endpoints."""

    @property
    def where(self) -> str:
        """The place in words, without secrets."""
        return str(self.path or self.table)


class ImagesSource(SourceBase):
    """Images of a folder or an archive, one row each: `image`, `height`, `width`, `file`, and
    `label` from the folder's name; or images held as bytes in a column of a table. Pixels are bytes
    in the order row, column, channel: `pixels` of `mlray.sources.kinds.images` gives one array."""

    kind: Literal["images"]
    """images"""
    path: str | list[str]
    """A folder, a glob, a .zip or .tar; or Parquet files with `column`."""
    column: str | None = None
    """Column of encoded images in Parquet files; the other columns come along."""
    size: tuple[int, int] | None = None
    """Height and width that every image is scaled to; needed unless all are of one size."""
    mode: Literal["RGB", "L"] = "RGB"
    """Channels: RGB or grey."""
    label: Literal["folder", "none"] = "folder"
    """Where a label comes from."""

    @property
    def where(self) -> str:
        """The place in words, without secrets."""
        return str(self.path)


def source_tag(value: Any) -> str:
    """Which class a source is of, by its kind.

    >>> source_tag({"kind": "delta"}), source_tag({"path": "a.csv"}), source_tag({"kind": "m:f"})
    ('lake', 'files', 'files')
    """
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return _TAGS.get(str(kind), "files")


_TAGS = {
    "sql": "sql",
    "rest": "rest",
    "kafka": "kafka",
    "delta": "lake",
    "iceberg": "lake",
    "images": "images",
}
SOURCE_CLASSES: dict[str, type[SourceBase]] = {
    "files": Source,
    "sql": SqlSource,
    "rest": RestSource,
    "kafka": KafkaSource,
    "lake": LakeSource,
    "images": ImagesSource,
}
AnySource = Annotated[
    Annotated[Source, Tag("files")]
    | Annotated[SqlSource, Tag("sql")]
    | Annotated[RestSource, Tag("rest")]
    | Annotated[KafkaSource, Tag("kafka")]
    | Annotated[LakeSource, Tag("lake")]
    | Annotated[ImagesSource, Tag("images")],
    Discriminator(source_tag),
]


class Join(Section):
    """Adds columns of another source to `rows` (left join: rows in = rows out)."""

    with_: str = Field(alias="with")
    """Name of the other source."""
    on: str | list[str] | dict[str, str]
    """Key column or columns of both sides; `{column of rows: column of the other}` if their names
    differ."""
    as_of: str | None = None
    """Time column of `rows`: of each key, the other source's last row at or before this time is
    taken. The other source must declare `time`."""
    tolerance: Duration | None = None
    """With `as_of`: an older match counts as none."""
    prefix: str | None = None
    """Put before the joined columns' names; by default only names that clash get `NAME_`."""

    @property
    def keys(self) -> dict[str, str]:
        """Key columns of `rows`, each with the other source's."""
        if isinstance(self.on, dict):
            return self.on
        return {key: key for key in ([self.on] if isinstance(self.on, str) else self.on)}


class Sources(Shaping):
    """Tables by name; `rows` is the one that training rows come from, others are joined to it.
    Steps apply after the joins; all but `filter` apply to every request too, by the predictor, so
    they must work row by row (no look at other rows)."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, AnySource] = {}

    rows: AnySource
    """The rows to learn from."""
    join: list[Join] = []
    """Joins, in order."""
    pii_key: SecretStr | None = None
    """Key of hashes and tokens of personal data: 32 characters or more, from `${env:NAME}` or
    `${file:PATH}`."""

    @property
    def tables(self) -> dict[str, AnySource]:
        """All sources by name, `rows` first."""
        return {"rows": self.rows, **(self.__pydantic_extra__ or {})}
