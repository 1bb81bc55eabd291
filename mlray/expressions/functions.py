"""The functions of the expression language: what each takes, gives and does."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from mlray.expressions import kernels as k
from mlray.expressions.bound import (
    BOOL,
    DATE,
    FLOAT,
    INT,
    TEXT,
    Bound,
    applied,
    fit,
    literal,
    met,
)
from mlray.expressions.parsing import Mistake

Bind = Callable[[Sequence[Bound], ast.AST], Bound]
_MANY = 1_000
_DIGITS = 15


@dataclass(frozen=True)
class Function:
    """One function: how it is written, what it does, how it is made of its arguments."""

    signature: str
    says: str
    bind: Bind
    least: int
    most: int

    @property
    def name(self) -> str:
        return self.signature.partition("(")[0]


def _of(
    signature: str,
    says: str,
    takes: str,
    gives: pa.DataType | None,
    kernel: Callable[..., k.Value],
    optional: int = 0,
) -> Function:
    """A function of arguments of fixed families (see `bound.fit`); 'text' and 'int' in quotes are
    literals. Without `gives` its type is that of the first argument."""
    name, families = signature.partition("(")[0], takes.split()

    def bind(parts: Sequence[Bound], at: ast.AST) -> Bound:
        given = [_fitted(p, f, name) for p, f in zip(parts, families, strict=False)]
        return applied(kernel, gives or given[0].kind, at, *given)

    return Function(signature, says, bind, len(families) - optional, len(families))


def _fitted(part: Bound, family: str, name: str) -> Bound:
    if family.startswith("'"):
        literal(part, TEXT if family == "'text'" else INT, f"{name}()")
        return part
    return fit(part, family, f"{name}()")


def _alike(
    signature: str,
    says: str,
    family: str,
    gives: pa.DataType | None,
    kernel: Callable[..., k.Value],
    most: int = _MANY,
) -> Function:
    """A function of arguments that meet in one type of a family."""
    name = signature.partition("(")[0]

    def bind(parts: Sequence[Bound], at: ast.AST) -> Bound:
        given = [fit(part, family, f"{name}()") for part in met(parts, at)]
        return applied(kernel, gives or given[0].kind, at, *given)

    return Function(signature, says, bind, 2, most)


def _floats(signature: str, says: str, kernel: Callable[..., k.Value]) -> Function:
    return _of(signature, says, "float", FLOAT, kernel)


def _asks(signature: str, says: str, kernel: Callable[..., k.Value]) -> Function:
    return _of(signature, says, "text 'text'", BOOL, kernel)


def _part(signature: str, says: str, name: str) -> Function:
    return _of(signature, says, "time", INT, k.part(name))


# --- those with a mind of their own -------------------------------------------------------------


def _round(parts: Sequence[Bound], at: ast.AST) -> Bound:
    number = fit(parts[0], "number", "round()")
    digits = literal(parts[1], INT, "round()") if len(parts) == 2 else 0
    if not 0 <= digits <= _DIGITS:
        raise Mistake("round() is given other digits", at, allowed=f"0 to {_DIGITS}")
    return applied(partial(k.round_to, digits=digits), number.kind, at, number)


def _replace(parts: Sequence[Bound], at: ast.AST) -> Bound:
    text = fit(parts[0], "text", "replace()")
    old, new = (literal(part, TEXT, "replace()") for part in parts[1:])
    if not old:
        raise Mistake("replace() needs a text to look for", parts[1].at)
    return applied(partial(k.replaced, old=old, new=new), TEXT, at, text)


def _matches(parts: Sequence[Bound], at: ast.AST) -> Bound:
    text = fit(parts[0], "text", "matches()")
    pattern = literal(parts[1], TEXT, "matches()")
    try:
        k.matches(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        said = str(error).splitlines()[0]
        raise Mistake(f"RE2 does not take the pattern ({said})", parts[1].at) from None
    return applied(partial(k.matches, pattern=pattern), BOOL, at, text)


def _timestamp(parts: Sequence[Bound], at: ast.AST) -> Bound:
    zone = literal(parts[1], TEXT, "timestamp()") if len(parts) == 2 else "UTC"
    kind = pa.timestamp("us", tz=zone)
    try:
        k.in_zone_of(pa.scalar(0).cast(pa.timestamp("us")), zone)
    except pa.ArrowInvalid:
        raise Mistake("no such time zone", at, allowed='names such as "Europe/Rome"') from None
    part = parts[0]
    if part.kind == TEXT:
        return applied(partial(k.time_of_text, kind=kind), kind, at, part)
    moment = fit(part, "instant", "timestamp()")
    if moment.kind.tz is None:
        return applied(partial(k.in_zone_of, zone=zone), kind, at, moment)
    return applied(partial(k.cast, kind=kind), kind, at, moment)


def _date(parts: Sequence[Bound], at: ast.AST) -> Bound:
    part = parts[0]
    if part.kind == TEXT:
        return applied(k.date_of_text, DATE, at, part)
    return applied(partial(k.cast, kind=DATE), DATE, at, fit(part, "time", "date()"))


GROUPS: dict[str, list[Function]] = {
    "numbers": [
        _of("abs(x)", "size without sign", "number", None, k.size),
        _floats("sqrt(x)", "square root; missing for x < 0", k.within("sqrt", "less", 0.0)),
        _floats("exp(x)", "e to the power of x", pc.exp),
        _floats(
            "log(x)", "natural logarithm; missing for x <= 0", k.within("ln", "less_equal", 0.0)
        ),
        _floats(
            "log1p(x)",
            "log(1 + x), precise for small x; missing for x <= -1",
            k.within("log1p", "less_equal", -1.0),
        ),
        _floats(
            "log10(x)",
            "logarithm to base 10; missing for x <= 0",
            k.within("log10", "less_equal", 0.0),
        ),
        _floats("sin(x)", "sine of an angle in radians", k.finite("sin")),
        _floats("cos(x)", "cosine of an angle in radians", k.finite("cos")),
        _of("floor(x)", "largest whole number not above x, in x's type", "number", None, k.floor),
        _of("ceil(x)", "smallest whole number not below x, in x's type", "number", None, k.ceil),
        Function("round(x, digits)", "to so many digits (none: 0), half to even", _round, 1, 2),
        _alike(
            "min(a, b, ...)",
            "the smallest; missing if one is",
            "ordered",
            None,
            k.extreme("min_element_wise"),
        ),
        _alike(
            "max(a, b, ...)",
            "the largest; missing if one is",
            "ordered",
            None,
            k.extreme("max_element_wise"),
        ),
        _of(
            "isnan(x)",
            "whether x is NaN, which is not the same as missing",
            "float",
            BOOL,
            pc.is_nan,
        ),
    ],
    "missing values": [
        _alike("coalesce(a, b, ...)", "the first that is not missing", "any", None, pc.coalesce),
    ],
    "texts": [
        _of("lower(text)", "in small letters", "text", TEXT, pc.utf8_lower),
        _of("upper(text)", "in capitals", "text", TEXT, pc.utf8_upper),
        _of(
            "strip(text)", "without white space at both ends", "text", TEXT, pc.utf8_trim_whitespace
        ),
        _of("length(text)", "number of characters", "text", INT, k.length),
        _asks("contains(text, 'part')", "whether the part is in it", k.asked(pc.match_substring)),
        _asks("startswith(text, 'start')", "whether it begins so", k.asked(pc.starts_with)),
        _asks("endswith(text, 'end')", "whether it ends so", k.asked(pc.ends_with)),
        Function(
            "matches(text, 'pattern')",
            "whether the whole text matches a regular expression (RE2)",
            _matches,
            2,
            2,
        ),
        Function("replace(text, 'old', 'new')", "every old part replaced", _replace, 3, 3),
        _of(
            "substring(text, start, stop)",
            "characters as in Python's text[start:stop]; without stop to the end",
            "text 'int' 'int'",
            TEXT,
            k.sliced,
            optional=1,
        ),
    ],
    "dates and times": [
        _part("year(t)", "as all parts by the clock of the time's own zone", "year"),
        _part("month(t)", "1 to 12", "month"),
        _part("day(t)", "1 to 31", "day"),
        _part("yearday(t)", "1 to 366", "day_of_year"),
        _part("weekday(t)", "0 is Monday, 6 is Sunday", "day_of_week"),
        _part("hour(t)", "0 to 23", "hour"),
        _part("minute(t)", "0 to 59", "minute"),
        _part("second(t)", "0 to 59", "second"),
        _alike(
            "seconds_between(a, b)",
            "seconds from a to b, below 0 if b is earlier",
            "time",
            FLOAT,
            k.seconds_between,
            most=2,
        ),
        _alike(
            "days_between(a, b)",
            "days of 24 hours from a to b",
            "time",
            FLOAT,
            k.days_between,
            most=2,
        ),
        _of("add_seconds(t, x)", "the time x seconds later", "instant float", None, k.add_seconds),
    ],
    "conversions; what does not convert is missing": [
        _of("int(x)", "a whole number, cut off towards zero", "plain", INT, k.to_int),
        _of("float(x)", "a number", "plain", FLOAT, k.to_float),
        _of("str(x)", "a text", "any", TEXT, partial(k.cast, kind=TEXT)),
        _of(
            "bool(x)",
            "numbers: not 0; texts: true, yes, 1 or false, no, 0",
            "plain",
            BOOL,
            k.to_bool,
        ),
        Function("date(x)", "of a text (ISO 8601) or a time", _date, 1, 1),
        Function(
            "timestamp(x, 'zone')",
            "a time in a zone (UTC if left out); what has no zone of its own is by that clock",
            _timestamp,
            1,
            2,
        ),
    ],
}
FUNCTIONS = {function.name: function for group in GROUPS.values() for function in group}
