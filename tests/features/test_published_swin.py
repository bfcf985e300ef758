"""The Swin inside a published captioner's checkpoint becomes a backbone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch

from beholder.errors import BackboneError
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.features.weights import read_weights

NAME = "swin_tiny_patch4_window7_224"


def published(folder: Path) -> tuple[Path, torch.nn.Module]:
    """A checkpoint as the published training writes it: old names, masks, the body beside it."""
    torch.manual_seed(1)
    swin = timm.create_model(NAME, num_classes=0, img_size=64)
    state = {
        re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name): t
        for name, t in swin.state_dict().items()
    }
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 49, 49)
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
    content = {f"swin_transf.{name}": tensor for name, tensor in state.items()}
    content |= {"input_linear.weight": torch.zeros(8, 768), "vocab_linear.weight": torch.ones(5, 8)}
    path = folder / "published.pth"
    torch.save({"model_state_dict": content, "epoch": 3}, path)
    return path, swin.eval()


def config(weights: Path, **values: object) -> BackboneConfig:
    values = {"name": f"timm/{NAME}", "size": 64, "resize": "squash", **values}
    return BackboneConfig(weights=weights, **values)


def test_tokens_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    path, swin = published(tmp_path)
    backbone = create_backbone(config(path))
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            backbone(pixels).tokens_BNC, swin.forward_features(pixels).flatten(1, 2)
        )


def test_only_the_backbone_is_read(tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "golden" / "reference_checkpoint.pth"
    names = read_weights(golden).keys()
    assert "patch_embed.proj.weight" in names
    assert not any(name.startswith(("swin_transf.", "encoders.", "vocab")) for name in names)
    with pytest.raises(BackboneError, match=r"'patch_embed\.proj\.weight' has shape"):
        create_backbone(config(golden))
