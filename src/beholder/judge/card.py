"""A verdict as a small card of HTML, for notebooks: the picture, the score with its interval on a
scale, the comment, attributes as bars. Everything that is shown is escaped, nothing is loaded.
"""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beholder.judge.verdict import Attribute, Verdict

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


def verdict_card(verdict: Verdict) -> str:
    """The card; the picture is on it if its file is where the verdict's name says."""
    parts = [f'<div style="{_QUIET}">{escape(Path(verdict.image).name)}</div>']
    if verdict.score is not None:
        parts.append(f'<div style="font-size:1.6em"><b>{verdict.score:.2f}</b>{_interval(verdict)}')
        parts.append("</div>")
    if verdict.comment is not None:
        parts.append(f"<div>{escape(verdict.comment)}</div>")
    parts += [_bars(name, one) for name, one in verdict.attributes.items()]
    return f'<div style="{_BOX}">{_thumbnail(verdict.image)}<div>{"".join(parts)}</div></div>'


def _interval(verdict: Verdict) -> str:
    if verdict.interval is None:
        return ""
    low, high = verdict.interval
    return f' <span style="{_QUIET}">{low:.2f} – {high:.2f}</span>'


def _bars(name: str, attribute: Attribute) -> str:
    shown = list(attribute.probabilities.items())[:CLASSES]
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
