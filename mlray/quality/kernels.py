"""What it means to break a rule: block in, broken rows out, `None` where there are none.

Each takes the column it is about and its limits as keywords, so that a rule is a `partial` that
travels to Ray workers. Missing values break `required` only.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mlray import usercode
from mlray.errors import InputError, MlrayError
from mlray.quality.keys import KeySet
from mlray.quality.values import Block, Mask, Values


def missing(block: Block, *, column: str) -> Mask | None:
    """Null or NaN."""
    return block.values(column).missing


def outside(block: Block, *, column: str, low: Any, high: Any) -> Mask | None:
    """Not in [low, high], in units of the column; None for no bound. Infinity lies outside of any
    bound on its side."""
    values = block.values(column)
    numbers = values.numbers
    if numbers is None:
        return None
    # NaN fails both comparisons: it is looked at, but never marked.
    least, greatest = values.ends
    if (low is None or least >= low) and (high is None or greatest <= high):
        return None
    out = np.zeros(len(values), bool)
    if low is not None:
        out |= numbers < low
    if high is not None:
        out |= numbers > high
    if values.valid is not None:
        out &= values.valid
    return out if out.any() else None


def not_among(block: Block, *, column: str, allowed: pa.Array) -> Mask | None:
    """None of the allowed values."""

    def judge(values: pa.Array) -> Mask:
        return _true(pc.and_(pc.invert(pc.is_in(values, value_set=allowed)), values.is_valid()))

    return block.values(column).marked(judge)


def unlike(block: Block, *, column: str, pattern: str) -> Mask | None:
    """Texts that a regular expression does not match as a whole."""
    whole = rf"\A(?:{pattern})\z"
    return block.values(column).marked(
        lambda texts: _true(pc.invert(pc.match_substring_regex(texts, whole)))
    )


def badly_long(block: Block, *, column: str, least: int | None, most: int | None) -> Mask | None:
    """Texts of fewer or more characters than allowed."""
    low, high = least or 0, math.inf if most is None else most
    values = block.values(column)
    if not pt.is_dictionary(values.array.type) and _surely_fit(values.array, low, high):
        return None

    def judge(texts: pa.Array) -> Mask:
        lengths = pc.utf8_length(texts).fill_null(low).to_numpy()
        return np.asarray((lengths < low) | (lengths > high))

    return values.marked(judge)


def _surely_fit(texts: pa.Array, low: int, high: float) -> bool:
    """A character takes 1 to 4 bytes, and bytes are known without a look at the text."""
    sizes = pc.min_max(pc.binary_length(texts)).as_py()
    return sizes["min"] is None or (-(-sizes["min"] // 4) >= low and sizes["max"] <= high)


def unconvertible(block: Block, *, column: str, wanted: pa.DataType) -> Mask | None:
    """Values that do not convert to a type without loss."""
    values = block.values(column)
    if values.type == wanted or _converts(values.array, wanted):
        return None

    def judge(held: pa.Array) -> Mask:
        bad = _culprits(pc.unique(held.drop_null()), wanted)
        if not bad:
            return np.zeros(len(held), bool)
        return _true(pc.and_(pc.is_in(held, value_set=pa.concat_arrays(bad)), held.is_valid()))

    return values.marked(judge)


def unknown(block: Block, *, column: str, keys: KeySet | None) -> Mask | None:
    """Values that the other source does not have."""
    if keys is None:
        raise InputError(f"the values that `{column}` must exist in were not read")
    return block.values(column).marked(keys.lacks)


def untrue(block: Block, *, expression: Any) -> Mask | None:
    """Rows for which an expression is false; missing is not false."""
    return _false(expression.evaluate(block.table))


def refused(block: Block, *, path: str, folder: str) -> Mask | None:
    """Rows for which the user's function says false; missing is not false."""
    try:
        answer = usercode.resolve(path, folder)(block.table)
    except MlrayError:
        raise
    except Exception as error:
        raise InputError(
            f"rule `{path}` failed ({type(error).__name__}: {error})",
            allowed=f"columns it is given: {', '.join(block.table.column_names)}",
        ) from error
    return _false(_answer(answer, path, len(block)))


def _answer(answer: Any, path: str, rows: int) -> pa.Array:
    if isinstance(answer, pa.ChunkedArray):
        answer = pa.concat_arrays(answer.chunks) if answer.num_chunks else pa.array([], answer.type)
    if isinstance(answer, np.ndarray):
        answer = pa.array(answer)
    if not isinstance(answer, pa.Array) or not pt.is_boolean(answer.type) or len(answer) != rows:
        shown = f"{len(answer)} of {answer.type}" if isinstance(answer, pa.Array) else (
            type(answer).__name__)  # fmt: skip
        raise InputError(
            f"rule `{path}` gave", value=shown, allowed=f"a boolean array of {rows} rows"
        )
    return answer


def _false(answer: pa.Array) -> Mask | None:
    if isinstance(answer, pa.ChunkedArray):
        answer = pa.concat_arrays(answer.chunks) if answer.num_chunks else pa.array([], pa.bool_())
    if answer.false_count == 0:
        return None
    return _true(pc.invert(answer))


def _true(answer: pa.Array) -> Mask:
    return np.asarray(answer.fill_null(False).to_numpy(zero_copy_only=False))


def _converts(values: pa.Array, wanted: pa.DataType) -> bool:
    try:
        values.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True


def _culprits(values: pa.Array, wanted: pa.DataType) -> list[pa.Array]:
    """Values that do not convert, halves first: mostly there are few."""
    if len(values) == 0 or _converts(values, wanted):
        return []
    if len(values) == 1:
        return [values]
    half = len(values) // 2
    return _culprits(values[:half], wanted) + _culprits(values[half:], wanted)


def out_of_order(values: Values, *, order: str) -> tuple[int, Any, Any]:
    """How many values are not in order with the one before, and the first and last value; missing
    ones are passed over."""
    held = values.array.drop_null()
    if pt.is_dictionary(held.type):
        held = held.cast(held.type.value_type)
    numbers = Values(pa.chunked_array([held])).numbers
    if numbers is not None and numbers.dtype.kind == "f":
        numbers = numbers[~np.isnan(numbers)]
    if not len(held) or (numbers is not None and not len(numbers)):
        return 0, None, None
    if numbers is None:
        before, after = held[:-1], held[1:]
        compare = pc.less_equal if "strictly" in order else pc.less
        later, earlier = (after, before) if "increasing" in order else (before, after)
        bad = int(compare(later, earlier).true_count) if len(held) > 1 else 0
        return bad, held[0].as_py(), held[-1].as_py()
    steps = numbers[1:], numbers[:-1]
    later_n, earlier_n = steps if "increasing" in order else steps[::-1]
    bad = int(np.count_nonzero(
        later_n <= earlier_n if "strictly" in order else later_n < earlier_n
    ))  # fmt: skip
    return bad, numbers[0].item(), numbers[-1].item()


def is_ordered(before: Any, after: Any, order: str) -> bool:
    """Whether two neighbours are in order.

    >>> is_ordered(1, 1, "increasing"), is_ordered(1, 1, "strictly increasing")
    (True, False)
    """
    low, high = (before, after) if "increasing" in order else (after, before)
    return bool(low < high if "strictly" in order else low <= high)
