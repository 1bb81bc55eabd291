"""The expression language against plain Python, row by row, and at its limits."""

from __future__ import annotations

import ast
import math
import pickle
import struct
import time
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlray.errors import ConfigError, InputError
from mlray.expressions import LANGUAGE, compile_expression
from mlray.expressions.functions import FUNCTIONS

# --- plain Python says what an expression means -------------------------------------------------

LOW, HIGH = -(2**63), 2**63 - 1


def meaning(node: ast.expr, row: dict[str, Any]) -> Any:
    """The value of an expression for one row; None is missing."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return row[node.id]
    if isinstance(node, ast.UnaryOp):
        return _signed(node, meaning(node.operand, row))
    if isinstance(node, ast.BinOp):
        return _computed(node.op, meaning(node.left, row), meaning(node.right, row))
    if isinstance(node, ast.BoolOp):
        return _kleene(isinstance(node.op, ast.And), [meaning(v, row) for v in node.values])
    if isinstance(node, ast.IfExp):
        return meaning(node.body if meaning(node.test, row) else node.orelse, row)
    if isinstance(node, ast.Call):
        assert isinstance(node.func, ast.Name)
        return _called(node.func.id, [meaning(a, row) for a in node.args])
    assert isinstance(node, ast.Compare)
    values = [meaning(node.left, row)]
    links = []
    for operator, right in zip(node.ops, node.comparators, strict=True):
        if isinstance(operator, ast.In):
            assert isinstance(right, ast.List)
            listed = [meaning(e, row) for e in right.elts]
            links.append(None if values[-1] is None else values[-1] in listed)
            continue
        values.append(meaning(right, row))
        links.append(_compared(operator, *values[-2:]))
    return _kleene(True, links)


def _signed(node: ast.UnaryOp, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(node.op, ast.Not):
        return not value
    return _fits(-value) if isinstance(value, int) else -value


def _fits(value: int) -> int | None:
    return value if LOW <= value <= HIGH else None


def _computed(operator: ast.operator, a: Any, b: Any) -> Any:
    if a is None or b is None:
        return None
    if isinstance(a, str):
        return a + b
    if isinstance(a, int) and isinstance(b, int) and not isinstance(operator, (ast.Div, ast.Pow)):
        return _whole(operator, a, b)
    a, b = float(a), float(b)
    with np.errstate(all="ignore"):
        if isinstance(operator, ast.Add):
            return a + b
        if isinstance(operator, ast.Sub):
            return a - b
        if isinstance(operator, ast.Mult):
            return a * b
        if b == 0:
            return None
        quotient = float(np.float64(a) / np.float64(b))
        if isinstance(operator, ast.Div):
            return quotient
        floor = float(np.floor(quotient))
        return floor if isinstance(operator, ast.FloorDiv) else a - b * floor


def _whole(operator: ast.operator, a: int, b: int) -> int | None:
    if isinstance(operator, (ast.FloorDiv, ast.Mod)) and b == 0:
        return None
    made = {ast.Add: lambda: a + b, ast.Sub: lambda: a - b, ast.Mult: lambda: a * b,
            ast.FloorDiv: lambda: a // b, ast.Mod: lambda: a % b}  # fmt: skip
    return _fits(made[type(operator)]())


def _kleene(is_and: bool, values: list[bool | None]) -> bool | None:
    decided = not is_and
    if any(v is decided for v in values):
        return decided
    return None if any(v is None for v in values) else is_and


def _compared(operator: ast.cmpop, a: Any, b: Any) -> bool | None:
    if isinstance(operator, (ast.Is, ast.IsNot)):
        return (a is None) == isinstance(operator, ast.Is)
    if a is None or b is None:
        return None
    if isinstance(a, float) or isinstance(b, float):
        a, b = float(a), float(b)
    return {ast.Eq: a == b, ast.NotEq: a != b, ast.Lt: a < b, ast.LtE: a <= b,
            ast.Gt: a > b, ast.GtE: a >= b}[type(operator)]  # fmt: skip


def _called(name: str, values: list[Any]) -> Any:
    if name == "coalesce":
        return next((v for v in values if v is not None), None)
    if any(v is None for v in values):
        return None
    (x, *more) = values
    if name in ("min", "max"):
        known = [v for v in values if v == v]
        return (min if name == "min" else max)(known) if known else math.nan
    return {
        "abs": lambda: _fits(abs(x)) if isinstance(x, int) else abs(x),
        "sqrt": lambda: math.sqrt(x) if not x < 0 else None,
        "log": lambda: math.log(x) if not x <= 0 else None,
        "floor": lambda: float(np.floor(x)),
        "round": lambda: float(np.round(x)),
        "isnan": lambda: math.isnan(x),
        "lower": lambda: x.lower(),
        "length": lambda: len(x),
        "contains": lambda: more[0] in x,
        "replace": lambda: x.replace(more[0], more[1]),
        "substring": lambda: x[more[0] :],
        "int": lambda: x,
        "float": lambda: float(x),
    }[name]()


# --- expressions and rows drawn at random -------------------------------------------------------

whole = st.one_of(
    st.integers(-9, 9), st.sampled_from([LOW, LOW + 1, HIGH, HIGH - 1, 2**32, -(2**31)])
)
fraction = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 1.5, -2.5, math.nan, math.inf]))
word = st.text(alphabet="abAéß ", max_size=4)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "i": st.none() | whole,
            "j": st.none() | whole,
            "x": st.none() | fraction,
            "y": st.none() | fraction,
            "s": st.none() | word,
            "t": st.none() | word,
            "b": st.none() | st.booleans(),
            "c": st.none() | st.booleans(),
        }
    ),
    min_size=1,
    max_size=8,
)
SCHEMA = pa.schema(
    {"i": "int64", "j": "int64", "x": "float64", "y": "float64"}
    | {"s": "string", "t": "string", "b": "bool", "c": "bool"}
)


def _grown(parts: tuple[Any, Any, Any, Any]) -> tuple[Any, Any, Any, Any]:
    """Expressions one level deeper: whole numbers, fractions, texts, truth values."""
    i, x, s, b = parts

    def form(text: str, *of: Any) -> Any:
        return st.tuples(*of).map(lambda given: text.format(*given))

    compare = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
    return (
        i | form("({} {} {})", i, st.sampled_from(["+", "-", "*", "//", "%"]), i)
        | form("({} if {} else {})", i, b, i) | form("length({})", s) | form("abs({})", i)
        | form("(-{})", i) | form("coalesce({}, {})", i, i) | form("int({})", i),
        x | form("({} {} {})", x, st.sampled_from(["+", "-", "*", "/", "//", "%"]), x)
        | form("({} / {})", i, i) | form("({} * {})", i, x) | form("min({}, {})", x, x)
        | form("sqrt({})", x) | form("log({})", x) | form("floor({})", x)
        | form("({} if {} else {})", x, b, x) | form("float({})", i),
        s | form("({} + {})", s, s) | form("lower({})", s) | form("coalesce({}, {})", s, s)
        | form("replace({}, 'a', 'xyz')", s) | form("substring({}, 1)", s),
        b | form("({} {} {})", i, compare, i) | form("({} {} {})", x, compare, x)
        | form("({} {} {})", i, compare, x) | form("({} {} {})", s, compare, s)
        | form("({} and {} or {})", b, b, b) | form("(not {})", b) | form("({} is None)", x)
        | form("({} < {} <= {})", i, i, i) | form("({} in [1, -2, 3])", i)
        | form("({} in ['a', 'ab'])", s) | form("({} in [0.0, 1.5])", x)
        | form("contains({}, 'a')", s) | form("isnan({})", x),
    )  # fmt: skip


_LEAVES = (
    st.sampled_from(["i", "j", "0", "3", "-1", "9223372036854775807"]),
    st.sampled_from(["x", "y", "0.5", "-2.0", "1e300"]),
    st.sampled_from(["s", "t", "'a'", '"é"']),
    st.sampled_from(["b", "c", "True"]),
)
EXPRESSIONS = st.one_of(*_grown(_grown(_LEAVES)))


def bits(value: Any) -> Any:
    """What tells values apart, -0.0 from 0.0 too; NaN is NaN."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("d", value)
    return type(value), value


