"""Early maps (`pooling: early`) with the layers above them, and without.

Forward pass of one picture, and a training step of several, in turns in one process; medians.

    python benchmarks/bench_early.py [--size 128] [--pictures 8] [--repeats 7]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from beholder.features.backbones import Backbone, create_backbone
from beholder.features.config import BackboneConfig
from measure import conditions, medians


def step(backbone: Backbone, pixels: Tensor, *, tokens: bool) -> Callable[[], None]:
    def run() -> None:
        backbone.train().zero_grad()
        backbone(pixels, tokens=tokens).pooled_BP.mean().backward()

    return run


def look(backbone: Backbone, pixels: Tensor, *, tokens: bool) -> Callable[[], None]:
    def run() -> None:
        with torch.inference_mode():
            backbone.eval()(pixels, tokens=tokens)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=128, help="pixels of a side")
    parser.add_argument("--pictures", type=int, default=8, help="of a training step")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    config = BackboneConfig(
        name="efficientnet-lite0", weights="random", size=arguments.size, pooling="early"
    )
    backbone = create_backbone(config)
    print(f"{conditions()}; {arguments.size} pixels")
    for form, count, name in ((look, 1, "forward"), (step, arguments.pictures, "step")):
        pixels = torch.randn(count, 3, arguments.size, arguments.size)
        taken = medians(
            {part: form(backbone, pixels, tokens=part == "whole") for part in ("whole", "early")},
            arguments.repeats,
        )
        print(
            f"{name} of {count}: {taken['whole'] / count * 1e3:.1f} ms per picture with all "
            f"layers, {taken['early'] / count * 1e3:.1f} ms without, "
            f"ratio {taken['whole'] / taken['early']:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
