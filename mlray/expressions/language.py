"""The expression language in words, for `mlray explain expressions`."""

from __future__ import annotations

from mlray.expressions.functions import GROUPS
from mlray.expressions.parsing import MAX_CHARS, MAX_DEPTH

_RULES = f"""\
expressions: values computed from the columns of a row, in `derive`, `filter` and quality rules.

  speed: distance / air_time * 60
  route: origin + "-" + dest
  late: arr_delay >= 15
  age_group: '"young" if age < 30 else "old"'
  distance > 0 and carrier in ["UA", "DL"] and sched_dep_time is not None

Written like Python. There are columns, whole numbers, fractions, texts in quotes, True, False,
None, + - * / // % ** (+ joins texts too), == != < <= > >= (also 0 < x <= 10), and, or, not,
in [...], not in [...], is None, is not None, A if CONDITION else B, and the functions below.
A column whose name is no plain word is col("its name").

  - What cannot be computed is missing: division by zero, the logarithm of 0, a whole number beyond
    64 bits, int() of a text that is no number. Arithmetic and comparisons with a missing value are
    missing; and, or, not know Kleene's logic: False and (missing) is False.
  - A if CONDITION else B gives B where the condition is missing; a filter keeps only what is true.
  - NaN is a number that is not missing: comparisons with it are False, but != is True; min() and
    max() pass over it.
  - Whole numbers are int64, fractions float64; / and ** always give fractions; together they are
    fractions. // is floor(a / b), and a % b is a - b * (a // b).
  - Nothing is converted silently: text and numbers do not meet, truth values are no numbers. A text
    written out may stand for a date or time: decided_at >= "2013-09-01", in the zone of the column.
  - Each row depends on itself alone: the same bits in training and for every request.
  - At most {MAX_CHARS:,} characters and {MAX_DEPTH} levels.
"""


def _language() -> str:
    lines = [_RULES]
    for group, functions in GROUPS.items():
        lines.append(f"{group}:")
        width = max(len(function.signature) for function in functions)
        lines += [f"  {each.signature:<{width}}  {each.says}" for each in functions]
        lines.append("")
    return "\n".join(lines).rstrip("\n")


LANGUAGE = _language()
"""The whole language on a page."""