@settings(max_examples=400, deadline=None)
@given(text=EXPRESSIONS, rows=ROWS)
def test_expressions_mean_what_plain_python_says(text: str, rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    found = compile_expression(text).evaluate(table)
    assert found.type == compile_expression(text).type(SCHEMA)
    tree = ast.parse(text, mode="eval").body
    wanted = [meaning(tree, row) for row in rows]
    assert [bits(v) for v in found.to_pylist()] == [bits(v) for v in wanted], text


@settings(max_examples=100, deadline=None)
@given(text=EXPRESSIONS, rows=ROWS, cut=st.integers(0, 8))
def test_a_row_gives_the_same_bits_alone_in_slices_and_in_chunks(
    text: str, rows: list[dict[str, Any]], cut: int
) -> None:
    expression = compile_expression(text)
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    whole_ = [bits(v) for v in expression.evaluate(table).to_pylist()]
    pieces = [table.slice(0, cut), table.slice(cut)]
    sliced = [bits(v) for p in pieces for v in expression.evaluate(p).to_pylist()]
    alone = [bits(expression.evaluate(table.slice(n, 1))[0].as_py()) for n in range(table.num_rows)]
    chunked = expression.evaluate(pa.concat_tables(pieces))
    assert whole_ == sliced == alone == [bits(v) for v in chunked.to_pylist()]


def test_a_million_rows_give_the_bits_of_single_ones() -> None:
    random = np.random.default_rng(3)
    values = np.concatenate(
        [random.normal(size=999_990) * 1e3, [0, -0.0, np.inf, -np.inf] * 2, [1, -1]]
    )
    table = pa.table({"x": values, "y": values[::-1].copy()})
    expression = compile_expression("exp(x / 100) + log1p(y * y) - sin(x) ** 2 / sqrt(y) + x % 7")
    many = expression.evaluate(table).to_pylist()
    for place in [*range(0, 1_000_000, 25_013), *range(999_985, 1_000_000)]:
        one = expression.evaluate(table.slice(place, 1))[0].as_py()
        assert bits(one) == bits(many[place])


# --- times, conversions, types ------------------------------------------------------------------


def value(text: str, **columns: Any) -> Any:
    """Of the first row."""
    arrays = {n: v if isinstance(v, pa.Array) else pa.array([v]) for n, v in columns.items()}
    table = pa.table(arrays)
    return compile_expression(text).evaluate(table)[0].as_py()


MOMENT = datetime(2013, 9, 1, 23, 30, tzinfo=UTC)
AT = pa.array([MOMENT], pa.timestamp("us", "UTC"))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("year(at)", 2013),
        ("hour(at)", 23),
        ("weekday(at)", 6),
        ("hour(timestamp(at, 'Europe/Amsterdam'))", 1),
        ("day(timestamp(at, 'Europe/Amsterdam'))", 2),
        ("date(at)", date(2013, 9, 1)),
        ("date('2013-02-29')", None),
        ("date(' 2012-02-29 ')", date(2012, 2, 29)),
        ("at >= '2013-09-01'", True),
        ("at < '2013-09-01T23:30:00+00:00'", False),
        ("at in ['2013-09-01T23:30', '2014-01-01']", True),
        ("add_seconds(at, 90.5)", datetime(2013, 9, 1, 23, 31, 30, 500000, tzinfo=UTC)),
        ("add_seconds(at, 1e300)", None),
        ("seconds_between(at, '2013-09-02')", 1800.0),
        ("days_between('2013-09-01', at)", 23.5 / 24),
        ("timestamp('2013-09-01T23:30')", MOMENT),
        ("timestamp('2013-09-01 23:30:00', 'UTC') == at", True),
        ("timestamp('2013-09-02T01:30:00+02:00')", MOMENT),
        ("timestamp('soon')", None),
        ("min(at, '2013-01-01') == '2013-01-01'", True),
        ("coalesce(None, at) == at", True),
        ("(at if True else at) == max(at, '2013-01-01', at)", True),
        ("max(date(at), '2014-01-01')", date(2014, 1, 1)),
        ("max('b', 'a', 'ab')", "b"),
        ("int('12') + int('-0012')", 0),
        ("int('12.5')", None),
        ("int('9223372036854775808')", None),
        ("int(2.9) - int(-2.9)", 4),
        ("int(1e19)", None),
        ("float(' +1.5e3 ')", 1500.0),
        ("float('1_000')", None),
        ("float('nan')", None),
        ("bool('Yes')", True),
        ("bool('perhaps')", None),
        ("bool(0.0)", False),
        ("str(12) + '%'", "12%"),
        ("float(True)", 1.0),
        ("2 ** -1", 0.5),
        ("0 ** -1", None),
        ("(-8) ** 0.5", None),
        ("round(2.567, 1)", 2.6),
        ("round(2.5)", 2.0),
        ("round(7)", 7),
        ("upper(substring('hello', 1, 3))", "EL"),
        ("matches('AB-12', '[A-Z]+-[0-9]+')", True),
        ("matches('xAB-12', '[A-Z]+-[0-9]+')", False),
        ("startswith('abc', 'ab') and endswith('abc', 'c')", True),
        ("None if 1 > 2 else 3", 3),
        ("coalesce(None, 2.5)", 2.5),
        ("cos(0) + log10(100)", 3.0),
        ("yearday(at)", 244),
        ("1 < 2 < 3", True),
        ("None", None),
    ],
)
def test_values_are_what_the_language_says(text: str, wanted: Any) -> None:
    assert value(text, at=AT) == wanted


