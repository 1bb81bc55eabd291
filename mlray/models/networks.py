"""Networks on tables. Legend: N rows, F numeric and C categorical features, B bins, K outputs.

A network is a `torch.nn.Module` built from `(inputs: Inputs, **options)`; `forward(numeric,
category)` takes float32 (N, F) with NaN for missing and int32 codes (N, C) and gives logits (N, K).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mlray import usercode
from mlray.errors import ConfigError
from mlray.models.inputs import MISSING, UNSEEN, Inputs

_STEEPEST = 1e30
"""Slopes of bins end here: infinity times zero would be NaN."""


class Numbers(nn.Module):  # type: ignore[misc]
    """Numbers as vectors: piecewise linear encoding, then one small linear map per feature.

    With cut points b_0 < ... < b_B, bin t of value x is clamp((x - b_{t-1}) / (b_t - b_{t-1}), 0,
    1): a thermometer that is linear inside a bin (Gorishniy, Rubachev, Babenko: "On Embeddings
    for Numerical Features in Tabular Deep Learning", 2022, eq. 1, with both ends closed so that no
    wild value leaves the range seen in training). Two more entries say how far outside the value
    is, x / (1 + |x|), and whether it is missing.
    """

    left: Tensor
    slope: Tensor

    def __init__(self, quantiles: Sequence[Sequence[float]], bins: int, size: int, hidden: float):
        super().__init__()
        cuts = [thinned(points, bins + 1) for points in quantiles]
        width = max(len(points) - 1 for points in cuts)
        left, slope = torch.zeros(len(cuts), width), torch.zeros(len(cuts), width)
        for i, points in enumerate(cuts):
            edges = torch.tensor(points, dtype=torch.float64)
            left[i, : len(edges[1:])] = edges[:-1].float()
            slope[i, : len(edges[1:])] = (1 / edges.diff()).clamp(max=_STEEPEST).float()
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("slope", slope, persistent=False)
        self.hidden = hidden
        self.weight = nn.Parameter(torch.empty(len(cuts), width + 2, size))
        self.bias = nn.Parameter(torch.zeros(len(cuts), 1, size))
        nn.init.uniform_(self.weight, -1 / math.sqrt(width + 2), 1 / math.sqrt(width + 2))

    def forward(self, numeric: Tensor) -> Tensor:
        missing = torch.isnan(numeric)
        if self.training and self.hidden:
            missing = missing | (torch.rand_like(numeric) < self.hidden)
        x = numeric.masked_fill(missing, 0.0).clamp(-_STEEPEST, _STEEPEST)
        bins = ((x.unsqueeze(-1) - self.left) * self.slope).clamp(0.0, 1.0)
        known = (~missing).to(x.dtype).unsqueeze(-1)
        # x / (1 + |x|) and not a logarithm: its last bit must not depend on the batch size
        outside = (x / (1.0 + x.abs())).unsqueeze(-1)
        features = torch.cat([bins * known, outside, 1.0 - known], dim=-1)  # N F B+2
        vectors = torch.baddbmm(self.bias, features.transpose(0, 1), self.weight)  # F N size
        return torch.relu(vectors).transpose(0, 1).flatten(1)


class Categories(nn.Module):  # type: ignore[misc]
    """Codes as vectors. In training some codes are hidden as `UNSEEN`, so that the network learns
    what to say about a value it never met."""

    def __init__(self, cardinalities: Sequence[int], largest: int, hidden: float):
        super().__init__()
        sizes = [embedding_size(n, largest) for n in cardinalities]
        self.tables = nn.ModuleList(
            nn.Embedding(n, size) for n, size in zip(cardinalities, sizes, strict=True)
        )
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.1)
        self.hidden = hidden
        self.size = sum(sizes)

    def forward(self, category: Tensor) -> Tensor:
        if self.training and self.hidden:
            hide = torch.rand(category.shape, device=category.device) < self.hidden
            category = category.masked_fill(hide & (category != MISSING), UNSEEN)
        vectors = [
            table(category[:, i].clamp(MISSING, table.num_embeddings - 1))
            for i, table in enumerate(self.tables)
        ]
        return torch.cat(vectors, dim=1)


class Block(nn.Module):  # type: ignore[misc]
    """x + W2 dropout(relu(W1 norm(x))): one refinement of the row's vector."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layers(x)
        return out


