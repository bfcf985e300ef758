"""CLIPScore with a tiny random CLIP."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beholder.errors import CheckpointError, DataError
from beholder.metrics.captions.clipscore import ClipScorer

WORDS = ["a</w>", "photo</w>", "depicts</w>", "dog</w>", "cat</w>", "red</w>", "blue</w>"]


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clip")
    letters = sorted({letter for word in WORDS for letter in word[:-4]})
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{x}</w>" for x in letters)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "projection_dim": 8}
    config = transformers.CLIPConfig(
        text_config={
            **size, **heads, "vocab_size": len(tokens), "max_position_embeddings": 40,
            "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
        },
        vision_config={**size, **heads, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )  # fmt: skip
    transformers.CLIPModel(config).eval().save_pretrained(folder)
    tokenizer = transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=40
    )
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    transformers.CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(3)]


def test_clipscore_is_the_scaled_cosine(tiny_clip: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    captions = ["a red dog", "a blue cat", "a dog"]
    scores = ClipScorer(tiny_clip, batch_size=2).score(pictures(), captions)
    model = transformers.CLIPModel.from_pretrained(tiny_clip).eval()
    processor = transformers.CLIPProcessor.from_pretrained(tiny_clip)
    for picture, caption, score in zip(pictures(), captions, scores.per_image, strict=True):
        inputs = processor(
            text=[f"A photo depicts {caption}"], images=[picture], return_tensors="pt"
        )
        with torch.inference_mode():
            output = model(**inputs)
        cosine = float((output.image_embeds * output.text_embeds).sum())
        assert score == pytest.approx(2.5 * max(cosine, 0.0), abs=1e-5)
    assert scores.clip_score == pytest.approx(scores.per_image.mean())
    assert scores.ref_clip_score is None


def test_ref_clipscore(tiny_clip: Path) -> None:
    captions = ["a red dog", "a blue cat", "a dog"]
    groups = [["a cat", "a red dog"], ["a dog"], ["a dog"]]
    scores = ClipScorer(tiny_clip).score(pictures(), captions, groups)
    assert scores.ref_per_image is not None
    # a reference equal to the caption has cosine 1
    assert scores.ref_per_image[0] == pytest.approx(
        2 * scores.per_image[0] / (scores.per_image[0] + 1), abs=1e-6
    )
    with pytest.raises(DataError, match="reference for every picture"):
        ClipScorer(tiny_clip).score(pictures(), captions, [["a"], [], ["b"]])
    with pytest.raises(DataError, match="3 pictures for 1"):
        ClipScorer(tiny_clip).score(pictures(), ["a"])


def test_no_clip_there(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(CheckpointError, match="CLIP"):
        ClipScorer(tmp_path)


def test_metrics_import_no_torch() -> None:
    code = (
        "import sys, beholder.metrics.captions.files, beholder.metrics.correlation, "
        "beholder.metrics.logistic, beholder.metrics.classification, "
        "beholder.metrics.captions.clipscore; print(sorted({'torch', 'timm', 'transformers'} & "
        "set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
