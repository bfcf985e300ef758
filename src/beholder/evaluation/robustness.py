"""How a judge's opinions move under changes of a picture that no person would mind.

A score that jumps when a file is saved again, or cut by a hair, tells of the pixels more than of
the picture. Measured are scores and labels, not comments.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from beholder.data.images import read_image
from beholder.data.transforms import clip_box
from beholder.errors import PictureError
from beholder.evaluation.overlays import by_chance
from beholder.judge.runner import Request, judge_pictures
from beholder.judge.verdict import Verdict
from beholder.metrics.classification import show

if TYPE_CHECKING:
    from beholder.judge import Judge

QUALITY = 95  # of a JPEG that is saved again
MARGIN = 0.01  # of each side, that a crop cuts off
MOVED = 0.25  # of the interval's width


def _saved_again(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return read_image(buffer.getvalue())


def _cropped(image: Image.Image) -> Image.Image:
    """At least one pixel from every side, if that leaves one."""
    across, down = (
        min(max(1, round(MARGIN * side)), (side - 1) // 2) for side in (image.width, image.height)
    )
    return image.crop((across, down, image.width - across, image.height - down))


def _shifted(image: Image.Image) -> Image.Image:
    """To the right and down by a pixel; the edge is repeated."""
    pixels_HW3 = np.asarray(image)[:-1, :-1] if min(image.size) > 1 else np.asarray(image)
    padded_HW3 = np.pad(pixels_HW3, ((1, 0), (1, 0), (0, 0)), "edge")
    return Image.fromarray(padded_HW3[: image.height, : image.width])


def _mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _halved(image: Image.Image) -> Image.Image:
    size = (max(1, image.width // 2), max(1, image.height // 2))
    return image.resize(size, Image.Resampling.LANCZOS)


CHANGES: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    f"JPEG of {QUALITY} %": _saved_again,
    "2 % cropped": _cropped,
    "1 pixel shifted": _shifted,
    "mirrored": _mirrored,
    "half size": _halved,
}


def measure_robustness(
    judge: Judge, requests: Sequence[Request], most: int, *, batch_size: int = 32
) -> dict[str, Any] | None:
    """Judge some pictures as they are and changed in each way.

    Args:
        requests: files to choose from, by the hashes of their names.
        most: pictures, each of which is judged six times.

    Returns:
        `pictures`, and `changes`: for each `change` what of it there is: `mean_change` of the
        score (absolute, in its units), `moved` (share of pictures whose score moves by more than a
        quarter of its interval's width, 0 to 1; None without intervals), and `labels`, attribute ->
        share of pictures with another label. None: no picture can be judged.
    """
    chosen = sorted(requests, key=lambda request: by_chance(request.name))[:most]
    with _without_comments(judge):
        judging = judge_pictures(judge, _changed(judge, chosen), batch_size=batch_size)
        judged = {verdict.image: verdict for verdict in judging if isinstance(verdict, Verdict)}
    pairs: dict[str, list[tuple[Verdict, Verdict]]] = {change: [] for change in CHANGES}
    pictures = 0
    for number in range(len(chosen)):
        before = judged.get(f"{number}")
        if before is None:
            continue
        pictures += 1
        for change in CHANGES:
            after = judged.get(f"{number} {change}")
            if after is not None:
                pairs[change].append((before, after))
    changes = [
        {"change": change, **_figures(verdicts)} for change, verdicts in pairs.items() if verdicts
    ]
    return {"pictures": pictures, "changes": changes} if changes else None


def robustness_lines(metrics: Mapping[str, Any]) -> list[str]:
    """An evaluation's robustness for people, a line per change; none where it was not measured."""
    measured = metrics.get("robustness")
    if measured is None:
        return []
    width = max(map(len, CHANGES))
    return [
        f"  robust      {entry['change']:<{width}}  {'; '.join(_told(entry))}"
        for entry in measured["changes"]
    ]


def robustness_sentence(metrics: Mapping[str, Any]) -> str | None:
    """The change that moves opinions most, in words; None: not measured, or nothing to tell."""
    measured = metrics.get("robustness")
    if measured is None:
        return None
    by_score = [entry for entry in measured["changes"] if entry.get("moved") is not None]
    if not by_score:
        return None
    most = max(by_score, key=lambda entry: entry["moved"])
    if most["moved"] == 0.0:
        return (
            "Harmless changes (saved again, cropped by 2 %, shifted by a pixel, mirrored, half "
            "size) move no score by more than a quarter of its interval."
        )
    return (
        f"Of harmless changes {most['change']!r} moves scores most: by {most['mean_change']:.2f} "
        f"on average, {most['moved']:.0%} of them by more than a quarter of their interval."
    )


def _changed(judge: Judge, requests: Iterable[Request]) -> Iterator[Request]:
    """Each picture as it is, named by its number, and changed; those that can't be read are left
    out."""
    for number, request in enumerate(requests):
        try:
            image = judge.transform.cleared(read_image(request.picture), request.box)
            if request.box is not None:
                image = image.crop(clip_box(request.box, image.size))
        except PictureError:
            continue  # it has been told of where it was to be judged
        whole = replace(request, name=f"{number}", picture=image, box=None)
        yield whole
        for name, change in CHANGES.items():
            yield replace(whole, name=f"{number} {name}", picture=change(image))


@contextmanager
def _without_comments(judge: Judge) -> Iterator[None]:
    beams = judge.beam_size
    judge.beam_size = None
    try:
        yield
    finally:
        judge.beam_size = beams


def _figures(pairs: Sequence[tuple[Verdict, Verdict]]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    scores = [
        (abs(after.score - before.score), before.interval)
        for before, after in pairs
        if before.score is not None and after.score is not None
    ]
    if scores:
        figures["mean_change"] = float(np.mean([change for change, _ in scores]))
        moved = [
            change > MOVED * (interval[1] - interval[0])
            for change, interval in scores
            if interval is not None
        ]
        figures["moved"] = float(np.mean(moved)) if moved else None
    figures["labels"] = {
        name: float(
            np.mean([set(b.attributes[name].labels) != set(a.attributes[name].labels)
                     for b, a in pairs])
        )
        for name in pairs[0][0].attributes
    }  # fmt: skip
    return figures


def _told(entry: Mapping[str, Any]) -> Iterator[str]:
    if "mean_change" in entry:
        moved = entry["moved"]
        share = "" if moved is None else f", {moved:.1%} by over a quarter of their interval"
        yield f"scores move by {show(entry['mean_change'], 3)}{share}"
    for name, share in entry["labels"].items():
        yield f"{name}: {share:.1%} other labels"
