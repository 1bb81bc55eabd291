"""Files anywhere: local paths and every address that fsspec knows (s3://, gs://, ...).

Writing is atomic: readers see the old file, the new file or none, never half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlray.errors import StorageError

_BLOCK_BYTES = 1 << 20


def home(configured: str | None = None) -> str:
    """The one place where everything that a run leaves behind lives.

    In order: the project file's `storage.path`, `$MLRAY_HOME`, the nearest `.mlray` folder above
    the current directory, else `./.mlray`. Inside a Ray job the current directory is a throw-away
    copy of the submitted folder, so there the default is `~/.mlray` of the node that runs the job.
    """
    if configured:
        return configured
    if from_environment := os.environ.get("MLRAY_HOME"):
        return str(Path(from_environment).expanduser().resolve())
    here = Path.cwd().resolve()
    if "runtime_resources" in here.parts:
        return str(Path.home() / ".mlray")
    nearest = next((p for p in (here, *here.parents) if (p / ".mlray").is_dir()), here)
    return str(nearest / ".mlray")


def is_remote(path: str) -> bool:
    """Whether `path` is an address with a protocol, such as s3://bucket/key.

    >>> is_remote("s3://bucket/key"), is_remote("/tmp/x"), is_remote("file:///tmp/x")
    (True, False, False)
    """
    return "://" in path and not path.startswith("file://")


def join(base: str, *parts: str) -> str:
    """`base` and `parts` as one path or address.

    >>> join("s3://bucket/a/", "b", "c.json")
    's3://bucket/a/b/c.json'
    """
    return "/".join([base.rstrip("/"), *[p.strip("/") for p in parts]])


def exists(path: str) -> bool:
    fs, inner = _filesystem(path)
    return bool(fs.exists(inner))


def read_bytes(path: str) -> bytes:
    """The whole file; `StorageError` if it is not there."""
    fs, inner = _filesystem(path)
    try:
        return bytes(fs.cat_file(inner))
    except FileNotFoundError:
        raise StorageError("file not found", value=path, do="check the path") from None


def write_bytes(path: str, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees all of it or nothing of it."""
    if is_remote(path):
        fs, inner = _filesystem(path)
        fs.pipe_file(inner, data)  # object stores publish an object only when it is complete
        return
    target = Path(_local(path))
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(
            f"cannot write file ({error.strerror})",
            value=path,
            do="free space on that disk, or set storage.path to another place",
        ) from error


def read_json(path: str) -> Any:
    return json.loads(read_bytes(path))


def write_json(path: str, value: Any) -> None:
    write_bytes(path, json.dumps(value, indent=1, sort_keys=True, default=str).encode())


def names(path: str) -> list[str]:
    """Names of the entries of a folder, sorted; empty if the folder is not there."""
    fs, inner = _filesystem(path)
    if not fs.isdir(inner):
        return []
    return sorted(str(p).rstrip("/").rsplit("/", 1)[-1] for p in fs.ls(inner, detail=False))


def remove(path: str) -> None:
    """Remove a file or a folder with all that is in it; nothing happens if it is not there."""
    fs, inner = _filesystem(path)
    if fs.exists(inner):
        fs.rm(inner, recursive=True)


@contextmanager
def new_folder(path: str) -> Iterator[str]:
    """A local folder to fill, which appears at `path` only when the block ends without error.

    A folder that is already at `path` is replaced.
    """
    if is_remote(path):
        raise StorageError(
            "this folder must be on a disk that all nodes share",
            value=path,
            do="mount the store, or set storage.path to a shared path",
        )
    target = Path(_local(path))
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield str(temporary)
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256(path: str) -> str:
    """SHA-256 of a file's bytes, in hex."""
    fs, inner = _filesystem(path)
    digest = hashlib.sha256()
    with fs.open(inner, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _local(path: str) -> str:
    return path.removeprefix("file://")


def _filesystem(path: str) -> tuple[Any, str]:
    import fsspec

    if not is_remote(path):
        return fsspec.filesystem("file"), str(Path(_local(path)).absolute())
    fs, inner = fsspec.core.url_to_fs(path)
    return fs, inner
