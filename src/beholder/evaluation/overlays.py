"""Overlays that show where opinions come from: beside verdicts, and for the report.

A file is written per picture and opinion, and named in the verdict. What can't be explained is an
error of the judge, not of a picture, and ends the work.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from beholder.data.files import atomic_path, write_bytes, write_json
from beholder.judge.runner import Request
from beholder.judge.verdict import Judged, Verdict

if TYPE_CHECKING:
    from beholder.judge import Explanation, Judge

LONGEST = 1024  # pixels of an overlay's longer side
INDEX = "index.json"


def with_overlays(
    judge: Judge,
    requests: Iterable[Request],
    verdicts: Iterable[Judged],
    opinions: Sequence[str],
    folder: Path,
) -> Iterator[Judged]:
    """The same verdicts; verdicts name the overlays that were written for them.

    Args:
        requests: what the verdicts are of, in the same order.
        opinions: attributes, and `score`.
        folder: where the overlays go, `<number>-<name>-<opinion>.png`, numbered from 1 in order.

    Raises:
        JudgeError: no such opinion, or the judge can't be explained.
        OutputError: the folder can't be written.
    """
    for opinion in opinions:
        judge.check_opinion(opinion)
    for number, (request, verdict) in enumerate(zip(requests, verdicts, strict=True), start=1):
        if not isinstance(verdict, Verdict):
            yield verdict
            continue
        written = {}
        for opinion in opinions:
            explanation = judge.explain(request.path, opinion, box=request.box)
            name = _safe(f"{number:05}-{request.path.stem}-{opinion}")
            written[opinion] = str(write_overlay(explanation, folder / f"{name}.png", LONGEST))
        yield replace(verdict, explanations=written)


def write_overlay(explanation: Explanation, path: Path, longest: int) -> Path:
    """Write an overlay, PNG or WebP by the name's end, at once."""
    buffer = io.BytesIO()
    style = "WEBP" if path.suffix == ".webp" else "PNG"
    explanation.overlay(longest).save(buffer, style)
    write_bytes(path, buffer.getvalue())
    return path


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)


def explain_some(
    judge: Judge, requests: Sequence[Request], count: int, folder: Path, longest: int = 320
) -> list[dict[str, object]]:
    """Overlays of a few pictures for a report: of every attribute, or of the score without any.

    The pictures are those whose names have the smallest hashes: no rhythm of the table shows.

    Args:
        requests: pictures that could be judged.
        folder: is written whole: the overlays and `index.json`, which is what is returned.

    Raises:
        JudgeError: the judge can't be explained.
    """
    chosen = sorted(requests, key=lambda request: by_chance(request.name))[:count]
    opinions = list(judge.classes) or ["score"]
    index: list[dict[str, object]] = []
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for number, request in enumerate(chosen):
            shown = []
            for position, opinion in enumerate(opinions):
                explanation = judge.explain(request.path, opinion, box=request.box)
                file = f"{number}-{position}.webp"
                write_overlay(explanation, temporary / file, longest)
                shown.append(
                    {
                        "opinion": opinion,
                        "label": explanation.label,
                        "value": explanation.value,
                        "file": file,
                    }
                )
            index.append({"image": request.name, "overlays": shown})
        write_json(temporary / INDEX, index)
    return index


def by_chance(key: str) -> bytes:
    """An order of image keys that is no order of names, and always the same."""
    return hashlib.sha256(key.encode()).digest()
