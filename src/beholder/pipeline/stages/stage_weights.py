"""What a train stage leaves for others: the weights it trained and the config they need.

`model.safetensors` holds the trained modules alone (`heads.<name>.*`, and `backbone.*` only when
the backbone was trained), `model.json` the judge's config with those heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from beholder.data.files import atomic_path, write_text
from beholder.judge.model import JudgeConfig, JudgeModel

WEIGHTS, CONFIG = "model.safetensors", "model.json"


@dataclass(frozen=True)
class StageWeights:
    """Trained heads (and backbone) as state and config."""

    config: JudgeConfig
    state: dict[str, torch.Tensor]


def part_of(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def save_weights(model: JudgeModel, folder: Path, *, with_backbone: bool) -> Path:
    """Write the trained modules; returns the path of the weights."""
    state = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if with_backbone or not name.startswith("backbone.")
    }
    write_text(folder / CONFIG, model.config.model_dump_json(indent=2) + "\n")
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file(state, temporary)
    return folder / WEIGHTS


def load_weights(folder: Path) -> StageWeights:
    """Read what `save_weights` wrote."""
    config = JudgeConfig.model_validate_json((folder / CONFIG).read_text("utf-8"))
    return StageWeights(config, load_file(folder / WEIGHTS))
