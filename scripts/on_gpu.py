"""Run the tests of devices on a real one, and measure what it does in a second: `make gpu`.

    python scripts/on_gpu.py [--device cuda] [--pictures 64] [--repeats 20]

Pictures per second, synchronised, of one process with pictures in the device's memory already:
a training step of TinyViT-5M with all three heads, its features alone, and a judge's verdicts with
three beams; in half precision (bf16, or fp16 where there is none) and in float32 (on CUDA TF32).
Without such a device it says so and leaves with 0.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from beholder.data.vocabulary import Vocabulary
from beholder.decoding import beam_search
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.features.device import choose_device, count_devices
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.models.config import HeadConfig
from beholder.tasks import JointTaskConfig, create_task
from beholder.tasks.config import CommentHeadConfig
from beholder.training import TrainConfig
from beholder.training.distributed import Processes
from beholder.training.loader import MicroBatch
from beholder.training.step import StepRunner

TESTS = Path(__file__).parents[1] / "tests" / "devices"
CLASSES = {"light": ("dark", "bright"), "kind": ("a", "b", "c")}
COMMENT = "a sharp picture of a house in clear light"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    kind = arguments.device.partition(":")[0]
    if not count_devices(kind):
        print(f"This machine has no {kind} device: nothing was run.")
        return 0
    device = choose_device(arguments.device)
    print(f"{_name(device)}, torch {torch.__version__}")
    measure(device, arguments.pictures, arguments.repeats)
    print(f"Tests of {TESTS} on {device}:", flush=True)
    environment = {**os.environ, "BEHOLDER_TEST_DEVICE": arguments.device}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-v", str(TESTS)], env=environment, check=False
    ).returncode


def measure(device: torch.device, pictures: int, repeats: int) -> None:
    """Print pictures per second with and without half precision."""
    model = make_model()
    batch = make_batch(model, pictures)
    for amp in ("auto", "off"):
        train = trainer(model, batch, device, amp)
        half = None if amp == "off" else _half(device)
        pixels = batch["pixels"].to(device)
        works: dict[str, Callable[[], object]] = {
            "training step": train,
            "extraction": lambda pixels=pixels: model.eval().features({"pixels": pixels}),
            "judging": lambda pixels=pixels: judge(model, pixels),
        }
        for name, work in works.items():
            with torch.autocast(device.type, dtype=half, enabled=half is not None):
                rate = pictures / _seconds(work, device, repeats, gradients=work is train)
            print(f"  {name:<14} {half or torch.float32}: {rate:,.0f} pictures/s")


def make_model() -> JudgeModel:
    """TinyViT-5M with all three heads, fresh."""
    config = BackboneConfig(name="timm/tiny_vit_5m_224", weights="random")
    backbone = create_backbone(config)
    vocabulary = Vocabulary.build([COMMENT])
    judge_config = JudgeConfig(
        backbone=config, pooled_dim=backbone.pooled_dim, token_dim=backbone.token_dim,
        score=HeadConfig(), attributes=HeadConfig(), classes=CLASSES,
        comment=CommentHeadConfig().build(
            vocab_size=len(vocabulary), max_length=20, feature_dim=backbone.token_dim
        ),
        vocabulary=vocabulary.to_dict(), score_range=(0.0, 1.0),
    )  # fmt: skip
    return JudgeModel(judge_config, backbone)


def make_batch(model: JudgeModel, pictures: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    assert model.backbone is not None and model.vocabulary is not None
    height, width = model.backbone.transform.size
    return {
        "keys": [f"{index}.png" for index in range(pictures)],
        "pixels": torch.randn(pictures, 3, height, width, generator=generator),
        "score": torch.rand(pictures, generator=generator),
        "attributes": {
            name: torch.randint(len(labels), (pictures,), generator=generator)
            for name, labels in CLASSES.items()
        },
        "comments": [[model.vocabulary.encode(COMMENT)]] * pictures,
    }


def trainer(
    model: JudgeModel, batch: dict[str, Any], device: torch.device, amp: str
) -> Callable[[], None]:
    """Makes a whole step: forward, backward, optimiser."""
    parts = {
        "score": {"kind": "score"}, "attributes": {"kind": "attributes"},
        "comments": {"kind": "caption"},
    }  # fmt: skip
    config = JointTaskConfig.model_validate({"tasks": parts, "train_backbone": True})
    task = create_task(config, model).to(device)
    task.train()
    settings = TrainConfig.model_validate({"batch_size": len(batch["keys"]), "amp": amp})
    runner = StepRunner(task, task.trainable(), settings, Processes(0, 1, device))
    micro_batch, step = MicroBatch(batch, (len(batch["keys"]),)), 0

    def run() -> None:
        nonlocal step
        step += 1
        runner.run([micro_batch], step, 1e-6)

    return run


def judge(model: JudgeModel, pixels: Tensor) -> object:
    """Scores, attributes and comments of three beams."""
    features = model.eval().features({"pixels": pixels})
    opinions = model.opinions(features)
    tokens_BNC = model.comment_tokens(features)
    comments = beam_search(model.comment, tokens_BNC, beam_size=3, max_length=20)
    return opinions, comments


def _seconds(
    work: Callable[[], object], device: torch.device, repeats: int, *, gradients: bool
) -> float:
    """Of one call, after three that warm up."""
    with torch.set_grad_enabled(gradients):
        for _ in range(3):
            work()
        _synchronise(device)
        clock = time.perf_counter()
        for _ in range(repeats):
            work()
        _synchronise(device)
    return (time.perf_counter() - clock) / repeats


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def _half(device: torch.device) -> torch.dtype:
    has_bf16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bf16 else torch.float16


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


if __name__ == "__main__":
    sys.exit(main())
