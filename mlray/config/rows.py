"""Sections about rows: where they come from, how they are shaped, what they must be.

A source's class follows from its `kind`; see `source_tag`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, SecretStr, Tag

from mlray.config.fields import Duration, Frac, ImportPath, Section


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
    encoding: str = "utf-8"
    """Encoding of the text (CSV, JSON); a byte order mark is understood anyway."""
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
    """Rows from a database."""

    kind: Literal["sql"]
    """sql"""
    url: SecretStr
    """`postgresql://user:password@host/db`, `sqlite:///file.db`, or any SQLAlchemy URL; take
    secrets from `${env:NAME}` or `${file:PATH}`."""
    table: str | None = None
    """Table or view to read: `name` or `schema.name`."""
    query: str | None = None
    """SELECT to read, in place of `table`."""
    partition: str | None = None
    """Numeric, date or time column whose ranges are read in parallel."""
    tasks: int | None = None
    """So many ranges; by default from the number of rows and CPUs."""
    timeout: Duration = "5m"
    """A query that takes longer is cut off."""

    @property
    def where(self) -> str:
        """The place in words, without secrets."""
        return self.table or "a query"


class Pages(Section):
    """How an API hands out its rows piece by piece."""

    by: Literal["page", "offset", "cursor", "link"]
    """page: a page's number. offset: a row's number. cursor: a value of the last answer. link: the
    `Link` header's or an answer's address of the next page."""
    parameter: str = "page"
    """Query parameter that carries page, offset or cursor."""
    start: int = 1
    """Number of the first page, or first offset."""
    size: int | None = None
    """Rows per page, sent as `size_parameter`; needed for `by: offset`."""
    size_parameter: str | None = None
    """Query parameter that carries the size."""
    next: str | None = None
    """Where an answer holds the next cursor or address, as dotted keys."""
    total: str | None = None
    """Where the first answer holds the number of rows in all, as dotted keys: pages are then read
    in parallel, and a short read is refused."""


class RestSource(SourceBase):
    """Rows from an HTTP API that answers in JSON."""

    kind: Literal["rest"]
    """rest"""
    url: str
    """Address without secrets."""
    parameters: dict[str, Any] = {}
    """Query parameters of every request."""
    each: dict[str, list[Any]] = {}
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
    rate: float | None = None
    """At most so many requests per second, over all tasks."""
    retries: int = 6
    """Times that a request is tried again after 408, 425, 429, 5xx or a lost connection."""
    timeout: Duration = "30s"
    """A request that takes longer is tried again."""

    @property
    def where(self) -> str:
        """The place in words, without secrets."""
        return self.url


class KafkaSource(SourceBase):
    """Rows from messages of a Kafka topic: exactly those of an interval of offsets."""

    kind: Literal["kafka"]
    """kafka"""
    servers: str
    """Bootstrap servers: host:port,host:port."""
    topic: str
    """Topic to read."""
    values: Literal["json", "avro"] = "json"
    """What a message's value is. avro: without container, or in Confluent's framing."""
    avro_schema: str | None = None
    """File of the Avro schema that values were written with."""
    start: Literal["promoted", "earliest"] | dict[int, int] = "promoted"
    """promoted: where the data of the champion ended, or earliest without one. earliest: the oldest
    message there is. Or the first offset to read, by partition."""
    stop: Literal["latest"] | dict[int, int] = "latest"
    """latest: the end of the topic when the run starts. Or the offset to end before, by
    partition."""
    options: dict[str, SecretStr] = {}
    """Settings of librdkafka, such as security.protocol, sasl.username, sasl.password."""
    timeout: Duration = "30s"
    """A broker that sends nothing for so long is an error."""
    unreadable: Literal["stop", "quarantine"] = "quarantine"
    """What becomes of a message that cannot be parsed."""

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
    """Properties of the catalog (Iceberg): type, uri, warehouse, credential ..."""
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
    `label` from the folder's name; or images held as bytes in a column of a table."""

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
    on: str | list[str]
    """Key column or columns, by the same names on both sides."""
    as_of: str | None = None
    """Time column of `rows`: of each key, the other source's last row at or before this time is
    taken. The other source must declare `time`."""
    tolerance: Duration | None = None
    """With `as_of`: an older match counts as none."""
    prefix: str | None = None
    """Put before the joined columns' names; by default only names that clash get `NAME_`."""


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


