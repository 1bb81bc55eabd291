"""From the text of an expression to a syntax tree that holds nothing but what the language has.

Python's own parser reads it; nothing is ever compiled or run by Python. Sizes are limited, so that
no project file can keep a machine busy.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Iterator

MAX_CHARS = 10_000
MAX_NODES = 2_000
MAX_DEPTH = 60
MAX_TEXT = 1_000
"""Characters of one text literal."""

_NODES = (
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd, ast.BinOp),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.IfExp),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn),
    *(ast.Is, ast.IsNot, ast.Call, ast.Name, ast.Load, ast.Constant),
    *(ast.List, ast.Tuple, ast.Set),
)
_WORDS = (
    "columns, numbers, texts in quotes, True, False, None, + - * / // % **, == != < <= > >=, "
    "and, or, not, in [...], is None, is not None, A if CONDITION else B, and functions"
)
_ALONE = (ast.Is, ast.IsNot, ast.In, ast.NotIn)
_LISTS = (ast.List, ast.Tuple, ast.Set)


class Mistake(Exception):  # noqa: N818 - it becomes an error with a place
    """What is wrong with an expression, and where."""

    def __init__(
        self,
        what: str,
        at: ast.AST | int,
        *,
        allowed: str | None = None,
        do: str | None = None,
        unknown_column: bool = False,
    ):
        super().__init__(what)
        self.what, self.at, self.allowed, self.do = what, at, allowed, do
        self.unknown_column = unknown_column


def parse(text: str) -> ast.expr:
    """The checked tree of an expression.

    Raises:
        Mistake: it is no expression of the language, or too large.
    """
    if len(text) > MAX_CHARS:
        raise Mistake(f"is {len(text):,} characters long", 0, allowed=f"at most {MAX_CHARS:,}")
    if not text.strip():
        raise Mistake("is empty", 0, allowed=_WORDS)
    try:
        # In brackets an expression may go over several lines, as YAML's may.
        tree = ast.parse(f"({text}\n)", mode="eval").body
    except SyntaxError as error:
        raise _syntax(text, error) from None
    except (RecursionError, MemoryError, ValueError):
        raise Mistake("is nested too deeply", 0, allowed=f"{MAX_DEPTH} levels") from None
    _check_size(tree)
    for node in ast.walk(tree):
        _check_node(node)
    return tree


def place_of(text: str, node: ast.AST | int) -> int:
    """Where a node begins in the text, in characters from 1."""
    if isinstance(node, int):
        return node + 1
    line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
    lines = f"({text}".split("\n")
    before = sum(len(each) + 1 for each in lines[: line - 1])
    return before + len(lines[line - 1].encode()[:column].decode(errors="ignore"))


def nearest(name: str, known: Iterable[str]) -> str:
    """The nearest of the known names as a question, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"choose one of: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"


def _syntax(text: str, error: SyntaxError) -> Mistake:
    before = sum(len(line) + 1 for line in text.split("\n")[: (error.lineno or 1) - 1])
    shift = 2 if error.lineno == 1 else 1
    at = min(len(text), max(0, before + (error.offset or 1) - shift))
    if at >= len(text.rstrip()):
        return Mistake("ends too early", len(text.rstrip()), do="close brackets and quotes")
    said = str(error.msg).split(". Perhaps")[0].replace("'(' was", "a bracket was")
    return Mistake(f"is not an expression ({said})", at, allowed=_WORDS)


def _check_size(tree: ast.expr) -> None:
    waiting: list[tuple[ast.AST, int]] = [(tree, 1)]
    nodes = 0
    while waiting:
        node, depth = waiting.pop()
        nodes += 1
        if depth > MAX_DEPTH:
            raise Mistake("is nested too deeply", node, allowed=f"{MAX_DEPTH} levels")
        waiting += [(child, depth + 1) for child in ast.iter_child_nodes(node)]
    if nodes > MAX_NODES:
        raise Mistake(f"has {nodes:,} parts", 0, allowed=f"at most {MAX_NODES:,}")


def _check_node(node: ast.AST) -> None:
    if not isinstance(node, _NODES):
        what = type(node).__name__.lower()
        raise Mistake(f"`{what}` is not part of the language", node, allowed=_WORDS)
    if isinstance(node, ast.Constant):
        _check_literal(node)
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name):
            raise Mistake("only functions of the language can be called", node)
        if node.keywords:
            raise Mistake("functions take their values by place, not by name", node)
    if isinstance(node, ast.Compare):
        if len(node.ops) > 1 and any(isinstance(op, _ALONE) for op in node.ops):
            raise Mistake("`in` and `is` stand in no chain", node, do="put brackets around them")
        for operator, right in zip(node.ops, node.comparators, strict=True):
            _check_comparison(operator, right)
    for child in _values(node):
        if isinstance(child, _LISTS):
            raise Mistake("a list stands only after `in`", child)


def _check_literal(node: ast.Constant) -> None:
    value = node.value
    if isinstance(value, (bytes, complex)) or value is ...:
        raise Mistake("this literal is not part of the language", node, allowed=_WORDS)
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise Mistake("a text is too long", node, allowed=f"at most {MAX_TEXT:,} characters")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise Mistake("a whole number is too large", node, allowed="64 bits; or write 1e20")


def _check_comparison(operator: ast.cmpop, right: ast.expr) -> None:
    if isinstance(operator, (ast.Is, ast.IsNot)):
        if not (isinstance(right, ast.Constant) and right.value is None):
            raise Mistake("`is` asks for None only", right, do="compare values with ==")
    elif isinstance(operator, (ast.In, ast.NotIn)):
        if not isinstance(right, _LISTS):
            raise Mistake("`in` needs a list", right, allowed='carrier in ["UA", "DL"]')
    elif isinstance(right, ast.Constant) and right.value is None:
        raise Mistake("nothing equals None", right, do="ask `is None` or `is not None`")


def _values(node: ast.AST) -> Iterator[ast.AST]:
    """Children that must be values; what stands after `in` need not be."""
    if isinstance(node, ast.Compare):
        yield node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            if not isinstance(operator, (ast.In, ast.NotIn)):
                yield right
        return
    yield from ast.iter_child_nodes(node)