@pytest.mark.parametrize(
    ("column", "text", "wanted"),
    [
        (pa.array([3], pa.int8()), "v * 100", 300),
        (pa.array([2**64 - 1], pa.uint64()), "v is None", True),
        (pa.array([1.5], pa.float32()), "v * 2", 3.0),
        (pa.array(["a"]).dictionary_encode(), "v + 'b'", "ab"),
        (pa.array(["a"], pa.large_string()), "v == 'a'", True),
        (pa.array([date(2013, 9, 1)], pa.date64()), "year(v)", 2013),
        (pa.array([1], pa.timestamp("ns")), "v == '1970-01-01'", True),
        (pa.nulls(1), "v + 1", None),
        (pa.nulls(1), "lower(v)", None),
    ],
)
def test_columns_of_every_type_are_read(column: pa.Array, text: str, wanted: Any) -> None:
    assert value(text, v=column) == wanted


def test_any_column_name_can_be_written() -> None:
    assert value('col("dep delay") + col("class")', **{"dep delay": 2, "class": 3}) == 5
    assert compile_expression('col("dep delay") + x').columns == {"dep delay", "x"}


def test_an_empty_table_gives_an_empty_array_of_the_type() -> None:
    found = compile_expression("i / 2").evaluate(SCHEMA.empty_table())
    assert (len(found), found.type) == (0, pa.float64())


