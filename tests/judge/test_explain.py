"""Grad-CAM: equal to the grad-cam package in every family, and at the right place of the picture.

Random weights: what is compared is arithmetic, not sense.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from beholder.data.test_time_augmentation import ViewConfig
from beholder.data.transforms import EvalTransform, Resize
from beholder.errors import JudgeError
from beholder.features.backbones import Features, create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge import Judge
from beholder.judge.calibration import Calibration
from beholder.judge.explain import place_heat, scale_heat
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.judge.runtime.engine import HeadOutputs
from beholder.judge.runtime.grad_cam import heat_map, map_modules
from beholder.models.config import HeadConfig

CLASSES = {"gender": ("a", "b", "c"), "light": ("dark", "bright")}


def make_model(name: str, size: int | None = None, **config: Any) -> JudgeModel:
    inputs = config.pop("inputs", {})
    backbone = create_backbone(BackboneConfig(name=name, weights="random", size=size, **config))
    torch.manual_seed(0)
    judge_config = JudgeConfig(
        backbone=backbone.config, pooled_dim=backbone.pooled_dim, token_dim=backbone.token_dim,
        score=HeadConfig(), attributes=HeadConfig(), classes=CLASSES, attribute_inputs=inputs,
    )  # fmt: skip
    model = JudgeModel(judge_config, backbone).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # a shipped judge need not want gradients
    return model


def vit_patches(height: int, width: int, prefix: int = 1) -> Callable[[Tensor], Tensor]:
    return lambda x: x[:, prefix:].transpose(1, 2).reshape(len(x), -1, height, width)


FAMILIES: list[tuple[str, int | None, Callable[[Any], nn.Module], Any]] = [
    ("timm/tiny_vit_5m_224", 224, lambda trunk: trunk.stages[-1], None),
    ("timm/swin_tiny_patch4_window7_224", None, lambda trunk: trunk.layers[-1],
     lambda x: x.permute(0, 3, 1, 2)),
    ("timm/test_efficientnet", 96, lambda trunk: trunk.bn2, None),
    ("timm/vit_tiny_patch16_224", 64, lambda trunk: trunk.blocks[-1].norm1, vit_patches(4, 4)),
    ("timm/vit_base_patch32_clip_224", 128, lambda trunk: trunk.blocks[-1].norm1,
     vit_patches(4, 4)),
    ("timm/test_vit3", None, lambda trunk: trunk.norm, vit_patches(10, 10)),
    ("timm/test_convnext", 96, lambda trunk: trunk.stages[-1], None),
    ("timm/test_resnet", 96, lambda trunk: trunk.layer4, None),
]  # fmt: skip


class Logits(nn.Module):
    """What the package wants: pixels to the logits of one attribute."""

    def __init__(self, model: JudgeModel, attribute: str) -> None:
        super().__init__()
        self.model, self.attribute = model, attribute

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        pooled = self.model.features({"pixels": pixels_B3HW}).pooled_BP
        if self.attribute == "score":
            return self.model.heads["score"](pooled)[:, None]
        return self.model.heads["attributes"](pooled)[self.attribute]


def by_package(
    model: JudgeModel, pixels: Tensor, attribute: str, index: int, layer: nn.Module, reshape: Any
) -> np.ndarray:
    package = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    logits = Logits(model, attribute)
    with package.GradCAM(logits, [layer], reshape_transform=reshape) as cam:
        return cam(pixels, targets=[targets.ClassifierOutputTarget(index)])[0]


@pytest.mark.parametrize(("name", "size", "layer", "reshape"), FAMILIES)
def test_equals_the_package(
    name: str, size: int | None, layer: Callable[[Any], nn.Module], reshape: Any
) -> None:
    model = make_model(name, size)
    assert model.backbone is not None
    height, width = model.backbone.transform.size
    pixels = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    for attribute, index in (("gender", 0), ("gender", 2), ("score", 0)):
        raw = heat_map(model, pixels, attribute, None if attribute == "score" else index)
        heat = place_heat(scale_heat(raw), (0, 0, width, height), (width, height))
        expected = by_package(model, pixels, attribute, index, layer(model.backbone.trunk), reshape)
        np.testing.assert_allclose(scale_heat(heat), expected, atol=2e-3)
        assert heat.std() > 0.01


def test_explaining_leaves_nothing_behind() -> None:
    model = make_model("timm/test_efficientnet", 64)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = model.opinions(model.features({"pixels": pixels}))
    first = heat_map(model, pixels, "gender", 1)
    assert np.array_equal(first, heat_map(model, pixels, "gender", 1))
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.inference_mode():
        after = model.opinions(model.features({"pixels": pixels}))
    assert torch.equal(before.probabilities_BK["gender"], after.probabilities_BK["gender"])


def test_early_features_are_explained_by_the_deepest_map_they_come_from() -> None:
    model = make_model("timm/test_efficientnet", 64, pooling="early", inputs={"light": 8})
    pixels = torch.randn(1, 3, 64, 64)
    assert model.backbone is not None
    with torch.no_grad():
        maps = map_modules(model.backbone.trunk)
        sides = {}
        for module in maps:
            module.register_forward_hook(lambda m, i, o: sides.__setitem__(m, o.shape[-1]))
        model.features({"pixels": pixels})
    # of `inputs: 8` only statistics of the stem's map are read; of all up to a 16th
    assert heat_map(model, pixels, "light", 0).shape == (32, 32) == (sides[maps[-1]],) * 2
    assert heat_map(model, pixels, "gender", 0).shape == (4, 4)


class Patches(nn.Module):
    """Mean brightness of 8 x 8 patches as the only map."""

    feature_info = ({"module": "pool"},)

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(8)


class FakeBackbone(nn.Module):
    def __init__(self, transform: EvalTransform) -> None:
        super().__init__()
        self.trunk, self.transform = Patches(), transform
        self.token_dim, self.pooled_dim = 3, 1
        self.config = SimpleNamespace(name="fake")

    def forward(self, pixels_B3HW: Tensor, *, tokens: bool = True) -> Features:
        map_B3hw = self.trunk.pool(pixels_B3HW)
        pooled = (map_B3hw**2).mean(dim=(1, 2, 3))[:, None]
        return Features(map_B3hw.flatten(2).transpose(1, 2), pooled)


def bright_judge(transform: EvalTransform, **changes: Any) -> Judge:
    config = JudgeConfig(
        backbone=BackboneConfig(name="efficientnet-lite0"), pooled_dim=1, token_dim=3,
        score=HeadConfig(), attributes=HeadConfig(), classes={"light": ("dark", "bright")},
        calibration=Calibration(temperatures={"light": 2.0}), **changes,
    )  # fmt: skip
    model = JudgeModel(config, FakeBackbone(transform))  # type: ignore[arg-type]
    weights = model.heads["attributes"].layers[0][-1].weight
    with torch.no_grad():
        weights.copy_(torch.tensor([[-20.0], [20.0]]))
        model.heads["score"].layers[-1].weight.fill_(1.0)
    return Judge.of_model(model, torch.device("cpu"), beam_size=None)


def spot(size: tuple[int, int], centre: tuple[int, int]) -> Image.Image:
    image = Image.new("RGB", size)
    x, y = centre
    image.paste((255, 255, 255), (x - 12, y - 12, x + 12, y + 12))
    return image


@pytest.mark.parametrize("resize", ["squash", "crop", "pad", "native"])
@pytest.mark.parametrize("size", [(300, 200), (200, 300), (100, 90)])
@pytest.mark.parametrize("box", [None, (10.0, 20.0, 98.0, 86.0), (-30.0, 5.0, 90.0, 1000.0)])
def test_heat_is_where_the_picture_is(
    resize: Resize, size: tuple[int, int], box: tuple[float, ...] | None
) -> None:
    transform = EvalTransform(
        size=(96, 128), resize=resize, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    judge = bright_judge(transform)
    # where the judge certainly looks: near the middle of box or picture
    left, top, right, bottom = (0, 0, *size) if box is None else box
    right, bottom = min(right, size[0]), min(bottom, size[1])
    centre = (round((max(left, 0) + right) / 2 + 4), round((max(top, 0) + bottom) / 2 - 3))
    for opinion in ("light", "score"):
        explanation = judge.explain(spot(size, centre), opinion, box=box)
        assert explanation.heat.shape == size[::-1]
        assert explanation.heat.dtype == np.float32
        assert 0 <= explanation.heat.min() <= explanation.heat.max() <= 1 + 1e-6
        ys, xs = np.mgrid[: size[1], : size[0]] + 0.5
        middle = [(axis * explanation.heat).sum() / explanation.heat.sum() for axis in (xs, ys)]
        assert middle == pytest.approx(centre, abs=4)
        if box is not None:
            assert explanation.heat[ys > bottom + 1].sum() == 0
            assert explanation.heat[xs < left - 1].sum() == 0


@pytest.mark.parametrize("resize", ["squash", "crop", "pad", "native"])
@pytest.mark.parametrize("size", [(301, 200), (200, 407), (61, 43), (500, 31)])
def test_region_is_what_the_array_shows(resize: Resize, size: tuple[int, int]) -> None:
    transform = EvalTransform(
        size=(64, 80), resize=resize, interpolation="bilinear",
        mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0),
    )  # fmt: skip
    ramps = np.zeros((size[1], size[0], 3), np.uint8)
    ramps[..., 0] = np.linspace(0, 255, size[0])[None].round()
    ramps[..., 1] = np.linspace(0, 255, size[1])[:, None].round()
    ramps[..., 2] = 255
    array = transform(Image.fromarray(ramps)) * 255
    left, top, right, bottom = transform.region(size)
    xs = left + (np.arange(80) + 0.5) / 80 * (right - left)
    ys = top + (np.arange(64) + 0.5) / 64 * (bottom - top)
    inside = np.outer((ys > 2) & (ys < size[1] - 2), (xs > 2) & (xs < size[0] - 2))
    inside &= array[2] > 254  # the padding's edge is mixed
    assert inside.any()
    across = (xs - 0.5) / (size[0] - 1) * 255
    down = (ys - 0.5) / (size[1] - 1) * 255
    step = 1.5 * 255 / min(size)
    assert np.abs(array[0] - across[None])[inside].max() < step
    assert np.abs(array[1] - down[:, None])[inside].max() < step


def test_value_is_the_verdicts_and_any_class_can_be_asked_for(tmp_path: Path) -> None:
    judge = bright_judge(EvalTransform(size=(64, 64), resize="squash"))
    path = tmp_path / "photo.png"
    spot((80, 60), (40, 30)).save(path)
    verdict = judge(path)
    explanation = judge.explain(path, "light")
    assert (explanation.label, explanation.value) == (
        verdict.attributes["light"].label, verdict.attributes["light"].probability,
    )  # fmt: skip
    other = "dark" if explanation.label == "bright" else "bright"
    against = judge.explain(path, "light", label=other)
    assert against.value == pytest.approx(1 - explanation.value)
    assert not np.array_equal(against.heat, explanation.heat)
    assert judge.explain(path, "score").value == verdict.score
    assert explanation.image == str(path)


def test_value_of_several_views_is_their_mean() -> None:
    transform = EvalTransform(size=(64, 64), resize="native", mean=(0.0,) * 3, std=(1.0,) * 3)
    plain = bright_judge(transform)
    several = bright_judge(transform, views=ViewConfig(flip=True, crops=2))
    picture = spot((150, 90), (75, 45))
    explanation = several.explain(picture, "light")
    assert explanation.value == several(picture).attributes["light"].probability
    assert explanation.value != plain.explain(picture, "light").value
    assert np.array_equal(
        explanation.heat, plain.explain(picture, "light", label=explanation.label).heat
    )


def test_overlay_glows_where_the_heat_is() -> None:
    judge = bright_judge(EvalTransform(size=(64, 64), mean=(0.0,) * 3, std=(1.0,) * 3))
    explanation = judge.explain(spot((200, 100), (50, 50)), "score")
    overlay = explanation.overlay()
    assert overlay.size == (200, 100)
    pixels = np.asarray(overlay).astype(int)
    cold = explanation.heat == 0
    assert np.array_equal(pixels[cold], np.asarray(explanation.picture).astype(int)[cold])
    assert np.abs(pixels - np.asarray(explanation.picture))[explanation.heat > 0.9].max() > 50
    assert explanation.overlay(longest=50).size == (50, 25)
    assert explanation.overlay(longest=500).size == (200, 100)


class Plain:
    """An engine that can't explain, as that of an exported file."""

    def opinions(self, pixels_B3HW: np.ndarray, beam_size: int | None) -> HeadOutputs:
        return HeadOutputs(probabilities_BK={"light": np.array([[0.5, 0.5]])})


def test_what_cannot_be_explained_is_said() -> None:
    judge = bright_judge(EvalTransform(size=(64, 64)))
    picture = spot((64, 64), (30, 30))
    with pytest.raises(JudgeError, match="light, score"):
        judge.explain(picture, "mood")
    with pytest.raises(JudgeError, match="dark, bright"):
        judge.explain(picture, "light", label="dim")
    with pytest.raises(JudgeError, match="no class"):
        judge.explain(picture, "score", label="dim")
    exported = Judge(Plain(), judge.transform, classes=judge.classes)
    with pytest.raises(JudgeError, match="folder of weights"):
        exported.explain(picture, "light")


def test_flat_maps_are_no_heat() -> None:
    assert not scale_heat(np.full((3, 4), 7.0, np.float32)).any()
    assert place_heat(np.ones((1, 1), np.float32), (2, 0, 4, 2), (6, 3)).tolist() == [
        [0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0],
    ]  # fmt: skip