class ExistsIn(Section):
    """Another source's column that values must exist in."""

    source: str
    """Name of the source."""
    column: str
    """Its column."""


class Rule(Section):
    """One rule. A rule about single rows sets aside those that break it; a rule about the whole
    table (nulls, monotonic, fresh, rows, like) stops the run."""

    column: str | None = None
    """The column the rule is about."""
    columns: list[str] | None = None
    """Several columns: each for itself, or together for `unique`."""
    name: str | None = None
    """Name in reports; derived from column and check."""
    required: bool | None = None
    """The column must exist and no value may be missing."""
    type: str | None = None
    """Arrow type that the values must have or convert to without loss."""
    range: tuple[float | str | None, float | str | None] | None = None
    """Lowest and highest value, both allowed; null for no bound; dates as text."""
    allowed: list[Any] | None = None
    """The only values allowed (missing ones are not judged)."""
    matches: str | None = None
    """Regular expression (RE2) that the whole text must match."""
    length: tuple[int | None, int | None] | None = None
    """Least and greatest number of characters."""
    unique: bool | None = None
    """No value, or no combination of the columns' values, may occur twice."""
    holds: str | None = None
    """Expression over columns that must be true of every row, e.g. `arrived >= departed`; a row
    where it cannot be told (a value is missing) is not judged."""
    exists_in: ExistsIn | None = None
    """Values must exist in a column of another source."""
    function: ImportPath | None = None
    """`module:function` on an Arrow table that returns a boolean array, true for good rows."""
    nulls: Frac | None = None
    """Largest share of missing values in the whole column."""
    monotonic: Literal["increasing", "decreasing", "strictly increasing", "strictly decreasing"] | (
        None
    ) = None
    """The order that the values have from row to row, in source order."""
    fresh: Duration | None = None
    """The newest time of the column is not older than this."""
    rows: tuple[int | None, int | None] | None = None
    """Least and greatest number of rows of the table."""
    like: str | None = None
    """Reference that the column's distribution must be close to: `champion` for the training data
    of the model in use, or a profile.json file."""
    psi: float = 0.2
    """With `like`: largest population stability index."""
    at_most: Frac = 0.0
    """Share of rows that may break the rule before `warn` is told or `stop` ends the run."""
    severity: Literal["warn", "quarantine", "stop"] | None = None
    """warn: report only. quarantine: set rows aside. stop: end the run. By default quarantine for
    rules about single rows, stop for rules about the whole table."""


class Labels(Section):
    """Search for wrong labels and poisoned rows, by a model trained on the other folds, by what
    single sources and batches do, by flooding with near copies, and by planted triggers."""

    action: Literal["off", "report", "quarantine", "stop"] = "off"
    """report: findings in the report. quarantine: suspected rows do not train, and lie in
    quarantine with score and reason. stop: findings above the limits end the run. Rows are never
    changed."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Parts; each is judged by a network that was trained on the others."""
    origin: str | None = None
    """Column that says who delivered a row; suppliers are compared with one another."""
    batch: str | None = None
    """Column that says in which batch or on which day a row came; batches are compared in order."""
    max_suspects: Frac = 0.02
    """With `stop`: largest share of rows with a suspected label."""


class Quality(Section):
    """What a row must be to count."""

    rules: list[Rule] = []
    """Rules, all checked in one pass."""
    max_quarantined: Frac = 0.05
    """The run stops if a larger share of rows breaks a rule."""
    personal: Literal["off", "warn", "stop"] = "warn"
    """What is done about columns that look like personal data (names, e-mails, card, phone and id
    numbers) and are not marked `pii`."""
    labels: Labels = Labels()
    """Search for wrong labels and poisoned rows."""