def test_an_expression_pickles_as_its_text() -> None:
    expression = compile_expression("i + 1", "sources.derive.k")
    assert pickle.loads(pickle.dumps(expression)) is expression


def test_every_function_is_explained() -> None:
    for function in FUNCTIONS.values():
        assert function.signature in LANGUAGE


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x +", "ends too early (at character 4)"),
        ("x = 3", "is not an expression"),
        ("", "is empty"),
        ("(x", "never closed"),
        ("'abc", "unterminated string"),
        ("x.real", "`attribute` is not part of the language (at character 1)"),
        ("i + [1]", "a list stands only after `in` (at character 5)"),
        ("(lambda: 1)()", "only functions of the language can be called"),
        ("open('f')", "there is no function `open`"),
        ("__import__('os')", "there is no function `__import__`"),
        ("roun(x)", "did you mean `round`?"),
        ("round(x, digits=2)", "by place, not by name"),
        ("sqrt(x, 2)", "sqrt() is given 2 values"),
        ("x == None", "ask `is None`"),
        ("x is 3", "`is` asks for None only"),
        ("x in i", "`in` needs a list"),
        ("x in []", "the list after `in` is empty"),
        ("x in [1, None]", "ask `x is None` too"),
        ("i in [1] in [2]", "stand in no chain"),
        ("s + i", "needs a text, this is a whole number (at character 5)"),
        ("s > i", "a text and a whole number do not meet"),
        ("b + 1", "needs a number, this is true or false"),
        ("x and b", "needs true or false, this is a fraction"),
        ("i if x else j", "if needs true or false"),
        ("b < c", "truth values have no order"),
        ("contains(s, t)", "needs a text in quotes written out"),
        ("matches(s, '((')", "RE2 does not take the pattern"),
        ("matches(s, '(?=a)')", "RE2 does not take the pattern"),
        ("timestamp(s, 'Mars')", "no such time zone"),
        ("at > 'soon'", "'soon' is no date or time"),
        ("at > day", "use timestamp() or date() on both"),
        ("naive > '2013-01-01T00:00Z'", "this must have no offset"),
        ("round(x, 99)", "0 to 15"),
        ("replace(s, '', 'b')", "a text to look for"),
        ("99999999999999999999", "a whole number is too large"),
        ("struct == 1", "of type struct"),
        ("b'x'", "not part of the language"),
        ("f'{x}'", "is not part of the language"),
        ("col(x)", "name of a column in quotes"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, says: str) -> None:
    schema = pa.schema(
        [
            *SCHEMA,
            pa.field("at", pa.timestamp("us", "UTC")),
            pa.field("naive", pa.timestamp("us")),
            pa.field("day", pa.date32()),
            pa.field("struct", pa.struct({"a": pa.int64()})),
        ]
    )
    with pytest.raises(ConfigError) as caught:
        compile_expression(text, "sources.derive.y").type(schema)
    assert str(caught.value).startswith("sources.derive.y: `")
    assert says in str(caught.value)


