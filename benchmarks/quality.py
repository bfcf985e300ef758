"""How well scores carry over to photographs that were never seen: SRCC with pseudo-MOS.

    python benchmarks/quality.py [--cache FOLDER] [--scenes 4] [--variants efficientnet-lite0 ...]

Regressors on mean and deviation of the early feature maps of EfficientNet-Lite0, 1 and 2 (`pooling:
early`), and the stack of them all; fitted on the sample alone, and with further pictures of the
same photographs ("more"). Three ways to measure:

- held out: mean (lowest) over four folds of the sample's 13 photographs, three at a time;
- random split: the same pictures, but divided by chance, so that crops of one photograph are on
  both sides. It is the mistake that makes such figures look good;
- foreign: fitted on all 13, measured on 14 photographs of another origin. Choices are made by the
  held-out column; this one is looked at once.

Scores are pseudo-MOS everywhere. Goals: 0.85 held out, 0.75 foreign.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from beholder.data.files import atomic_path
from beholder.data.sample.catalogue import photo_names
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.metrics.correlation import srcc
from beholder.models.regressors.config import EnsembleConfig
from beholder.models.regressors.ensemble import ScoreEnsemble
from quality_pictures import (
    Pictures,
    cached,
    foreign_pictures,
    further_pictures,
    sample_pictures,
)

VARIANTS = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
FOLDS, HELD_OUT = 4, 3
SLICE = 4  # pictures per forward pass
Columns = dict[str, NDArray[np.float64]]


def features(pictures: Pictures, variant: str, path: Path) -> NDArray[np.float32]:
    """The early pooled features of all pictures, kept in a file."""
    if not path.exists():
        backbone = create_backbone(
            BackboneConfig(name=variant, size=256, resize="native", pooling="early")
        )
        mean, std = (
            np.array(part, np.float32) for part in (backbone.transform.mean, backbone.transform.std)
        )
        rows = []
        with torch.inference_mode():
            for start in range(0, len(pictures.scores), SLICE):
                part = pictures.pixels[start : start + SLICE].astype(np.float32) / 255
                pixels = torch.from_numpy(((part - mean) / std).transpose(0, 3, 1, 2))
                rows.append(backbone(pixels).pooled_BP.numpy())
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, np.concatenate(rows))
    return np.load(path)


def predictions(
    features_NP: NDArray[np.float32], pictures: Pictures, of: Sequence[NDArray[np.float32]]
) -> list[Columns]:
    """What each regressor and the stack say of every array of features in `of`."""
    ensemble = ScoreEnsemble.fit(
        features_NP, pictures.scores, list(pictures.photos), config=EnsembleConfig()
    )
    found = []
    for rows in of:
        each = dict(zip(ensemble.members, ensemble.predict_members(rows), strict=True))
        found.append({**each, "stack": ensemble.predict(rows)})
    return found


def joined(*parts: Pictures) -> Pictures:
    return Pictures(
        parts[0].pixels[:0],
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.photos for part in parts]),
    )


def photo_folds(seed: int = 0) -> list[list[str]]:
    order = np.random.default_rng(seed).permutation(photo_names())
    return [
        [str(n) for n in order[at : at + HELD_OUT]] for at in range(0, FOLDS * HELD_OUT, HELD_OUT)
    ]


class Comparison:
    """Sample, further and foreign pictures with the features of one or several backbones."""

    def __init__(self, cache: Path, scenes: int) -> None:
        self.cache = cache
        self.sets = {
            "sample": cached(cache / "sample.npz", sample_pictures),
            "foreign": cached(cache / "foreign.npz", foreign_pictures),
        }
        if scenes:
            more = cached(cache / f"more{scenes}.npz", lambda: further_pictures(scenes))
            self.sets[f"more{scenes}"] = more
        self.sample, self.foreign, *self.more = self.sets.values()

    def load(self, variants: Sequence[str]) -> list[NDArray[np.float32]]:
        """Features of the sample, of the foreign and, if there are any, of the further pictures."""
        return [
            np.concatenate(
                [features(own, v, self.cache / f"{name}-{v}.npy") for v in variants], axis=1
            )
            for name, own in self.sets.items()
        ]

    def rows(self, variants: Sequence[str]) -> None:
        """Print a row per regressor and training set."""
        sample_NP, foreign_NP, *more_NP = self.load(variants)
        for further in (False, True) if self.more else (False,):
            extra = list(zip(more_NP, self.more, strict=True)) if further else []
            held: dict[str, list[float]] = {}
            for photos in photo_folds():
                out = self.sample.of(photos)
                given = [(sample_NP[~out], _part(self.sample, ~out))]
                given += [
                    (rows[~own.of(photos)], _part(own, ~own.of(photos))) for rows, own in extra
                ]
                (said,) = predictions(*_stacked(given), [sample_NP[out]])
                for name, predicted in said.items():
                    held.setdefault(name, []).append(srcc(self.sample.scores[out], predicted))
            chance = np.random.default_rng(0).permutation(len(sample_NP)) < len(sample_NP) // 4
            part = _part(self.sample, ~chance)
            # without knowledge of photographs: every picture is a unit of its own
            alone = Pictures(part.pixels, part.scores, np.arange(len(part.scores)).astype(str))
            (leaked,) = predictions(sample_NP[~chance], alone, [sample_NP[chance]])
            given = [(sample_NP, self.sample), *extra]
            (abroad,) = predictions(*_stacked(given), [foreign_NP])
            for name, values in held.items():
                print(
                    f"{'+'.join(v[-1] for v in variants):<6}{'more' if further else 'sample':<8}"
                    f"{name:<8}{np.mean(values):6.3f} ({min(values):.3f})"
                    f"{srcc(self.sample.scores[chance], leaked[name]):14.3f}"
                    f"{srcc(self.foreign.scores, abroad[name]):9.3f}",
                    flush=True,
                )


def _part(pictures: Pictures, rows: NDArray[np.bool_]) -> Pictures:
    return Pictures(pictures.pixels[:0], pictures.scores[rows], pictures.photos[rows])


def _stacked(
    parts: Sequence[tuple[NDArray[np.float32], Pictures]],
) -> tuple[NDArray[np.float32], Pictures]:
    return np.concatenate([rows for rows, _ in parts]), joined(*(own for _, own in parts))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "beholder-quality")
    parser.add_argument(
        "--scenes", type=int, default=4, help="further crops of each photo; 0: none"
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    comparison = Comparison(arguments.cache, arguments.scenes)
    counts = {name: len(own.scores) for name, own in comparison.sets.items()}
    print(f"SRCC with pseudo-MOS; pictures: {counts}")
    print("Lite  fitted  by      held out        random split  foreign")
    first, *others = arguments.variants
    comparison.rows([first])
    if others:
        comparison.rows([first, *others])


if __name__ == "__main__":
    main()
