"""What runs a judge's folder: out of memory, and processes that are forked after it has run."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from beholder.errors import JudgeError, OutOfMemory
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.judge.runtime.torch_engine import TorchEngine
from beholder.models.config import HeadConfig

PIXELS = np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32)


def test_out_of_memory_names_the_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = create_backbone(
        BackboneConfig(name="timm/test_efficientnet", weights="random", size=64)
    )
    config = JudgeConfig(
        backbone=backbone.config, pooled_dim=backbone.pooled_dim, token_dim=backbone.token_dim,
        score=HeadConfig(),
    )  # fmt: skip
    engine = TorchEngine(JudgeModel(config, backbone), torch.device("cpu"))

    def no_room(*args: object, **options: object) -> None:
        raise RuntimeError("MPS backend out of memory (MPS allocated: 5.00 GB)")

    monkeypatch.setattr(engine.model, "features", no_room)
    with pytest.raises(OutOfMemory, match="Judging 3 pictures at a time") as caught:
        engine.opinions(PIXELS, None)
    assert "batch_size" in str(caught.value.fix)


def test_a_fork_after_a_judge_has_run_can_judge() -> None:
    """The threads that PyTorch computes with do not live on in a forked process, which would wait
    for them for ever."""
    code = """
import multiprocessing, numpy as np, torch
from beholder.judge.runtime.torch_engine import TorchEngine
from small_judge import make_model

def judge():
    torch.manual_seed(0)
    return engine.opinions(pixels, None).score_B

torch.set_num_threads(2)
engine = TorchEngine(make_model(), torch.device("cpu"))
pixels = np.random.default_rng(0).normal(size=(8, 3, 64, 64)).astype(np.float32)
scores = judge()
torch.randn(500, 500) @ torch.randn(500, 500)
with multiprocessing.get_context("fork").Pool(1) as pool:
    there = pool.apply_async(judge).get(60)
np.testing.assert_allclose(there, scores, rtol=1e-4)
assert torch.get_num_threads() == 2, "the parent keeps its threads"
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_an_accelerator_does_not_survive_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = create_backbone(
        BackboneConfig(name="timm/test_efficientnet", weights="random", size=64)
    )
    config = JudgeConfig(
        backbone=backbone.config, pooled_dim=backbone.pooled_dim, token_dim=backbone.token_dim,
        score=HeadConfig(),
    )  # fmt: skip
    engine = TorchEngine(JudgeModel(config, backbone), torch.device("meta"))
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(JudgeError, match="can't be used in a process that was forked"):
        engine.opinions(PIXELS, None)
