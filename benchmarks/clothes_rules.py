"""What is worn, and what it is labelled as: the rules of the clothing set, in one table.

Four attributes: `wear`, the kind of garment; `collar`, whether a top has one; `colour`, the group
of its colour; `eyewear`. None: the picture is not labelled with the attribute, because the drawing
does not show it (a blazer hides whether the shirt below has a collar) or because it is not of it
(emoji have several colours, and other ones in other styles). Styles that are held out share
classes with the others, never drawings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

CLASSES = {
    "wear": (
        "top", "outerwear", "dress", "legwear", "swimwear", "footwear", "headwear", "bag",
        "eyewear", "accessory",
    ),
    "collar": ("none", "collar"),
    "colour": ("black", "white", "red", "yellow", "green", "blue", "purple"),
    "eyewear": ("none", "glasses", "sunglasses"),
}  # fmt: skip
"""Attribute -> its classes."""

EMOJI = {
    "top": ("t-shirt", "woman’s clothes"),
    "outerwear": ("lab coat", "safety vest", "coat"),
    "dress": ("dress", "kimono", "sari"),
    "legwear": ("jeans", "shorts"),
    "swimwear": ("one-piece swimsuit", "briefs", "bikini"),
    "footwear": (
        "socks", "thong sandal", "man’s shoe", "running shoe", "hiking boot", "flat shoe",
        "high-heeled shoe", "woman’s sandal", "ballet shoes", "woman’s boot", "roller skate",
        "ice skate",
    ),
    "headwear": (
        "crown", "woman’s hat", "top hat", "graduation cap", "billed cap", "military helmet",
        "rescue worker’s helmet",
    ),
    "bag": ("purse", "handbag", "clutch bag", "shopping bags", "backpack"),
    "eyewear": ("glasses", "sunglasses", "goggles"),
    "accessory": ("necktie", "scarf", "gloves", "folding hand fan", "prayer beads", "ring"),
}  # fmt: skip
"""Class of `wear` -> English names of emoji."""

EMOJI_EYEWEAR = {"glasses": "glasses", "sunglasses": "sunglasses"}
"""English name of an emoji -> class of `eyewear`."""

COLOURS = {
    "black": ("151613", "262e33", "3b3b40"),
    "white": ("ffffff", "f4f4f2", "e6e6e6"),
    "red": ("b11f1f", "d11141", "e24553"),
    "yellow": ("eab308", "ffd969", "f4d150"),
    "green": ("147f3c", "44c585", "6dbb58"),
    "blue": ("0b3286", "456dff", "5199e4"),
    "purple": ("731ac3", "7555ca", "9c4fc0"),
}
"""Class of `colour` -> what avatars are coloured with, in every style."""


@dataclass(frozen=True)
class Avatar:
    """How the clothes of one of DiceBear's styles are chosen.

    Args:
        garment: the option that chooses the garment, and its values with their classes of `wear`
            and `collar`; no option: all wear the same.
        colour: the option that colours it; None: it has no colour, or none is to be seen.
        eyewear: the option that chooses what is before the eyes, and class of `eyewear` -> values;
            no values: the option is left out. No option: the style has only `none`.
        fixed: options that are the same for all, among them hair: hats would hide what is asked.
    """

    garment: tuple[str | None, Mapping[str, tuple[str | None, str | None]]]
    colour: str | None
    eyewear: tuple[str | None, Mapping[str, Sequence[str]]]
    fixed: Mapping[str, Sequence[str] | int] = field(default_factory=dict)


AVATARS = {
    "adventurer": Avatar(
        garment=(None, {"": (None, None)}),
        colour=None,
        eyewear=(
            "glasses",
            {
                "none": (),
                "glasses": ("variant02", "variant04", "variant05"),
                "sunglasses": ("variant01",),
            },
        ),
    ),
    "avataaars": Avatar(
        garment=(
            "clothing",
            {
                "blazerAndShirt": ("outerwear", None),
                "blazerAndSweater": ("outerwear", None),
                "collarAndSweater": ("top", "collar"),
                "graphicShirt": ("top", "none"),
                "hoodie": ("top", None),
                "overall": (None, None),
                "shirtCrewNeck": ("top", "none"),
                "shirtScoopNeck": ("top", "none"),
                "shirtVNeck": ("top", "none"),
            },
        ),
        colour="clothesColor",
        eyewear=(
            "accessories",
            {
                "none": (),
                "glasses": ("prescription01", "prescription02", "round"),
                "sunglasses": ("sunglasses", "wayfarers"),
            },
        ),
        fixed={"top": ("bob", "bun", "curly", "shortFlat", "shortRound", "sides", "straight01")},
    ),
    "big-smile": Avatar(
        garment=(None, {"": (None, None)}),
        colour=None,
        eyewear=(
            "accessories",
            {"none": (), "glasses": ("glasses",), "sunglasses": ("sunglasses",)},
        ),
    ),
    "lorelei": Avatar(
        garment=(None, {"": (None, None)}),
        colour=None,
        eyewear=(
            "glasses",
            {
                "none": (),
                "glasses": ("variant01", "variant03", "variant04"),
                "sunglasses": ("variant02",),
            },
        ),
    ),
    "micah": Avatar(
        garment=(
            "shirt",
            {"open": ("top", "none"), "crew": ("top", "none"), "collared": ("top", "collar")},
        ),
        colour="shirtColor",
        eyewear=("glasses", {"none": (), "glasses": ("round", "square")}),
        fixed={"hair": ("fonze", "mrT", "dougFunny", "mrClean", "dannyPhantom", "full", "pixie")},
    ),
    "miniavs": Avatar(
        garment=("body", {"tShirt": ("top", "none"), "golf": ("top", "collar")}),
        colour="bodyColor",
        eyewear=("glasses", {"none": (), "glasses": ("normal",)}),
    ),
    "notionists": Avatar(
        garment=(None, {"": (None, None)}),
        colour=None,
        eyewear=(
            "glasses",
            {
                "none": (),
                "glasses": ("variant03", "variant08", "variant11"),
                "sunglasses": ("variant01", "variant02", "variant04", "variant07", "variant10"),
            },
        ),
    ),
    "open-peeps": Avatar(
        garment=(None, {"": ("top", None)}),
        colour="clothingColor",
        eyewear=(
            "accessories",
            {
                "none": (),
                "glasses": ("glasses", "glasses2", "glasses3", "glasses4", "glasses5"),
                "sunglasses": ("sunglasses", "sunglasses2"),
            },
        ),
        fixed={
            "head": ("afro", "bangs", "bun", "flatTop", "long", "medium1", "pomp", "short1"),
            "maskProbability": 0,
        },
    ),
    "personas": Avatar(
        garment=(
            "body",
            {
                "squared": ("top", None),
                "rounded": ("top", None),
                "checkered": ("top", None),
                "small": (None, None),
            },
        ),
        colour="clothingColor",
        eyewear=(
            "eyes",
            {
                "none": ("open", "sleep", "wink", "happy"),
                "glasses": ("glasses",),
                "sunglasses": ("sunglasses",),
            },
        ),
        fixed={"hair": ("long", "sideShave", "bobCut", "curly", "buzzcut", "bald", "fade")},
    ),
    "pixel-art": Avatar(
        garment=(None, {"": (None, None)}),
        colour="clothingColor",
        eyewear=(
            "glasses",
            {
                "none": (),
                "glasses": ("light02", "light05", "light06", "light07"),
                "sunglasses": ("dark01", "dark02", "dark03", "dark06"),
            },
        ),
        fixed={"hatProbability": 0},
    ),
    "toon-head": Avatar(
        garment=(
            "clothes",
            {
                "openJacket": ("outerwear", None),
                "dress": (None, "none"),
                "shirt": ("top", "collar"),
                "turtleNeck": ("top", None),
                "tShirt": ("top", "none"),
            },
        ),
        colour="clothesColor",
        eyewear=(None, {"none": ()}),
    ),
}
"""Style -> its rules."""
