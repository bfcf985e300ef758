"""Out of memory is one sentence that names what to lower, wherever it strikes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from beholder.data.annotations import AnnotationTable
from beholder.errors import OutOfMemory
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.features.extract import extract
from beholder.features.memory import memory_guard

CPU = torch.device("cpu")


def real_cpu_error() -> RuntimeError:
    """What PyTorch itself says when the host has no room."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore"),
        RuntimeError("MPS backend out of memory (MPS allocated: 5.00 GB)"),
        real_cpu_error(),
        MemoryError(),
    ],
)
def test_memory_errors_become_a_sentence(error: Exception) -> None:
    with (
        pytest.raises(OutOfMemory, match="Work has run out of memory on cpu") as caught,
        memory_guard("Work", CPU, where="batch_size", fix="Lower it."),
    ):
        raise error
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.what
    assert caught.value.__cause__ is error


def test_other_errors_stay_what_they_are() -> None:
    with (
        pytest.raises(RuntimeError, match="shapes"),
        memory_guard("Work", CPU, where="batch_size", fix="Lower it."),
    ):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_extraction_names_its_batch_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = create_backbone(
        BackboneConfig(name="timm/test_efficientnet", weights="random", size=64)
    )
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(tmp_path / "a.png")

    def no_room(*args: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(backbone, "forward", no_room)
    with pytest.raises(OutOfMemory, match="Extraction") as caught:
        extract(backbone, AnnotationTable.from_columns(["a.png"]), tmp_path, tmp_path / "store",
                workers=0, device="cpu")  # fmt: skip
    assert "batch_size" in str(caught.value.fix)
