"""Records as JSON and Avro hold them, made into rows: nested fields flattened, one type a column.

A nested object's fields become columns `outer.inner`; a list stays one value, its JSON text. The
columns are settled once, from a sample; a later value that does not fit is told, never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from mlray.config.rows import SourceBase
from mlray.errors import InputError
from mlray.sources.opened import require_columns
from mlray.sources.reading import HIDDEN
from mlray.sources.types import arrow_type, unify

_DOES_NOT_FIT = (pa.ArrowException, TypeError, ValueError, OverflowError)
_DATE, _LOCAL, _UTC = pa.date32(), pa.timestamp("us"), pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Misfit:
    """Why a record is no row."""

    reason: str
    """Names the field, never its value: it stands in reports."""
    value: str | None = None
    """The value, for messages."""
    do: str = "mend it where it is made, or set `unreadable: quarantine`"


@dataclass(frozen=True)
class Fields:
    """What the records of one source are made into. Travels to reading tasks."""

    schema: pa.Schema
    closed: bool
    """Whether a field that `schema` lacks is a misfit; not where the columns to read are chosen."""

    @classmethod
    def settled(
        cls, name: str, source: SourceBase, sample: Iterable[Any], extra: pa.Schema | None = None
    ) -> Fields:
        """Columns and types, from a sample of records and what the project file says.

        Args:
            name: of the source.
            source: its `columns` choose, and its `types` overrule what the sample shows.
            sample: records; what is no object is passed over.
            extra: columns that are not in the records but may be asked for in `columns`.

        Raises:
            InputError: no record is an object, or a column is asked for that none has.
        """
        rows = [flat(r) for r in sample if isinstance(r, dict)]
        if not rows:
            raise InputError(
                f"source `{name}` gave no record that is a JSON object", do="check where it reads"
            )
        seen = dict.fromkeys(key for row in rows for key in row)
        found = {f: kind_of([row.get(f) for row in rows]) for f in seen if f not in source.types}
        kinds = found | {f: arrow_type(text) for f, text in source.types.items()}
        # A column without any value is text, which holds whatever comes later.
        known = {f: pa.string() if pt.is_null(k) else k for f, k in kinds.items()}
        order = [*seen, *(f for f in kinds if f not in seen)]
        return cls.chosen(name, source, pa.schema([(f, known[f]) for f in order]), extra)

    @classmethod
    def chosen(
        cls, name: str, source: SourceBase, known: pa.Schema, extra: pa.Schema | None = None
    ) -> Fields:
        """The same from a schema of all fields."""
        if hidden := [f for f in known.names if f in HIDDEN]:
            raise InputError(
                f"source `{name}` has fields of names that mlray uses itself",
                value=hidden,
                do="name the columns to read in `columns`",
            )
        every = {f.name: f.type for f in [*known, *(extra or [])]}
        require_columns(source.types, pa.schema(every), f"source `{name}`")
        every |= {f: arrow_type(text) for f, text in source.types.items()}
        wanted = known.names if source.columns is None else source.columns
        require_columns(wanted, pa.schema(every), f"source `{name}`")
        return cls(pa.schema([(f, every[f]) for f in wanted]), source.columns is None)

    def table(
        self, records: Sequence[Any], given: Mapping[str, pa.Array] | None = None
    ) -> tuple[pa.Table, dict[int, Misfit]]:
        """Records as a table of `schema`, and by row number those that are no rows: what does not
        fit is missing there.

        Args:
            records: N of them; a `Misfit` among them stays one.
            given: columns that do not come from the records, (N,) each.
        """
        given = given or {}
        rows, misfits = self._flattened(records)
        columns: dict[str, pa.Array] = {}
        for field in self.schema:
            if field.name in given:
                columns[field.name] = given[field.name]
                continue
            values = [row.get(field.name) for row in rows]
            columns[field.name] = _column(field, values, misfits)
        return pa.table(columns, schema=self.schema), misfits

    def _flattened(self, records: Sequence[Any]) -> tuple[list[Any], dict[int, Misfit]]:
        known = set(self.schema.names) if self.closed else None
        rows: list[Any] = []
        misfits: dict[int, Misfit] = {}
        for number, record in enumerate(records):
            row: Any = flat(record) if type(record) is dict else {}
            if type(record) is not dict:
                misfits[number] = record if isinstance(record, Misfit) else _NO_OBJECT
            elif known is not None and not row.keys() <= known:
                unknown = [f for f in row if f not in known and row[f] is not None]
                if unknown:
                    misfits[number] = _new_field(unknown[0])
            rows.append(row)
        return rows, misfits


def _column(field: pa.Field, values: list[Any], misfits: dict[int, Misfit]) -> pa.Array:
    """Values as the field's array; those that do not fit are missing, and told in `misfits`."""
    try:
        return array_of(values, field.type)
    except _DOES_NOT_FIT:
        for number, value in enumerate(values):
            if not _all_fit([value], field.type):
                values[number] = None
                misfits.setdefault(number, _misfit(field, value))
        return array_of(values, field.type)


