"""CLIP towers against transformers' own, in both namings of published weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from beholder.errors import BackboneError
from beholder.features import clip
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig

WIDTH, SIDE = 32, 32


def theirs(activation: str, projection: int = 16) -> CLIPVisionModelWithProjection:
    torch.manual_seed(3)
    config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=2, num_attention_heads=2,
        image_size=SIDE, patch_size=8, projection_dim=projection, hidden_act=activation,
    )  # fmt: skip
    model = CLIPVisionModelWithProjection(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def ours(activation: str) -> torch.nn.Module:
    quick = "quickgelu_" if activation == "quick_gelu" else ""
    return timm.create_model(
        f"vit_base_patch32_clip_{quick}224", img_size=SIDE, patch_size=8, embed_dim=WIDTH, depth=2,
        num_heads=2, num_classes=16,
    ).eval()  # fmt: skip


def as_open_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Hugging Face's tensors under open_clip's names, written out by hand."""
    vision = "vision_model."
    renamed = {
        "visual.class_embedding": state[f"{vision}embeddings.class_embedding"],
        "visual.positional_embedding": state[f"{vision}embeddings.position_embedding.weight"],
        "visual.conv1.weight": state[f"{vision}embeddings.patch_embedding.weight"],
        "visual.proj": state["visual_projection.weight"].t().contiguous(),
        "token_embedding.weight": torch.zeros(4, 4),
        "logit_scale": torch.ones(()),
    }
    for kind in ("weight", "bias"):
        renamed[f"visual.ln_pre.{kind}"] = state[f"{vision}pre_layrnorm.{kind}"]
        renamed[f"visual.ln_post.{kind}"] = state[f"{vision}post_layernorm.{kind}"]
        for block in range(2):
            old = f"{vision}encoder.layers.{block}."
            new = f"visual.transformer.resblocks.{block}."
            attention = [state[f"{old}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            renamed[f"{new}attn.in_proj_{kind}"] = torch.cat(attention)
            renamed[f"{new}attn.out_proj.{kind}"] = state[f"{old}self_attn.out_proj.{kind}"]
            renamed[f"{new}ln_1.{kind}"] = state[f"{old}layer_norm1.{kind}"]
            renamed[f"{new}ln_2.{kind}"] = state[f"{old}layer_norm2.{kind}"]
            renamed[f"{new}mlp.c_fc.{kind}"] = state[f"{old}mlp.fc1.{kind}"]
            renamed[f"{new}mlp.c_proj.{kind}"] = state[f"{old}mlp.fc2.{kind}"]
    return renamed


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("naming", ["face", "open_clip"])
def test_renamed_weights_give_transformers_outputs(activation: str, naming: str) -> None:
    reference, model = theirs(activation), ours(activation)
    state = dict(reference.state_dict())
    renamed = clip.rename(state if naming == "face" else as_open_clip(state))
    model.load_state_dict(renamed, strict=True)
    pixels = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, got = reference(pixels), model.forward_features(pixels)
        torch.testing.assert_close(
            model.forward_head(got), expected.image_embeds, atol=1e-5, rtol=1e-5
        )
        pooled = model.forward_head(got, pre_logits=True)
        hidden = reference.vision_model(pixels)
        torch.testing.assert_close(pooled, hidden.pooler_output, atol=1e-5, rtol=1e-5)


def tower_of(name: str, weights: Path) -> torch.nn.Module:
    """A backbone of that name, as small as `theirs`."""
    options = {"embed_dim": WIDTH, "depth": 2, "num_heads": 2, "patch_size": 8}
    config = BackboneConfig(name=name, weights=weights, size=SIDE, options=options)
    return create_backbone(config)


def saved(folder: Path, activation: str | None) -> CLIPVisionModelWithProjection:
    """A tower as transformers saves it; None: with a config that names no activation."""
    model = theirs(activation or "quick_gelu", 512)
    model.save_pretrained(folder)
    if activation is None:
        config = json.loads((folder / "config.json").read_text())
        del config["hidden_act"]
        (folder / "config.json").write_text(json.dumps({"vision_config": config}))
    return model


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu", None])
@pytest.mark.parametrize("hub", [False, True])
def test_the_activation_is_that_of_the_config_that_comes_with_the_weights(
    activation: str | None, hub: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "owner" / "tower"
    reference = saved(folder, activation)
    monkeypatch.chdir(tmp_path)
    weights = Path("owner/tower")
    if hub:
        monkeypatch.setattr(
            "huggingface_hub.hf_hub_download", lambda name, file: str(tmp_path / name / file)
        )
        monkeypatch.chdir(tmp_path / "owner")
    right, wrong = "clip/vit-b-32", "clip/vit-b-32-quickgelu"
    if activation != "gelu":
        right, wrong = wrong, right
    backbone = tower_of(right, weights)
    pixels = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = reference(pixels).image_embeds
        torch.testing.assert_close(backbone(pixels).pooled_BP, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(BackboneError, match=f"Use the backbone {right}"):
        tower_of(wrong, weights)


@pytest.mark.parametrize("quick", [True, False])
def test_an_open_clip_config_says_the_activation(quick: bool, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "open_clip_model.safetensors")
    config = {"model_cfg": {"embed_dim": 512, **({"quick_gelu": True} if quick else {})}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    names = ["clip/vit-b-32", "clip/vit-b-32-quickgelu"]
    assert clip.weights_file(tmp_path, names[quick]).name == "open_clip_model.safetensors"
    with pytest.raises(BackboneError, match=f"Use the backbone {names[quick]}"):
        clip.weights_file(tmp_path, names[not quick])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the repositories that a stand-in of the hub has."""

    def download(name: str, file: str) -> str:
        path = tmp_path / "hub" / name / file
        if not path.parent.is_dir():
            raise OSError(f"There is no repository {name}.")
        if not path.is_file():
            raise EntryNotFoundError(f"{name} has no {file}.")
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def test_a_repository_with_a_torch_checkpoint_alone(hub: Path) -> None:
    """As OpenAI's: the checkpoint is of the whole CLIP, quick_gelu says its config."""
    folder = hub / "openai" / "clip-vit-base-patch32"
    reference = saved(folder, "quick_gelu")
    (folder / "model.safetensors").unlink()
    state = {**reference.state_dict(), "logit_scale": torch.ones(())}
    torch.save(state, folder / "pytorch_model.bin")
    weights = Path("openai/clip-vit-base-patch32")
    backbone = tower_of("clip/vit-b-32-quickgelu", weights)
    pixels = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = reference(pixels).image_embeds
        torch.testing.assert_close(backbone(pixels).pooled_BP, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(BackboneError, match="Use the backbone clip/vit-b-32-quickgelu"):
        tower_of("clip/vit-b-32", weights)


class Executed:
    """What a pickle of someone else's may hold: code that runs when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


def test_a_torch_checkpoint_from_the_hub_is_not_executed(
    hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = hub / "owner" / "tower"
    folder.mkdir(parents=True)
    torch.save({"a": Executed()}, folder / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="can't be read"):
        tower_of("clip/vit-b-32", Path("owner/tower"))
    assert "executed" not in capsys.readouterr().out


def test_a_repository_as_open_clip_writes_it(hub: Path) -> None:
    folder = hub / "laion" / "tower"
    reference = theirs("gelu", 512)
    folder.mkdir(parents=True)
    torch.save(as_open_clip(dict(reference.state_dict())), folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 512}}))
    backbone = tower_of("clip/vit-b-32", Path("laion/tower"))
    pixels = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = reference(pixels).image_embeds
        torch.testing.assert_close(backbone(pixels).pooled_BP, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(BackboneError, match="vit-b-32-quickgelu has another activation"):
        tower_of("clip/vit-b-32-quickgelu", Path("laion/tower"))


def test_what_the_hub_has_not_is_said(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (hub / "owner" / "empty").mkdir(parents=True)
    with pytest.raises(BackboneError, match="The repository holds no weights"):
        clip.weights_file(Path("owner/empty"), "clip/vit-b-32")
    with pytest.raises(BackboneError, match="can't be fetched: There is no repository"):
        clip.weights_file(Path("owner/gone"), "clip/vit-b-32")

    def offline(name: str, file: str) -> str:
        raise LocalEntryNotFoundError("Not in the cache, and there is no network.")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(BackboneError, match="can't be fetched: Not in the cache"):
        clip.weights_file(Path("owner/empty"), "clip/vit-b-32")


def test_a_tower_as_backbone(tmp_path: Path) -> None:
    config = BackboneConfig(name="clip/vit-b-32-quickgelu", weights="random")
    backbone = create_backbone(config)
    assert backbone.pooled_dim == 512
    assert (backbone.grid, backbone.token_dim) == ((7, 7), 768)
    assert backbone.transform.mean == clip.MEAN
    pixels = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(backbone(pixels).pooled_BP, backbone.trunk(pixels))


def test_what_can_not_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="several CLIP models share"):
        create_backbone(BackboneConfig(name="clip/vit-b-32"))
    with pytest.raises(BackboneError, match="no vision tower"):
        clip.rename({"layer1.weight": torch.zeros(1)})
    with pytest.raises(BackboneError, match="attnpool"):
        clip.rename({"visual.attnpool.c_proj.weight": torch.zeros(1)})
    with pytest.raises(BackboneError, match="holds no weights"):
        clip.weights_file(tmp_path, "clip/vit-b-32")
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": {"hidden_act": "gelu"}}))
    assert clip.weights_file(tmp_path, "clip/vit-b-32") == tmp_path / "model.safetensors"
    with pytest.raises(BackboneError, match=r"vit-b-32-quickgelu has another"):
        clip.weights_file(tmp_path, "clip/vit-b-32-quickgelu")
    with pytest.raises(BackboneError, match="do not exist"):
        clip.weights_file(tmp_path / "gone", "clip/vit-b-32")
