"""The photographs that the starter learns from, and those that it is measured on.

Those of `benchmarks/quality_photos.py`, by what the package that brings them states: weights learnt
from photographs under a licence without copyleft may be shipped under one, so only these are learnt
from. The others (GPL, among them pictures under CC-BY-SA) are photographs of another origin, which
it is measured on, as are the embedded sample's and `quality.py`'s foreign ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from quality_photos import third_photos
from quality_pictures import foreign_photos
from quality_sources import ACTIVITIES, DEBIAN, PLASMA

from beholder.data.sample.catalogue import PHOTO_FOLDER, photo_names

COPYLEFT = (*ACTIVITIES, *PLASMA, *DEBIAN)
"""How the names of photographs under the GPL begin."""


def photographs(cache: Path) -> tuple[list[Path], dict[str, list[Path]]]:
    """Files to learn from, and by origin those to be measured on.

    Raises:
        DataError: a package can't be fetched.
    """
    sample = [PHOTO_FOLDER / f"{name}.jpg" for name in photo_names()]
    foreign = foreign_photos(cache)
    files = third_photos(cache, [*sample, *foreign])
    free = [file for file in files if not file.stem.startswith(COPYLEFT)]
    others = [file for file in files if file.stem.startswith(COPYLEFT)]
    return free, {"games": others, "nature": foreign, "sample": sample}
