"""SPICE through the user's Java and pycocoevalcap: an extra, never a requirement.

Anderson et al., SPICE, ECCV 2016. Its scene-graph parser exists in Java only; this runs the program
in that package with the package's arguments, except for its cache of parses. Nothing is downloaded:
that package's own wrapper would, without a time limit, and may leave an incomplete download.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beholder.errors import BeholderError

JAR = "spice-1.0.jar"
PARSER = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
NEWEST_JAVA = 14  # the program writes its scores through Java's JavaScript, which 15 dropped


def spice(
    references: Sequence[Sequence[str]], hypotheses: Sequence[str]
) -> tuple[float, NDArray[np.float64]]:
    """SPICE of the corpus (mean over pictures) and of each picture [P], 0 to 1.

    Args:
        references: tokenised captions (tokens joined by spaces), one or more for each picture.
        hypotheses: one tokenised caption for each picture.

    Raises:
        BeholderError: Java (8 to 14), pycocoevalcap or the parser's files are missing, or the
            program fails.
    """
    folder, java = _package_folder(), shutil.which("java")
    lacking = [*_lacking_files(folder), *_lacking_java(java)]
    if lacking or folder is None or java is None:
        raise BeholderError(
            f"SPICE lacks {'; '.join(what for what, _ in lacking)}.",
            fix="; ".join(fix for _, fix in lacking)
            + ". Or leave SPICE out: every other metric works without.",
        )
    entries = [
        {"image_id": row, "test": hypothesis, "refs": list(group)}
        for row, (hypothesis, group) in enumerate(zip(hypotheses, references, strict=True))
    ]
    with tempfile.TemporaryDirectory(prefix="beholder-spice-") as work:
        source, target = Path(work) / "captions.json", Path(work) / "scores.json"
        source.write_text(json.dumps(entries), encoding="ascii")
        options = ["-out", str(target), "-subset", "-silent"]
        completed = subprocess.run(
            [java, "-Xmx8G", "-jar", JAR, str(source), *options],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        text = target.read_text(encoding="utf-8") if target.exists() else ""
    if completed.returncode or not text:
        output = (completed.stderr or completed.stdout).strip().splitlines()
        raise BeholderError(
            f"SPICE's Java program failed (exit code {completed.returncode}): "
            + "; ".join(line.strip() for line in output[:3]),
            fix="It can take 8 GB of memory. Every other metric works without it.",
        )
    per_image = np.empty(len(entries))
    for entry in json.loads(text):
        per_image[entry["image_id"]] = entry["scores"]["All"]["f"]
    return float(per_image.mean()), per_image


def _package_folder() -> Path | None:
    spec = find_spec("pycocoevalcap")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return next((Path(folder) / "spice" for folder in folders), None)


def _lacking_files(folder: Path | None) -> list[tuple[str, str]]:
    """What is missing of the program, and how to get it."""
    if folder is None or not (folder / JAR).exists():
        return [("the program that comes with pycocoevalcap", "pip install pycocoevalcap")]
    missing = [name for name in PARSER if not (folder / "lib" / name).exists()]
    if not missing:
        return []
    # its own fetching looks for the first file only
    first = f"delete {PARSER[0]} there and " if PARSER[0] not in missing else ""
    return [
        (
            f"the parser Stanford CoreNLP 3.6.0 ({' and '.join(missing)} in {folder / 'lib'})",
            f"copy {' and '.join(missing)} there, or {first}have pycocoevalcap fetch the parser "
            "from the network: python -m pycocoevalcap.spice.get_stanford_models",
        )
    ]


def _lacking_java(java: str | None) -> list[tuple[str, str]]:
    """What is wrong with the user's Java, and how to mend it."""
    if java is None:
        return [("Java", f"install a Java runtime of version 8 to {NEWEST_JAVA}")]
    shown = subprocess.run(
        [java, "-version"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    version = re.search(r'version "(?:1\.)?(\d+)', shown.stderr + shown.stdout)
    if version is None or int(version[1]) <= NEWEST_JAVA:
        return []
    return [
        (
            f"a Java of version 8 to {NEWEST_JAVA} ({java} is {version[1]}, without the JavaScript "
            "engine that the program writes its scores with)",
            "put an older Java first on the PATH",
        )
    ]
