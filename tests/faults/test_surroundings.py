"""Homes that can't be written, and terminals and pipes that are not UTF-8."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from beholder.metrics.captions.meteor import data as meteor

NAME = "façade-집.png"


def judged(folder: Path, form: str, encoding: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "beholder", "judge", "starter", folder, "--format", form]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C", "PYTHONUTF8": "0"}
    return subprocess.run(command, env=environment, capture_output=True, check=False)


@pytest.mark.parametrize("form", ["jsonl", "table"])
def test_what_is_piped_is_utf_8(form: str, tmp_path: Path) -> None:
    Image.effect_noise((60, 60), 90).convert("RGB").save(tmp_path / NAME)
    done = judged(tmp_path, form, "ascii")
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode("utf-8")
    assert NAME in text
    if form == "jsonl":
        assert Path(json.loads(text)["image"]).name == NAME


def test_meteor_works_without_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usual = meteor.meteor_data()
    built = meteor._cache_folder() / f"meteor-{meteor._fingerprint(*meteor._sources())}"

    def build(jar: Path, table: Path, folder: Path) -> None:
        """In a moment, what takes a minute."""
        shutil.copytree(built, folder, dirs_exist_ok=True)

    monkeypatch.setattr(meteor, "_build", build)
    (tmp_path / "home").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    meteor.meteor_data.cache_clear()
    try:
        elsewhere = meteor.meteor_data()
    finally:
        meteor.meteor_data.cache_clear()
    assert "for this time only" in caplog.text
    assert elsewhere.function_words == usual.function_words
    assert (elsewhere.pairs == usual.pairs).all() and (elsewhere.sets == usual.sets).all()
    assert elsewhere.pairs.size > 1000
