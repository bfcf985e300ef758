"""A verdict as a small card of HTML, for notebooks: the picture, the score with its interval on a
scale, the comment, attributes as bars. Everything that is shown is escaped, nothing is loaded.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from pathlib import Path

THUMBNAIL = 160  # pixels of the longer side
CLASSES = 3  # of an attribute, the most probable ones

_BOX = (
    "display:inline-flex;gap:1em;align-items:flex-start;border:1px solid #8884;border-radius:10px;"
    "padding:.8em 1em;max-width:40em;font-family:system-ui,sans-serif"
)
_QUIET = "opacity:.7;font-size:.9em"
_BAR = (
    "display:flex;justify-content:space-between;gap:1em;padding:0 .5em;border-radius:5px;"
    "margin:2px 0;background:linear-gradient(to right,#5a9fc155 {share}%,#8882 {share}%)"
)


def verdict_card(
    image: str,
    score: float | None,
    interval: tuple[float, float] | None,
    comment: str | None,
    attributes: Mapping[str, Mapping[str, float]],
    *,
    unfamiliar: bool = False,
    votes: Mapping[str, float] | None = None,
) -> str:
    """The card; the picture is on it if its file is where its name says.

    Args:
        attributes: of each the classes' probabilities, most probable first.
        votes: share of each rating, in order.
    """
    parts = [f'<div style="{_QUIET}">{escape(Path(image).name)}</div>']
    if unfamiliar:
        parts.append("<div><b>⚠ unlike the pictures that the judge was trained on</b></div>")
    if score is not None:
        span = ""
        if interval is not None:
            span = f' <span style="{_QUIET}">{interval[0]:.2f} – {interval[1]:.2f}</span>'
        parts.append(f'<div style="font-size:1.6em"><b>{score:.2f}</b>{span}</div>')
    if votes:
        parts.append(_bars("votes", votes, len(votes)))
    if comment is not None:
        parts.append(f"<div>{escape(comment)}</div>")
    parts += [_bars(name, shares) for name, shares in attributes.items()]
    return f'<div style="{_BOX}">{_thumbnail(image)}<div>{"".join(parts)}</div></div>'


def _bars(name: str, shares: Mapping[str, float], most: int = CLASSES) -> str:
    shown = list(shares.items())[:most]
    bars = "".join(
        f'<div style="{_BAR.format(share=round(100 * share))}">'
        f"<span>{escape(label)}</span><span>{share:.0%}</span></div>"
        for label, share in shown
    )
    return f'<div style="{_QUIET};margin-top:.5em">{escape(name)}</div>{bars}'


def _thumbnail(image: str) -> str:
    """The picture as data, or nothing where there is no such picture."""
    from beholder.data.images import read_image
    from beholder.errors import PictureError

    try:
        picture = read_image(image, at_least=THUMBNAIL)
    except PictureError:
        return ""
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    picture.save(stream, "WEBP")
    data = base64.b64encode(stream.getvalue()).decode()
    style = "border-radius:6px;flex:none"
    return f'<img style="{style}" alt="" src="data:image/webp;base64,{data}">'
