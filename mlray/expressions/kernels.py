"""What expressions compute, by pyarrow.compute alone: Arrow arrays or scalars in and out.

One rule for all of them: what cannot be computed is missing (null). Values do not depend on the
rows beside them, so that a row gives the same bits alone or among a million.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mlray.errors import InputError

Value = Any
"""A pyarrow Array of N values, or a Scalar that stands for N of them."""

MAX_TEXT_BYTES = 1_000_000
"""Longest text that an expression may make."""
_ALL_TEXT_BYTES = 2**31 - 1
"""Arrow's limit for the texts of one block."""
_WIDE = pa.decimal256(19, 0)
_LOW, _HIGH = -(2**63), 2**63 - 1
_YEAR_1_US, _YEAR_10000_US = -62_135_596_800_000_000, 253_402_300_800_000_000

NO_INT, NO_FLOAT, NO_TEXT, NO_BOOL = (
    pa.scalar(None, kind) for kind in (pa.int64(), pa.float64(), pa.string(), pa.bool_())
)

# --- whole numbers ------------------------------------------------------------------------------


def exact(name: str) -> Callable[[Value, Value], Value]:
    """add, subtract or multiply of int64; a result that does not fit in 64 bits is missing."""
    checked = f"{name}_checked"

    def kernel(a: Value, b: Value) -> Value:
        try:
            return pc.call_function(checked, [a, b])
        except pa.ArrowInvalid:
            return _narrowed(pc.call_function(name, [a.cast(_WIDE), b.cast(_WIDE)]))

    return kernel


def _narrowed(wide: Value) -> Value:
    low, high = (pa.scalar(bound, pa.int64()).cast(_WIDE) for bound in (_LOW, _HIGH))
    fits = pc.and_(pc.greater_equal(wide, low), pc.less_equal(wide, high))
    return pc.if_else(fits, wide, pa.scalar(None, wide.type)).cast(pa.int64())


def int_floor(a: Value, b: Value) -> Value:
    """The largest whole number not above a / b."""
    a, b = _divisible(a, b)
    quotient = pc.divide(a, b)
    rest = pc.subtract(a, pc.multiply(quotient, b))
    below = pc.and_(pc.not_equal(rest, 0), pc.not_equal(pc.less(rest, 0), pc.less(b, 0)))
    return pc.subtract(quotient, below.cast(pa.int64()))


def int_rest(a: Value, b: Value) -> Value:
    """a - b * (a // b): of b's sign."""
    least = pc.and_(pc.equal(b, -1), pc.equal(a, _LOW))  # the quotient does not fit, the rest does
    a = pc.if_else(least, 0, a)
    return pc.subtract(a, pc.multiply(b, int_floor(a, b)))


def _divisible(a: Value, b: Value) -> tuple[Value, Value]:
    if isinstance(b, pa.Scalar) and b.is_valid and b.as_py() not in (0, -1):
        return a, b
    b = pc.if_else(pc.equal(b, 0), NO_INT, b)
    return pc.if_else(pc.and_(pc.equal(b, -1), pc.equal(a, _LOW)), NO_INT, a), b


# --- fractions ----------------------------------------------------------------------------------


def divide(a: Value, b: Value) -> Value:
    return pc.divide(a, _not_zero(b))


def float_floor(a: Value, b: Value) -> Value:
    return pc.floor(divide(a, b))


def float_rest(a: Value, b: Value) -> Value:
    return pc.subtract(a, pc.multiply(b, float_floor(a, b)))


def power(a: Value, b: Value) -> Value:
    result = pc.power(a, b)
    wrong = pc.and_(pc.equal(a, 0.0), pc.less(b, 0.0))
    known = pc.invert(pc.or_(pc.is_nan(a), pc.is_nan(b)))
    wrong = pc.or_(wrong, pc.and_(pc.is_nan(result), known))
    return pc.if_else(wrong, NO_FLOAT, result)


def within(name: str, outside: str, bound: float) -> Callable[[Value], Value]:
    """A function of Arrow that is missing where the argument is less (or less_equal)."""

    def kernel(x: Value) -> Value:
        wrong = pc.call_function(outside, [x, pa.scalar(bound)])
        return pc.call_function(name, [pc.if_else(wrong, NO_FLOAT, x)])

    return kernel


def finite(name: str) -> Callable[[Value], Value]:
    """A function of Arrow that is missing for infinities."""
    return lambda x: pc.call_function(name, [pc.if_else(pc.is_inf(x), NO_FLOAT, x)])


def size(x: Value) -> Value:
    if not pa.types.is_integer(x.type):
        return pc.abs(x)
    return pc.if_else(pc.less(x, 0), exact("subtract")(pa.scalar(0), x), x)


