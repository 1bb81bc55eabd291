"""Where secrets come from, and how they are kept out of everything that people read.

A project file names a secret and never holds it: `${env:NAME}`, `${env:NAME:-default}` or
`${file:PATH}`. What was filled in goes only to whom it is for; messages are redacted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote

HIDDEN = "***"
_NAMED = re.compile(r"\$\{(?:env:([A-Za-z_]\w*)(?::-([^}]*))?|file:([^}]+))\}")
_SECRET_KEY = re.compile(r"pass|pwd|secret|token|key|credential|signature", re.I)
_QUERY = re.compile(r"\?[\w.]+=[^@]*$")
_SHORT = 3
"""A shorter secret is replaced only where it stands as a word of its own."""


def named_in(text: str) -> bool:
    """Whether a text names a secret.

    >>> named_in("${env:TOKEN}"), named_in("${file:/run/secrets/db}"), named_in("$TOKEN")
    (True, True, False)
    """
    return _NAMED.search(text) is not None


def filled(text: str, folder: str = ".") -> tuple[str, list[str]]:
    """A text with the secrets that it names filled in, and what is missing, one sentence each.

    Args:
        text: what stands in the project file.
        folder: where relative paths of `${file:PATH}` start.

    >>> filled("${env:NO_SUCH_NAME:-nobody}")
    ('nobody', [])
    >>> filled("${env:NO_SUCH_NAME}")[1]
    ['environment variable NO_SUCH_NAME is not set']
    """
    missing: list[str] = []

    def fill(match: re.Match[str]) -> str:
        name, default, path = match.groups()
        if path is not None:
            return _of_file(path, folder, missing)
        if name not in os.environ and default is None:
            missing.append(f"environment variable {name} is not set")
        return os.environ.get(name, default or "")

    return _NAMED.sub(fill, text), missing


def _of_file(path: str, folder: str, missing: list[str]) -> str:
    """The text of a file without the line break at its end, which editors and `echo` leave."""
    place = Path(folder, Path(path).expanduser())
    try:
        return re.sub(r"\r?\n\Z", "", place.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        missing.append(f"the secret's file {place} is not text in UTF-8")
    except OSError as error:
        missing.append(f"the secret's file {place} cannot be read ({error.strerror})")
    return ""


def masked(text: str) -> str:
    """What a project file holds in the place of a secret, so that it can be recorded.

    Names stay, what was written out is hidden; of an address only its credentials.

    >>> masked("${env:URL}"), masked("hunter2"), masked("Bearer ${file:t}")
    ('${env:URL}', '***', '***${file:t}')
    >>> masked("postgresql://ann:hunter2@db/shop"), masked("postgresql://ann:${env:PW}@db/shop")
    ('postgresql://***@db/shop', 'postgresql://ann:${env:PW}@db/shop')
    """
    if "://" not in text:
        named = "".join(match[0] for match in _NAMED.finditer(text))
        return named if named == text else HIDDEN + named
    return redacted(text, of_address(_NAMED.sub("", text))) if named_in(text) else hidden_in(text)


def hidden_in(url: str) -> str:
    """An address with its credentials hidden, and without parameters.

    >>> hidden_in("postgresql://ann:p@ss/w@db:5432/shop?sslmode=require")
    'postgresql://***@db:5432/shop'
    """
    shown = without_credentials(url)
    return shown if "@" not in url else shown.replace("://", f"://{HIDDEN}@", 1)


def without_credentials(url: str) -> str:
    """An address without user, password and parameters: fit for lineage.

    >>> without_credentials("postgresql://ann:p@ss/w@db:5432/shop?sslmode=require")
    'postgresql://db:5432/shop'
    """
    scheme, separator, rest = _QUERY.sub("", url).partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}"


def of_address(url: str) -> tuple[str, ...]:
    """What of an address must not be shown, also where a parser took it apart in a wrong place.

    >>> sorted(of_address("postgresql://ann:p%40ss/word@db/shop?sslpassword=abc"))
    ['abc', 'p%40ss', 'p%40ss/word', 'p@ss/word', 'word']
    """
    found: set[str] = set()
    inside, at, _ = url.partition("://")[2].rpartition("@")
    if at:
        password = inside.partition(":")[2]
        pieces = [p for p in re.split(r"[@/:?#&]", password) if len(p) >= _SHORT]
        found |= {password, unquote(password), *pieces}
    for key, value in re.findall(r"[?&\s]?([\w.]+)=([^&\s]+)", url):
        if _SECRET_KEY.search(key):
            found |= {value, unquote(value)}
    return tuple(found - {""})


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text with every secret replaced, also where it is quoted for an address.

    >>> redacted("login ann:p%40ss failed: p@ss", ["p@ss"])
    'login ann:*** failed: ***'
    """
    forms = {form for s in secrets if s for form in (s, quote(s, safe=""), quote_plus(s))}
    for form in sorted(forms, key=len, reverse=True):
        pattern = re.escape(form) if len(form) >= _SHORT else rf"(?<!\w){re.escape(form)}(?!\w)"
        text = re.sub(pattern, HIDDEN, text)
    return text
