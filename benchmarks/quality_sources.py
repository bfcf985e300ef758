"""Which photographs of which packages `quality_photos.py` takes, chosen by looking at all of them.

Left out are drawings, renders, screenshots, cut-outs, second crops of a photograph, what is blurred
or veiled, and small JPEG files of a low quality, whose blocks would count as perfect.
"""

from __future__ import annotations

from typing import NamedTuple


class Source(NamedTuple):
    """Patterns of files in a folder of a package, separated by spaces: which are taken, and which
    of those are left out."""

    folder: str
    take: str
    leave: str = ""


DEBIAN = {"palapeli-data": Source("usr/share/palapeli/collection", "*.jpg")}
NPM = {
    "material-kit@2.0.4": Source("assets/img", "**/*.jpg", "landing.jpg profile.jpg"),
    "tabler-ui@0.0.34": Source("dist/demo/photos", "*-1500.jpg"),
    "soft-ui-design-system@1.0.4": Source(
        "assets/img",
        "an*.jpg card-*.jpg marie.jpg meeting.jpg nastuh.jpg office-dark.jpg toa-*.jpg",
    ),
    "material-dashboard@3.1.0": Source(
        "assets/img",
        "*.jpg products/*.jpg",
        "bg-smart-home-*.jpg drake.jpg home-decor-*.jpg product-12.jpg vr-bg.jpg",
    ),
    "material-dashboard@2.1.0": Source("assets/img", "cover.jpg sidebar-*.jpg"),
    "now-ui-dashboard@1.0.1": Source("assets/img", "*.jpg"),
    "paper-kit-2@2.1.0": Source("assets/img", "*.jpg faces/*.jpg", "placeholder.jpg"),
    "argon-design-system-free@1.2.0": Source(
        "assets/img", "faces/*.jpg pages/*.jpg theme/img-*.jpg"
    ),
    "shards-ui@3.0.0": Source("dist/images", "a*/*.jpg common/card-*.jpg demo/stock-photos/*.jpg"),
    "admin-lte@3.2.0": Source("dist/img", "photo*"),
    "@adminkit/core@3.5.0": Source("dist/img/photos", "*.jpg"),
    "@themesberg/volt-bootstrap-5-dashboard@1.4.1": Source(
        "src/assets/img", "profile-cover.jpg team/*.jpg"
    ),
    "uikit@3.25.25": Source("tests/images", "*.jpg", "size-h.jpg slider*.jpg"),
    "stisla@2.3.0": Source("assets/img/unsplash", "*.jpg"),
    "simplelightbox@2.14.3": Source("demo/img", "bg.jpg full/*.jpg"),
    "color-thief@2.2.5": Source("img", "photo*.jpg"),
    "@vladmandic/face-api@1.7.15": Source("demo", "sample*.jpg", "sample5.jpg"),
    "startbootstrap-agency@7.0.12": Source(
        "dist/assets/img", "**/*.jpg", "portfolio/2.jpg portfolio/3.jpg"
    ),
    "startbootstrap-agency@5.2.2": Source("img", "portfolio/*-full.jpg team/*.jpg"),
    "startbootstrap-business-casual@7.0.9": Source("dist/assets/img", "*.jpg"),
    "startbootstrap-clean-blog@6.0.9": Source("dist/assets/img", "*.jpg"),
    "startbootstrap-creative@7.0.7": Source("dist/assets/img", "*.jpg portfolio/fullsize/*.jpg"),
    "startbootstrap-grayscale@7.0.6": Source("dist/assets/img", "*.jpg"),
    "startbootstrap-landing-page@6.0.6": Source(
        "dist/assets/img", "*.jpg", "bg-showcase-2.jpg testimonials-2.jpg"
    ),
    "startbootstrap-one-page-wonder@6.0.6": Source("dist/assets/img", "*.jpg"),
    "startbootstrap-stylish-portfolio@6.0.6": Source("dist/assets/img", "*.jpg"),
    "startbootstrap-stylish-portfolio@3.3.7": Source("img", "bg.jpg portfolio-*.jpg"),
}
PLASMA = (
    "BytheWater", "ColdRipple", "ColorfulCups", "EveningGlow", "FallenLeaf", "Grey", "Kite",
    "OneStandsOut", "Path", "summer_1am",
)  # fmt: skip
ACTIVITIES = (
    "clickgame", "details", "erase", "explore_farm_animals", "explore_monuments",
    "explore_world_animals", "explore_world_music",
)  # fmt: skip
"""Of `gcompris-qt-data`; those of its pictures that are no photographs, by number, or hazy:"""
NOT_OF_ACTIVITIES = {
    "clickgame": (11, 23),
    "details": (29, 43, 50, 60, 69, 79, 92, 117),
}
