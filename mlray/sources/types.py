"""Column types: the words of the project file, and one type for a column of many files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.types as pt

from mlray.errors import ConfigError, InputError

_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns)(?:,\s*(?:tz=)?([\w/+:-]+))?\]")
_WORDS = "int64, float64, string, bool, date32, timestamp[us], timestamp[us, UTC]"


def arrow_type(text: str) -> pa.DataType:
    """The Arrow type that `text` names.

    >>> arrow_type("timestamp[us, UTC]"), arrow_type("float64")
    (TimestampType(timestamp[us, tz=UTC]), DataType(double))
    """
    if match := _TIMESTAMP.fullmatch(text.strip()):
        return pa.timestamp(match[1], tz=match[2])
    try:
        return pa.type_for_alias(text.strip())
    except ValueError:
        raise ConfigError("unknown column type", value=text, allowed=_WORDS) from None


def unify(types: Iterable[pa.DataType]) -> pa.DataType:
    """The one type that holds values of all `types`; text where nothing narrower does.

    >>> unify([pa.int64(), pa.float64()]), unify([pa.int64(), pa.string()])
    (DataType(double), DataType(string))
    >>> unify([pa.null(), pa.date32(), pa.timestamp("s")])
    TimestampType(timestamp[us])
    >>> unify([pa.list_(pa.int64()), pa.list_(pa.float64())])
    ListType(list<item: double>)
    """
    kinds = list(dict.fromkeys(_plain(t) for t in types if not pt.is_null(t)))
    if not kinds:
        return pa.null()
    if len(kinds) == 1:
        return kinds[0]
    if all(pt.is_integer(t) for t in kinds):
        return pa.int64()
    if all(pt.is_integer(t) or pt.is_floating(t) for t in kinds):
        return pa.float64()
    if all(pt.is_date32(t) or t == pa.timestamp("us") for t in kinds):
        return pa.timestamp("us")
    if all(pt.is_list(t) for t in kinds):
        return pa.list_(unify(t.value_type for t in kinds))
    if all(pt.is_struct(t) for t in kinds):
        return _unified_struct(kinds)
    return pa.string()


def _unified_struct(kinds: Sequence[pa.StructType]) -> pa.StructType:
    names = dict.fromkeys(f.name for kind in kinds for f in kind)
    held = {n: [k.field(n).type for k in kinds if k.get_field_index(n) >= 0] for n in names}
    return pa.struct([(n, unify(types)) for n, types in held.items()])


def _plain(kind: pa.DataType) -> pa.DataType:
    """Types that differ only in how they are stored become one; clock times stay text."""
    if pt.is_timestamp(kind):
        return pa.timestamp("us", tz=kind.tz)
    if pt.is_dictionary(kind):
        return _plain(kind.value_type)
    if pt.is_large_string(kind) or pt.is_string_view(kind) or pt.is_time(kind):
        return pa.string()
    if pt.is_list(kind) or pt.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pt.is_struct(kind):
        return pa.struct([(f.name, _plain(f.type)) for f in kind])
    return kind


def settled(kind: pa.DataType) -> pa.DataType:
    """A column without any value is text, in lists too: whatever comes later converts to that.

    >>> settled(pa.null()), settled(pa.list_(pa.null())), settled(pa.int64())
    (DataType(string), ListType(list<item: string>), DataType(int64))
    """
    if pt.is_null(kind):
        return pa.string()
    if pt.is_list(kind):
        return pa.list_(settled(kind.value_type))
    if pt.is_struct(kind):
        return pa.struct([(f.name, settled(f.type)) for f in kind])
    return kind


def convert_options(
    missing: Sequence[str], schema: pa.Schema | None = None, columns: Sequence[str] | None = None
) -> pacsv.ConvertOptions:
    """How text becomes values: in CSV files, and wherever else values come as text."""
    return pacsv.ConvertOptions(
        column_types=schema,
        include_columns=columns,
        null_values=list(missing),
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
        timestamp_parsers=[pacsv.ISO8601],
    )


def parsed(
    texts: pa.ChunkedArray, kind: pa.DataType, missing: Sequence[str] = ()
) -> tuple[pa.ChunkedArray, npt.NDArray[np.bool_]]:
    """Texts (N,) as values of a type, by the rules of CSV files.

    Args:
        texts: null where a value is missing.
        kind: type of the values.
        missing: texts that stand for a missing value.

    Returns:
        The values, null where a text does not convert; and (N,) True there.

    >>> values, bad = parsed(pa.chunked_array([["1", "x", "NA"]]), pa.int64(), ["NA"])
    >>> values.to_pylist(), bad.tolist()
    ([1, None, None], [False, True, False])
    """
    different = pa.chunked_array([texts.combine_chunks().dictionary_encode()]).chunk(0)
    values, misfits = _parsed(different.dictionary, kind, missing)
    places = different.indices
    bad = np.append(misfits, False)[places.fill_null(len(misfits)).to_numpy()]
    return pa.chunked_array([values.take(places)], kind), bad


def _parsed(
    texts: pa.Array, kind: pa.DataType, missing: Sequence[str]
) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
    """Halves are tried where the whole does not convert, down to the texts that do not."""
    if not len(texts):
        return pa.nulls(0, kind), np.zeros(0, bool)
    try:
        return _column(texts, missing, kind), np.zeros(len(texts), bool)
    except pa.ArrowInvalid:
        if len(texts) == 1:
            return pa.nulls(1, kind), np.ones(1, bool)
    middle = len(texts) // 2
    left, right = (_parsed(half, kind, missing) for half in (texts[:middle], texts[middle:]))
    return pa.concat_arrays([left[0], right[0]]), np.concatenate([left[1], right[1]])


def _column(texts: pa.Array, missing: Sequence[str], kind: pa.DataType | None = None) -> pa.Array:
    """Texts through Arrow's CSV parser, with an inferred type if there is none."""
    buffer = BytesIO()
    quoted = pacsv.WriteOptions(include_header=False, quoting_style="all_valid")
    pacsv.write_csv(pa.table({"text": texts}), buffer, quoted)
    found = pacsv.read_csv(
        BytesIO(buffer.getvalue()),
        pacsv.ReadOptions(column_names=["text"], use_threads=False),
        pacsv.ParseOptions(newlines_in_values=True),
        convert_options(missing, None if kind is None else pa.schema({"text": kind})),
    )
    return found["text"].combine_chunks()


