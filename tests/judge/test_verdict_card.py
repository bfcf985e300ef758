"""Verdicts in notebooks."""

from __future__ import annotations

import html.parser
from pathlib import Path

import PIL.Image

from beholder.judge import Attribute, Verdict


class Reader(html.parser.HTMLParser):
    """Collects what is shown, and makes sure that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.images: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {"div", "span", "b", "img"}, tag
        if tag == "img":
            self.images.append(dict(attrs)["src"] or "")
        else:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(verdict: Verdict) -> Reader:
    reader = Reader()
    reader.feed(verdict._repr_html_())
    assert reader.open == []
    return reader


def test_a_card_shows_everything_and_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "<script>alert(1)<" / "script>.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (400, 100), "red").save(path)
    kinds = Attribute("<i>", 0.6, {"<i>": 0.6, "b": 0.25, "c": 0.1, "d": 0.05})
    verdict = Verdict(str(path), 3.456, (3.0, 4.0), "sharp & <b>bold</b>", (), {"kind": kinds})
    shown = read(verdict)
    text = " ".join(shown.texts)
    for part in ("3.46", "3.00 – 4.00", "sharp & <b>bold</b>", "kind", "<i>", "60%", "10%"):
        assert part in text
    assert "5%" not in shown.texts  # the fourth class
    assert [image[:22] for image in shown.images] == ["data:image/webp;base64"]


def test_what_is_not_there_is_not_shown() -> None:
    shown = read(Verdict("no/such/picture.png"))
    assert (shown.texts, shown.images) == (["picture.png"], [])
