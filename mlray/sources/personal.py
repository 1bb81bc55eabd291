"""What becomes of columns with personal data: dropped, hashed or tokenised before anything else.

A value is protected by its text, so that 5, 5.0 and "5" of different sources still meet in a join:

| type | text |
| --- | --- |
| text | as it is: no change of case, no spaces taken off |
| whole numbers, and numbers without a fraction | digits: `5` |
| other numbers | the shortest digits that give the number back: `0.1` |
| dates | `2024-01-31` |
| times | `2024-01-31T10:00:00`, six digits for a fraction; with a zone in UTC and with `Z` |
| true, false | `true`, `false` |

A missing value stays missing. What is a hash or token of the same key already stays as it is, so
rows can be protected twice without harm: the predictor takes raw rows and clean rows alike.
"""

from __future__ import annotations

import binascii
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any, Literal

import pyarrow as pa
import pyarrow.types as pt

from mlray.config import Project
from mlray.config.rows import AnySource, Join
from mlray.errors import ConfigError, InputError

Action = Literal["drop", "hash", "token"]

LEAST_KEY_CHARS = 32
_HASH_BYTES, _SEAL_BYTES = 16, 4
_HASH = re.compile(r"[0-9a-f]{40}")
_TOKEN = re.compile(r"[\w-]{23,}", re.A)
_KEY_ADVICE = (
    'make one with `python -c "import secrets; print(secrets.token_hex(32))"`, keep it where '
    "secrets are kept, and name it as `pii_key: ${env:NAME}` or `${file:PATH}`"
)


@dataclass(frozen=True)
class Keys:
    """Keys of one purpose each, derived from `sources.pii_key` by HKDF-SHA-256 (RFC 5869)."""

    id: str
    """Names the key in stage keys, bundles and lineage; may be shown."""
    hash: bytes = field(repr=False)
    seal: bytes = field(repr=False)
    token: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: str) -> Keys:
        """The keys of a secret.

        >>> Keys.of("a secret of thirty-two characters")
        Keys(id='6e5b2fd3')

        Raises:
            ConfigError: it is shorter than `LEAST_KEY_CHARS`.
        """
        if len(secret) < LEAST_KEY_CHARS:
            raise ConfigError(
                "sources.pii_key is too short to keep anything secret",
                value=f"{len(secret)} characters",
                allowed=f"{LEAST_KEY_CHARS} or more, drawn at random",
                do=_KEY_ADVICE,
            )
        return _derived(secret)

    def hashed(self, text: str) -> str:
        """The keyed hash of a text, 40 hexadecimal digits; a hash of this key stays as it is.

        HMAC-SHA-256 (RFC 2104) cut to 128 bits, and a seal of 32 bits by another key over these,
        by which a hash of this key is known.
        """
        if _HASH.fullmatch(text) and self.is_hash(text):
            return text
        body = _mac(self.hash, text.encode())[:_HASH_BYTES]
        return (body + _mac(self.seal, body)[:_SEAL_BYTES]).hex()

    def is_hash(self, text: str) -> bool:
        """Whether this key made the hash."""
        if not _HASH.fullmatch(text):
            return False
        made = bytes.fromhex(text)
        body, seal = made[:_HASH_BYTES], made[_HASH_BYTES:]
        return hmac.compare_digest(seal, _mac(self.seal, body)[:_SEAL_BYTES])

    def tokenised(self, text: str) -> str:
        """The text encrypted by AES-SIV (RFC 5297), in URL-safe base64; tokens stay as they are.

        The same text gives the same token. Only equality and length can be told from tokens.
        """
        if self.revealed(text) is not None:
            return text
        sealed: bytes = _siv(self.token).encrypt(b"\1" + text.encode(), None)
        return urlsafe_b64encode(sealed).decode().rstrip("=")

    def revealed(self, token: str) -> str | None:
        """The text of a token; None if it is no token of this key."""
        from cryptography.exceptions import InvalidTag

        if not _TOKEN.fullmatch(token):
            return None
        try:
            sealed = urlsafe_b64decode(token + "=" * (-len(token) % 4))
            plain: bytes = _siv(self.token).decrypt(sealed, None)
        except (InvalidTag, binascii.Error, ValueError):
            return None
        return plain[1:].decode()


@lru_cache(maxsize=4)
def _derived(secret: str) -> Keys:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    def key(purpose: str, size: int) -> bytes:
        info = f"mlray personal data: {purpose}".encode()
        made: bytes = HKDF(SHA256(), size, salt=None, info=info).derive(secret.encode())
        return made

    return Keys(key("id", 4).hex(), key("hash", 32), key("seal", 32), key("token", 64))


@lru_cache(maxsize=16)
def _mac_state(key: bytes) -> hmac.HMAC:
    return hmac.new(key, digestmod="sha256")


