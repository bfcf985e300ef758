"""Several views of one picture, whose predictions are averaged: mirrored, and other parts of it.

Shape letters: V views, H and W sides of the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from beholder.data.images import Source, read_image
from beholder.data.transforms import EvalTransform, clip_box, native_crop
from beholder.errors import JudgeError


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

    def check(self, transform: EvalTransform) -> None:
        """Raises:
        JudgeError: several crops of what the transform resizes.
        """
        if self.crops > 1 and transform.resize != "native":
            raise JudgeError(
                f"Several crops need pictures at native resolution, not `{transform.resize}`.",
                where="views.crops",
                fix="Set crops to 1, or backbone.resize to native.",
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
    if config.crops == 1:
        views = transform.read(source, box)[None]
    else:
        image = transform.cleared(read_image(source), box)
        if box is not None:
            image = image.crop(clip_box(box, image.size))
        parts = [native_crop(image, transform.size, position) for position in _places(config.crops)]
        distinct = {part.tobytes(): part for part in parts}
        views = np.stack([transform.fitted(part) for part in distinct.values()])
    if not config.flip:
        return views
    return np.concatenate([views, views[..., ::-1]])


def _places(crops: int) -> list[tuple[float, float]]:
    """Where parts are cut, (vertical, horizontal) from 0 to 1, the centre first."""
    steps = [index / (crops - 1) for index in range(crops)]
    return [(0.5, 0.5), *((top, left) for top in steps for left in steps)]