def _misfit(field: pa.Field, value: Any) -> Misfit:
    return Misfit(
        f"field `{field.name}` holds {_word(value)} where {field.type} is expected",
        repr(value)[:80],
        f"set `types: {{{field.name}: string}}` if it may be anything,"
        " or `unreadable: quarantine` to set such records aside",
    )


_NO_OBJECT = Misfit("the record is not a JSON object")


def _new_field(name: str) -> Misfit:
    return Misfit(
        f"field `{name}` is not among the columns, which were settled from the first records",
        None,
        f"add it to the source's `types` (e.g. `{name}: string`), or name the columns to read in"
        " `columns`",
    )


def flat(record: dict[str, Any]) -> dict[str, Any]:
    """A record with nested objects' fields as `outer.inner`.

    >>> flat({"id": 1, "place": {"land": "NL", "at": {"x": 2}}})
    {'id': 1, 'place.land': 'NL', 'place.at.x': 2}
    """
    if dict not in set(map(type, record.values())):
        return record
    row: dict[str, Any] = {}
    for name, value in record.items():
        if type(value) is dict:
            row |= {f"{name}.{inner}": v for inner, v in flat(value).items()}
        else:
            row[name] = value
    return row


def kind_of(values: Iterable[Any]) -> pa.DataType:
    """The type that all of some values have; text where nothing narrower holds them.

    Text in which all values are ISO 8601 dates or times (of one sort) is dates or times.

    >>> kind_of([1, None, 2.5]), kind_of(["2024-01-01T10:00:00Z"]), kind_of([1, "x"])
    (DataType(double), TimestampType(timestamp[us, tz=UTC]), DataType(string))
    """
    by_type: dict[type, list[Any]] = {}
    for value in values:
        by_type.setdefault(type(value), []).append(value)
    return unify(_kind(kind, some) for kind, some in by_type.items())


def _kind(kind: type, values: list[Any]) -> pa.DataType:
    if kind is str:
        return next((k for k in (_DATE, _LOCAL, _UTC) if _all_fit(values, k)), pa.string())
    if kind is int:
        return pa.int64() if _all_fit(values, pa.int64()) else pa.string()
    plain = {bool: pa.bool_(), float: pa.float64(), type(None): pa.null()}
    return plain.get(kind, pa.string())


def array_of(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Values as an array of a type; nothing is rounded, cut or guessed.

    Whole numbers fit floats, floats without a fraction fit whole numbers, everything fits text
    (as JSON), numbers fit times (since 1970, in the type's unit).

    Raises:
        ArrowInvalid, TypeError, ValueError, OverflowError: a value does not fit.
    """
    types = set(map(type, values)) - {type(None)}
    if pt.is_string(kind) or pt.is_large_string(kind):
        return pa.array(values if types <= {str} else [_text(v) for v in values], kind)
    if bool in types and not pt.is_boolean(kind):
        raise TypeError("true or false is no other value")
    if pt.is_integer(kind) and float in types:
        values = [_whole(v) if type(v) is float else v for v in values]
    if pt.is_temporal(kind) and types == {str}:
        return _times(pa.array(values, pa.string()), kind)
    if pt.is_temporal(kind) and types == {int}:
        return pa.array(values, pa.int64()).cast(kind)
    if types & {str, list, dict} and not pt.is_nested(kind):
        raise TypeError("text or a list is no such value")
    return pa.array(values, kind)


def _times(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return texts.cast(kind)
    except pa.ArrowInvalid:
        if not pt.is_timestamp(kind):
            raise
        # More digits than the type holds: what is cut off is below its unit.
        return texts.cast(pa.timestamp("ns", tz=kind.tz)).cast(kind, safe=False)


def _whole(value: float) -> int:
    if not value.is_integer():
        raise ValueError("not a whole number")
    return int(value)


def _text(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    plain = isinstance(value, (bool, int, float, list, dict))
    return as_json(value).decode() if plain else str(value)


def as_json(value: Any) -> bytes:
    """A value in JSON; what JSON has no word for as its text."""
    import orjson

    try:
        return bytes(orjson.dumps(value, default=str))
    except TypeError:  # whole numbers of more than 64 bits
        return str(value).encode()


def _all_fit(values: Sequence[Any], kind: pa.DataType) -> bool:
    try:
        array_of(values, kind)
    except _DOES_NOT_FIT:
        return False
    return True


_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _word(value: Any) -> str:
    return _WORDS.get(type(value), "a list" if isinstance(value, list) else "a value")


def set_aside(misfits: Mapping[int, Misfit], raw: Callable[[int], bytes]) -> Any:
    """What `reading.marked` takes: reason and text of each misfit, by row number."""
    return {number: (misfit.reason, raw(number)) for number, misfit in misfits.items()}


def refuse(name: str, where: str, misfit: Misfit) -> InputError:
    """The error for a record that ends the run.

    Args:
        name: of the source.
        where: the place, in words.
        misfit: what is wrong with the record.
    """
    return InputError(
        f"source `{name}`, {where}: {misfit.reason}", value=misfit.value, do=misfit.do
    )
