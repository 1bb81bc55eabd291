"""The journal survives half-written lines and several writers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlray.errors import StorageError
from mlray.registry import Entry, Journal
from mlray.registry.journal import earlier_champions


def change(what: str, before: int | None, after: int | None) -> Entry:
    return Entry("", "", what, before, after, ())  # type: ignore[arg-type]


def test_entries_come_back_as_written(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), "cells")
    assert journal.entries() == []
    assert journal.last() is None
    entries = [
        Entry.now("promoted", None, 1, ["better: 0.8 ≥ 0.7"]),
        Entry.now("found", 1, None, []),
    ]
    for entry in entries:
        journal.append(entry)
    assert journal.entries() == entries
    assert journal.last() is None
    assert "@" in entries[0].who
    assert entries[0].when.endswith("+00:00")


def test_a_line_that_was_never_finished_does_not_count(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), "cells")
    journal.append(Entry.now("promoted", None, 1, []))
    with open(journal.path, "a") as file:
        file.write('{"when": "2026-')
    assert [e.after for e in journal.entries()] == [1]
    journal.append(Entry.now("promoted", 1, 2, []))
    assert [e.after for e in journal.entries()] == [1, 2]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), "cells")
    journal.append(Entry.now("promoted", None, 1, []))
    with open(journal.path, "a") as file:
        file.write("garbage\n")
    with pytest.raises(StorageError, match="line 2 of the journal is damaged"):
        journal.entries()


def test_a_journal_in_an_object_store_is_refused() -> None:
    refused = pytest.raises(StorageError, match="share")
    with refused, Journal("s3://bucket/home", "cells").alone():
        pass


def test_a_strange_name_stays_in_the_journal_folder(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), "../../x y")
    journal.append(Entry.now("promoted", None, 1, []))
    assert [p.parent for p in tmp_path.rglob("*.jsonl")] == [tmp_path / "journal"]


@pytest.mark.parametrize(
    ("changes", "stack"),
    [
        ([], []),
        ([("promoted", None, 1)], []),
        ([("promoted", None, 1), ("promoted", 1, 2)], [1]),
        ([("promoted", None, 1), ("promoted", 1, 2), ("rolled back", 2, 1)], []),
        (
            [
                ("promoted", None, 1),
                ("promoted", 1, 2),
                ("rolled back", 2, 1),
                ("promoted", 1, 3),
            ],
            [1],
        ),
        (
            [
                ("promoted", None, 1),
                ("promoted", 1, 2),
                ("promoted", 2, 3),
                ("rolled back", 3, 1),  # version 2 was deleted and passed over
            ],
            [],
        ),
        ([("promoted", None, 1), ("found", 1, 5), ("found", 5, None)], [1, 5]),
    ],
)
def test_a_rollback_takes_away_what_it_went_back_over(
    changes: list[tuple[str, int | None, int | None]], stack: list[int]
) -> None:
    assert earlier_champions([change(*c) for c in changes]) == stack


def test_four_writers_leave_four_times_their_lines(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom mlray.registry.journal import Entry, Journal\n"
        "journal = Journal(sys.argv[1], 'cells')\n"
        "for i in range(25):\n"
        "    with journal.alone():\n"
        "        last = journal.last() or 0\n"
        "        journal.append(Entry.now('promoted', last, last + 1, ['x' * 5000]))\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(4)]
    assert [process.wait(timeout=300) for process in started] == [0] * 4
    entries = Journal(str(tmp_path), "cells").entries()
    assert [e.after for e in entries] == list(range(1, 101))
