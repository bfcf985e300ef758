"""The committed table of pseudo-MOS, and the check that pictures made here are those it scores.

A pseudo-MOS is no opinion of anybody: it is SSIMULACRA2 of the picture against its pristine crop,
mapped onto the five-grade scale of opinion scores. `scripts/make_pseudo_mos.py` computes the table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import polars as pl
from PIL import Image, ImageChops, ImageStat

from beholder.data.sample.traits import Traits

TABLE = Path(__file__).parent / "pseudo_mos.csv"
COLUMNS = ("image", "ssimulacra2", "pseudo_mos", "luminance", "detail", "deviation")

# SSIMULACRA2's author calls 30 low, 50 medium and 70 high quality: rating bins 2, 3 and 4.
MEDIUM = 50.0
SLOPE = 20.0 / math.log(3.0)

# A signature may differ by this much (absolute, relative) before the score no longer fits. Pictures
# of neighbouring levels are at least four times as far apart.
TOLERANCE = (0.25, 0.03)


def to_pseudo_mos(ssimulacra2: float) -> float:
    """1 (bad) to 5 (excellent): 1 + 4 / (1 + exp(-(s - 50) / 18.2)).

    The logistic curve through 30 -> 2, 50 -> 3, 70 -> 4. The pristine crop has s = 100 and gets
    4.76, for nobody could rate it without doubt either.
    """
    return 1.0 + 4.0 / (1.0 + math.exp(-(ssimulacra2 - MEDIUM) / SLOPE))


@dataclass(frozen=True)
class Signature:
    """A picture in three numbers of grey levels: mean and standard deviation of its luminance, and
    root mean square difference from the pristine crop."""

    luminance: float
    detail: float
    deviation: float

    @classmethod
    def of(cls, image: Image.Image, pristine: Image.Image, traits: Traits) -> Signature:
        """The signature of a picture (RGB) against its pristine crop of the same size."""
        bands = ImageStat.Stat(ImageChops.difference(image, pristine)).rms
        deviation = math.sqrt(sum(band**2 for band in bands) / len(bands))
        return cls(traits.luminance, traits.detail, deviation)

    def fits(self, other: Signature) -> bool:
        """Whether every number is within `TOLERANCE` of the other's."""
        absolute, relative = TOLERANCE
        pairs = (
            (self.luminance, other.luminance),
            (self.detail, other.detail),
            (self.deviation, other.deviation),
        )
        return all(math.isclose(a, b, abs_tol=absolute, rel_tol=relative) for a, b in pairs)

    def __str__(self) -> str:
        return (
            f"luminance {self.luminance:.1f}, detail {self.detail:.1f}, "
            f"deviation {self.deviation:.2f}"
        )


@dataclass(frozen=True)
class Row:
    """One row of the table: what SSIMULACRA2 says of a picture, and which picture it meant."""

    ssimulacra2: float
    pseudo_mos: float
    signature: Signature


@cache
def read_table() -> Mapping[str, Row]:
    """The committed table by image key."""
    frame = pl.read_csv(TABLE, columns=list(COLUMNS))
    return {
        image: Row(ssimulacra2, pseudo_mos, Signature(luminance, detail, deviation))
        for image, ssimulacra2, pseudo_mos, luminance, detail, deviation in frame.iter_rows()
    }
