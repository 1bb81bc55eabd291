"""From a checked tree and the types of columns to something that runs on columns."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mlray.expressions import kernels as k
from mlray.expressions.bound import (
    BOOL,
    FLOAT,
    INT,
    TEXT,
    Bound,
    applied,
    constant,
    converted,
    fit,
    met,
)
from mlray.expressions.functions import FUNCTIONS
from mlray.expressions.parsing import Mistake, nearest

Types = Mapping[str, pa.DataType]
Kernel = Callable[[k.Value, k.Value], k.Value]

_ARITHMETIC: dict[type[ast.operator], tuple[str, Kernel, Kernel]] = {
    ast.Add: ("+", k.exact("add"), pc.add),
    ast.Sub: ("-", k.exact("subtract"), pc.subtract),
    ast.Mult: ("*", k.exact("multiply"), pc.multiply),
    ast.FloorDiv: ("//", k.int_floor, k.float_floor),
    ast.Mod: ("%", k.int_rest, k.float_rest),
    ast.Div: ("/", k.divide, k.divide),
    ast.Pow: ("**", k.power, k.power),
}
"""Sign, kernel for whole numbers, kernel for fractions."""
_COMPARISONS: dict[type[ast.cmpop], Kernel] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}


def columns_of(tree: ast.expr) -> frozenset[str]:
    """Names of the columns that a tree reads."""
    named = {_column(node) for node in ast.walk(tree)} - {None}
    functions = {id(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    plain = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in functions}
    return frozenset({*plain, *(str(name) for name in named)})


def _column(node: ast.AST) -> str | None:
    """The name in `col("any name")`."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        return None
    if node.func.id != "col":
        return None
    name = node.args[0] if len(node.args) == 1 else None
    if isinstance(name, ast.Constant) and isinstance(name.value, str):
        return name.value
    raise Mistake("col() needs the name of a column in quotes", node)


def check_calls(tree: ast.expr) -> None:
    """Every function must be known and have as many arguments as it takes."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or _column(node) is not None:
            continue
        assert isinstance(node.func, ast.Name)
        function = FUNCTIONS.get(node.func.id)
        if function is None:
            raise Mistake(
                f"there is no function `{node.func.id}`",
                node,
                do=nearest(node.func.id, [*FUNCTIONS, "col"]),
            )
        if not function.least <= len(node.args) <= function.most:
            raise Mistake(
                f"{function.name}() is given {len(node.args)} values",
                node,
                allowed=function.signature,
            )


def bind(node: ast.expr, types: Types) -> Bound:
    """The typed form of a tree.

    Raises:
        Mistake: a column is not there, or types do not fit.
    """
    if isinstance(node, ast.Constant):
        return constant(_scalar(node.value), node)
    if isinstance(node, ast.Name) or _column(node) is not None:
        return _named(_column(node) or str(getattr(node, "id", "")), node, types)
    if isinstance(node, ast.Call):
        assert isinstance(node.func, ast.Name)
        return FUNCTIONS[node.func.id].bind([bind(a, types) for a in node.args], node)
    if isinstance(node, ast.BinOp):
        return _arithmetic(node, bind(node.left, types), bind(node.right, types))
    if isinstance(node, ast.UnaryOp):
        return _unary(node, bind(node.operand, types))
    if isinstance(node, ast.BoolOp):
        return _joined(node, [bind(value, types) for value in node.values])
    if isinstance(node, ast.IfExp):
        return _choice(node, types)
    assert isinstance(node, ast.Compare)
    return _compared(node, types)


def _scalar(value: Any) -> pa.Scalar:
    if isinstance(value, bool):
        return pa.scalar(value, BOOL)
    if isinstance(value, int):
        return pa.scalar(value, INT)
    if value is None:
        return pa.scalar(None, pa.null())
    return pa.scalar(value, TEXT if isinstance(value, str) else FLOAT)


def _named(name: str, node: ast.AST, types: Types) -> Bound:
    if name not in types:
        raise Mistake(
            f"there is no column `{name}`", node, do=nearest(name, types), unknown_column=True
        )
    return Bound(types[name], lambda columns: columns[name], node)


def _arithmetic(node: ast.BinOp, left: Bound, right: Bound) -> Bound:
    sign, whole, fraction = _ARITHMETIC[type(node.op)]
    if sign == "+" and TEXT in (left.kind, right.kind):
        left, right = fit(left, "text", "+ with a text"), fit(right, "text", "+ with a text")
        return applied(k.concatenated, TEXT, node, left, right)
    left, right = fit(left, "number", sign), fit(right, "number", sign)
    if left.kind == right.kind == INT and sign not in ("/", "**"):
        return applied(whole, INT, node, left, right)
    return applied(fraction, FLOAT, node, converted(left, FLOAT), converted(right, FLOAT))


def _unary(node: ast.UnaryOp, operand: Bound) -> Bound:
    if isinstance(node.op, ast.Not):
        return applied(pc.invert, BOOL, node, fit(operand, "bool", "not"))
    number = fit(operand, "number", "a sign")
    if isinstance(node.op, ast.UAdd):
        return number
    if number.kind == FLOAT:
        return applied(pc.negate, FLOAT, node, number)
    return applied(k.exact("subtract"), INT, node, constant(pa.scalar(0), node), number)


def _joined(node: ast.BoolOp, parts: list[Bound]) -> Bound:
    """Kleene's logic: what is false (for `or`: true) whatever a missing value were is so."""
    is_and = isinstance(node.op, ast.And)
    kernel = pc.and_kleene if is_and else pc.or_kleene
    first, *others = [fit(part, "bool", "and" if is_and else "or") for part in parts]
    for other in others:
        first = applied(kernel, BOOL, node, first, other)
    return first


