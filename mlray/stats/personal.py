"""Does a column hold personal data? Judged by its name and by a sample of its values.

A kind is found where a share of the values keeps its rules that chance cannot explain, or where
the column is called so and its values do not speak against it. What is found never holds a value.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from mlray.stats import idnumbers as ids
from mlray.stats.names import COLUMN_WORDS, GIVEN, MAYBE_NAMES, NOT_ADDRESSES, SURNAMES

SAMPLE_VALUES = 64
"""Distinct values of a column that are looked at, of each table."""
_SAMPLE_ROWS = 2048
_MOST_CHARS = 400
_LUCK = 1e-4
"""Values that keep a rule are evidence if chance would give as many less often than this."""

_EMAIL = re.compile(r"[\w.+%'-]{1,64}@[\w-]{1,63}(\.[\w-]{1,63})*\.[A-Za-z]{2,24}")
_PHONE = re.compile(
    r"\+[1-9]\d{0,2}[ ./-]?(\(0?\d{1,5}\)[ ./-]?)?\d{1,5}([ ./-]?\d{2,5}){1,4}"
    r"|(\+?1[ .-])?(\([2-9]\d\d\) ?|[2-9]\d\d[.-])[2-9]\d\d[ .-]\d{4}(\s?(x|ext)\.?\s?\d+)?"
    r"|\(?0[1-9]\d{0,4}\)?[ /-]\d{2,8}([ -]?\d{2,5}){0,4}"
)
_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}.*|\d{1,2}[-/.]\d{1,2}[-/.](19|20)?\d\d")
_NAME_LIKE = re.compile(r"[^\W\d_]+([ .,'\u2019-]{1,2}[^\W\d_]+){0,4}\.?")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

_NUMBERS: dict[str, tuple[float, Callable[[str], bool]]] = {
    "German tax id": (0.05, ids.is_german_tax_id),
    "Dutch BSN": (0.1, ids.is_dutch_bsn),
    "Aadhaar number": (0.1, ids.is_aadhaar),
    "Brazilian CPF": (0.01, ids.is_brazilian_cpf),
    "Polish PESEL": (0.04, ids.is_polish_pesel),
    "French NIR": (0.01, ids.is_french_nir),
    "Chinese resident id": (0.01, ids.is_chinese_id),
    "UK NINO": (0.01, ids.is_uk_nino),
    "Spanish DNI": (0.05, ids.is_spanish_dni),
    "Italian codice fiscale": (0.01, ids.is_italian_codice),
    "IBAN": (0.001, ids.is_iban),
    "payment card": (0.05, ids.is_card),
}
"""Kind: how often a random text of the right length passes, and the rule."""
_LUCKY = {kind: chance for kind, (chance, _) in _NUMBERS.items()} | {
    "e-mail address": 1e-4,
    "phone number": 0.01,
    "US SSN": 0.01,
    "IP address": 0.01,
}
_CALLED = {"IBAN": "bank account"}
"""The words of a kind, where they are not those of "national id" or its own."""


@dataclass(frozen=True)
class Evidence:
    """What values looked like, as counts. Adds up over tables, and holds no value."""

    tried: int = 0
    hits: Mapping[str, int] = field(default_factory=dict)
    """Values that kept the rules of a kind or have a shape."""

    @classmethod
    def of(cls, values: Iterable[Any]) -> Evidence:
        """Of distinct values without missing ones."""
        tried, hits = 0, dict[str, int]()
        for value in values:
            tried += 1
            for hit in _hits(value):
                hits[hit] = hits.get(hit, 0) + 1
        return cls(tried, hits)

    def merge(self, other: Evidence) -> Evidence:
        """The evidence of both samples."""
        kinds = {*self.hits, *other.hits}
        return Evidence(
            self.tried + other.tried,
            {k: self.hits.get(k, 0) + other.hits.get(k, 0) for k in sorted(kinds)},
        )

    def share(self, kind: str) -> float:
        """Share of the values, 0 to 1."""
        return self.hits.get(kind, 0) / self.tried if self.tried else 0.0


@dataclass(frozen=True)
class Finding:
    """A column that looks like personal data."""

    column: str
    kind: str
    confidence: float
    """0 to 1: 0.9 and more for values that keep a rule, less for what the name suggests."""
    reason: str
    """For people; never holds a value."""

    def __str__(self) -> str:
        return f"`{self.column}` looks like personal data, {self.kind}: {self.reason}"


def look(table: pa.Table) -> dict[str, Evidence]:
    """Evidence of each column of a table (N rows), from a few of its distinct values."""
    return {name: Evidence.of(_sample(table[name])) for name in table.column_names}


def merged(looks: Iterable[Mapping[str, Evidence]]) -> dict[str, Evidence]:
    """The evidence of many tables by column."""
    whole: dict[str, Evidence] = {}
    for one in looks:
        for name, evidence in one.items():
            whole[name] = whole.get(name, Evidence()).merge(evidence)
    return whole


def judge(name: str, evidence: Evidence) -> Finding | None:
    """What a column most likely holds; None if nothing speaks for personal data.

    >>> judge("contact", Evidence.of(["ann@example.org", "bob@example.org"])).kind
    'e-mail address'
    >>> judge("tailnum", Evidence.of(["N14228", "N24211", "N619AA"])) is None
    True
    """
    if not evidence.tried:
        return None
    words = _words(name)
    found = [f for f in (_by_rule(name, words, k, evidence) for k in _LUCKY) if f]
    found += [f for f in (step(name, words, evidence) for step in _BY_NAME) if f]
    return max(found, key=lambda finding: finding.confidence, default=None)


def findings(evidence: Mapping[str, Evidence], known: Iterable[str] = ()) -> tuple[Finding, ...]:
    """Columns that look like personal data, but for those that are `known` to be."""
    left = set(known)
    judged = (judge(name, found) for name, found in evidence.items() if name not in left)
    return tuple(finding for finding in judged if finding)


def _sample(column: pa.ChunkedArray) -> list[Any]:
    """A few distinct values, evenly from the first rows; none of types that cannot be personal."""
    kind = column.type.value_type if pt.is_dictionary(column.type) else column.type
    if pt.is_boolean(kind) or pt.is_nested(kind) or pt.is_binary(kind):
        return []
    values: list[Any] = column.slice(0, _SAMPLE_ROWS).drop_null().unique().to_pylist()
    return values[:: max(1, len(values) // SAMPLE_VALUES)][:SAMPLE_VALUES]


def _hits(value: Any) -> list[str]:
    if hasattr(value, "year"):
        return ["date"]
    if isinstance(value, float):
        return []  # measurements; numbers that name somebody are whole
    text = str(value).strip()
    if not 2 <= len(text) <= _MOST_CHARS:
        return []
    if "@" in text:
        whole = bool(_EMAIL.fullmatch(text))
        return ["e-mail address"] if whole else ["e-mail inside"] * bool(_EMAIL.search(text))
    if len(text) > 45:
        return ["text"]
    hits = _number_hits(text) if any(map(str.isdigit, text)) else _name_hits(text)
    return [*hits, *(["address like"] if _is_address(text) else [])]


def _number_hits(text: str) -> list[str]:
    if _DATE.fullmatch(text):
        return ["date"]
    if text.count(".") == 3 or text.count(":") > 1:
        return ["IP address"] if _is_ip(text) else []
    hits = []
    if _PHONE.fullmatch(text) and 8 <= sum(map(str.isdigit, text)) <= 20:
        hits.append("phone number")
    if ids.is_us_ssn(text):
        hits.append("US SSN" if "-" in text else "nine digits")
    if text.isdigit() and 7 <= len(text) <= 15:
        hits.append("plain digits")
    plain = re.sub(r"[ ./-]", "", text).upper()
    if 9 <= len(plain) <= 34 and plain.isascii() and text.count(".") != 1:
        hits += [kind for kind, (_, rule) in _NUMBERS.items() if _keeps(rule, plain)]
    return hits


def _keeps(rule: Callable[[str], bool], text: str) -> bool:
    return rule(text) if rule not in _OF_DIGITS or text.isdigit() else False


_OF_DIGITS = frozenset(
    {ids.is_card, ids.is_german_tax_id, ids.is_dutch_bsn, ids.is_aadhaar}
    | {ids.is_brazilian_cpf, ids.is_polish_pesel}
)


def _name_hits(text: str) -> list[str]:
    if not _NAME_LIKE.fullmatch(text):
        return []
    words = [_plain(word) for word in re.split(r"[ .,]+", text.strip(" .,"))]
    known = [word in GIVEN or word in SURNAMES for word in words]
    if len(words) == 1:
        return ["name like", *(["known name"] if known[0] else [])]
    ends = words[0] in GIVEN or words[-1] in SURNAMES or ("," in text and known[0])
    return ["name like", *(["known name"] if ends and len(words) <= 3 else [])]


def _is_ip(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    # 1.12.0.3 is as likely a version of something
    return address.version == 6 or max(address.packed) > 31


def _is_address(text: str) -> bool:
    return " " in text and any(map(str.isdigit, text)) and any(map(str.isalpha, text))


def _words(name: str) -> str:
    """A column's name as lower-case words between spaces.

    >>> _words("customerE_Mail"), _words("Straße")
    (' customer e mail ', ' strasse ')
    """
    plain = unicodedata.normalize("NFKD", name.replace("ß", "ss"))
    letters = "".join(c for c in plain if not unicodedata.combining(c))
    return f" {' '.join(_WORDS.findall(letters)).lower()} "


def _plain(word: str) -> str:
    plain = unicodedata.normalize("NFKD", word)
    return "".join(c for c in plain if not unicodedata.combining(c)).lower()


def _called(words: str, kind: str) -> bool:
    return any(f" {each} " in words for each in COLUMN_WORDS[kind])


def _by_rule(name: str, words: str, kind: str, evidence: Evidence) -> Finding | None:
    """A share of values that keep a rule, by far more than chance would give."""
    hits, share = evidence.hits.get(kind, 0), evidence.share(kind)
    group = _CALLED.get(kind, kind if kind in COLUMN_WORDS else "national id")
    called = _called(words, group)
    reason = f"{share:.0%} of the values tried"
    if hits and share >= 0.8 and _LUCKY[kind] ** hits <= _LUCK:
        return Finding(name, kind, 0.99 if called else 0.95, reason)
    if called and share >= 0.5:
        return Finding(name, kind, 0.9, f"{reason}, and the name")
    if kind == "e-mail address":
        return _in_text(name, evidence)
    return _by_digits(name, kind, evidence) if called else None


def _in_text(name: str, evidence: Evidence) -> Finding | None:
    every = evidence.hits.get("e-mail address", 0) + evidence.hits.get("e-mail inside", 0)
    share = every / evidence.tried
    if every >= 3 and share >= 0.02:
        return Finding(name, "e-mail address", 0.8, f"inside {share:.0%} of the texts tried")
    return None


def _by_digits(name: str, kind: str, evidence: Evidence) -> Finding | None:
    """Plain digits are a phone number or an id only where the column says so."""
    shape = {"phone number": "plain digits", "US SSN": "nine digits"}.get(kind)
    if shape is None or evidence.share(shape) < 0.8:
        return None
    found = "phone number" if kind == "phone number" else "national id"
    return Finding(name, found, 0.8, f"the name, and {evidence.share(shape):.0%} have its digits")


def _birth(name: str, words: str, evidence: Evidence) -> Finding | None:
    if _called(words, "date of birth") and evidence.share("date") >= 0.5:
        return Finding(name, "date of birth", 0.9, "the name, and values that are dates")
    return None


def _names(name: str, words: str, evidence: Evidence) -> Finding | None:
    """By the name and values that could be names, or by values that are common names."""
    known, like = evidence.share("known name"), evidence.share("name like")
    told = f"{known:.0%} of the values tried are common names"
    if _called(words, "person name") and like >= 0.8:
        return Finding(name, "person name", 0.9, f"the name; {told}")
    maybe = any(f" {word} " in words for word in MAYBE_NAMES)
    needed, hits = (0.2, 3) if maybe else (0.5, 8)
    if like >= 0.8 and known >= needed and evidence.hits.get("known name", 0) >= hits:
        return Finding(name, "person name", 0.8 if maybe else 0.7, told)
    return None


def _address(name: str, words: str, evidence: Evidence) -> Finding | None:
    spoken = any(f" {word} " in words for word in NOT_ADDRESSES)
    if _called(words, "postal address") and not spoken and evidence.share("address like") >= 0.5:
        return Finding(name, "postal address", 0.8, "the name, and values with a number in them")
    return None


_BY_NAME = (_birth, _names, _address)
