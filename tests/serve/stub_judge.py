"""A judge without networks, whose opinions are functions of the pixels; run as a program, it is
served: `python stub_judge.py [SECONDS_PER_BATCH] [OPTION=VALUE ...]`."""

from __future__ import annotations

import sys
import time
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from beholder.data.transforms import EvalTransform
from beholder.data.vocabulary import Vocabulary
from beholder.judge import Judge
from beholder.judge.calibration import Calibration
from beholder.judge.generation import GenerationConfig
from beholder.judge.runtime.engine import HeadOutputs
from beholder.metrics.conformal import ConformalInterval
from beholder.serve.config import ServeConfig
from beholder.serve.server import serve

SIZE = 32
WORDS = Vocabulary.build(["a dark picture", "a bright picture", "a <b>bold</b> picture"])


class StubEngine:
    """Scores are mean brightness; each batch takes `seconds`, however large it is."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.batches: list[int] = []

    def opinions(self, pixels_B3HW: NDArray[np.float32], beam_size: int | None) -> HeadOutputs:
        time.sleep(self.seconds)
        self.batches.append(len(pixels_B3HW))
        bright_B = pixels_B3HW.mean(axis=(1, 2, 3), dtype=np.float64)
        if np.isclose(bright_B, 100 / 255, atol=0.003).any():
            raise RuntimeError("a picture that breaks the network")
        comments = [
            ["a bright picture", "a dark picture"][:: 1 if b > 0.5 else -1] for b in bright_B
        ]
        return HeadOutputs(
            score_B=bright_B * 100,
            probabilities_BK={"light": np.stack([1 - bright_B, bright_B], axis=1)},
            comments_B=[[WORDS.encode(text) for text in comment] for comment in comments],
        )

    def heat_map(
        self, pixels_3HW: NDArray[np.float32], opinion: str, index: int | None
    ) -> NDArray[np.float32]:
        return pixels_3HW.mean(axis=0)


def stub_judge(seconds: float = 0.0) -> Judge:
    transform = EvalTransform(size=(SIZE, SIZE), mean=(0, 0, 0), std=(1, 1, 1))
    return Judge(
        StubEngine(seconds),
        transform,
        classes={"light": ("dark", "bright")},
        vocabulary=WORDS,
        generation=GenerationConfig.of_judge(WORDS, 20, 3),
        calibration=Calibration(score=ConformalInterval(level=0.9, quantile=7.0, pictures=50)),
        score_range=(0.0, 100.0),
    )


def main() -> None:
    seconds, *options = sys.argv[1:] or ["0"]
    kinds = {field_.name: type(field_.default) for field_ in fields(ServeConfig)}
    chosen = dict(option.split("=") for option in options)
    config = ServeConfig(port=0, **{name: kinds[name](value) for name, value in chosen.items()})  # type: ignore[arg-type]
    serve(stub_judge(float(seconds)), config, tell=lambda text: print(text, flush=True))


if __name__ == "__main__":
    main()
