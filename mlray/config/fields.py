"""What the sections of the project file are made of: durations, budgets, sizes, the base class."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_UNITS_BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_PATH_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


def duration_s(text: str) -> float:
    """Seconds in a duration such as `90s`, `15m`, `1h`, `7d`.

    >>> duration_s("15m"), duration_s("1.5h")
    (900.0, 5400.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip())
    if match is None:
        raise ValueError("a duration is a number and a unit: 90s, 15m, 1h, 7d")
    return float(match[1]) * _UNITS_S[match[2]]


@dataclass(frozen=True)
class Budget:
    """How much training there is: an amount of one unit."""

    amount: float
    unit: Literal["epochs", "rows", "minutes"]

    @classmethod
    def parse(cls, text: str) -> Budget:
        """
        >>> Budget.parse("6 epochs"), Budget.parse("2_000_000 rows").amount
        (Budget(amount=6.0, unit='epochs'), 2000000.0)
        """
        match = re.fullmatch(r"([\d_]+(?:\.\d+)?)\s*(epoch|row|minute)s?", text.strip())
        if match is None or float(match[1]) <= 0:
            raise ValueError("a budget is an amount and a unit: 6 epochs, 2000000 rows, 20 minutes")
        units: dict[str, Literal["epochs", "rows", "minutes"]] = {
            "epoch": "epochs",
            "row": "rows",
            "minute": "minutes",
        }
        return cls(float(match[1]), units[match[2]])


def _checked_budget(text: str) -> str:
    Budget.parse(text)
    return text


def _checked_duration(text: str) -> str:
    duration_s(text)
    return text


def size_bytes(text: str) -> int:
    """Bytes in a size such as `500MB`, `1.5 GB`; units are powers of 1000.

    >>> size_bytes("1.5 GB"), size_bytes("200kB")
    (1500000000, 200000)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(k|M|G|T)?B", text.strip())
    if match is None:
        raise ValueError("a size is a number and a unit: 500MB, 1.5GB")
    return int(float(match[1]) * _UNITS_BYTES[match[2] or ""])


def _checked_size(text: str) -> str:
    size_bytes(text)
    return text


BudgetText = Annotated[str, AfterValidator(_checked_budget)]
Duration = Annotated[str, AfterValidator(_checked_duration)]
Size = Annotated[str, AfterValidator(_checked_size)]
ImportPath = Annotated[str, Field(pattern=_PATH_PATTERN)]
Frac = Annotated[float, Field(ge=0, le=1)]
Auto = Literal["auto"]


class Section(BaseModel):
    """What all sections share: frozen, no unknown keys, explanations under the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
