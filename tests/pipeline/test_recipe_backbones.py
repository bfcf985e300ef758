"""Every backbone of every shipped recipe, and of its tiny twin, exists and can be built."""

from __future__ import annotations

import pytest
import timm
import torch

from beholder.errors import BackboneError
from beholder.features import clip
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.pipeline.recipe import load_recipe, shipped_recipes

# What the config.json of these repositories says of the vision tower: width, blocks, side of a
# patch, entries of the projection, activation.
PUBLISHED_CLIPS = {
    "openai/clip-vit-base-patch32": (768, 12, 32, 512, "quick_gelu"),
    "patrickjohncyh/fashion-clip": (768, 12, 32, 512, "quick_gelu"),
}


def backbones() -> dict[str, BackboneConfig]:
    """By recipe and place in it."""
    shipped = shipped_recipes()
    twins = {f"tiny/{name}": path.parent / "tiny" / path.name for name, path in shipped.items()}
    configs = {}
    for name, path in {**shipped, **twins}.items():
        recipe = load_recipe(path)
        named_backbones = dict(recipe.backbones)
        if recipe.backbone is not None:
            named_backbones["backbone"] = recipe.backbone
        assert named_backbones, f"{name} has no backbone"
        configs.update({f"{name}:{field}": config for field, config in named_backbones.items()})
    return configs


BACKBONES = backbones()


@pytest.mark.parametrize("field", sorted(BACKBONES))
def test_the_backbones_of_shipped_recipes_can_be_built(field: str) -> None:
    config = BACKBONES[field]
    with torch.device("meta"):  # the largest would take 2.5 GB
        backbone = create_backbone(config, load_weights=False)
    assert backbone.grid[0] * backbone.grid[1] >= 1 and backbone.pooled_dim > 0


@pytest.mark.parametrize("field", sorted(BACKBONES))
def test_the_weights_of_shipped_recipes_are_published(field: str) -> None:
    config = BACKBONES[field]
    if config.weights == "pretrained" and config.name.startswith("timm/"):
        assert config.name.removeprefix("timm/") in timm.list_pretrained()
    if not config.name.startswith("clip/"):
        return
    width, blocks, patch, projection, activation = PUBLISHED_CLIPS[str(config.weights)]
    with torch.device("meta"):
        trunk = create_backbone(config, load_weights=False).trunk
    assert (trunk.embed_dim, len(trunk.blocks), trunk.num_classes) == (width, blocks, projection)
    assert trunk.patch_embed.patch_size == (patch, patch)
    assert config.name.endswith("-quickgelu") == (activation == "quick_gelu")


def test_a_name_that_does_not_exist_can_not_be_built() -> None:
    config = BACKBONES["judge-25mb:vit-h"]
    wrong = config.model_copy(update={"name": "timm/vit_huge_patch14_clip_335"})
    with torch.device("meta"), pytest.raises(BackboneError, match="There is no backbone"):
        create_backbone(wrong, load_weights=False)


def test_every_clip_name_is_an_architecture_of_timm() -> None:
    assert set(timm.list_models()) >= {architecture for architecture, _ in clip.VARIANTS.values()}
