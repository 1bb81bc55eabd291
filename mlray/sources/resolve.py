"""From what a project file calls a path to files that can be opened, here or in a Ray worker.

A place is an address that any process can open: a local path, an fsspec address, a file inside an
installed package (package://NAME/FILE), or a member of an archive (zip://MEMBER::PLACE).
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mlray import storage
from mlray.errors import InputError
from mlray.sources.opened import SourceFile, did_you_mean

_HASHED_BYTES = 16 << 20
_PACKAGE = "package://"


@dataclass(frozen=True)
class Place:
    """Something to open and how many bytes come out of it."""

    address: str
    size_bytes: int
    file: SourceFile
    """The file it is, or is in."""


def find(path: str | Sequence[str], endings: Sequence[str]) -> list[Place]:
    """All places that `path` names, in a stable order.

    Args:
        path: file, folder, glob, or a list of them.
        endings: endings, such as `.csv`, of the files to take from folders and archives.

    Raises:
        InputError: nothing is there; the message names the nearest that is.
    """
    paths = [path] if isinstance(path, str) else list(path)
    places = [place for p in paths for place in _places(p, endings)]
    return list({p.address: p for p in places}.values())


def files_of(places: Iterable[Place]) -> tuple[SourceFile, ...]:
    """The files that places are, or are in: each once."""
    return tuple({place.file.path: place.file for place in places}.values())


def located(address: str) -> str:
    """The same address with package:// replaced by the folder of the package in this process.

    The package itself is not imported.
    """
    head, chained, outer = address.partition("::")
    if chained:
        return f"{head}::{located(outer)}"
    if not address.startswith(_PACKAGE):
        return address.removeprefix("file://")
    package, _, inner = address.removeprefix(_PACKAGE).partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "no such package is installed", value=package, do="check its name, or install it"
        )
    return str(Path(spec.submodule_search_locations[0]) / inner)


def is_local(address: str) -> bool:
    """Whether the place is a plain file of this machine."""
    return "::" not in address and not storage.is_remote(located(address))


def filesystem(address: str) -> tuple[Any, str]:
    """The fsspec filesystem of an address and the path inside it."""
    import fsspec

    try:
        fs, inner = fsspec.core.url_to_fs(located(address))
    except (ImportError, ValueError) as error:
        raise InputError(f"cannot open this kind of address ({error})", value=address) from error
    except zipfile.BadZipFile:
        raise InputError("this file is not a zip archive", value=address) from None
    return fs, inner


@contextmanager
def open_binary(address: str) -> Iterator[IO[bytes]]:
    """The bytes of a place."""
    fs, inner = filesystem(address)  # kept for the whole block: an archive closes with it
    with fs.open(inner, "rb") as file:
        yield file


def _places(path: str, endings: Sequence[str]) -> list[Place]:
    fs, inner = filesystem(path)
    try:
        found = _expanded(fs, inner, path, endings)
    except (OSError, ImportError) as error:
        raise InputError(f"cannot look at this path ({error})", value=path) from error
    places: list[Place] = []
    for each in found:
        info = fs.info(each)
        keep = "://" in path and each == inner
        address = path if keep else _address(fs, each)  # absolute: workers run elsewhere
        file = SourceFile(address, int(info["size"]), _modified(info, address))
        places += (
            _members(file, endings)
            if each.endswith(".zip")
            else [Place(address, file.size_bytes, file)]
        )
    return places


def _expanded(fs: Any, inner: str, path: str, endings: Sequence[str]) -> list[str]:
    if fs.isdir(inner):
        files = [f for f in sorted(fs.find(inner)) if _is_data(f, inner, (*endings, ".zip"))]
        if not files:
            raise InputError(
                "this folder holds no file to read", value=path, allowed=", ".join(endings)
            )
        return files
    if fs.exists(inner):
        return [inner]
    if any(c in inner for c in "*?["):
        files = sorted(f for f in fs.glob(inner) if not fs.isdir(f))
        if files:
            return files
        raise InputError("no file matches this pattern", value=path, do=_nearest(fs, inner))
    raise InputError("file not found", value=path, do=_nearest(fs, inner))


def _is_data(file: str, folder: str, endings: Sequence[str]) -> bool:
    steps = file.removeprefix(folder).strip("/").split("/")
    hidden = any(s.startswith((".", "_")) for s in steps)
    return not hidden and file.lower().endswith(tuple(endings))


def _nearest(fs: Any, inner: str) -> str:
    """Names the entry beside the missing one that is most like it."""
    parent, _, name = inner.rstrip("/").rpartition("/")
    if not parent:
        return "check the path"
    if not fs.isdir(parent):
        return f"there is no folder {parent}"
    names = sorted(str(p).rstrip("/").rsplit("/", 1)[-1] for p in fs.ls(parent, detail=False))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {parent}/{near[0]}?"
    return f"{parent} holds: {', '.join(names[:10]) or 'nothing'}"


def _address(fs: Any, inner: str) -> str:
    address = str(fs.unstrip_protocol(inner))
    return address.removeprefix("file://")


def _modified(info: dict[str, Any], address: str) -> str:
    etag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
    if etag:
        return str(etag).strip('"')
    if is_local(address) and info["size"] <= _HASHED_BYTES:
        return f"sha256:{storage.sha256(located(address))}"
    known = next((info[k] for k in ("mtime", "LastModified", "updated") if k in info), None)
    if known is not None:
        return str(known)
    with open_binary(address) as file:  # an archive's or memory's file without any time
        return f"sha256:{hashlib.sha256(file.read()).hexdigest()}"


def _members(file: SourceFile, endings: Sequence[str]) -> list[Place]:
    fs, _ = filesystem(f"zip://::{file.path}")
    sizes = {n: int(i["size"]) for n, i in fs.find("", detail=True).items()}
    names = [n for n in sorted(sizes) if _is_data(n, "", endings)]
    if not names:
        raise InputError(
            f"this archive holds no {' or '.join(endings[:2])} file",
            value=file.path,
            allowed=f"it holds: {', '.join(sorted(sizes)[:10]) or 'nothing'}",
        )
    return [Place(f"zip://{n}::{file.path}", sizes[n], file) for n in names]


def kind_of(path: str | Sequence[str], kinds: dict[str, Sequence[str]]) -> str:
    """The kind of source whose endings fit the first file of `path`; also looks into archives.

    >>> kind_of("s3://bucket/part-*.parquet", {"csv": [".csv"], "parquet": [".parquet"]})
    'parquet'
    """
    first = path if isinstance(path, str) else path[0]
    for kind, endings in kinds.items():
        if first.lower().endswith(tuple(endings)):
            return kind
    every = [e for endings in kinds.values() for e in endings]
    inside = find(first, every)[0].address.partition("::")[0].lower()
    for kind, endings in kinds.items():
        if inside.endswith(tuple(endings)):
            return kind
    raise InputError(
        "the kind of this source does not show in its ending",
        value=first,
        do=f"set `kind`: {did_you_mean('', kinds)}",
    )
