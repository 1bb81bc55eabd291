"""Ranges of a column that hold every row exactly once: pure SQL text and arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ROWS_PER_TASK = 50_000
MOST_TASKS = 32


def cuts_for(tasks: int) -> int:
    """Ranges are cut finer than needed, counted, and joined to balanced ones.

    >>> cuts_for(1), cuts_for(2), cuts_for(32)
    (0, 15, 63)
    """
    return 0 if tasks == 1 else min(63, max(15, 4 * tasks - 1))


@dataclass(frozen=True)
class Range:
    """Rows to read in one task."""

    condition: str
    """SQL that is true for them; empty for all rows."""
    rows: int | None
    """So many there are, in the state that is read; None if they were not counted."""


def tasks_for(rows: int, wanted: int | None) -> int:
    """How many tasks read so many rows.

    >>> tasks_for(10, None), tasks_for(200_000, None), tasks_for(10**9, None), tasks_for(10, 3)
    (1, 4, 32, 3)
    """
    return wanted or min(MOST_TASKS, max(1, -(-rows // ROWS_PER_TASK)))


def numbered(column: str, bounds: Sequence[str]) -> str:
    """SQL for the number of the range that a row is in; missing values are in the first.

    Args:
        column: quoted name.
        bounds: B literals in ascending order, which cut B + 1 ranges, open at both ends.

    >>> numbered('"id"', ["10", "20"])
    'case when "id" is null or "id" < 10 then 0 when "id" < 20 then 1 else 2 end'
    """
    first, *rest = (f"{column} < {bound}" for bound in bounds)
    arms = [f"{column} is null or {first}", *rest]
    whens = " ".join(f"when {arm} then {i}" for i, arm in enumerate(arms))
    return f"case {whens} else {len(bounds)} end"


def condition(column: str, bounds: Sequence[str], first: int, end: int) -> str:
    """SQL that is true for the rows of ranges `first` to before `end` of `numbered`.

    >>> [condition('"id"', ["10", "20"], i, i + 1) for i in range(3)]
    ['("id" < 10 or "id" is null)', '"id" >= 10 and "id" < 20', '"id" >= 20']
    >>> condition('"id"', ["10"], 0, 2)
    ''
    """
    below = f"{column} < {bounds[end - 1]}" if end <= len(bounds) else ""
    if first == 0:
        return f"({below} or {column} is null)" if below else ""
    above = f"{column} >= {bounds[first - 1]}"
    return f"{above} and {below}" if below else above


def balanced(counts: Sequence[int], tasks: int) -> list[tuple[int, int]]:
    """Neighbours joined to at most `tasks` groups of about equal sums, none of them empty.

    >>> balanced([5, 5, 90, 0, 5, 5], 3)
    [(0, 2), (2, 4), (4, 6)]
    >>> balanced([0, 0, 7], 2)
    [(0, 3)]
    """
    share = sum(counts) / tasks
    groups: list[tuple[int, int]] = []
    first, held = 0, 0
    for i, count in enumerate(counts):
        if held and count and held + count / 2 > share and len(groups) < tasks - 1:
            groups.append((first, i))
            first, held = i, 0
        held += count
    if held or not groups:
        return [*groups, (first, len(counts))]
    return [*groups[:-1], (groups[-1][0], len(counts))]


def of_counts(column: str, bounds: Sequence[str], counts: Sequence[int], tasks: int) -> list[Range]:
    """Balanced ranges; each knows how many rows it holds."""
    return [
        Range(condition(column, bounds, first, end), sum(counts[first:end]))
        for first, end in balanced(counts, tasks)
    ]


def quoted(name: str, mark: str = '"') -> str:
    """An identifier in quotes.

    >>> quoted('x"y'), quoted("a`b", "`")
    ('"x""y"', '`a``b`')
    """
    return f"{mark}{name.replace(mark, mark * 2)}{mark}"


def literal(text: str) -> str:
    """A text as an SQL literal.

    >>> literal("o'clock")
    "'o''clock'"
    """
    return "'" + text.replace("'", "''") + "'"


def subquery(query: str) -> str:
    """A SELECT as something to select from; a semicolon at its end does no harm.

    >>> subquery("select 1 as a;  ")
    '(select 1 as a\\n) as q'
    """
    return f"({query.strip().rstrip(';').rstrip()}\n) as q"
