"""CLIPScore (Hessel et al., EMNLP 2021): how well a caption fits its picture, without references.

2.5 max(cos(picture, "A photo depicts " + caption), 0), and RefCLIPScore, its harmonic mean with
the best cosine to a reference. The only metric that needs torch; it is imported on first use.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from beholder.data.images import read_image
from beholder.errors import CheckpointError, DataError, MissingExtra

if TYPE_CHECKING:
    from PIL import Image

WEIGHT = 2.5
PREFIX = "A photo depicts "
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ClipScores:
    """Mean and values per picture [P]; the reference-based variant if references were given."""

    clip_score: float
    per_image: Floats
    ref_clip_score: float | None = None
    ref_per_image: Floats | None = None


class ClipScorer:
    """A CLIP from a local folder or the Hugging Face hub.

    Args:
        model: folder or hub name; the paper's is `openai/clip-vit-base-patch32`.
        device: torch device.
        batch_size: pictures or captions at once.

    Raises:
        MissingExtra: torch or transformers is not installed.
        CheckpointError: no CLIP there.
    """

    def __init__(self, model: str | Path, device: str = "cpu", batch_size: int = 64) -> None:
        try:
            import torch
            from transformers import CLIPModel, CLIPProcessor
        except ImportError as error:
            raise MissingExtra("CLIPScore", "train") from error
        try:
            loaded: Any = CLIPModel.from_pretrained(str(model), use_safetensors=True)
            self._processor: Any = CLIPProcessor.from_pretrained(str(model))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"Can't load a CLIP model: {error}",
                where=str(model),
                fix="Give a folder with config.json, model.safetensors and the preprocessor files.",
            ) from error
        self._torch = torch
        self._model = loaded.to(device).eval()
        self._device = device
        self._batch_size = batch_size

    def score(
        self,
        pictures: Sequence[str | Path | Image.Image],
        captions: Sequence[str],
        references: Sequence[Sequence[str]] | None = None,
    ) -> ClipScores:
        """CLIPScore of each caption for its picture, 0 to 2.5, higher is better.

        Raises:
            DataError: the lists differ in length, or a picture has no reference.
            PictureError: a picture can't be read.
        """
        if len(pictures) != len(captions) or (references and len(references) != len(captions)):
            raise DataError(f"{len(pictures)} pictures for {len(captions)} captions.")
        images = self._embed_pictures(pictures)
        texts = self._embed_texts(captions)
        per_image = WEIGHT * np.maximum((images * texts).sum(axis=1), 0.0)
        if references is None:
            return ClipScores(_mean(per_image), per_image)
        if not all(len(group) for group in references):
            raise DataError("RefCLIPScore needs a reference for every picture.")
        flat = self._embed_texts([text for group in references for text in group])
        ends = np.cumsum([len(group) for group in references])
        best = np.array(
            [
                max(float((rows @ text).max()), 0.0)
                for rows, text in zip(np.split(flat, ends[:-1]), texts, strict=True)
            ]
        )
        total = per_image + best
        both = np.where(total > 0, 2 * per_image * best / np.where(total > 0, total, 1.0), 0.0)
        return ClipScores(_mean(per_image), per_image, _mean(both), both)

    def _embed_pictures(self, pictures: Sequence[str | Path | Image.Image]) -> Floats:
        rows = []
        for batch in _batches(pictures, self._batch_size):
            images = [read_image(picture) for picture in batch]
            inputs = self._processor(images=images, return_tensors="pt").to(self._device)
            with self._torch.inference_mode():
                pooled = self._model.vision_model(pixel_values=inputs["pixel_values"])
                rows.append(self._model.visual_projection(pooled.pooler_output))
        return self._unit(rows)

    def _embed_texts(self, captions: Sequence[str]) -> Floats:
        rows = []
        for batch in _batches(captions, self._batch_size):
            inputs = self._processor(
                text=[PREFIX + text for text in batch],
                return_tensors="pt",
                padding=True,
                truncation=True,
                max_length=self._model.config.text_config.max_position_embeddings,
            ).to(self._device)
            with self._torch.inference_mode():
                pooled = self._model.text_model(
                    input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
                )
                rows.append(self._model.text_projection(pooled.pooler_output))
        return self._unit(rows)

    def _unit(self, rows: list[Any]) -> Floats:
        values = self._torch.cat(rows).cpu().double()
        values = values / values.norm(dim=1, keepdim=True)
        return np.asarray(values.numpy())


def _batches(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else float("nan")