def inferred(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts as the values that they look like, by the rules of CSV files; null where missing."""
    different = texts.combine_chunks().dictionary_encode()
    if isinstance(different, pa.ChunkedArray):
        different = different.combine_chunks()
    return pa.chunked_array([_column(different.dictionary, ()).take(different.indices)])


_DAY = r"^\d{4}-\d\d-\d\d"


def time_type(texts: pa.ChunkedArray) -> pa.DataType:
    """Date or timestamp if all texts are ISO 8601, else string; null if there is no text.

    >>> time_type(pa.chunked_array([["2013-01-01T10:00:00Z", None]]))
    TimestampType(timestamp[s, tz=UTC])
    >>> time_type(pa.chunked_array([["2013-01-01", "soon"]]))
    DataType(string)
    """
    known = texts.drop_null()
    if not len(known):
        return pa.null()
    for part in (known[:100], known):  # most columns of text show in their first values
        if not pc.all(pc.match_substring_regex(part, _DAY)).as_py():
            return pa.string()
    found = _column(known.combine_chunks().unique(), ()).type
    return found if is_time(found) else pa.string()


def declared_table(
    table: pa.Table, name: str, schema: pa.Schema, secret: Collection[str] = ()
) -> pa.Table:
    """The columns of `schema` with its types.

    Args:
        table: what was read.
        name: of the source.
        schema: of what comes out.
        secret: columns whose values must not stand in an error.

    Raises:
        InputError: a value does not convert.
    """
    table = table.select(schema.names)
    if table.schema.equals(schema):
        return table
    return pa.table([_declared(table[f.name], f, name, secret) for f in schema], schema=schema)


def _declared(
    column: pa.ChunkedArray, field: pa.Field, name: str, secret: Collection[str]
) -> pa.ChunkedArray:
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        why = "***" if field.name in secret else error
        raise InputError(
            f"a value of column `{field.name}` of source `{name}` is not {field.type} ({why})",
            do=f"change `types` of this source, e.g. types: {{{field.name}: string}}",
        ) from None


def epoch_us(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times or dates as microseconds since 1970 (UTC), int64; finer parts are cut off."""
    zone = getattr(column.type, "tz", None)
    return column.cast(pa.timestamp("us", tz=zone), safe=False).cast(pa.int64())


def is_time(kind: pa.DataType) -> bool:
    """Whether values of this type are points in time."""
    return bool(pt.is_timestamp(kind) or pt.is_date(kind))
