"""Numbers of a sealed judge are bounded: no file makes loading hang or fills the memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hand_made import reseal, write_judge
from pydantic import ValidationError

from beholder import Judge
from beholder.errors import JudgeError
from beholder.features.config import BackboneConfig
from beholder.judge.store.packed import read_packed
from beholder.models.config import HeadConfig
from beholder.models.expansionnet_config import ExpansionNetConfig

MANIFESTS: list[dict[str, Any]] = [
    {"writers": 30_000_000}, {"beam_size": 10**9}, {"max_length": 10**9}, {"beam_size": 0},
    {"writers": 2}, {"heads": ["score", "score"]}, {"heads": ["soul"]}, {"heads": []},
    {"score_range": [0.0, 1e999]}, {"score_range": [float("nan"), 1.0]}, {"classes": {}},
    {"classes": {"light": []}},
    {"classes": {"light": ["dark", "dark"]}},
    {"classes": {str(index): ["a", "b"] for index in range(2000)}},
    {"calibration": {"temperatures": {"light": 1e-300}}},
    {"calibration": {"temperatures": {"light": 1e300}}},
    {"views": {"flip": True, "crops": 100_000}},
]  # fmt: skip
TRANSFORMS: list[dict[str, Any]] = [
    {"size": [100_000, 100_000]}, {"size": [32]}, {"size": 5}, {"size": [32, 10**30]},
    {"mean": None}, {"mean": [1e999, 0, 0]}, {"std": [0, 0, 0]}, {"std": [1e-300, 1, 1]},
    {"interpolation": []},
    {"crop_fraction": []}, {"nonesuch": 1},
]  # fmt: skip


def refused(path: Path) -> str:
    """The sentence that a judge is refused with, in no time."""
    begin = time.process_time()
    with pytest.raises(JudgeError) as error:
        Judge.load(path)
    assert time.process_time() - begin < 5
    return error.value.what


@pytest.mark.parametrize("changes", MANIFESTS)
def test_a_sealed_manifest_is_not_believed(changes: dict[str, Any], tmp_path: Path) -> None:
    path = write_judge(tmp_path / "judge")
    reseal(path, lambda manifest: manifest.update(changes))
    message = refused(path)
    assert message.startswith("manifest.json ")
    assert "\n" not in message


@pytest.mark.parametrize("changes", TRANSFORMS)
def test_a_sealed_transform_is_not_believed(changes: dict[str, Any], tmp_path: Path) -> None:
    path = write_judge(tmp_path / "judge")
    reseal(path, lambda manifest: manifest["transform"].update(changes))
    assert "transform" in refused(path)


def test_another_size_or_count_of_labels_than_the_graphs_is_refused(tmp_path: Path) -> None:
    path = write_judge(tmp_path / "judge")
    reseal(path, lambda manifest: manifest["transform"].update(size=[64, 64]))
    assert "not those of its manifest: trunk takes" in refused(path)
    reseal(write_judge(path), lambda manifest: manifest["classes"].update(light=["a", "b", "c"]))
    assert "not those of its manifest: heads gives" in refused(path)
    reseal(write_judge(path), lambda manifest: manifest["classes"].update(more=["a", "b"]))
    assert "for 2 attributes" in refused(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ExpansionNetConfig(vocab_size=10, enc_layers=1_000_000),
        lambda: ExpansionNetConfig(vocab_size=10, dec_layers=1_000_000),
        lambda: ExpansionNetConfig(vocab_size=10**9),
        lambda: ExpansionNetConfig(vocab_size=10, d_model=10**6),
        lambda: ExpansionNetConfig(vocab_size=10, ff=10**9),
        lambda: ExpansionNetConfig(vocab_size=10, max_length=10**9),
        lambda: ExpansionNetConfig(vocab_size=10, enc_expansions=(1,) * 1000),
        lambda: ExpansionNetConfig(vocab_size=10, enc_expansions=(10**9,)),
        lambda: ExpansionNetConfig(vocab_size=10, dec_expansions=10**9),
        lambda: HeadConfig(hidden=(8,) * 100_000),
        lambda: HeadConfig(hidden=(10**9,)),
        lambda: HeadConfig(hidden=(0,)),
        lambda: HeadConfig(bottleneck=10**9),
        lambda: HeadConfig(inputs=10**9),
        lambda: BackboneConfig(name="timm/test_vit", size=100_000),
        lambda: BackboneConfig(name="timm/test_vit", options={"depth": 10_000}),
        lambda: BackboneConfig(name="timm/test_vit", options={"depths": (2,) * 1000}),
        lambda: BackboneConfig(name="timm/test_vit", options={"embed_dim": 10**9}),
    ],
)
def test_numbers_of_networks_are_bounded(make: Callable[[], object]) -> None:
    with pytest.raises(ValidationError):
        make()


def test_what_is_published_is_within_the_bounds() -> None:
    ExpansionNetConfig(vocab_size=50_000, d_model=1024, enc_layers=12, dec_layers=12, ff=8192)
    HeadConfig(hidden=(4096, 2048), inputs=300_000)
    BackboneConfig(name="timm/swin", options={"depths": (2, 2, 18, 2), "embed_dim": 192})


def test_a_vocabulary_that_is_none_is_told(tmp_path: Path) -> None:
    manifest = {"heads": ("score", "attributes", "comment")}
    packed = write_judge(tmp_path / "judge", **manifest)
    with pytest.raises(JudgeError, match="lacks its"):
        read_packed(packed)


class TestFolder:
    """A judge's folder, whose card is sealed again after a change."""

    @pytest.fixture(scope="class")
    def whole(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        from beholder.features.backbones import create_backbone
        from beholder.judge.model import JudgeConfig, JudgeModel
        from beholder.judge.store.folder import save_judge

        backbone = create_backbone(
            BackboneConfig(name="timm/test_efficientnet", weights="random", size=32)
        )
        config = JudgeConfig(
            backbone=backbone.config, pooled_dim=backbone.pooled_dim,
            token_dim=backbone.token_dim, score=HeadConfig(hidden=(4,)), score_range=(1, 5),
        )  # fmt: skip
        folder = tmp_path_factory.mktemp("whole") / "judge"
        save_judge(JudgeModel(config, backbone).eval(), folder, beam_size=1)
        return folder

    @pytest.fixture
    def folder(self, whole: Path, tmp_path: Path) -> Path:
        import shutil

        return Path(shutil.copytree(whole, tmp_path / "judge"))

    def changed(self, folder: Path, change: Callable[[dict[str, Any]], object]) -> str:
        from beholder.data.sealed import own_hash

        path = folder / "judge.json"
        card = json.loads(path.read_text())
        change(card)
        card["sha256"] = own_hash(card)
        path.write_text(json.dumps(card))
        return refused(folder)

    def test_it_loads_as_it_is(self, folder: Path) -> None:
        assert Judge.load(folder, "cpu").score_range == (1, 5)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("ensemble", 100_000), ("pooled_dim", 10**12), ("token_dim", 0),
            ("score", {"hidden": [8] * 100_000}), ("score", {"hidden": [65_536, 65_536, 65_536]}),
            ("score", {"hidden": [5]}), ("score_range", [0, 1e999]), ("nonesuch", 1),
            ("backbone", {"name": "timm/test_efficientnet", "size": 100_000}), ("score", "x"),
            ("views", {"crops": 10**9}), ("classes", {"a": 7}),
        ],
    )  # fmt: skip
    def test_a_sealed_configuration_is_not_believed(
        self, folder: Path, name: str, value: Any
    ) -> None:
        message = self.changed(folder, lambda card: card["config"].update({name: value}))
        assert "does not fit this version" in message or "do not fit its configuration" in message

    @pytest.mark.parametrize(
        "change",
        [
            lambda card: card.update(beam_size=10**9),
            lambda card: card.update(beam_size="x"),
            lambda card: card.pop("beam_size"),
            lambda card: card.pop("config"),
            lambda card: card.update(provenance=[]),
            lambda card: card["files"].update({"../../etc/passwd": "0"}),
            lambda card: card["files"].update({"\x00": "0"}),
            lambda card: card["files"].update({"x" * 300: "0"}),
            lambda card: card["files"].pop("weights.safetensors"),
            lambda card: card.update(format="x"),
            lambda card: card.update(files=[1]),
        ],
    )
    def test_a_sealed_card_is_not_believed(
        self, folder: Path, change: Callable[[dict[str, Any]], object]
    ) -> None:
        self.changed(folder, change)

    def test_weights_that_are_none_are_told(self, folder: Path) -> None:
        from beholder.data.files import sha256_file

        for content in (b"", b"\xff" * 100, b"\x08\x00\x00\x00\x00\x00\x00\x00{}"):
            (folder / "weights.safetensors").write_bytes(content)
            digest = sha256_file(folder / "weights.safetensors")
            message = self.changed(
                folder, lambda card, to=digest: card["files"].update({"weights.safetensors": to})
            )
            assert "weights" in message
