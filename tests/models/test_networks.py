from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mlray.errors import ConfigError, TrainingError
from mlray.models.calibration import Calibration
from mlray.models.export import Served, probe_rows, to_onnx
from mlray.models.inputs import Inputs
from mlray.models.networks import Numbers, ResidualMLP, build, parameter_groups
from mlray.models.scoring import Scorer
from mlray.models.tasks import TASKS, task_named

CUTS = tuple(float(q) for q in np.linspace(-2, 2, 20))


def inputs_of(numeric: int, category: int, task: str = "binary") -> Inputs:
    return Inputs(
        task,
        tuple(f"n{i}" for i in range(numeric)),
        tuple(f"c{i}" for i in range(category)),
        (5, 300, 3)[:category],
        (CUTS, (0.0,), ())[:numeric],
        (True,) * numeric,
        3 if task == "multiclass" else 1,
    )


SHAPES = [(3, 3), (3, 0), (0, 3), (1, 1)]


@pytest.mark.parametrize(("numeric", "category"), SHAPES)
@pytest.mark.parametrize("task", list(TASKS))
def test_the_graph_says_what_torch_says_in_batches_of_any_size(
    numeric: int, category: int, task: str
) -> None:
    inputs = inputs_of(numeric, category, task)
    calibration = Calibration(1.3, -0.2)
    network = ResidualMLP(inputs, width=16, depth=1)
    graph = to_onnx(network, calibration, inputs)
    rows = probe_rows(inputs)
    scorer = Scorer(graph.onnx, multiple=graph.multiple)
    with torch.inference_mode():
        served = Served(network, calibration, task).eval()
        wanted = served(torch.from_numpy(rows[0]), torch.from_numpy(rows[1])).numpy()
    found = scorer(*rows)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    for size in (1, 2, 7):
        parts = [scorer(rows[0][i : i + size], rows[1][i : i + size]) for i in range(0, 61, size)]
        assert np.concatenate(parts).tobytes() == found.tobytes()


def test_the_export_says_nothing_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    to_onnx(ResidualMLP(inputs_of(1, 1), width=8), Calibration(), inputs_of(1, 1))
    assert capfd.readouterr() == ("", "")


def test_piecewise_linear_encoding_is_the_formula_of_the_paper() -> None:
    numbers = Numbers([(0.0, 1.0, 3.0)], bins=8, size=4, hidden=0.0)
    with torch.no_grad():
        numbers.weight.zero_()
        numbers.weight[0, 0, 0] = numbers.weight[0, 1, 1] = 1.0
        found = numbers(torch.tensor([[-5.0], [0.5], [1.0], [2.0], [9.0], [float("nan")]]))
    first, second = found[:, 0].tolist(), found[:, 1].tolist()
    assert first == [0.0, 0.5, 1.0, 1.0, 1.0, 0.0]
    assert second == [0.0, 0.0, 0.0, 0.5, 1.0, 0.0]


def test_values_are_hidden_in_training_only() -> None:
    inputs = inputs_of(3, 3)
    network = ResidualMLP(inputs, dropout=0.0, hidden=0.5, width=8)
    numeric, category = (torch.from_numpy(m) for m in probe_rows(inputs))
    network.train()
    assert not torch.equal(network(numeric, category), network(numeric, category))
    network.eval()
    assert torch.equal(network(numeric, category), network(numeric, category))


def test_codes_out_of_range_do_not_break_the_network() -> None:
    network = ResidualMLP(inputs_of(0, 3), width=8).eval()
    wild = torch.tensor([[99, -5, 7]], dtype=torch.int32)
    assert bool(torch.isfinite(network(torch.zeros(1, 0), wild)).all())


def test_a_network_of_the_users_is_built_from_its_path(tmp_path: Path) -> None:
    (tmp_path / "own_networks.py").write_text(
        "import torch\n"
        "class Linear(torch.nn.Module):\n"
        "    def __init__(self, inputs, *, bias=True):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.Linear(len(inputs.numeric), inputs.outputs, bias=bias)\n"
        "    def forward(self, numeric, category):\n"
        "        return self.layer(torch.nan_to_num(numeric, 0.0, 0.0, 0.0))\n"
        "class Stuck(Linear):\n"
        "    def forward(self, numeric, category):\n"
        "        return super().forward(numeric, category) * float(numeric[0, 0] > 0)\n"
        "class Frozen(Linear):\n"
        "    def forward(self, numeric, category):\n"
        "        return super().forward(torch.tensor(numeric.tolist()), category)\n"
        "def nothing(inputs):\n"
        "    return 3\n"
    )
    inputs = inputs_of(3, 3)
    network = build("own_networks:Linear", inputs, {"bias": False}, str(tmp_path))
    graph = to_onnx(network, Calibration(), inputs)
    assert Scorer(graph.onnx)(*probe_rows(inputs)).shape == (61,)
    with pytest.raises(ConfigError, match="bais"):
        build("own_networks:Linear", inputs, {"bais": False}, str(tmp_path))
    with pytest.raises(ConfigError, match="Module"):
        build("own_networks:nothing", inputs, {}, str(tmp_path))
    with pytest.raises(ConfigError, match="mlp"):
        build("mpl", inputs)
    stuck = build("own_networks:Stuck", inputs, {}, str(tmp_path))  # cannot be traced
    graph = to_onnx(stuck, Calibration(), inputs)
    numeric, category = (m[3:9] for m in probe_rows(inputs))
    with torch.inference_mode():
        served = Served(stuck, Calibration(), "binary").eval()
        wanted = served(torch.from_numpy(numeric), torch.from_numpy(category)).numpy()
    np.testing.assert_allclose(Scorer(graph.onnx)(numeric, category), wanted, atol=1e-5)
    with pytest.raises(TrainingError, match="ONNX"):
        to_onnx(build("own_networks:Frozen", inputs, {}, str(tmp_path)), Calibration(), inputs)


def test_matrices_decay_and_vectors_do_not() -> None:
    network = ResidualMLP(inputs_of(3, 3), width=8)
    decayed, kept = parameter_groups(network, 0.1)
    assert decayed["weight_decay"] == 0.1
    assert kept["weight_decay"] == 0.0
    assert all(p.ndim == 1 for p in kept["params"])
    total = len(decayed["params"]) + len(kept["params"])
    assert total == len(list(network.parameters()))


def test_losses_are_those_of_the_books() -> None:
    z = torch.tensor([[0.3], [-2.0]])
    y = torch.tensor([1.0, 0.0])
    p = torch.sigmoid(z[:, 0])
    wanted = -(torch.log(p[0]) + torch.log(1 - p[1])) / 2
    torch.testing.assert_close(task_named("binary").loss(z, y), wanted)
    weighted = -(3 * torch.log(p[0]) + torch.log(1 - p[1])) / 2
    torch.testing.assert_close(task_named("binary").loss(z, y, (1.0, 3.0)), weighted)
    torch.testing.assert_close(task_named("regression").loss(z, y), ((z[:, 0] - y) ** 2).mean() / 2)
    logits, labels = torch.randn(9, 3), torch.arange(9) % 3
    torch.testing.assert_close(
        task_named("multiclass").loss(logits, labels), nn.CrossEntropyLoss()(logits, labels)
    )


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="ranking"):
        task_named("ranking")