class ResidualMLP(nn.Module):  # type: ignore[misc]
    """The default network: numbers and categories as vectors, residual blocks, a linear head.

    Args:
        inputs: the features.
        width: size of a row's vector.
        depth: residual blocks.
        dropout: share of activations dropped in training.
        bins: most bins per number.
        number_size: vector size of a number.
        embedding_size: largest vector size of a category.
        hidden: share of values shown as missing (numbers) or unseen (categories) in training.
    """

    def __init__(
        self,
        inputs: Inputs,
        *,
        width: int = 128,
        depth: int = 2,
        dropout: float = 0.15,
        bins: int = 48,
        number_size: int = 16,
        embedding_size: int = 16,
        hidden: float = 0.02,
    ):
        super().__init__()
        f, size = len(inputs.numeric), 0
        self.numbers = Numbers(inputs.quantiles, bins, number_size, hidden) if f else None
        size += f * number_size
        self.categories = None
        if inputs.category:
            self.categories = Categories(inputs.cardinalities, embedding_size, hidden)
            size += self.categories.size
        self.first = nn.Linear(size, width)
        self.blocks = nn.Sequential(*[Block(width, dropout) for _ in range(depth)])
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, inputs.outputs)
        )

    def forward(self, numeric: Tensor, category: Tensor) -> Tensor:
        parts = []
        if self.numbers is not None:
            parts.append(self.numbers(numeric))
        if self.categories is not None:
            parts.append(self.categories(category))
        logits: Tensor = self.head(self.blocks(self.first(torch.cat(parts, dim=1))))
        return logits


def thinned(points: Sequence[float], most: int) -> list[float]:
    """At most `most` of the points, evenly chosen, first and last kept.

    >>> thinned([0.0, 1.0, 2.0, 3.0, 4.0], 3)
    [0.0, 2.0, 4.0]
    """
    if len(points) <= most:
        return list(points) or [0.0]
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def embedding_size(cardinality: int, largest: int) -> int:
    """Vector size of a category: the square root of its number of values, 2 to `largest`.

    >>> [embedding_size(n, 16) for n in (4, 30, 4000)]
    [2, 5, 16]
    """
    return min(largest, max(2, round(math.sqrt(cardinality))))


BUILT_IN: dict[str, type[nn.Module]] = {"mlp": ResidualMLP}


def build(
    path: str, inputs: Inputs, options: Mapping[str, Any] | None = None, folder: str | None = None
) -> nn.Module:
    """The network that the project file names: `mlp`, or `module:Class` beside it.

    Raises:
        ConfigError: no such network, or it does not take these options.
    """
    if path not in BUILT_IN and ":" not in path:
        raise ConfigError(
            "no such network", value=path, allowed=f"{', '.join(BUILT_IN)} or module:Class"
        )
    cls = BUILT_IN[path] if path in BUILT_IN else usercode.resolve(path, folder)
    try:
        network = cls(inputs, **dict(options or {}))
    except TypeError as error:
        raise ConfigError(
            f"the network does not take these options ({error})",
            value=", ".join(map(str, options or {})) or "no options",
            allowed=f"{path}{inspect.signature(cls)}",
            do="correct model.options",
        ) from error
    if not isinstance(network, nn.Module):
        raise ConfigError(
            "a network must be a torch.nn.Module", value=f"{path} gave {type(network).__name__}"
        )
    return network


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters for AdamW: matrices decay, biases and norms (one number per unit) do not."""
    matrices = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def load_weights(network: nn.Module, weights: bytes) -> nn.Module:
    """The network with weights from safetensors; strict: every tensor, by name and shape."""
    import safetensors.torch

    network.load_state_dict(safetensors.torch.load(weights), strict=True)
    return network.eval()
