"""A network of one hidden layer, trained for as many epochs as are best on held-out folds.

Trained with PyTorch, and nothing of it is needed to predict.

Legend: N rows, P features, H hidden units, E epochs, B rows to predict.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from beholder.models.regressors.member import (
    Features,
    Folds,
    Member,
    Packed,
    Scores,
    mean_squared,
)

HIDDEN = 64
BATCH = 256
STEPS = 1000
EPOCHS = (24, 160)  # fewest and most
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.05
DROPOUT = (0.1, 0.3)  # of the features, of the hidden units

Weights = dict[str, NDArray[np.float32]]


class Mlp(Member):
    """ReLU units over all features, summed."""

    name: ClassVar[str] = "mlp"

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    @classmethod
    def fit(cls, x_NP: Features, y_N: Scores, folds_N: Folds, seed: int) -> tuple[Mlp, Scores]:
        epochs = int(np.clip(STEPS * BATCH // len(y_N), *EPOCHS))
        held_out_EN = np.empty((epochs, len(y_N)))
        for fold in np.unique(folds_N):
            inside, outside = folds_N != fold, folds_N == fold
            states = _epochs(x_NP[inside], y_N[inside], epochs, seed)
            for epoch, weights in enumerate(states):
                held_out_EN[epoch, outside] = cls(weights).predict(x_NP[outside])
        best = int(mean_squared(held_out_EN, y_N).argmin())
        *_, weights = _epochs(x_NP, y_N, best + 1, seed)
        return cls(weights), held_out_EN[best]

    def predict(self, x_BP: Features) -> Scores:
        w = self.weights
        hidden_BH = np.maximum(x_BP @ w["in"].T + w["in_bias"], 0.0)
        return (hidden_BH @ w["out"] + w["out_bias"]).astype(np.float64)

    def pack(self) -> Packed:
        return Packed(dict[str, NDArray[Any]](self.weights))

    @classmethod
    def unpack(cls, packed: Packed) -> Mlp:
        return cls(packed.arrays)


def _epochs(x_NP: Features, y_N: Scores, epochs: int, seed: int) -> Iterator[Weights]:
    """The weights after each epoch of a training on these rows."""
    import torch
    from torch.nn import functional

    generator = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(x_NP), torch.from_numpy(y_N.astype(np.float32))
    columns, batch = x.shape[1], min(BATCH, max(8, len(y) // 8))
    weights = {
        "in": torch.randn(HIDDEN, columns, generator=generator) * columns**-0.5,
        "in_bias": torch.zeros(HIDDEN),
        "out": torch.randn(HIDDEN, generator=generator) * HIDDEN**-0.5,
        "out_bias": torch.zeros(1),
    }
    for tensor in weights.values():
        tensor.requires_grad_()
    optimiser = torch.optim.AdamW(
        weights.values(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )

    def dropped(values: torch.Tensor, share: float) -> torch.Tensor:
        kept = torch.rand(values.shape, generator=generator) >= share
        return values * kept / (1.0 - share)

    ones = torch.ones(columns)
    for _ in range(epochs):
        for rows in torch.randperm(len(y), generator=generator).split(batch):
            # one draw of features for the batch: as good as one for each row, at half the time
            hidden = functional.linear(x[rows], weights["in"] * dropped(ones, DROPOUT[0]))
            hidden = dropped((hidden + weights["in_bias"]).relu(), DROPOUT[1])
            loss = functional.mse_loss(hidden @ weights["out"] + weights["out_bias"], y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        yield {name: tensor.detach().numpy().copy() for name, tensor in weights.items()}
