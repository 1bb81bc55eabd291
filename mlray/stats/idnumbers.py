"""Numbers that name a person, a card or an account: what their published rules say of a text.

Each function takes a text without spaces and says whether it keeps the rules of its kind: length,
ranges, check digits. A number that keeps them may still belong to nobody.
"""

from __future__ import annotations

import re

_CARDS = re.compile(
    r"4\d{12}(\d{3}){0,2}|5[1-5]\d{14}|2(22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}|3(0[0-5]|[689]\d)\d{11,16}|35(2[89]|[3-8]\d)\d{12}"
    r"|6(011|4[4-9]\d|5\d\d)\d{12}|62\d{14,17}"
)
_IBAN_CHARS = dict(
    re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 "
        "DO28 EE20 EG29 ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 "
        "IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 MC27 MD24 ME22 MK19 MR27 "
        "MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 SM27 "
        "ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20",
    )
)
_NINO = re.compile(r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]")
_SSN = re.compile(r"(?!000|666|9)\d{3}-?(?!00)\d{2}-?(?!0000)\d{4}")
_CODICE = re.compile(r"[A-Z]{6}\d\d[ABCDEHLMPRST]\d\d[A-Z]\d{3}[A-Z]")
_NIR = re.compile(r"[12478]\d\d(0[1-9]|1[0-2]|[2-9]\d)(\d\d|2[AB])\d{8}")
_DNI = re.compile(r"[XYZ]?\d{7,8}[A-Z]")
_VERHOEFF_D = ("0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
               "5987604321", "6598710432", "7659821043", "8765932104", "9876543210")  # fmt: skip
_VERHOEFF_P = ("0123456789", "1576283094", "5803796142", "8916043527",
               "9453126870", "4286573901", "2793806415", "7046913258")  # fmt: skip
_CODICE_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8,
               12, 14, 16, 10, 22, 25, 24, 23)  # fmt: skip
"""Worth of the letters A to Z at odd places; digits are worth as much as A to J."""


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of Luhn (ISO/IEC 7812-1, annex B).

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits))]
    return sum(d - 9 * (d > 9) for d in doubled) % 10 == 0


def is_card(digits: str) -> bool:
    """A payment card: issuer's range and length (ISO/IEC 7812, the networks' tables), Luhn.

    >>> is_card("5555555555554444"), is_card("378282246310005"), is_card("9111111111111111")
    (True, True, False)
    """
    return bool(_CARDS.fullmatch(digits)) and luhn(digits)


def is_iban(text: str) -> bool:
    """A bank account: country, its length, remainder 1 by 97 (ISO 13616, ISO 7064 MOD 97-10).

    >>> is_iban("DE89370400440532013000"), is_iban("DE88370400440532013000")
    (True, False)
    """
    if _IBAN_CHARS.get(text[:2]) != str(len(text)) or not re.fullmatch(r"[A-Z0-9]+", text):
        return False
    return int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1


def is_us_ssn(text: str) -> bool:
    """A US social security number: no area 000, 666 or 9xx, no group 00, no serial 0000 (SSA,
    randomization rules of 2011). It has no check digit.

    >>> is_us_ssn("219-09-9998"), is_us_ssn("666-09-9999")
    (True, False)
    """
    return bool(_SSN.fullmatch(text))


def is_uk_nino(text: str) -> bool:
    """A UK national insurance number: allowed letters (HMRC manual NIM39110).

    >>> is_uk_nino("AB123456C"), is_uk_nino("BG123456C")
    (True, False)
    """
    return bool(_NINO.fullmatch(text))


def is_german_tax_id(digits: str) -> bool:
    """A German Steuer-IdNr: one digit twice or three times among ten, ISO 7064 MOD 11,10 (BZSt).

    >>> is_german_tax_id("86095742719"), is_german_tax_id("86095742718")
    (True, False)
    """
    if not re.fullmatch(r"[1-9]\d{10}", digits):
        return False
    most = max(digits[:10].count(d) for d in digits[:10])
    return len(set(digits[:10])) in (8, 9) and most in (2, 3) and _mod_11_10(digits)


