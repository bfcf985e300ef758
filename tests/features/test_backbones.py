"""Backbones: known predictions, one interface over families, errors that help."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file
from timm.optim import param_groups_layer_decay

from beholder.data.transforms import EvalTransform
from beholder.errors import BackboneError
from beholder.features import efficientnet_lite
from beholder.features.backbones import Backbone, create_backbone
from beholder.features.config import BackboneConfig
from beholder.features.layout import VARIANCE_FLOOR
from beholder.features.weights import fit_weights

PHOTOS = files("beholder.data.sample") / "photos"
# ImageNet-1k class of the top-1 prediction: tiger cat and Egyptian cat; espresso
KNOWN = {
    "efficientnet-lite0": {"chelsea.jpg": 282, "coffee.jpg": 967},
    "efficientnet-lite2": {"chelsea.jpg": 285, "coffee.jpg": 967},
}


@pytest.mark.parametrize("variant", sorted(KNOWN))
def test_offline_weights_see_what_is_in_the_photos(variant: str) -> None:
    architecture, _ = efficientnet_lite.VARIANTS[variant]
    classifier = timm.create_model(architecture, pretrained=False).eval()
    counts = [len(stage) for stage in classifier.blocks]
    published = efficientnet_lite.load_weights(variant, counts)
    fit_weights(classifier, published, variant)
    backbone = create_backbone(BackboneConfig(name=variant))
    transform = backbone.transform
    for name, expected in KNOWN[variant].items():
        pixels = torch.from_numpy(transform.read(Path(str(PHOTOS / name))))[None]
        with torch.no_grad():
            assert int(classifier(pixels).argmax()) == expected, name
            pooled = backbone(pixels).pooled_BP
            torch.testing.assert_close(classifier.classifier(pooled), classifier(pixels))


def test_offline_weights_want_pixels_from_minus_one_to_one() -> None:
    transform = create_backbone(BackboneConfig(name="efficientnet-lite0")).transform
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    seen = EvalTransform.from_dict(transform.to_dict() | {"size": [16, 16], "resize": "native"})
    expected = levels.astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(
        seen(Image.fromarray(levels)), expected.transpose(2, 0, 1), atol=1e-6
    )


FAMILIES = [
    "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224", "nfnet_l0",
    "tiny_vit_5m_224", "resnet18", "convnext_atto", "tf_efficientnet_lite0",
    "eva02_tiny_patch14_224",
]  # fmt: skip


@pytest.mark.parametrize("pooling", ["last", "stages", "all", "early"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_features_it_declares(family: str, pooling: str) -> None:
    config = BackboneConfig(name=f"timm/{family}", weights="random", pooling=pooling)
    backbone = create_backbone(config)
    torch.manual_seed(0)
    pixels = torch.randn(2, 3, *backbone.transform.size)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        tokens, pooled = backbone(pixels)
        assert tokens.shape == (2, backbone.grid[0] * backbone.grid[1], backbone.token_dim)
        assert pooled.shape == (2, backbone.pooled_dim)
        if pooling == "last":
            features = backbone.trunk.forward_features(pixels)
            expected = backbone.trunk.forward_head(features, pre_logits=True)
            torch.testing.assert_close(pooled, expected)


# (name, size, grid, width of a token): the backbones of the published recipes, and their like
PUBLISHED = [
    ("swin_large_patch4_window12_384", None, (12, 12), 1536),
    ("swinv2_large_window12_192.ms_in22k", None, (6, 6), 1536),
    ("swinv2_large_window12to24_192to384.ms_in22k_ft_in1k", None, (12, 12), 1536),
    ("dm_nfnet_f5", 544, (17, 17), 3072),
    ("vit_huge_patch14_clip_224.laion2b_ft_in12k_in1k", 518, (37, 37), 1280),
    ("eva_giant_patch14_560", None, (40, 40), 1408),
]


@pytest.mark.parametrize(("name", "size", "grid", "width"), PUBLISHED)
def test_large_published_backbones_have_their_shapes(
    name: str, size: int | None, grid: tuple[int, int], width: int
) -> None:
    config = BackboneConfig(name=f"timm/{name}", size=size)
    with torch.device("meta"):  # no memory, no computation
        backbone = create_backbone(config, load_weights=False)
        tokens, pooled = backbone(torch.empty(2, 3, *backbone.transform.size))
    assert backbone.grid == grid
    assert tokens.shape == (2, grid[0] * grid[1], width)
    assert pooled.shape == (2, width)


@pytest.mark.parametrize(
    ("name", "size", "what"),
    [
        ("timm/efficientformer_l1", 192, "can't be changed|can't see"),
        ("timm/crossvit_tiny_240", None, "not a single grid"),
    ],
)
def test_what_a_family_cannot_do_is_said(name: str, size: int | None, what: str) -> None:
    with pytest.raises(BackboneError, match=what):
        create_backbone(BackboneConfig(name=name, weights="random", size=size))


def test_all_is_stages_and_then_last() -> None:
    options = {"name": "timm/test_efficientnet", "weights": "random", "seed": 3}
    pixels = torch.randn(2, 3, 160, 160)
    outputs = {}
    for pooling in ("stages", "last", "all"):
        backbone = create_backbone(BackboneConfig(**options, pooling=pooling)).eval()
        with torch.no_grad():
            outputs[pooling] = backbone(pixels).pooled_BP
        assert outputs[pooling].shape[1] == backbone.pooled_dim
    torch.testing.assert_close(
        outputs["all"], torch.cat([outputs["stages"], outputs["last"]], dim=1)
    )


def test_stages_are_means_and_deviations_of_the_maps_early_first() -> None:
    config = BackboneConfig(name="timm/test_efficientnet", weights="random", pooling="stages")
    backbone = create_backbone(config)
    torch.manual_seed(0)
    pixels = torch.randn(2, 3, *backbone.transform.size)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        maps = backbone.trunk.forward_intermediates(pixels, intermediates_only=True)
        parts = [f(m.flatten(2)) for m in maps for f in (_mean, _deviation)]
        torch.testing.assert_close(
            backbone(pixels).pooled_BP, torch.cat(parts, 1), atol=1e-5, rtol=1e-4
        )


def test_early_maps_of_an_efficientnet_are_those_of_its_blocks() -> None:
    config = BackboneConfig(name="efficientnet-lite0", weights="random", pooling="early", size=256)
    backbone = create_backbone(config)
    trunk = backbone.trunk
    torch.manual_seed(0)
    pixels = torch.randn(2, 3, 256, 256).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        tokens, pooled = backbone(pixels)
        features = trunk.forward_features(pixels)
        torch.testing.assert_close(tokens, features.flatten(2).transpose(1, 2))
        maps = [trunk.bn1(trunk.conv_stem(pixels))]
        for group in trunk.blocks[:5]:
            maps.append(group(maps[-1]))
    assert [m.shape[1] for m in maps] == [32, 16, 24, 40, 80, 112]
    parts = [f(m.flatten(2)) for m in maps for f in (_mean, _deviation)]
    torch.testing.assert_close(pooled, torch.cat(parts, 1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "size", "left_out"),
    [("efficientnet-lite0", 64, "conv_head"), ("timm/test_convnext", 64, "stages.3")],
)
def test_without_tokens_early_layers_alone_are_run(name: str, size: int, left_out: str) -> None:
    config = BackboneConfig(name=name, weights="random", pooling="early", size=size)
    backbone = create_backbone(config)
    torch.manual_seed(0)
    pixels = torch.randn(2, 3, size, size)
    runs: list[str] = []
    backbone.trunk.get_submodule(left_out).register_forward_hook(lambda *_: runs.append(left_out))
    with torch.no_grad():
        whole, short = backbone(pixels), backbone(pixels, tokens=False)
    assert len(runs) == 1
    assert whole.tokens_BNC.shape[1] > 0
    assert short.tokens_BNC.shape == (2, 0, backbone.token_dim)
    assert torch.equal(whole.pooled_BP, short.pooled_BP)


@pytest.mark.parametrize("pooling", ["last", "stages", "all"])
def test_without_tokens_the_pooled_vector_is_the_same(pooling: str) -> None:
    config = BackboneConfig(name="timm/test_efficientnet", weights="random", pooling=pooling)
    backbone = create_backbone(config)
    pixels = torch.randn(2, 3, *backbone.transform.size)
    with torch.no_grad():
        whole, short = backbone(pixels), backbone(pixels, tokens=False)
    assert short.tokens_BNC.shape == (2, 0, backbone.token_dim)
    assert torch.equal(whole.pooled_BP, short.pooled_BP)


def _mean(values: torch.Tensor) -> torch.Tensor:
    return values.mean(-1)


def _deviation(values: torch.Tensor) -> torch.Tensor:
    return (values.var(-1, correction=0) + VARIANCE_FLOOR).sqrt()


def test_fingerprint_tells_weights_and_transform_apart_and_nothing_else() -> None:
    base = BackboneConfig(name="timm/test_efficientnet", weights="random")
    same = create_backbone(base).fingerprint()
    torch.manual_seed(5)
    assert create_backbone(base).fingerprint() == same
    for change in ({"seed": 1}, {"size": 96}, {"pooling": "stages"}, {"resize": "native"}):
        assert create_backbone(base.model_copy(update=change)).fingerprint() != same, change


def test_local_weights_are_loaded_exactly_or_refused(tmp_path: Path) -> None:
    config = BackboneConfig(name="timm/test_efficientnet", weights="random", seed=3)
    backbone = create_backbone(config)
    state = {name: tensor.clone() for name, tensor in backbone.trunk.state_dict().items()}
    save_file(state, tmp_path / "good.safetensors")
    local = create_backbone(config.model_copy(update={"weights": tmp_path / "good.safetensors"}))
    assert local.fingerprint() == backbone.fingerprint()
    torch.save({"state_dict": state}, tmp_path / "good.pth")
    local = create_backbone(config.model_copy(update={"weights": tmp_path / "good.pth"}))
    assert local.fingerprint() == backbone.fingerprint()
    name = next(iter(state))
    for change in ({name: state[name][:1].clone()}, {"stranger": torch.zeros(1)}):
        save_file({**state, **change}, tmp_path / "bad.safetensors")
        with pytest.raises(BackboneError, match=next(iter(change))):
            create_backbone(config.model_copy(update={"weights": tmp_path / "bad.safetensors"}))
    with pytest.raises(BackboneError, match="does not exist"):
        create_backbone(config.model_copy(update={"weights": tmp_path / "none.safetensors"}))


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("executed",))


def test_pickled_code_is_never_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    config = BackboneConfig(name="timm/test_efficientnet", weights=tmp_path / "evil.pth")
    with pytest.raises(BackboneError):
        create_backbone(config)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("timm/resnet5O", "timm/resnet50"),
        ("resnet50", "timm/resnet50"),
        ("efficientnet-lite9", "efficientnet-lite"),
    ],
)
def test_unknown_name_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(BackboneError, match=near):
        create_backbone(BackboneConfig(name=name))


def test_options_reach_the_model() -> None:
    def build(**options: object) -> Backbone:
        name = "timm/swin_tiny_patch4_window7_224"
        sizes = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), **options}
        return create_backbone(BackboneConfig(name=name, weights="random", size=56, options=sizes))

    backbone = build()
    assert backbone.token_dim == 16
    again = BackboneConfig.model_validate_json(backbone.config.model_dump_json())
    assert again == backbone.config
    assert create_backbone(again).fingerprint() == backbone.fingerprint()
    # the same weights, but attention over other windows
    assert build(window_size=14).fingerprint() != backbone.fingerprint()
    with pytest.raises(BackboneError, match="has no option 'windows'"):
        build(windows=14)
    with pytest.raises(ValidationError, match="num_classes"):
        build(num_classes=3)


@pytest.mark.parametrize(
    "name",
    [
        "tf_efficientnet_lite0",
        "vit_tiny_patch16_224",
        "convnext_atto",
        "swin_tiny_patch4_window7_224",
    ],
)
def test_depths_are_those_of_timms_layer_decay(name: str) -> None:
    classifier = timm.create_model(name, num_classes=3)
    scales = {
        id(parameter): group["lr_scale"]
        for group in param_groups_layer_decay(classifier, layer_decay=0.5)
        for parameter in group["params"]
    }
    expected = {f"trunk.{name}": scales[id(p)] for name, p in classifier.named_parameters()}
    ours = "efficientnet-lite0" if name == "tf_efficientnet_lite0" else f"timm/{name}"
    backbone = create_backbone(BackboneConfig(name=ours, weights="random"))
    depths = backbone.depths()
    assert depths.keys() == dict(backbone.named_parameters()).keys()
    assert {name: 0.5**depth for name, depth in depths.items()} == {n: expected[n] for n in depths}
    rest = {value for name, value in expected.items() if name not in depths}
    assert rest == {1.0}, "the classifier is where a head is"
