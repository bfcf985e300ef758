"""Sixteen pictures' worth of classes and comments, and rows of batches."""

from __future__ import annotations

from typing import Any

import torch

ROWS, TOKENS, TOKEN_DIM, POOLED_DIM = 16, 5, 12, 40
CLASSES = {"light": ("dark", "fair", "bright"), "mood.of it": ("calm", "wild")}
NOUNS = ("house", "tree", "river", "cat", "stone", "road", "cloud", "boat")
COMMENTS = [
    [f"a {('sharp', 'soft')[i % 2]} {NOUNS[i // 2]} in {('dim', 'clear')[i // 8]} light"]
    for i in range(ROWS)
]


class ListSource:
    """The batches of one table, as the loop asks for them."""

    def __init__(self, batch: dict[str, Any]) -> None:
        self.batch = batch
        self.keys = batch["keys"]

    def __len__(self) -> int:
        return len(self.keys)

    def load(self, indices: Any, epoch: int) -> dict[str, Any]:
        rows = [int(index) for index in indices]
        return select(self.batch, rows)


def select(batch: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    """Some rows of a batch."""
    return {
        name: {k: v[rows] for k, v in value.items()}
        if isinstance(value, dict)
        else value[rows]
        if isinstance(value, torch.Tensor)
        else [value[row] for row in rows]
        for name, value in batch.items()
    }
