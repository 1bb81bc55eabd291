"""The folder that is registered and served. No pickle; nothing is parsed before its sum is checked.

| file | what |
| --- | --- |
| bundle.json | what the model is: task, target, request columns, threshold, network, transform |
| model.onnx | encoded rows to scores: network, calibration, activation |
| weights.safetensors | the network's weights, to train on from |
| encoder.json | columns to matrices |
| profile.json, reference.json | what the training rows were like; bins of the drift monitor |
| evaluation.json | how good it is |
| golden.arrow | request rows with the scores that every copy must give |
| card.md | the model for people |
| SHA256SUMS | one line per file above |
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from mlray.errors import BundleError
from mlray.models.columns import arrow_type
from mlray.models.encoder import Encoder
from mlray.sources.personal import Action
from mlray.stats.bins import Reference
from mlray.stats.profile import Profile

T = TypeVar("T")

FORMAT = 1
SUMS = "SHA256SUMS"
_MIB = 1 << 20
LIMITS = {
    "bundle.json": _MIB,
    "model.onnx": 2047 * _MIB,
    "weights.safetensors": 8192 * _MIB,
    "encoder.json": 256 * _MIB,
    "profile.json": 256 * _MIB,
    "reference.json": 64 * _MIB,
    "evaluation.json": 64 * _MIB,
    "golden.arrow": 64 * _MIB,
    "card.md": 4 * _MIB,
}
"""The files of a bundle and the most bytes each may have; no other file is ever opened."""
_LINE = re.compile(r"([0-9a-f]{64})  ([a-zA-Z0-9_.]{1,40})")
_SCORE = "_score"


@dataclass(frozen=True)
class Manifest:
    """bundle.json: what the model is."""

    name: str
    task: str
    target: str
    classes: tuple[Any, ...]
    metric: str
    threshold: float
    created_at: str
    schema: tuple[tuple[str, str], ...]
    """Request columns and their Arrow types, in order."""
    transform: str | None
    """`module:function` of the project that is applied to requests after `steps`."""
    transform_sha256: str | None
    network: str
    options: dict[str, Any]
    calibration: dict[str, Any]
    multiple: int
    """Batches are padded to a multiple of so many rows (see scoring)."""
    processor: str
    """Where the golden scores were computed; another kind of CPU may round otherwise."""
    steps: dict[str, Any] = field(default_factory=dict)
    """What is applied to requests: rename, cast, derive, select."""
    protected: dict[str, Action] = field(default_factory=dict)
    """Columns with personal data, by their names in raw rows, and what becomes of them."""
    pii_key_id: str | None = None
    """Names the key of hashes and tokens."""
    format: int = FORMAT

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        values = json.loads(text)
        if values.get("format") != FORMAT:
            raise BundleError(
                "bundle of another format", value=values.get("format"), allowed=str(FORMAT)
            )
        values["classes"] = tuple(values["classes"])
        values["schema"] = tuple((name, kind) for name, kind in values["schema"])
        return cls(**values)

    @property
    def request_schema(self) -> pa.Schema:
        return pa.schema([(name, arrow_type(kind)) for name, kind in self.schema])


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. Files are held as bytes that were checked; they are parsed on demand."""

    folder: str
    digest: str
    """SHA-256 of the list of sums: names this bundle's exact content."""
    sums: Mapping[str, str] = field(repr=False)
    files: Mapping[str, bytes] = field(repr=False)

    @cached_property
    def manifest(self) -> Manifest:
        return self._parsed("bundle.json", Manifest.from_json)

    @cached_property
    def encoder(self) -> Encoder:
        return self._parsed("encoder.json", Encoder.from_json)

    @cached_property
    def profile(self) -> Profile:
        return self._parsed("profile.json", lambda b: Profile.from_json(b.decode()))

    @cached_property
    def reference(self) -> Reference:
        return self._parsed("reference.json", lambda b: Reference.from_json(b.decode()))

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        return self._parsed("evaluation.json", lambda b: dict(json.loads(b)))

    @cached_property
    def card(self) -> str:
        return self._parsed("card.md", bytes.decode)

    @property
    def graph(self) -> bytes:
        """The ONNX graph."""
        return self.files["model.onnx"]

    @cached_property
    def golden(self) -> tuple[pa.Table, pa.ChunkedArray]:
        """Request rows and the scores that belong to them."""
        table = self._parsed("golden.arrow", _read_arrow)
        if _SCORE not in table.column_names:
            raise BundleError("golden.arrow has no scores", value=self.folder)
        return table.drop_columns([_SCORE]), table.column(_SCORE)

    def weights(self) -> dict[str, Any]:
        """The network's weights by name, as torch tensors; the file is checked again."""
        import safetensors.torch

        data = _read(Path(self.folder), "weights.safetensors")
        _compare(self.folder, "weights.safetensors", _sha256(data), self.sums)
        loaded: dict[str, Any] = safetensors.torch.load(data)
        return loaded

    def _parsed(self, name: str, parse: Callable[[bytes], T]) -> T:
        try:
            return parse(self.files[name])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            # pyarrow's ArrowInvalid is a ValueError
            raise BundleError(
                f"{name} is not what it should be ({type(error).__name__})",
                value=self.folder,
                do="take the bundle from its registry again",
            ) from error


def load_bundle(folder: str) -> Bundle:
    """Open a bundle: every sum is checked before anything is parsed.

    Raises:
        BundleError: a file is missing, a link, too large or not the one that was written.
    """
    root = Path(folder)
    if not root.is_dir():
        raise BundleError("no such bundle", value=folder)
    listed = _read(root, SUMS, limit=_MIB)
    sums = _parse_sums(listed, folder)
    files = {}
    for name in LIMITS:
        data = _read(root, name)
        _compare(folder, name, _sha256(data), sums)
        if name != "weights.safetensors":  # large, and nothing that serving reads
            files[name] = data
    return Bundle(str(root.resolve()), _sha256(listed), sums, files)


def _read(root: Path, name: str, limit: int | None = None) -> bytes:
    """A plain file's bytes: no link, no device, no more than its limit."""
    limit = LIMITS[name] if limit is None else limit
    try:
        handle = os.open(root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        reason = "missing" if isinstance(error, FileNotFoundError) else "a link or unreadable"
        raise BundleError(f"{name} is {reason}", value=str(root)) from error
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{name} is no plain file", value=str(root))
        if status.st_size > limit:
            raise BundleError(f"{name} is too large", value=status.st_size, allowed=f"{limit:,}")
        return file.read(limit)


def _parse_sums(listed: bytes, folder: str) -> dict[str, str]:
    lines = listed.decode("ascii", errors="replace").split("\n")
    matches = [_LINE.fullmatch(line) for line in lines[:-1]]
    sums = {match[2]: match[1] for match in matches if match}
    if lines[-1] != "" or len(matches) != len(LIMITS) or sums.keys() != LIMITS.keys():
        raise BundleError(
            f"{SUMS} does not list the files of a bundle", value=folder, allowed=", ".join(LIMITS)
        )
    return sums


def _compare(folder: str, name: str, found: str, sums: Mapping[str, str]) -> None:
    if found != sums[name]:
        raise BundleError(
            f"{name} is not the file that was written",
            value=folder,
            do="take the bundle from its registry again, or roll back to another version",
        )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read_arrow(data: bytes) -> pa.Table:
    with pa.ipc.open_file(pa.BufferReader(data)) as reader:
        table = reader.read_all()
    table.validate(full=True)
    return table