def _mac(key: bytes, message: bytes) -> bytes:
    state = _mac_state(key).copy()  # a third faster than a new one for every value
    state.update(message)
    return state.digest()


@lru_cache(maxsize=4)
def _siv(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

    return AESSIV(key)


@dataclass(frozen=True)
class Protection:
    """Columns and what becomes of them. Travels to Ray workers, with the derived keys."""

    actions: Mapping[str, Action] = field(default_factory=dict)
    keys: Keys | None = None

    @classmethod
    def of(cls, source: AnySource, keys: Keys | None) -> Protection:
        """What a source's `pii` says."""
        return cls(dict(source.pii), keys)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.actions

    @cached_property
    def dropped(self) -> frozenset[str]:
        """Columns that must not be read."""
        return frozenset(name for name, action in self.actions.items() if action == "drop")

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """What `apply` makes of a table's schema.

        Raises:
            ConfigError: a column holds what has no one text, such as a list.
        """
        kept = [f for f in schema if f.name not in self.dropped]
        return pa.schema([self._field(f) if f.name in self.actions else f for f in kept])

    def _field(self, item: pa.Field) -> pa.Field:
        if not _has_text(item.type):
            raise ConfigError(
                f"pii: column `{item.name}` is of type {item.type}, which cannot be "
                f"{'hashed' if self.actions[item.name] == 'hash' else 'tokenised'}",
                allowed="text, numbers, dates, times, booleans",
                do=f"set `pii: {{{item.name}: drop}}`",
            )
        return pa.field(item.name, pa.string())

    def apply(self, table: pa.Table) -> pa.Table:
        """The table (N rows) with its marked columns protected; columns it lacks are no error."""
        schema = self.schema(table.schema)
        columns = [
            _by_distinct(table[f.name], self._change(f.name))
            if f.name in self.actions
            else table[f.name]
            for f in schema
        ]
        return pa.Table.from_arrays(columns, schema=schema.with_metadata(table.schema.metadata))

    def values(self, name: str, values: Iterable[Any]) -> list[str | None]:
        """Plain values of one marked column, protected: what a request holds."""
        change = self._change(name)
        texts = (text_of(value) for value in values)
        return [None if text is None else change(text) for text in texts]

    def _change(self, name: str) -> Callable[[str], str]:
        assert self.keys is not None, "keys_of refuses a project that needs a key and has none"
        return self.keys.hashed if self.actions[name] == "hash" else self.keys.tokenised


def keys_of(project: Project) -> Keys | None:
    """The keys of a project; None if it hashes and tokenises nothing.

    Raises:
        ConfigError: the key is missing, short, or written in the project file itself, which is
            recorded with every run.
    """
    tables = project.sources.tables.items()
    marked = [f"{n}.{c}" for n, s in tables for c, action in s.pii.items() if action != "drop"]
    if not marked:
        return None
    secret = project.sources.pii_key
    if secret is None:
        raise ConfigError(
            "columns are to be hashed or tokenised, but there is no sources.pii_key",
            value=marked,
            do=_KEY_ADVICE,
        )
    written = (project.document.get("sources") or {}).get("pii_key")
    if isinstance(written, str) and "${" not in written:
        raise ConfigError(
            "sources.pii_key is written out in the project file, which is recorded with every run",
            do=_KEY_ADVICE,
        )
    return Keys.of(secret.get_secret_value())


def carried(name: str, source: AnySource, table: pa.Table, keys: Keys | None) -> dict[str, Action]:
    """Marked columns of a source, by the names that they have after its steps.

    Renaming is followed by name, and what a function did by looking at the values: a column that
    holds nothing but hashes is a hashed one. Columns that are gone are named too, since files of
    raw rows may have them.

    Args:
        name: of the source.
        source: its section.
        table: its first rows, after its steps.
        keys: that made the hashes and tokens.

    Raises:
        ConfigError: a step mixed protected values with others, which could not be done with the
            values of a request.
    """
    marked = {source.rename.get(c, c): action for c, action in source.pii.items()}
    if keys is None or not marked:
        return {c: action for c, action in marked.items() if c not in table.column_names}
    kinds = {f.name: _kinds_of(table[f.name], keys) for f in table.schema}
    mixed = [c for c, found in kinds.items() if len(found) > 1 and found != {"other"}]
    if mixed:
        raise ConfigError(
            f"the steps of source `{name}` put hashes or tokens and other values into one column",
            value=mixed,
            do="do that under `sources`, whose steps are applied to requests too",
        )
    here: dict[str, Action] = {}
    for column, found in kinds.items():
        if found and found != {"other"}:
            here[column] = "hash" if "hash" in found else "token"
        elif not found and marked.get(column, "drop") != "drop":
            here[column] = marked[column]  # only missing values among the first rows
    gone = {c: action for c, action in marked.items() if c not in table.column_names}
    return gone | here


def joined(join: Join, left: Mapping[str, Action], right: Mapping[str, Action]) -> None:
    """`ConfigError` unless the keys of a join are protected alike on both sides."""
    words = {None: "not marked", "drop": "dropped", "hash": "hashed", "token": "tokenised"}
    for key, other in join.keys.items():
        ours, theirs = left.get(key), right.get(other)
        if ours == theirs != "drop":
            continue
        raise ConfigError(
            f"sources.join: `{key}` is {words[ours]} in `rows`, and {words[theirs]} in "
            f"`{join.with_}`, so nothing would match",
            do=f"mark `{key}` the same way, hash or token, in both sources",
        )


def reveal(table: pa.Table, columns: Sequence[str], key: str) -> pa.Table:
    """The table with tokens turned back into the texts they were made of.

    For people who may see the values: what comes back must not be written where the rest is.

    Args:
        table: rows of a run, such as predictions or quarantined rows.
        columns: columns marked `token`.
        key: the secret of `sources.pii_key`.

    Raises:
        InputError: a column is missing, or holds something else than tokens of this key.
    """
    keys = Keys.of(key)
    for name in columns:
        if name not in table.column_names:
            raise InputError(
                "the table has no column", value=name, allowed=", ".join(table.column_names)
            )

        def back(token: str, name: str = name) -> str:
            if (text := keys.revealed(token)) is not None:
                return text
            raise InputError(
                f"column `{name}` holds what is not a token of this key",
                value=f"key {keys.id}",
                do="use the key of the run that made the table; hashes cannot be turned back",
            )

        place = table.column_names.index(name)
        table = table.set_column(place, name, _by_distinct(table[name], back))
    return table


def text_of(value: Any) -> str | None:
    """The one text of a value, as the table above says; None for a missing one.

    >>> [text_of(v) for v in (5, 5.0, "5", 0.1, True, float("nan"), Decimal("5.00"))]
    ['5', '5', '5', '0.1', 'true', None, '5']
    >>> text_of(datetime(2024, 1, 31, 10, tzinfo=UTC)), text_of(datetime(2024, 1, 31).date())
    ('2024-01-31T10:00:00Z', '2024-01-31')
    """
    if value is None or value != value:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        plain = value.replace(tzinfo=None) if value.tzinfo is None else _utc(value)
        return plain.isoformat() + ("Z" if value.tzinfo else "")
    if isinstance(value, (float, Decimal)):
        whole = -(2**63) < value < 2**63 and value == value // 1
        return str(int(value)) if whole else _shortest(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _utc(value: datetime) -> datetime:
    return value.astimezone(UTC).replace(tzinfo=None)


def _shortest(value: float | Decimal) -> str:
    return repr(value) if isinstance(value, float) else format(value.normalize(), "f")


def _has_text(kind: pa.DataType) -> bool:
    if pt.is_dictionary(kind):
        return _has_text(kind.value_type)
    return bool(
        pt.is_string(kind)
        or pt.is_large_string(kind)
        or pt.is_string_view(kind)
        or pt.is_integer(kind)
        or pt.is_floating(kind)
        or pt.is_decimal(kind)
        or pt.is_boolean(kind)
        or pt.is_date(kind)
        or pt.is_timestamp(kind)
        or pt.is_null(kind)
    )


def _by_distinct(column: pa.ChunkedArray, change: Callable[[str], str]) -> pa.ChunkedArray:
    """A column of texts: `change` is called once for each distinct value of a chunk."""
    return pa.chunked_array([_chunk(c, change) for c in column.chunks], pa.string())


def _chunk(chunk: pa.Array, change: Callable[[str], str]) -> pa.Array:
    if pt.is_null(chunk.type):
        return pa.nulls(len(chunk), pa.string())
    if pt.is_timestamp(chunk.type):  # finer parts are below what a column of ours can hold
        chunk = chunk.cast(pa.timestamp("us", chunk.type.tz), safe=False)
    coded = chunk if pt.is_dictionary(chunk.type) else chunk.dictionary_encode()
    texts = (text_of(value) for value in coded.dictionary.to_pylist())
    made = [None if text is None else change(text) for text in texts]
    return pa.array(made, pa.string()).take(coded.indices)


def _kinds_of(column: pa.ChunkedArray, keys: Keys) -> set[str]:
    """Which of hash, token and other the present values are."""
    if not pt.is_string(column.type) and not pt.is_large_string(column.type):
        return {"other"}
    return {_kind_of(value, keys) for value in column.drop_null().unique().to_pylist()}


def _kind_of(value: str, keys: Keys) -> str:
    if keys.is_hash(value):
        return "hash"
    return "other" if keys.revealed(value) is None else "token"
