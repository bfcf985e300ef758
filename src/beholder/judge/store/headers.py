"""What a judge says of itself, without its weights being read: for checks before work begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from beholder.judge.store.folder import read_config
from beholder.judge.store.manifest import require_judge
from beholder.judge.store.packed import read_packed


@dataclass(frozen=True)
class Header:
    """A judge's opinions: `comments` whether it writes, `classes` attribute -> labels, in order."""

    comments: bool
    classes: dict[str, tuple[str, ...]]


def read_header(path: Path) -> Header:
    """The header of a judge's folder or exported file.

    Raises:
        JudgeError: there is no judge, or what it says can't be read.
    """
    if require_judge(path).is_file():
        manifest = read_packed(path).manifest
        return Header("comment" in manifest.heads, manifest.classes)
    config = read_config(path)
    has_attributes = config.get("attributes") is not None
    classes = {name: tuple(labels) for name, labels in config.get("classes", {}).items()}
    return Header(config.get("comment") is not None, classes if has_attributes else {})
