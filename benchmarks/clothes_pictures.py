"""Clothes as labelled pictures in fourteen drawing styles: emoji, and avatars with known garments.

    python benchmarks/clothes_pictures.py [--cache FOLDER]

Fetched and drawn at run time into a cache folder, never part of the project. Emoji are those of
`emoji_pictures.py`; avatars are drawn by DiceBear (`@dicebear/core` and one package per style, code
MIT) with the options that `clothes_rules.py` tells. Licences of the designs: avataaars "free for
personal and commercial use"; lorelei, notionists, open-peeps and pixel-art CC0 1.0; adventurer,
big-smile, micah, miniavs, personas and toon-head CC BY 4.0.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from beholder.data.annotations import AnnotationTable
from beholder.data.augment import uniform_draws
from beholder.errors import BeholderError, DataError
from clothes_rules import AVATARS, CLASSES, COLOURS, EMOJI, EMOJI_EYEWEAR
from emoji_pictures import (
    EmojiPicture,
    default_cache,
    emoji_pictures,
    fetch_packages,
    rasterise,
    write_whole,
)

VERSION = "9.4.3"
PACKAGES = dict.fromkeys(["@dicebear/core", *(f"@dicebear/{name}" for name in AVATARS)], VERSION)
EACH = 120
"""Avatars of a style."""
SIZE = 128
"""Pixels of a side of the avatars."""

_SCRIPT = """
import { createAvatar } from "@dicebear/core";
let asked = "";
for await (const part of process.stdin) asked += part;
const drawn = [];
for (const [style, options] of JSON.parse(asked))
  drawn.push(createAvatar(await import(`@dicebear/${style}`), options).toString());
process.stdout.write(JSON.stringify(drawn));
"""
Labels = Mapping[str, str | None]
T = TypeVar("T")


@dataclass(frozen=True)
class Dressed:
    """A picture of clothes: its style, its key, and its labels (None: not labelled)."""

    style: str
    key: str
    labels: Labels


def clothes_pictures(cache: Path) -> tuple[Path, list[Dressed]]:
    """Fetch and draw what the cache lacks.

    Returns:
        The folder that the keys start from, and the pictures, style by style.

    Raises:
        DataError: npm or node is not there, or can't fetch or draw.
        MissingExtra: resvg-py is not installed.
        OSError: the cache can't be written.
    """
    root = cache / "clothes"
    drawn, emoji = emoji_pictures(cache)
    pictures = []
    for picture in emoji:
        labels = emoji_labels(picture)
        if labels is None:
            continue
        if not (root / picture.key).exists():
            write_whole(root / picture.key, (drawn / picture.key).read_bytes())
        pictures.append(Dressed(picture.style, picture.key, labels))
    chosen = [choose(style, number) for style in AVATARS for number in range(EACH)]
    missing = [avatar for avatar in chosen if not (root / avatar.key).exists()]
    if missing:
        packages = fetch_packages(cache / "avatars", PACKAGES)
        for avatar, svg in zip(missing, _draw(packages, missing), strict=True):
            write_whole(root / avatar.key, rasterise(svg, SIZE))
    return root, [*pictures, *(Dressed(entry.style, entry.key, entry.labels) for entry in chosen)]


def as_table(pictures: Sequence[Dressed], held_out: Sequence[str]) -> AnnotationTable:
    """The labels, with the styles that are held out as the test split and no other."""
    return AnnotationTable.from_columns(
        [picture.key for picture in pictures],
        attributes={name: [picture.labels[name] for picture in pictures] for name in CLASSES},
        classes=CLASSES,
        split=["test" if picture.style in held_out else "train" for picture in pictures],
    )


def emoji_labels(picture: EmojiPicture) -> Labels | None:
    """What an emoji is labelled as; None: it is not in the rules."""
    name = picture.emoji.labels["en"]
    for wear, names in EMOJI.items():
        if name in names:
            return {
                "wear": wear, "collar": None, "colour": None, "eyewear": EMOJI_EYEWEAR.get(name),
            }  # fmt: skip
    return None


@dataclass(frozen=True)
class ChosenAvatar:
    """An avatar before it is drawn: what DiceBear is told, and what that means."""

    style: str
    options: Mapping[str, Any]
    labels: Labels

    @property
    def key(self) -> str:
        """Other options are another picture."""
        description = json.dumps([VERSION, SIZE, self.style, self.options], sort_keys=True)
        return f"{self.style}/{hashlib.sha256(description.encode()).hexdigest()[:16]}.png"


def choose(style: str, number: int) -> ChosenAvatar:
    """The avatar of that number: classes of colour and eyewear are drawn evenly, and so are
    garments. What has no label (face, hair, skin) follows DiceBear's own seed."""
    rules = AVATARS[style]
    draws = uniform_draws(0, 0, f"{style}/{number}", "clothes", 5)
    garments, colours = rules.garment[1], list(COLOURS)
    garment = pick(list(garments), draws[0])
    colour = pick(colours, draws[1])
    eyewear = pick(list(rules.eyewear[1]), draws[3])
    options: dict[str, Any] = {"seed": f"{style}/{number}", **rules.fixed}
    if rules.garment[0] is not None:
        options[rules.garment[0]] = [garment]
    if rules.colour is not None:
        options[rules.colour] = [pick(COLOURS[colour], draws[2])]
    if rules.eyewear[0] is not None:
        values = rules.eyewear[1][eyewear]
        options[f"{rules.eyewear[0]}Probability"] = 100 if values else 0
        if values:
            options[rules.eyewear[0]] = [pick(values, draws[4])]
    wear, collar = garments[garment]
    labels = {
        "wear": wear, "collar": collar, "colour": colour if rules.colour else None,
        "eyewear": eyewear,
    }  # fmt: skip
    return ChosenAvatar(style, options, labels)


def pick(values: Sequence[T], draw: float) -> T:
    """One of the values, by a number in [0, 1)."""
    return values[int(draw * len(values))]


def _draw(packages: Path, avatars: Sequence[ChosenAvatar]) -> list[str]:
    """The avatars as SVG."""
    node = shutil.which("node")
    if node is None:
        raise DataError(
            "Avatars are drawn by a JavaScript package, and node is not on the PATH.",
            fix="Install Node.js, then run it again.",
        )
    done = subprocess.run(
        [node, "--input-type=module", "-e", _SCRIPT],
        input=json.dumps([[avatar.style, dict(avatar.options)] for avatar in avatars]),
        cwd=packages.parent,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise DataError(
            f"node could not draw the avatars: {done.stderr.strip()}",
            where=str(packages),
            fix="Remove that folder, so that the packages are fetched again.",
        )
    return list(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch and draw clothes with labels.")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where to keep them")
    root, pictures = clothes_pictures(parser.parse_args().cache)
    print(f"{len(pictures)} pictures in {root}")
    for style, count in Counter(picture.style for picture in pictures).items():
        print(f"  {style:<10} {count}")
    for name in CLASSES:
        counts = Counter(picture.labels[name] or "not labelled" for picture in pictures)
        print(f"{name}: {', '.join(f'{label} {count}' for label, count in counts.items())}")


if __name__ == "__main__":
    try:
        main()
    except BeholderError as error:
        raise SystemExit(str(error)) from None
