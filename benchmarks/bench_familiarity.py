"""Whether a judge knows what is unlike its training pictures, on photographs and on six kinds of
pictures that are none (`familiarity_pictures.py`).

A judge's familiarity is fitted to the photographs of `quality_photos.py` without those of one
origin, in turn four origins. Told are the false alarms on the photographs of that origin, and of
every strange kind the AUROC against them and the share that is called unfamiliar: means of four.
Other distances read the same features: all of them standardised, or other numbers of features and
dimensions.

    python benchmarks/bench_familiarity.py [--cache FOLDER] [--others]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from beholder.data.progress import progress
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.metrics import familiarity
from beholder.metrics.familiarity import fit_familiarity
from familiarity_pictures import strange_pictures
from quality_photos import third_photos
from quality_sources import ACTIVITIES

Features = NDArray[np.float64]
Told = Callable[[Features, Features], NDArray[np.float64]]

BACKBONES = {
    "early maps, 256 pixels of the middle": BackboneConfig(
        name="efficientnet-lite0", size=256, resize="native", pooling="early"
    ),
    "all maps, the whole picture": BackboneConfig(name="efficientnet-lite0", pooling="all"),
}
ORIGINS = {
    "gcompris": ACTIVITIES,
    "creative tim": ("material", "now", "paper", "argon", "soft"),
    "startbootstrap": ("startbootstrap",),
    "tabler": ("tabler",),
}
OTHERS = ((128, 64), (256, 32), (256, 96), (512, 64), (4096, 64), (4096, 128))


def features(files: Sequence[Path], config: BackboneConfig, place: Path) -> Features:
    """Pooled features [N, P] of whole pictures, kept at `place`."""
    if not place.is_file():
        backbone, rows = create_backbone(config), []
        with torch.inference_mode():
            for file in progress(files, place.stem, len(files)):
                pixels = torch.from_numpy(backbone.transform.read(file))[None]
                rows.append(backbone(pixels, tokens=False).pooled_BP[0].numpy())
        np.save(place, np.stack(rows))
    return np.load(place).astype(np.float64)


def conformal(own: Features, new: Features) -> NDArray[np.float64]:
    """What a judge says: familiarity [N]."""
    return fit_familiarity(own, range(len(own))).p_values(new)


def of_size(read: int, dims: int) -> Told:
    """The same of other sizes."""

    def told(own: Features, new: Features) -> NDArray[np.float64]:
        before = familiarity.FEATURES, familiarity.DIMS
        familiarity.FEATURES, familiarity.DIMS = read, dims
        try:
            return conformal(own, new)
        finally:
            familiarity.FEATURES, familiarity.DIMS = before

    return told


def standardised(own: Features, new: Features) -> NDArray[np.float64]:
    """The root mean square of all features in deviations, compared with ten parts left out."""

    def distance(learnt: Features, asked: Features) -> NDArray[np.float64]:
        mean, std = learnt.mean(axis=0), learnt.std(axis=0) + 1e-9
        return np.sqrt(np.square((asked - mean) / std).mean(axis=1))

    parts = np.arange(len(own)) % 10
    left_out = np.concatenate([distance(own[parts != k], own[parts == k]) for k in range(10)])
    asked = distance(own, new)
    return (1 + (left_out >= asked[:, None]).sum(axis=1)) / (1 + len(own))


def report(
    name: str, told: Told, photos: Features, origin: NDArray[np.str_], strange: dict[str, Features]
) -> None:
    """A line: false alarms by origin, and each strange kind."""
    started, alarms = time.perf_counter(), []
    areas: dict[str, list[float]] = {kind: [] for kind in strange}
    found: dict[str, list[float]] = {kind: [] for kind in strange}
    for left_out in ORIGINS:
        same = told(photos[origin != left_out], photos[origin == left_out])
        alarms.append(float((same < 0.05).mean()))
        for kind, asked in strange.items():
            other = told(photos[origin != left_out], asked)
            targets = np.repeat([0, 1], [len(same), len(other)])
            areas[kind].append(roc_auc_score(targets, -np.concatenate([same, other])))
            found[kind].append(float((other < 0.05).mean()))
    kinds = "  ".join(f"{k} {np.mean(areas[k]):.3f}/{np.mean(found[k]):.0%}" for k in strange)
    each = ", ".join(f"{share:.0%}" for share in alarms)
    print(
        f"  {name:<28} false alarms {np.mean(alarms):.1%} ({each})  {kinds}  "
        f"({time.perf_counter() - started:.0f} s)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/beholder-benchmarks")
    parser.add_argument("--others", action="store_true", help="other distances and sizes too")
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    files = third_photos(given.cache, [])
    names = [file.stem.partition("-")[0] for file in files]
    origin = np.array(
        [next((o for o, known in ORIGINS.items() if name in known), "rest") for name in names]
    )
    pictures = strange_pictures(given.cache)
    for described, config in BACKBONES.items():
        places = {
            kind: given.cache / f"familiarity-{config.pooling}-{kind.replace(' ', '-')}.npy"
            for kind in ("photographs", *pictures)
        }
        photos = features(files, config, places["photographs"])
        strange = {kind: features(found, config, places[kind]) for kind, found in pictures.items()}
        print(f"{described}: {len(photos)} photographs; AUROC/called unfamiliar")
        report("as judges have it", conformal, photos, origin, strange)
        if given.others:
            report("standardised, all features", standardised, photos, origin, strange)
            for read, dims in OTHERS:
                report(
                    f"{read} features, {dims} sums", of_size(read, dims), photos, origin, strange
                )


if __name__ == "__main__":
    main()