def floor(x: Value) -> Value:
    return x if pa.types.is_integer(x.type) else pc.floor(x)


def ceil(x: Value) -> Value:
    return x if pa.types.is_integer(x.type) else pc.ceil(x)


def round_to(x: Value, digits: int) -> Value:
    """Half to even; from 1e15 on there is nothing left to round."""
    if pa.types.is_integer(x.type):
        return x
    small = pc.less(pc.abs(x), 1e15)
    rounded = pc.round(pc.if_else(small, x, 0.0), ndigits=digits)
    return pc.if_else(small, rounded, x)


def _not_zero(b: Value) -> Value:
    if isinstance(b, pa.Scalar) and b.is_valid and b.as_py() != 0:
        return b
    return pc.if_else(pc.equal(b, 0.0), NO_FLOAT, b)


def extreme(name: str) -> Callable[..., Value]:
    """min_element_wise or max_element_wise; missing if one is."""
    kernel = getattr(pc, name)

    def of(*values: Value) -> Value:
        kind = values[0].type
        if not pa.types.is_timestamp(kind):
            return kernel(*values, skip_nulls=False)
        return kernel(*(v.cast(pa.int64()) for v in values), skip_nulls=False).cast(kind)

    return of


# --- truth --------------------------------------------------------------------------------------


def chosen(condition: Value, then: Value, other: Value) -> Value:
    """`then` where the condition is true, else `other`: where it cannot be told, too."""
    if isinstance(condition, pa.Scalar):
        condition = pa.scalar(bool(condition.as_py()))
    return pc.if_else(pc.fill_null(condition, False), then, other)


def among(value: Value, listed: pa.Array) -> Value:
    if pa.types.is_floating(listed.type):  # -0.0 is 0.0
        value, listed = pc.add(value, 0.0), pc.add(listed, 0.0)
    return pc.if_else(pc.is_valid(value), pc.is_in(value, value_set=listed), NO_BOOL)


# --- texts --------------------------------------------------------------------------------------


def concatenated(a: Value, b: Value) -> Value:
    _refuse_long(a, b)
    return pc.binary_join_element_wise(a, b, "")


def _refuse_long(a: Value, b: Value) -> None:
    arrays = [v for v in (a, b) if isinstance(v, pa.Array)]
    if sum(v.nbytes for v in arrays) < MAX_TEXT_BYTES // 2:
        return  # then no single one is too long: a literal is short
    _refuse_lengths(pc.add(pc.binary_length(a).cast("int64"), pc.binary_length(b).cast("int64")))


def _refuse_lengths(lengths: Value) -> None:
    longest, together = pc.max(lengths).as_py() or 0, pc.sum(lengths).as_py() or 0
    if longest > MAX_TEXT_BYTES:
        raise InputError(
            "an expression makes a text that is too long",
            value=f"{longest:,} bytes",
            allowed=f"{MAX_TEXT_BYTES:,} bytes",
        )
    if together > _ALL_TEXT_BYTES:
        raise InputError(
            "an expression makes more text than one block can hold",
            value=f"{together:,} bytes",
            allowed=f"{_ALL_TEXT_BYTES:,} bytes",
        )


def replaced(text: Value, old: str, new: str) -> Value:
    grows = len(new.encode()) - len(old.encode())
    if grows > 0:
        count = pc.count_substring(text, old).cast(pa.int64())
        _refuse_lengths(pc.add(pc.binary_length(text).cast("int64"), pc.multiply(count, grows)))
    return pc.replace_substring(text, old, new)


def sliced(text: Value, start: Value, stop: Value | None = None) -> Value:
    end = None if stop is None else stop.as_py()
    return pc.utf8_slice_codeunits(text, start=start.as_py(), stop=end)


def asked(kernel: Callable[..., Value]) -> Callable[[Value, Value], Value]:
    """A text function of Arrow whose second argument is a literal."""
    return lambda text, literal: kernel(text, literal.as_py())


def length(text: Value) -> Value:
    return pc.utf8_length(text).cast(pa.int64())


def matches(text: Value, pattern: str) -> Value:
    return pc.match_substring_regex(text, rf"\A(?:{pattern})\z")


# --- conversions --------------------------------------------------------------------------------

_NUMBER = r"\A[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?\z"
_WHOLE = r"\A[+-]?\d{1,19}\z"
_DAY = (
    r"(?:\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|"
    r"02-(?:0[1-9]|1\d|2[0-8]))|(?:\d\d(?:0[48]|[2468][048]|[13579][26])|"
    r"(?:[02468][048]|[13579][26])00)-02-29)"
)
_CLOCK = r"[T ](?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,6})?)?"
_ZONE = r"(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"