def test_an_unknown_column_is_named_with_its_place_and_the_nearest() -> None:
    speed = compile_expression("12 * distanc / air_time", "sources.derive.speed")
    with pytest.raises(InputError) as caught:
        speed.evaluate(pa.table({"distance": [1], "air_time": [2]}))
    assert str(caught.value) == (
        "sources.derive.speed: `12 * distanc / air_time`: there is no column `distanc` "
        "(at character 6)\n  Do: did you mean `distance`?"
    )


def test_the_place_is_counted_in_characters_over_lines() -> None:
    with pytest.raises(InputError, match=r"`dist` \(at character 15\)"):
        compile_expression("'éé' == s\n or dist > 1").type(SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5_000 + "x" + ")" * 5_000,
        "-" * 9_000 + "x",
        "not " * 2_000 + "b",
        "+".join(["x"] * 4_000),
        "x" + " + 1" * 2_000,
        "9" * 9_000,
        "[" * 9_000,
        "abs(" * 90 + "x" + ")" * 90,
        "x if b else " * 800 + "x",
        "'" + "a" * 2_000 + "'",
        "x" * 20_000,
        "\x00",
    ],
)
def test_a_hostile_expression_is_refused_at_once(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ConfigError):
        compile_expression(text).type(SCHEMA)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("text", ["s + s", "replace(s, 'a', 'aa')"])
def test_texts_cannot_grow_without_end(text: str) -> None:
    doubled, grown = compile_expression(text), pa.table({"s": ["a" * 1_000]})
    for _ in range(9):
        grown = pa.table({"s": doubled.evaluate(grown)})
    with pytest.raises(InputError, match="a text that is too long"):
        doubled.evaluate(grown)


def test_a_slow_pattern_is_none_here() -> None:
    table = pa.table({"s": ["a" * 30_000 + "!"]})
    start = time.perf_counter()
    assert compile_expression("matches(s, '(a+)+')").evaluate(table)[0].as_py() is False
    assert time.perf_counter() - start < 2
