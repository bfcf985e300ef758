"""What weight decay spares, against timm's own parameter groups."""

from __future__ import annotations

import pytest
import torch
from timm.optim import param_groups_weight_decay
from tiny_training import TinyTask, config
from torch import nn

from beholder.features.backbones import BackboneConfig, create_backbone
from beholder.training.optimisers import create_optimizer, set_learning_rate


def test_weight_decay_spares_vectors_and_the_backbone_has_its_own_rate():
    task = TinyTask()
    settings = config(optimizer={"weight_decay": 0.1}, backbone_lr_factor=0.25)
    optimizer = create_optimizer(task.trainable(), settings, no_weight_decay={"head.weight"})
    set_learning_rate(optimizer, 0.8)
    groups = {
        name: (group["weight_decay"], group["lr"])
        for group in optimizer.param_groups
        for name, parameter in task.trainable()
        if any(parameter is member for member in group["params"])
    }
    assert groups == {
        "backbone.weight": (0.1, 0.2),
        "backbone.bias": (0.0, 0.2),
        "head.weight": (0.0, 0.8),
        "head.bias": (0.0, 0.8),
    }


@pytest.mark.parametrize(
    ("name", "options", "spared"),
    [
        ("tiny_vit_5m_224", {}, "stages.1.blocks.0.attn.attention_biases"),
        ("vit_tiny_patch16_224", {"depth": 2}, "pos_embed"),
        (
            "swin_tiny_patch4_window7_224",
            {"depths": (1, 1, 1, 1), "embed_dim": 24},
            "layers.0.blocks.0.attn.relative_position_bias_table",
        ),
        ("efficientnet_lite0", {}, None),
    ],
)
def test_weight_decay_spares_what_timm_spares(name, options, spared):
    config_ = BackboneConfig(name=f"timm/{name}", weights="random", options=options)
    backbone = create_backbone(config_)
    trunk = backbone.trunk
    task = nn.Module()
    task.backbone = backbone
    names = {f"backbone.{name}" for name in backbone.no_weight_decay()}
    optimizer = create_optimizer(
        list(task.named_parameters()),
        config(optimizer={"weight_decay": 0.1}),
        no_weight_decay=names,
    )
    family = trunk.no_weight_decay() if hasattr(trunk, "no_weight_decay") else ()
    timms = param_groups_weight_decay(trunk, 0.1, no_weight_decay_list=family)

    def by_decay(groups):
        return {
            decay: {id(p) for g in groups if g["weight_decay"] == decay for p in g["params"]}
            for decay in (0.0, 0.1)
        }

    assert by_decay(optimizer.param_groups) == by_decay(timms)
    if spared:
        assert trunk.get_parameter(spared).ndim > 1
        assert id(trunk.get_parameter(spared)) in by_decay(optimizer.param_groups)[0.0]
    else:
        assert not names


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_fused_steps_are_the_plain_ones(name):
    settings = config(optimizer={"name": name, "weight_decay": 0.1}, backbone_lr_factor=0.5)
    task, other = TinyTask(), TinyTask()
    optimizer = create_optimizer(task.trainable(), settings, fused=True)
    assert all(group["fused"] for group in optimizer.param_groups)
    plain = create_optimizer(other.trainable(), settings)
    torch.manual_seed(2)
    for step in range(1, 6):
        for mine, theirs in zip(task.parameters(), other.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            theirs.grad = mine.grad.clone()
        # a tensor is what the deferred guard gives
        set_learning_rate(optimizer, torch.tensor(0.1 / step))
        set_learning_rate(plain, 0.1 / step)
        optimizer.step()
        plain.step()
    for mine, theirs in zip(task.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)
