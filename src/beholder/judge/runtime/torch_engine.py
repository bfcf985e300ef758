"""Runs a judge with PyTorch.

Shape suffixes: B pictures, H height, W width, K classes of an attribute.
"""

from __future__ import annotations

import os
from functools import cache, partial

import numpy as np
import torch
from numpy.typing import NDArray

from beholder.decoding import beam_search
from beholder.features.memory import memory_guard
from beholder.features.precision import Amp, amp_dtype, autocast
from beholder.judge.generation import GenerationConfig
from beholder.judge.model import JudgeModel
from beholder.judge.runtime.engine import HeadOutputs, lost_in_a_fork
from beholder.judge.runtime.grad_cam import heat_map


class TorchEngine:
    """Backbone and heads in evaluation mode on one device.

    Args:
        amp: arithmetic of backbone and captioner: `auto` (bf16 or fp16 on accelerators), `off`,
            `bf16` or `fp16`. Scores and attributes are told in float32.

    Raises:
        DeviceError: the device has no such arithmetic.
    """

    def __init__(self, model: JudgeModel, device: torch.device, amp: Amp = "auto") -> None:
        assert model.backbone is not None, "a judge without a backbone can't see"
        self.model = model.to(device).eval()
        self.device = device
        self._amp = amp
        self._arithmetic = amp_dtype(amp, device, where="amp")
        self._process = os.getpid()
        _survive_forks()

    def opinions(
        self, pixels_B3HW: NDArray[np.float32], generation: GenerationConfig | None
    ) -> HeadOutputs:
        """What the heads say; None for `generation` writes no comment.

        Raises:
            OutOfMemory: the device has no room for the batch.
            JudgeError: the judge is on an accelerator, which is lost in a forked process.
        """
        if self._process != os.getpid() and self.device.type != "cpu":
            raise lost_in_a_fork(f"A judge on {self.device}")
        count = len(pixels_B3HW)
        guard = memory_guard(
            f"Judging {count} pictures at a time", self.device, where="batch_size",
            fix="Lower batch_size (--batch-size), or the beam size where comments are written.",
        )  # fmt: skip
        with guard, autocast(self.device, self._arithmetic):
            return self._opinions(pixels_B3HW, generation)

    @torch.inference_mode()
    def _opinions(
        self, pixels_B3HW: NDArray[np.float32], generation: GenerationConfig | None
    ) -> HeadOutputs:
        pixels = torch.from_numpy(pixels_B3HW).to(self.device)
        writes = generation is not None and "comment" in self.model.heads
        reads_tokens = writes and self.model.reads_tokens
        features = self.model.features({"pixels": pixels}, tokens=reads_tokens)
        outputs = self.model.opinions(features)
        comments = None
        if writes and generation is not None:
            heads, tokens_BNC = zip(*self.model.writers(pixels, features), strict=True)
            beams = beam_search(heads, tokens_BNC, **generation.search_options())
            comments = [
                [list(hypothesis.tokens) for hypothesis in hypotheses] for hypotheses in beams
            ]
        return HeadOutputs(
            score_B=_double(outputs.score_B),
            probabilities_BK={
                name: probabilities.cpu().double().numpy()
                for name, probabilities in outputs.probabilities_BK.items()
            },
            comments_B=comments,
            distribution_BK=_double(outputs.distribution_BK),
            pooled_BP=features.pooled_BP.float().cpu().numpy(),
        )

    def __reduce__(self) -> tuple[type[TorchEngine], tuple[JudgeModel, torch.device, Amp]]:
        return TorchEngine, (self.model, self.device, self._amp)

    def heat_map(
        self, pixels_3HW: NDArray[np.float32], opinion: str, index: int | None
    ) -> NDArray[np.float32]:
        pixels = torch.from_numpy(pixels_3HW)[None].to(self.device)
        return heat_map(self.model, pixels, opinion, index)


def _double(values: torch.Tensor | None) -> NDArray[np.float64] | None:
    return None if values is None else values.cpu().double().numpy()


@cache
def _survive_forks() -> None:
    """Let processes that are forked from now on compute in one thread.

    The pool of threads that OpenMP has computed with is not copied by a fork, and the child would
    wait for it for ever, without a word.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))
