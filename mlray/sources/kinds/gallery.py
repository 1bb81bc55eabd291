"""Where images lie: the members of a folder, a glob, a .zip or a .tar, listed and read."""

from __future__ import annotations

import hashlib
import os
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlray import storage
from mlray.errors import InputError
from mlray.sources import resolve
from mlray.sources.opened import SourceFile

ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_MEMBER_BYTES = 256 << 20
"""An encoded image is never larger; a packed one that says so is not unpacked."""
_HASHED_BYTES = 256 << 20
"""Folders up to this size are known by the contents of their files, larger ones by names, sizes
and times."""


@dataclass(frozen=True)
class Member:
    """One encoded image: its name for people, and where to find it."""

    name: str
    key: str
    size_bytes: int
    offset: int = 0
    """Of its first byte in a .tar."""


@dataclass(frozen=True)
class Gallery:
    """Images that lie in one place. Travels to the tasks that read it."""

    kind: str
    """files, zip, tar, or packed (a compressed .tar)."""
    address: str
    members: tuple[Member, ...]
    file: SourceFile

    @property
    def parts(self) -> bool:
        """Whether members can be read by themselves; a compressed .tar only from its start."""
        return self.kind != "packed"

    def alone(self) -> Gallery:
        """Without the list of members, to travel light."""
        return replace(self, members=())

    def read(self, members: Sequence[Member]) -> Iterator[tuple[str, bytes | None]]:
        """Names and bytes of some members; None for one that cannot be unpacked."""
        if not members:
            return
        if self.kind == "files":
            fs, _ = resolve.filesystem(self.address)
            for member in members:
                yield member.name, fs.cat_file(member.key)
            return
        with resolve.open_binary(self.address) as file:
            read = {"zip": _from_zip, "tar": _from_tar, "packed": _from_packed}[self.kind]
            yield from read(file, members)


def galleries(path: str | Sequence[str]) -> list[Gallery]:
    """All places that `path` names.

    Raises:
        InputError: nothing is there, or it holds no image.
    """
    paths = [path] if isinstance(path, str) else list(path)
    found = [_gallery(one) for one in paths]
    for gallery, one in zip(found, paths, strict=True):
        if not gallery.members:
            raise InputError(
                "this place holds no image", value=one, allowed=", ".join((*ENDINGS, *_ARCHIVES))
            )
    return found


def _gallery(path: str) -> Gallery:
    if path.lower().endswith(_ARCHIVES):
        return _archive(path)
    fs, inner = resolve.filesystem(path)
    if fs.isdir(inner):
        found = fs.find(inner, detail=True)
        found = {p: i for p, i in found.items() if _is_image(os.path.relpath(p, inner))}
        root = inner
    else:
        found = fs.glob(inner, detail=True) if any(c in inner for c in "*?[") else {}
        if not found:
            places = resolve.find(path, ENDINGS)  # a single image, or the error that names the path
            found = {p.address: fs.info(p.address) for p in places}
        root = os.path.dirname(os.path.commonpath([os.path.dirname(p) for p in found]))
    infos = {p: i for p, i in sorted(found.items()) if i.get("type") != "directory"}
    members = [Member(os.path.relpath(p, root or "/"), p, int(i["size"])) for p, i in infos.items()]
    shown = SourceFile(path, sum(m.size_bytes for m in members), _content(fs, inner, infos))
    return Gallery("files", path, tuple(members), shown)


def _is_image(name: str) -> bool:
    hidden = any(step.startswith((".", "__MACOSX")) for step in name.split("/"))
    return not hidden and name.lower().endswith(ENDINGS)


def _content(fs: Any, root: str, infos: dict[str, Any]) -> str:
    """Changes when an image is added, removed, renamed or changed."""
    digest = hashlib.sha256()
    whole = sum(int(i["size"]) for i in infos.values()) <= _HASHED_BYTES
    for path, info in infos.items():
        tag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
        if not tag and whole:
            tag = storage.sha256(path) if "file" in fs.protocol else fs.checksum(path)
        tag = tag or info.get("mtime") or info.get("LastModified") or info.get("updated")
        digest.update(f"{os.path.relpath(path, root)}\0{info['size']}\0{tag}\n".encode())
    return f"{len(infos)} images sha256:{digest.hexdigest()}"


def _archive(path: str) -> Gallery:
    file = resolve.find(path, ENDINGS)[0].file
    kind = "zip" if path.lower().endswith(".zip") else "tar"
    try:
        with resolve.open_binary(path) as opened:
            if kind == "zip":
                members = _zip_members(opened)
            else:
                kind = "tar" if path.lower().endswith(".tar") else "packed"
                members = _tar_members(opened)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"this archive cannot be read ({error})", value=path) from None
    return Gallery(kind, path, tuple(sorted(members, key=lambda m: m.name)), file)


def _zip_members(file: Any) -> list[Member]:
    with zipfile.ZipFile(file) as archive:
        return [
            Member(i.filename, i.filename, i.file_size)
            for i in archive.infolist()
            if not i.is_dir() and _is_image(i.filename)
        ]


def _tar_members(file: Any) -> list[Member]:
    with tarfile.open(fileobj=file, mode="r:*") as archive:
        return [
            Member(i.name.removeprefix("./"), i.name, i.size, i.offset_data)
            for i in archive
            if i.isreg() and _is_image(i.name.removeprefix("./"))
        ]


def _from_zip(file: Any, members: Sequence[Member]) -> Iterator[tuple[str, bytes | None]]:
    with zipfile.ZipFile(file) as archive:
        for member in members:
            yield member.name, _unpacked(archive, member)


def _unpacked(archive: zipfile.ZipFile, member: Member) -> bytes | None:
    """None for a member that is damaged, encrypted, or said to be larger than any image."""
    if member.size_bytes > _MEMBER_BYTES:
        return None
    try:
        return archive.read(member.key)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError):
        return None


def _from_tar(file: Any, members: Sequence[Member]) -> Iterator[tuple[str, bytes | None]]:
    for member in members:
        file.seek(member.offset)
        yield (
            member.name,
            None if member.size_bytes > _MEMBER_BYTES else file.read(member.size_bytes),
        )


def _from_packed(file: Any, members: Sequence[Member]) -> Iterator[tuple[str, bytes | None]]:
    wanted = {member.key: member for member in members}
    with tarfile.open(fileobj=file, mode="r:*") as archive:
        for info in archive:
            if (member := wanted.get(info.name)) is None:
                continue
            inner = archive.extractfile(info) if info.size <= _MEMBER_BYTES else None
            yield member.name, inner.read() if inner else None
