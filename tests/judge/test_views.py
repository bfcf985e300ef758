"""Views of a picture: which there are, and that a verdict is the mean over them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from beholder.data.test_time_augmentation import ViewConfig, read_views
from beholder.data.transforms import EvalTransform
from beholder.errors import JudgeError
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge import Judge
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.judge.store.folder import save_judge
from beholder.models.config import HeadConfig

NATIVE = EvalTransform(size=(32, 32), resize="native", mean=(0, 0, 0), std=(1, 1, 1))
CLASSES = {"light": ("dark", "bright", "white")}


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def cut(image: Image.Image, left: int, top: int) -> np.ndarray:
    pixels = np.asarray(image)[top : top + 32, left : left + 32]
    return pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255)


def test_views_are_the_centre_the_corners_and_their_mirror_images() -> None:
    image = picture(50, 40)
    views = read_views(NATIVE, image, ViewConfig(flip=True, crops=2))
    places = [(9, 4), (0, 0), (18, 0), (0, 8), (18, 8)]
    expected = [cut(image, *position) for position in places]
    np.testing.assert_array_equal(views[:5], np.stack(expected))
    np.testing.assert_array_equal(views[5:], np.stack(expected)[..., ::-1])
    np.testing.assert_array_equal(views[0], NATIVE(image))


def test_parts_that_are_the_same_count_once() -> None:
    assert len(read_views(NATIVE, picture(32, 32), ViewConfig(crops=4))) == 1
    assert len(read_views(NATIVE, picture(64, 32), ViewConfig(crops=3))) == 3
    assert len(read_views(NATIVE, picture(64, 64), ViewConfig(crops=3))) == 9
    small = read_views(NATIVE, picture(20, 20), ViewConfig(crops=2))
    np.testing.assert_array_equal(small[0], NATIVE(picture(20, 20)))


def test_parts_are_parts_of_the_box() -> None:
    image = picture(90, 80)
    views = read_views(NATIVE, image, ViewConfig(crops=2), box=(10, 20, 60, 60))
    inside = read_views(NATIVE, image.crop((10, 20, 60, 60)), ViewConfig(crops=2))
    np.testing.assert_array_equal(views, inside)


@pytest.fixture(scope="module")
def model() -> JudgeModel:
    torch.manual_seed(0)
    name = "timm/test_efficientnet"
    backbone = create_backbone(
        BackboneConfig(name=name, weights="random", size=32, resize="native", pooling="stages")
    )
    config = JudgeConfig(
        backbone=backbone.config,
        pooled_dim=backbone.pooled_dim,
        token_dim=backbone.token_dim,
        score=HeadConfig(),
        attributes=HeadConfig(),
        classes=CLASSES,
        views=ViewConfig(flip=True, crops=2),
    )
    return JudgeModel(config, backbone).eval()


def test_a_verdict_is_the_mean_of_its_views(model: JudgeModel, tmp_path: Path) -> None:
    save_judge(model, tmp_path / "judge", beam_size=1)
    judge = Judge.load(tmp_path / "judge", device="cpu")
    assert judge.views == ViewConfig(flip=True, crops=2)
    # pictures of 10, 2 and 6 views
    images = [picture(60, 50, 1), picture(32, 32, 2), picture(64, 32, 3)]
    verdicts = judge(images, batch_size=2)
    for image, verdict in zip(images, verdicts, strict=True):
        scores, probabilities = [], []
        for pixels in read_views(judge.transform, image, judge.views):
            opinions = judge.engine.opinions(pixels[None], None)
            assert opinions.score_B is not None
            scores.append(opinions.score_B[0])
            probabilities.append(opinions.probabilities_BK["light"][0])
        assert verdict.score == pytest.approx(np.mean(scores), abs=1e-6)
        expected = dict(zip(CLASSES["light"], np.mean(probabilities, axis=0), strict=True))
        assert verdict.attributes["light"].probabilities == pytest.approx(expected, abs=1e-6)
    assert len({round(score, 6) for score in scores}) > 1, "the views must differ"


def test_without_views_nothing_is_computed_twice(model: JudgeModel) -> None:
    plain = JudgeModel(model.config.model_copy(update={"views": ViewConfig()}), model.backbone)
    plain.load_state_dict(model.state_dict())
    judge = Judge.of_model(plain.eval(), torch.device("cpu"), beam_size=None)
    seen = []
    engine = judge.engine.opinions
    judge.engine.opinions = lambda pixels, beams: (seen.append(len(pixels)), engine(pixels, beams))[
        1
    ]  # type: ignore[method-assign]
    judge([picture(60, 50), picture(32, 32)])
    assert seen == [2]


def test_several_crops_of_resized_pictures_are_refused(model: JudgeModel, tmp_path: Path) -> None:
    squashed = model.config.backbone.model_copy(update={"resize": "squash"})
    config = model.config.model_copy(update={"backbone": squashed})
    judge = JudgeModel(config, create_backbone(squashed))
    with pytest.raises(JudgeError, match="native"):
        Judge.of_model(judge, torch.device("cpu"), beam_size=None)
    ViewConfig(flip=True).check(EvalTransform())
    save_judge(model, tmp_path / "judge", beam_size=1)
    card = json.loads((tmp_path / "judge" / "judge.json").read_text())
    assert card["config"]["views"] == {"flip": True, "crops": 2}
