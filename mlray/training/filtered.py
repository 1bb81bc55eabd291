"""Shards without some of their training rows."""

from __future__ import annotations

import os
import shutil

import numpy as np
import numpy.typing as npt

from mlray import storage
from mlray.training.shards import (
    WRITTEN,
    Manifest,
    Rows,
    ShardFile,
    digest,
    read_arrow,
    write_arrow,
    write_manifest,
)


def without_rows(shards: str, folder: str, left_out: npt.NDArray[np.bool_]) -> Manifest:
    """Write the shards anew without the training rows that are marked; atomic.

    Args:
        shards: folder that `write_shards` made.
        folder: appears when all is written.
        left_out: (N,) of the training rows, in their order.
    """
    before = Manifest.read(shards)
    files: list[ShardFile] = []
    start = 0
    with storage.new_folder(folder) as temporary:
        for part in WRITTEN:
            os.mkdir(os.path.join(temporary, part))
        for file in before.files:
            source, target = storage.join(shards, file.name), os.path.join(temporary, file.name)
            if file.part != "train":
                shutil.copyfile(source, target)
                files.append(file)
                continue
            kept = ~left_out[start : start + file.rows]
            start += file.rows
            if kept.any():
                rows = Rows(*(a[kept] for a in read_arrow(source).arrays))
                write_arrow(target, rows)
                size, hashed = os.path.getsize(target), storage.sha256(target)
                files.append(ShardFile(file.name, file.part, len(rows), size, hashed))
        counts = {**before.counts, "train": int((~left_out).sum())}
        manifest = Manifest(counts, tuple(files), digest(files))
        write_manifest(temporary, manifest)
    return manifest
