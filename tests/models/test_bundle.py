from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlray.errors import BundleError
from mlray.models.bundle import LIMITS, SUMS, load_bundle
from mlray.models.networks import build, load_weights
from mlray.models.predictor import Predictor
from mlray.models.scoring import Scorer, refuse_foreign
from tests.models.conftest import Made

NAMES = [*LIMITS, SUMS]


@pytest.fixture
def copy(made: Made, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.folder, tmp_path / "copy"))


def resum(folder: Path) -> None:
    """What somebody who can write the folder would do: sums that fit the changed files."""
    lines = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in LIMITS]
    (folder / SUMS).write_text("".join(lines))


def test_a_bundle_holds_its_named_files_and_nothing_else(made: Made) -> None:
    assert sorted(os.listdir(made.folder)) == sorted(NAMES)


def test_all_parts_come_back_as_they_were_written(made: Made) -> None:
    bundle = load_bundle(made.folder)
    assert bundle.encoder == made.parts.encoder
    assert bundle.profile.to_json() == made.parts.profile.to_json()
    assert bundle.reference == made.parts.reference
    assert bundle.evaluation == made.parts.evaluation
    assert bundle.card == made.parts.card
    assert bundle.manifest.name == "flights"
    assert bundle.manifest.classes == (False, True)


def test_weights_train_on_to_the_same_scores(made: Made) -> None:
    bundle = load_bundle(made.folder)
    inputs = bundle.encoder.inputs()
    network = build("mlp", inputs, bundle.manifest.options)
    load_weights(network, made.parts.weights)
    again = build("mlp", inputs, bundle.manifest.options)
    again.load_state_dict(bundle.weights())
    rows = bundle.encoder.encode(made.table.slice(0, 20))
    numeric, category = torch.from_numpy(rows.numeric), torch.from_numpy(rows.category)
    assert torch.equal(network.eval()(numeric, category), again.eval()(numeric, category))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(NAMES), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_refused(
    made: Made, tmp_path_factory: pytest.TempPathFactory, name: str, place: float, bit: int
) -> None:
    folder = Path(shutil.copytree(made.folder, tmp_path_factory.mktemp("flip") / "copy"))
    data = bytearray((folder / name).read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    (folder / name).write_bytes(data)
    with pytest.raises(BundleError):
        load_bundle(str(folder))
    shutil.rmtree(folder)


def test_every_flipped_byte_of_the_sums_is_refused(copy: Path) -> None:
    good = (copy / SUMS).read_bytes()
    for i in range(len(good)):
        (copy / SUMS).write_bytes(good[:i] + bytes([good[i] ^ 0x20]) + good[i + 1 :])
        with pytest.raises(BundleError):
            load_bundle(str(copy))


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=name):
        load_bundle(str(copy))


@pytest.mark.parametrize("name", NAMES)
def test_a_link_is_refused_even_to_the_right_bytes(copy: Path, made: Made, name: str) -> None:
    (copy / name).unlink()
    (copy / name).symlink_to(Path(made.folder) / name)
    with pytest.raises(BundleError, match="link"):
        load_bundle(str(copy))


def test_a_pipe_in_place_of_a_file_is_refused_and_does_not_hang(copy: Path) -> None:
    (copy / "card.md").unlink()
    os.mkfifo(copy / "card.md")
    with pytest.raises(BundleError, match="no plain file"):
        load_bundle(str(copy))


def test_a_file_past_its_limit_is_refused_unread(copy: Path) -> None:
    with open(copy / "bundle.json", "r+b") as file:
        file.truncate(LIMITS["bundle.json"] + 1)
    with pytest.raises(BundleError, match="too large"):
        load_bundle(str(copy))


def test_other_files_are_never_opened(copy: Path) -> None:
    (copy / "setup.py").write_text("raise SystemExit")
    (copy / "model.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    Predictor(load_bundle(str(copy))).verify_golden()


@pytest.mark.parametrize(
    "change",
    [
        lambda sums: sums + f"{'0' * 64}  ../secret\n",
        lambda sums: sums.replace("card.md", "../card"),
        lambda sums: sums.replace("card.md", "/etc/passwd"),
        lambda sums: sums + sums.splitlines(keepends=True)[0],
        lambda sums: "".join(sums.splitlines(keepends=True)[1:]),
        lambda sums: sums.upper(),
        lambda sums: sums.replace("\n", "\r\n"),
        lambda sums: "",
    ],
)
def test_sums_that_name_anything_else_are_refused(copy: Path, change: Callable[[str], str]) -> None:
    (copy / SUMS).write_text(change((copy / SUMS).read_text()), newline="")
    with pytest.raises(BundleError):
        load_bundle(str(copy))


@pytest.mark.parametrize("name", ["bundle.json", "encoder.json", "golden.arrow"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b"\xff\xfe", b"null"])
def test_files_of_another_shape_are_bundle_errors_even_with_fitting_sums(
    copy: Path, name: str, content: bytes
) -> None:
    (copy / name).write_bytes(content)
    resum(copy)
    with pytest.raises(BundleError):
        Predictor(load_bundle(str(copy))).verify_golden()


def test_a_graph_that_reads_other_files_is_refused(made: Made) -> None:
    model = onnx.load_model_from_string(load_bundle(made.folder).graph)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    with pytest.raises(BundleError, match="other files"):
        Scorer(model.SerializeToString())


def test_a_graph_with_foreign_operators_is_refused(made: Made) -> None:
    model = onnx.load_model_from_string(load_bundle(made.folder).graph)
    model.opset_import.add(domain="com.evil", version=1)
    model.graph.node[0].domain = "com.evil"
    with pytest.raises(BundleError, match=r"com\.evil"):
        refuse_foreign(model.SerializeToString())


def test_bytes_that_are_no_graph_are_refused() -> None:
    with pytest.raises(BundleError):
        Scorer(b"\x00not a graph")


def test_another_models_golden_rows_are_refused(copy: Path, made: Made) -> None:
    import pyarrow as pa

    bundle = load_bundle(made.folder)
    rows, scores = bundle.golden
    other = np.nextafter(scores.to_numpy(), np.float32(1))
    table = rows.append_column("_score", pa.array(other))
    with pa.ipc.new_file(str(copy / "golden.arrow"), table.schema) as writer:
        writer.write_table(table)
    resum(copy)
    with pytest.raises(BundleError, match="golden"):
        Predictor(load_bundle(str(copy))).verify_golden()


def test_a_failed_write_leaves_the_old_bundle(copy: Path, made: Made) -> None:
    from dataclasses import replace

    from mlray.models.packing import write_bundle

    broken = replace(made.parts, evaluation={"value": {1, 2}})
    with pytest.raises(TypeError):
        write_bundle(str(copy), broken)
    Predictor(load_bundle(str(copy))).verify_golden()
