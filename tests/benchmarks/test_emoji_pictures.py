"""Emoji as pictures with names, from a cache that holds a few of each package."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import emoji_pictures as emoji
from beholder.data.images import read_image
from beholder.errors import DataError

SQUARE = '<path fill="#f00" d="M0 0h36v36H0z"/>'
CORNER = '<path fill="#00f" d="M0 0h18v18H0z"/>'


def entry(code: str, label: str, group: int | None, subgroup: int = 0) -> dict[str, Any]:
    fields: dict[str, Any] = {"hexcode": code, "label": label, "tags": [f"{label} tag"]}
    return fields if group is None else {**fields, "group": group, "subgroup": subgroup}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A cache as npm leaves it: five emoji, of which two are to be used."""
    modules = tmp_path / "packages" / "node_modules"
    data = modules / "emojibase-data"
    rows = [
        ("2764-FE0F", "red heart", "빨간색 하트", 0, 0),
        ("1F455", "t-shirt", "티셔츠", 1, 1),
        ("1F1F0-1F1F7", "flag: South Korea", "깃발: 대한민국", 2, 2),
        ("1F3FB", "light skin tone", "하얀 피부", 3, 3),
        ("1F1E6", "regional indicator A", "지역 표시 A", None, 0),
    ]
    for index, language in enumerate(("en", "ko")):
        entries = [entry(row[0], row[1 + index], *row[3:]) for row in rows]
        write(data / language / "data.json", entries)
    groups = {"0": "smileys-emotion", "1": "objects", "2": "flags", "3": "component"}
    subgroups = {"0": "heart", "1": "clothing", "2": "country-flag", "3": "skin-tone"}
    write(data / "meta" / "groups.json", {"groups": groups, "subgroups": subgroups})
    for name in ("noto", "twemoji"):
        icons = {"red-heart": {"body": SQUARE}, "shirt": {"body": CORNER}}
        aliases = {"t-shirt": {"parent": "shirt"}}
        card = {"icons": icons, "aliases": aliases, "width": 36, "height": 36}
        write(modules / "@iconify-json" / name / "icons.json", card)
        chars = {"2764": "red-heart", "1f455": "t-shirt"}
        write(modules / "@iconify-json" / name / "chars.json", chars)
    assets = modules / "@lobehub" / "fluent-emoji-3d" / "assets"
    assets.mkdir(parents=True)
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(assets / "2764-fe0f.webp")
    return tmp_path


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def test_names_groups_and_tags_without_components_and_flags_of_countries(packages: Path) -> None:
    emojis = emoji.read_emoji(packages / "packages" / "node_modules" / "emojibase-data")
    assert [entry.hexcode for entry in emojis] == ["2764", "1f455"]
    assert emojis[1].labels == {"en": "t-shirt", "ko": "티셔츠"}
    assert emojis[1].tags["en"] == ("t-shirt tag",)
    assert (emojis[1].group, emojis[1].subgroup) == ("objects", "clothing")


def test_an_alias_has_its_parents_drawing(packages: Path) -> None:
    drawn = emoji.read_drawings(packages / "packages" / "node_modules" / "@iconify-json" / "noto")
    assert set(drawn) == {"2764", "1f455"}
    assert CORNER in drawn["1f455"]
    assert 'viewBox="0 0 36 36"' in drawn["1f455"]


def test_pictures_of_every_style_that_has_one_on_white(packages: Path) -> None:
    pytest.importorskip("resvg_py")
    root, pictures = emoji.emoji_pictures(packages)
    assert [picture.key for picture in pictures] == [
        "fluent-3d/2764.webp", "noto/2764.png", "noto/1f455.png", "twemoji/2764.png",
        "twemoji/1f455.png",
    ]  # fmt: skip
    half = np.asarray(read_image(root / "noto/1f455.png"))
    assert half.shape == (emoji.SIZE, emoji.SIZE, 3)
    assert half[5, 5].tolist() == [0, 0, 255]
    assert half[-5, -5].tolist() == [255, 255, 255]
    assert np.asarray(read_image(root / "fluent-3d/2764.webp")).min() == 255


def test_what_is_there_is_not_drawn_again(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resvg_py")
    first = emoji.emoji_pictures(packages)
    monkeypatch.setattr(emoji, "_draw", lambda drawing: pytest.fail("drawn again"))
    assert emoji.emoji_pictures(packages) == first


def test_without_npm_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emoji.shutil, "which", lambda name: None)
    with pytest.raises(DataError, match="npm") as caught:
        emoji.emoji_pictures(tmp_path / "cache")
    assert "Install Node.js" in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_a_failed_fetch_shows_npms_reason_and_is_not_taken_for_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emoji.shutil, "which", lambda name: "npm")
    failed = subprocess.CompletedProcess([], 1, "", "npm error code ENOTFOUND")
    monkeypatch.setattr(emoji.subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(DataError, match="ENOTFOUND"):
        emoji.emoji_pictures(tmp_path)
    assert not (tmp_path / "packages").exists()
