"""Judges a folder's pictures into a file with a judge that takes its time:
`python slow_batches.py FOLDER OUTPUT`; to be killed in the middle."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from beholder.batch import local as batches
from beholder.batch.requests import find_pictures
from beholder.judge.runtime.engine import HeadOutputs

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from brightness_judge import Brightness, make_judge


class Slow(Brightness):
    def opinions(self, pixels_B3HW: np.ndarray, beam_size: int | None) -> HeadOutputs:
        time.sleep(0.05)
        return super().opinions(pixels_B3HW, beam_size)


def main() -> None:
    batches.CHUNK = 8
    judge = make_judge()
    judge.engine = Slow()
    requests = find_pictures([sys.argv[1]])
    print(
        batches.judge_to_file(judge, requests, Path(sys.argv[2]), identity="slow", batch_size=4),
        flush=True,
    )


if __name__ == "__main__":
    main()