def _choice(node: ast.IfExp, types: Types) -> Bound:
    condition = fit(bind(node.test, types), "bool", "if")
    then, other = met([bind(node.body, types), bind(node.orelse, types)], node)
    return applied(k.chosen, then.kind, node, condition, then, other)


def _compared(node: ast.Compare, types: Types) -> Bound:
    left = bind(node.left, types)
    if isinstance(node.ops[0], (ast.In, ast.NotIn)):
        return _among(left, node.ops[0], node.comparators[0], node)
    links = []
    for operator, comparator in zip(node.ops, node.comparators, strict=True):
        right = bind(comparator, types)
        links.append(_link(left, operator, right, node))
        left = right
    first, *others = links
    for other in others:
        first = applied(pc.and_kleene, BOOL, node, first, other)
    return first


def _link(left: Bound, operator: ast.cmpop, right: Bound, node: ast.Compare) -> Bound:
    if isinstance(operator, (ast.Is, ast.IsNot)):
        kernel = pc.is_null if isinstance(operator, ast.Is) else pc.is_valid
        return applied(kernel, BOOL, node, left)
    left, right = (fit(part, "any", "a comparison") for part in met([left, right], node))
    if left.kind == BOOL and not isinstance(operator, (ast.Eq, ast.NotEq)):
        raise Mistake("truth values have no order", node, allowed="==, !=")
    return applied(_COMPARISONS[type(operator)], BOOL, node, left, right)


def _among(left: Bound, operator: ast.cmpop, right: ast.expr, node: ast.Compare) -> Bound:
    assert isinstance(right, (ast.List, ast.Tuple, ast.Set))
    if not right.elts:
        raise Mistake("the list after `in` is empty", right)
    listed = [bind(each, {}) for each in right.elts]
    value, *met_ = (fit(part, "any", "in") for part in met([left, *listed], node))
    values = pa.array([_written_out(part) for part in met_], met_[0].kind)
    found = applied(lambda column: k.among(column, values), BOOL, node, value)
    return found if isinstance(operator, ast.In) else applied(pc.invert, BOOL, node, found)


def _written_out(part: Bound) -> Any:
    if part.value is None or not part.value.is_valid:
        raise Mistake("a list after `in` holds values only", part.at, do="ask `x is None` too")
    return part.value.as_py()
