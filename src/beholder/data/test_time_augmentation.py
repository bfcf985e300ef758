"""Several views of one picture, whose predictions are averaged: mirrored, other parts of it, and
the same of the picture at reduced sizes.

Shape letters: V views, H and W sides of the network's input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from beholder.data.images import Source, read_image
from beholder.data.transforms import LARGEST_SIDE, EvalTransform, clip_box, native_crop
from beholder.errors import JudgeError

# Pillow first averages whole pixels down to this many times the wanted size: several times as fast
# for camera pictures, and the difference can't be seen
_REDUCING_GAP = 3.0


class ViewConfig(BaseModel):
    """Which views of a picture a judge looks at. By default the transform's own alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: bool = Field(False, description="every view mirrored left to right too: twice the work")
    crops: int = Field(
        1,
        ge=1,
        le=8,
        description="with `resize: native`: the centre and this many parts along each side, spread "
        "from edge to edge; 2: five views. Parts with the same pixels count once",
    )
    shorter_sides: tuple[Annotated[int, Field(ge=1, le=LARGEST_SIDE)], ...] = Field(
        (),
        max_length=4,
        exclude_if=lambda sides: not sides,
        description="with `resize: native`: the same parts of the picture reduced so that its "
        "shorter side has so many pixels, for each of these that is smaller than the picture's: "
        "large pictures are then seen in detail and as a whole",
    )

    def check(self, transform: EvalTransform) -> None:
        """Raises:
        JudgeError: several crops or sizes of what the transform resizes.
        """
        if transform.resize == "native":
            return
        if self.crops > 1:
            raise JudgeError(
                f"Several crops need pictures at native resolution, not `{transform.resize}`.",
                where="views.crops",
                fix="Set crops to 1, or backbone.resize to native.",
            )
        if self.shorter_sides:
            raise JudgeError(
                f"Several sizes need pictures at native resolution, not `{transform.resize}`.",
                where="views.shorter_sides",
                fix="Leave shorter_sides out, or set backbone.resize to native.",
            )


def read_views(
    transform: EvalTransform,
    source: Source,
    config: ViewConfig,
    box: Sequence[float] | None = None,
) -> np.ndarray:
    """The views of a picture, float32 [V, 3, H, W]: first what `transform.read` gives.

    Args:
        box: as for the transform; parts are parts of the box.

    Raises:
        PictureError: the picture can't be used.
    """
    if config.crops == 1 and not config.shorter_sides:
        views = transform.read(source, box)[None]
    else:
        image = transform.cleared(read_image(source), box)
        if box is not None:
            image = image.crop(clip_box(box, image.size))
        parts = [
            native_crop(scaled, transform.size, position)
            for scaled in _at_all_sizes(image, config.shorter_sides)
            for position in _positions(config.crops)
        ]
        distinct = {part.tobytes(): part for part in parts}
        views = np.stack([transform.fitted(part) for part in distinct.values()])
    if not config.flip:
        return views
    return np.concatenate([views, views[..., ::-1]])


def _at_all_sizes(image: Image.Image, shorter_sides: Sequence[int]) -> Iterator[Image.Image]:
    """The picture as it is, then reduced, each from the one before."""
    yield image
    for side in sorted(shorter_sides, reverse=True):
        factor = side / min(image.size)
        if factor < 1.0:
            size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
            image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP)
            yield image


def _positions(crops: int) -> list[tuple[float, float]]:
    """Where parts are cut, (vertical, horizontal) from 0 to 1, the centre first."""
    if crops == 1:
        return [(0.5, 0.5)]
    steps = [index / (crops - 1) for index in range(crops)]
    return [(0.5, 0.5), *((top, left) for top in steps for left in steps)]