def _only(text: Value, pattern: str) -> Value:
    return pc.if_else(pc.match_substring_regex(text, pattern), text, NO_TEXT)


def float_of_text(text: Value) -> Value:
    return _only(pc.utf8_trim_whitespace(text), _NUMBER).cast(pa.float64())


def int_of_text(text: Value) -> Value:
    return _narrowed(_only(pc.utf8_trim_whitespace(text), _WHOLE).cast(_WIDE))


def int_of_float(x: Value) -> Value:
    """Towards zero; NaN, infinity and what is beyond 64 bits are missing."""
    fits = pc.and_(pc.greater_equal(x, -(2.0**63)), pc.less(x, 2.0**63))
    return pc.trunc(pc.if_else(fits, x, NO_FLOAT)).cast(pa.int64(), safe=False)


def float_of_int(x: Value) -> Value:
    """The nearest float64, beyond 2**53 too."""
    return x.cast(pa.float64(), safe=False)


def cast(x: Value, kind: pa.DataType) -> Value:
    return x.cast(kind)


def to_int(x: Value) -> Value:
    if pa.types.is_string(x.type):
        return int_of_text(x)
    return int_of_float(x) if pa.types.is_floating(x.type) else x.cast(pa.int64())


def to_float(x: Value) -> Value:
    if pa.types.is_string(x.type):
        return float_of_text(x)
    return float_of_int(x.cast(pa.int64()) if pa.types.is_boolean(x.type) else x)


def to_bool(x: Value) -> Value:
    if pa.types.is_string(x.type):
        return bool_of_text(x)
    return x if pa.types.is_boolean(x.type) else pc.not_equal(x, pa.scalar(0, x.type))


def bool_of_text(text: Value) -> Value:
    word = pc.utf8_lower(pc.utf8_trim_whitespace(text))
    true = pc.is_in(word, value_set=pa.array(["true", "yes", "1"]))
    false = pc.is_in(word, value_set=pa.array(["false", "no", "0"]))
    return pc.if_else(pc.or_(true, false), true, NO_BOOL)


def time_of_text(text: Value, kind: pa.DataType) -> Value:
    """ISO 8601 as time of `kind`; a text without an offset is a wall clock in the type's zone, one
    with an offset is missing for times without a zone."""
    text = pc.utf8_trim_whitespace(text)
    plain = _only(text, rf"\A{_DAY}(?:{_CLOCK})?\z").cast(pa.timestamp("us"))
    if kind.tz is None:
        return plain
    offset = _only(text, rf"\A{_DAY}{_CLOCK}{_ZONE}\z").cast(kind)
    return pc.coalesce(in_zone_of(plain, kind.tz), offset)


def date_of_text(text: Value) -> Value:
    return _only(pc.utf8_trim_whitespace(text), rf"\A{_DAY}\z").cast(pa.date32())


# --- times --------------------------------------------------------------------------------------


def in_zone_of(wall: Value, zone: str) -> Value:
    """Wall-clock times of a zone; an hour that comes twice is the earlier one, an hour that is left
    out counts as the moment at which the clock was put forward."""
    return pc.assume_timezone(wall, zone, ambiguous="earliest", nonexistent="earliest")


def micros(time: Value) -> Value:
    """Microseconds since 1970 of a time or a date, int64."""
    if pa.types.is_date32(time.type):
        time = time.cast(pa.timestamp("us"))
    return time.cast(pa.int64())


def seconds_between(start: Value, end: Value) -> Value:
    return pc.divide(_elapsed(start, end), 1e6)


def days_between(start: Value, end: Value) -> Value:
    return pc.divide(_elapsed(start, end), 86_400e6)


def _elapsed(start: Value, end: Value) -> Value:
    return exact("subtract")(micros(end), micros(start)).cast(pa.float64(), safe=False)


def add_seconds(time: Value, seconds: Value) -> Value:
    """To the nearest microsecond; what leaves the years 1 to 9999 is missing."""
    kind = time.type
    step = int_of_float(pc.round(pc.multiply(seconds, 1e6)))
    moment = exact("add")(micros(time), step)
    fits = pc.and_(pc.greater_equal(moment, _YEAR_1_US), pc.less(moment, _YEAR_10000_US))
    return pc.if_else(fits, moment, NO_INT).cast(kind)


def part(name: str) -> Callable[[Value], Value]:
    """A calendar part of a time (in its own zone) or a date, as int64."""

    def kernel(time: Value) -> Value:
        if pa.types.is_date32(time.type):
            time = time.cast(pa.timestamp("us"))
        return pc.call_function(name, [time]).cast(pa.int64())

    return kernel