def _mod_11_10(digits: str) -> bool:
    product = 10
    for d in digits[:-1]:
        product = ((int(d) + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(digits[-1])


def is_french_nir(text: str) -> bool:
    """A French NIR: sex, year, month, department, key 97 - number mod 97 (INSEE).

    >>> is_french_nir("184127645108946"), is_french_nir("184127645108947")
    (True, False)
    """
    if not _NIR.fullmatch(text):
        return False
    number = text[:13].replace("2A", "19").replace("2B", "18")
    return 97 - int(number) % 97 == int(text[13:])


def is_spanish_dni(text: str) -> bool:
    """A Spanish DNI or NIE: letter by the remainder by 23 (Ministerio del Interior).

    >>> is_spanish_dni("12345678Z"), is_spanish_dni("X1234567L"), is_spanish_dni("12345678A")
    (True, True, False)
    """
    if not _DNI.fullmatch(text) or len(text) != 9:
        return False
    number = text[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == text[-1]


def is_italian_codice(text: str) -> bool:
    """An Italian codice fiscale: shape and check letter (decree of 23 December 1976).

    >>> is_italian_codice("RSSMRA85T10A562S"), is_italian_codice("RSSMRA85T10A562T")
    (True, False)
    """
    if not _CODICE.fullmatch(text):
        return False
    places = [int(c) if c.isdigit() else ord(c) - 65 for c in text[:15]]
    odd, even = sum(_CODICE_ODD[n] for n in places[::2]), sum(places[1::2])
    return chr(65 + (odd + even) % 26) == text[15]


def is_dutch_bsn(digits: str) -> bool:
    """A Dutch BSN: nine digits, the eleven test with -1 for the last (RvIG).

    >>> is_dutch_bsn("111222333"), is_dutch_bsn("111222334")
    (True, False)
    """
    if len(digits) != 9 or digits == "000000000":
        return False
    weighed = sum(int(d) * w for d, w in zip(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1), strict=True))
    return weighed % 11 == 0


def is_aadhaar(digits: str) -> bool:
    """An Indian Aadhaar number: twelve digits from 2 on, check digit of Verhoeff (UIDAI; Verhoeff
    1969, "Error detecting decimal codes").

    >>> is_aadhaar("234123412346"), is_aadhaar("234123412347")
    (True, False)
    """
    if not re.fullmatch(r"[2-9]\d{11}", digits):
        return False
    check = 0
    for i, d in enumerate(reversed(digits)):
        check = int(_VERHOEFF_D[check][int(_VERHOEFF_P[i % 8][int(d)])])
    return check == 0


def is_brazilian_cpf(digits: str) -> bool:
    """A Brazilian CPF: eleven digits, not all alike, two check digits by 11 (Receita Federal).

    >>> is_brazilian_cpf("52998224725"), is_brazilian_cpf("52998224724")
    (True, False)
    """
    if len(digits) != 11 or len(set(digits)) == 1:
        return False

    def check(length: int) -> int:
        weighed = sum(int(d) * (length + 1 - i) for i, d in enumerate(digits[:length]))
        return weighed * 10 % 11 % 10

    return check(9) == int(digits[9]) and check(10) == int(digits[10])


def is_polish_pesel(digits: str) -> bool:
    """A Polish PESEL: day and month (the century is added to it), weights 1 3 7 9 (Ministerstwo
    Cyfryzacji).

    >>> is_polish_pesel("44051401359"), is_polish_pesel("44051401358")
    (True, False)
    """
    if len(digits) != 11 or not 1 <= int(digits[2:4]) % 20 <= 12 or not 1 <= int(digits[4:6]) <= 31:
        return False
    weighed = sum(
        int(d) * w for d, w in zip(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1), strict=True)
    )
    return weighed % 10 == 0


def is_chinese_id(text: str) -> bool:
    """A Chinese resident id: 18 characters with a date of birth, ISO 7064 MOD 11-2 (GB 11643).

    >>> is_chinese_id("11010519491231002X"), is_chinese_id("110105194912310021")
    (True, False)
    """
    if not re.fullmatch(
        r"[1-9]\d{5}(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])\d{3}[\dX]", text
    ):
        return False
    total = sum(int(d) * pow(2, 17 - i, 11) for i, d in enumerate(text[:17]))
    return "10X98765432"[total % 11] == text[17]
