"""Images as they come: folders, archives, columns, all modes, and what is no image."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlray.errors import InputError
from mlray.sources import find, open_rows, sample
from mlray.sources.kinds.decoding import UndecodableError, decode
from mlray.sources.kinds.images import pixels
from tests.sources.kinds.test_delta import reading_tasks

pytest.importorskip("PIL")
from PIL import Image

CLASSES = ("cat", "dog")


def encoded(array: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, form, **options)
    return out.getvalue()


def saved(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def truth() -> dict[str, np.ndarray]:
    """Name of a file: its pixels (96, 72, 3)."""
    random = np.random.default_rng(0)
    return {
        f"{CLASSES[i % 2]}/{i:03}.png": random.integers(0, 256, (96, 72, 3), np.uint8)
        for i in range(300)
    }


@pytest.fixture
def folder(tmp_path, truth) -> Path:
    for name, array in truth.items():
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(encoded(array))
    (tmp_path / "images" / "readme.txt").write_text("not an image")
    return tmp_path / "images"


def same(table: pa.Table, truth: dict[str, np.ndarray]) -> bool:
    rows = dict(zip(table["file"].to_pylist(), pixels(table), strict=True))
    labels = dict(zip(table["file"].to_pylist(), table["label"].to_pylist(), strict=True))
    return rows.keys() == truth.keys() and all(
        np.array_equal(rows[n], truth[n]) and labels[n] == n.split("/")[0] for n in truth
    )


def archived(folder: Path, kind: str) -> str:
    where = folder.parent / f"images.{kind}"
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    if kind == "zip":
        with zipfile.ZipFile(where, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, file.relative_to(folder))
    else:
        with tarfile.open(where, "w:gz" if kind == "tar.gz" else "w") as archive:
            for file in files:
                archive.add(file, str(file.relative_to(folder)))
    return str(where)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_every_place_gives_the_same_pixels_files_and_labels(
    project, folder, truth, kind, ray_cluster, collect, monkeypatch
):
    path = str(folder) if kind == "folder" else archived(folder, kind)
    described = project(rows={"kind": "images", "path": path})
    tasks = reading_tasks(monkeypatch)
    table = collect(open_rows(described).dataset)
    assert tasks[0] >= 2 or kind == "tar.gz"
    assert table["height"].unique().to_pylist() == [96]
    assert same(table, truth)


def test_images_in_a_column_equal_those_of_the_folder(
    project, folder, truth, tmp_path, ray_cluster, collect
):
    rows = pa.table(
        {
            "png": [encoded(a) for a in truth.values()],
            "file": list(truth),
            "label": [n.split("/")[0] for n in truth],
        }
    )
    pq.write_table(rows, tmp_path / "held.parquet", row_group_size=100)
    as_struct = pa.StructArray.from_arrays([rows["png"].combine_chunks()], ["bytes"])
    pq.write_table(rows.set_column(0, "png", as_struct), tmp_path / "struct.parquet")
    for name in ("held", "struct"):
        path = str(tmp_path / f"{name}.parquet")
        described = project(rows={"kind": "images", "path": path, "column": "png"})
        assert same(collect(open_rows(described).dataset), truth)


def test_labels_may_be_numbers_and_columns_chosen(project, tmp_path):
    for label in ("0", "17"):
        (tmp_path / "signs" / label).mkdir(parents=True)
        (tmp_path / "signs" / label / "a.png").write_bytes(encoded(np.zeros((2, 2), np.uint8)))
    section = {"kind": "images", "path": "signs", "mode": "L", "types": {"label": "int64"}}
    table = sample(project(rows={**section, "columns": ["image", "label"]}))
    assert table.schema == pa.schema({"image": pa.binary(4), "label": pa.int64()})
    assert table["label"].to_pylist() == [0, 17]


def test_a_glob_and_a_size(project, folder):
    section = {"kind": "images", "path": str(folder / "cat" / "*.png"), "size": [4, 5]}
    table = sample(project(rows=section), 7)
    assert pixels(table).shape == (7, 4, 5, 3)
    assert set(table["label"].to_pylist()) == {"cat"}


def test_transparency_palettes_cmyk_grey_and_sixteen_bits_become_eight(tmp_path):
    clear = np.array([[[255, 0, 0, 0], [255, 0, 0, 255], [0, 0, 0, 128]]], np.uint8)
    assert decode(encoded(clear), "RGB", None).tolist() == [
        [[255, 255, 255], [255, 0, 0], [127, 127, 127]]
    ]
    palette = Image.fromarray(np.array([[[9, 8, 7], [1, 2, 3]]], np.uint8)).quantize(4)
    assert decode(saved(palette), "RGB", None).tolist() == [[[9, 8, 7], [1, 2, 3]]]
    cmyk = Image.new("CMYK", (1, 1), (0, 255, 255, 0))
    assert decode(saved(cmyk, "TIFF"), "RGB", None).tolist() == [[[255, 0, 0]]]
    deep = np.array([[0, 257, 65535, 32896]], np.uint16)
    assert decode(encoded(deep), "L", None)[..., 0].tolist() == [[0, 1, 255, 128]]
    assert decode(encoded(deep), "RGB", None).shape == (1, 4, 3)
    one = Image.fromarray(np.array([[True, False]]))
    assert decode(saved(one), "L", None)[..., 0].tolist() == [[255, 0]]
    with pytest.raises(UndecodableError, match="floating point"):
        decode(saved(Image.new("F", (2, 2)), "TIFF"), "L", None)


def test_a_picture_taken_sideways_is_turned():
    picture = np.zeros((2, 4, 3), np.uint8)
    picture[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    turned = decode(encoded(picture, exif=exif), "RGB", None)
    assert turned.shape == (4, 2, 3)
    assert turned[0, 1].tolist() == [255, 255, 255]


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 10 thousand million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0"))


BAD = {
    "cut.png": lambda good: good[: len(good) // 2],
    "text.png": lambda good: b"this is not an image",
    "empty.png": lambda good: b"",
    "bomb.png": lambda good: bomb(),
    "program.png": lambda good: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n(x) run\n",
}


def test_what_is_no_image_is_set_aside_with_its_bytes_and_reason(
    project, folder, truth, ray_cluster, collect
):
    good = encoded(next(iter(truth.values())))
    for name, spoil in BAD.items():
        (folder / "cat" / name).write_bytes(spoil(good))
    (folder / "cat" / "other.png").write_bytes(encoded(np.zeros((3, 3, 3), np.uint8)))
    section = {"kind": "images", "path": str(folder), "unreadable": "quarantine"}
    traced = collect(open_rows(project(rows=section), traced=True).dataset)
    assert traced.num_rows == 306
    bad = traced.filter(~traced["__unreadable"].is_null().to_numpy())
    told = "\n".join(bad["__unreadable"].to_pylist())
    for name in (*BAD, "other.png"):
        assert f"cat/{name}: it " in told
    assert "more than 89,478,485 pixels" in told
    assert "3 x 3, others 96 x 72" in told
    assert bad["image"].null_count == bad["file"].null_count == 6
    assert b"this is not an image" in bad["__raw"].to_pylist()
    kept = traced.filter(traced["__unreadable"].is_null().to_numpy())
    assert same(kept, truth)
    pq.write_table(bad.select(["image", "height", "__raw"]), folder / "aside.parquet")
    assert pq.read_table(folder / "aside.parquet")["image"].null_count == 6


@pytest.mark.parametrize("name", BAD)
def test_by_default_it_ends_the_run_and_is_named(project, folder, name):
    (folder / "cat" / name).write_bytes(BAD[name](encoded(np.zeros((96, 72, 3), np.uint8))))
    described = project(rows={"kind": "images", "path": str(folder / "cat")})
    with pytest.raises(InputError, match=name):
        sample(described, 400)


def test_damaged_and_empty_places_are_named(project, folder, tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "half.zip").write_bytes(Path(archived(folder, "zip")).read_bytes()[:5000])
    (tmp_path / "half.tar").write_bytes(b"no tar at all")
    for path, told in (
        ("none", "holds no image"),
        ("nowhere", "file not found"),
        ("half.zip", "not a zip archive"),
        ("half.tar", "archive cannot be read"),
        ("none/*.png", "no file matches"),
    ):
        with pytest.raises(InputError, match=told):
            find(project(rows={"kind": "images", "path": path}))
    pq.write_table(pa.table({"png": ["text"]}), tmp_path / "text.parquet")
    with pytest.raises(InputError, match="does not hold encoded images"):
        sample(project(rows={"kind": "images", "path": "text.parquet", "column": "png"}))


def test_a_folder_is_known_by_what_its_images_hold(project, folder):
    described = project(rows={"kind": "images", "path": str(folder)})
    before = find(described).fingerprint
    file = folder / "cat" / "000.png"
    file.touch()
    assert find(described).fingerprint == before
    held = bytearray(file.read_bytes())
    held[-20] ^= 1
    file.write_bytes(held)
    assert find(described).fingerprint != before


def test_images_go_through_quality_and_quarantine_unchanged(
    folder, truth, tmp_path, ray_cluster, monkeypatch
):
    import mlray

    monkeypatch.setenv("MLRAY_HOME", str(tmp_path / "home"))
    (folder / "dog" / "bad.png").write_bytes(b"no image")
    file = tmp_path / "pets.yaml"
    file.write_text(
        "name: pets\n"
        f"sources: {{rows: {{kind: images, path: {folder}, unreadable: quarantine}}}}\n"
        "model: {target: label}\n"
    )
    done = mlray.run(file, until="quality").stage("quality")
    clean = pa.concat_tables(
        [pq.read_table(Path(done.folder) / "clean" / f) for f in os.listdir(done.path("clean"))]
    )
    assert same(clean, truth)
    assert done.result["content"].startswith("300-")
    (aside,) = Path(done.result["quarantine"]).glob("*.parquet")
    held = pq.read_table(aside)
    assert held["_raw"].to_pylist() == [b"no image"]
    assert "dog/bad.png" in held["_reason"][0].as_py()
    assert held["image"].null_count == 1


@pytest.mark.parametrize(
    ("place", "file", "label", "side"),
    [
        ("medical_blood_cells_bccd", "bccd_val.parquet", "label", 28),
        ("av_traffic_signs_gtsrb_train", "gtsrb_train_0.parquet", "class_id", 32),
    ],
)
def test_real_images_come_back_to_the_pixel(
    project, test_data, tmp_path, ray_cluster, collect, place, file, label, side
):
    rows = pq.read_table(test_data / place / file, columns=["pixels", label])
    truth = {}
    for number, (data, name) in enumerate(zip(*rows.to_pydict().values(), strict=True)):
        array = np.frombuffer(data, np.uint8).reshape(side, side, 3)
        truth[f"{name}/{number}.png"] = array
        (tmp_path / "images" / str(name)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / str(name) / f"{number}.png").write_bytes(encoded(array))
    described = project(rows={"kind": "images", "path": str(tmp_path / "images")})
    assert same(collect(open_rows(described).dataset), truth)
