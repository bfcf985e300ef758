"""The rules of the clothing set, what they make of a choice, and the recipes that learn it."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

import clothes
import clothes_pictures
from beholder.errors import DataError
from clothes_rules import AVATARS, CLASSES, COLOURS, EMOJI, EMOJI_EYEWEAR
from emoji_pictures import STYLES, Emoji, EmojiPicture

LABELS = {"wear": "top", "collar": None, "colour": "red", "eyewear": "none"}


def picture(name: str) -> EmojiPicture:
    emoji = Emoji("1f455", {"en": name, "ko": ""}, {}, "objects", "clothing")
    return EmojiPicture(emoji, "noto", "noto/1f455.png")


def test_rules_name_classes_that_there_are_and_no_emoji_twice() -> None:
    assert set(EMOJI) == set(CLASSES["wear"])
    names = [name for some in EMOJI.values() for name in some]
    assert max(Counter(names).values()) == 1
    assert set(EMOJI_EYEWEAR) <= set(names)
    assert set(EMOJI_EYEWEAR.values()) <= set(CLASSES["eyewear"])
    assert tuple(COLOURS) == CLASSES["colour"]
    for rules in AVATARS.values():
        for wear, collar in rules.garment[1].values():
            assert wear is None or wear in CLASSES["wear"]
            assert collar is None or collar in CLASSES["collar"]
        assert set(rules.eyewear[1]) <= set(CLASSES["eyewear"])


def test_no_colour_is_of_two_groups() -> None:
    values = [value for some in COLOURS.values() for value in some]
    assert len(values) == len(set(values))


def test_every_style_is_held_out_once() -> None:
    held_out = [style for styles in clothes.HELD_OUT for style in styles]
    assert sorted(held_out) == sorted([*STYLES, *AVATARS])


@pytest.mark.parametrize("styles", clothes.HELD_OUT)
def test_what_is_held_out_shares_classes_with_what_is_not(styles: tuple[str, ...]) -> None:
    held_out = [avatar for style, avatar in AVATARS.items() if style in styles]
    others = [avatar for style, avatar in AVATARS.items() if style not in styles]
    assert held_out and others
    for position in (0, 1):
        held_out_classes, learnt = (
            {labels[position] for avatar in some for labels in avatar.garment[1].values()} - {None}
            for some in (held_out, others)
        )
        emoji = set(EMOJI) if position == 0 else set()  # of which two styles are always learnt
        assert held_out_classes and held_out_classes <= learnt | emoji
    assert {label for avatar in held_out for label in avatar.eyewear[1]} <= {
        label for avatar in others for label in avatar.eyewear[1]
    }


def test_an_emoji_is_labelled_by_its_name_and_left_out_without_a_rule() -> None:
    labels = clothes_pictures.emoji_labels(picture("sunglasses"))
    assert labels == {"wear": "eyewear", "collar": None, "colour": None, "eyewear": "sunglasses"}
    assert clothes_pictures.emoji_labels(picture("lipstick")) is None


@pytest.mark.parametrize("style", AVATARS)
def test_labels_of_an_avatar_are_those_of_its_options(style: str) -> None:
    rules = AVATARS[style]
    for number in range(40):
        avatar = clothes_pictures.choose(style, number)
        options, labels = avatar.options, avatar.labels
        assert set(labels) == set(CLASSES)
        garment = options[rules.garment[0]][0] if rules.garment[0] else ""
        assert (labels["wear"], labels["collar"]) == rules.garment[1][garment]
        colour = labels["colour"]
        assert (colour is None) == (rules.colour is None)
        if rules.colour and colour:
            assert options[rules.colour][0] in COLOURS[colour]
        eyewear = labels["eyewear"]
        assert eyewear is not None
        values = rules.eyewear[1][eyewear]
        if values:
            assert rules.eyewear[0] is not None
            assert options[rules.eyewear[0]][0] in values
            assert options[f"{rules.eyewear[0]}Probability"] == 100
        elif rules.eyewear[0]:
            assert options[f"{rules.eyewear[0]}Probability"] == 0
            assert rules.eyewear[0] not in options


def test_choices_are_the_same_again_and_reach_every_class() -> None:
    first = [clothes_pictures.choose("avataaars", number) for number in range(60)]
    assert first == [clothes_pictures.choose("avataaars", number) for number in range(60)]
    assert len({picture.key for picture in first}) == 60
    for name, classes in (("colour", COLOURS), ("eyewear", CLASSES["eyewear"])):
        assert {picture.labels[name] for picture in first} == set(classes)


def test_held_out_styles_are_the_test_split_and_missing_labels_stay_missing() -> None:
    pictures = [
        clothes_pictures.Dressed("noto", "noto/a.png", LABELS),
        clothes_pictures.Dressed("personas", "personas/b.png", {**LABELS, "colour": "blue"}),
    ]
    table = clothes_pictures.as_table(pictures, ["personas"])
    assert table.subset("train").keys == ["noto/a.png"]
    assert table.subset("test").keys == ["personas/b.png"]
    assert table.frame["attribute.collar"].to_list() == [None, None]
    assert dict(table.classes) == CLASSES


def test_avatars_are_drawn_once_and_emoji_without_a_rule_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("resvg_py")
    (tmp_path / "drawn" / "noto").mkdir(parents=True)
    (tmp_path / "drawn" / "noto" / "1f455.png").write_bytes(b"an emoji")
    emoji = [picture("t-shirt"), picture("lipstick")]
    monkeypatch.setattr(clothes_pictures, "emoji_pictures", lambda cache: (cache / "drawn", emoji))
    monkeypatch.setattr(clothes_pictures, "fetch_packages", lambda folder, versions: folder)
    monkeypatch.setattr(clothes_pictures, "EACH", 1)
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'
    monkeypatch.setattr(clothes_pictures, "_draw", lambda packages, avatars: [svg] * len(avatars))
    root, pictures = clothes_pictures.clothes_pictures(tmp_path)
    assert [drawn_picture.style for drawn_picture in pictures] == ["noto", *AVATARS]
    assert (root / pictures[0].key).read_bytes() == b"an emoji"
    assert all((root / drawn_picture.key).is_file() for drawn_picture in pictures)
    monkeypatch.setattr(clothes_pictures, "_draw", lambda *arguments: pytest.fail("drawn again"))
    assert clothes_pictures.clothes_pictures(tmp_path) == (root, pictures)


def test_what_node_says_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    avatars = [clothes_pictures.choose("micah", 0)]
    monkeypatch.setattr(clothes_pictures.shutil, "which", lambda name: None)
    with pytest.raises(DataError, match="node is not on the PATH"):
        clothes_pictures._draw(tmp_path, avatars)
    monkeypatch.setattr(clothes_pictures.shutil, "which", lambda name: "node")
    failed = subprocess.CompletedProcess([], 1, "", "ERR_MODULE_NOT_FOUND")
    monkeypatch.setattr(clothes_pictures.subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(DataError, match="ERR_MODULE_NOT_FOUND"):
        clothes_pictures._draw(tmp_path, avatars)


def test_both_students_differ_in_nothing_but_the_teacher(tmp_path: Path) -> None:
    alone, taught = (
        clothes.recipe(tmp_path / "table", tmp_path, model, seed=1, split="test").model_dump()[
            "stages"
        ]
        for model in ("student alone", "student taught")
    )
    assert list(taught) == ["teacher", "student-taught", "judge", "evaluation"]
    mine, theirs = taught["student-taught"], alone["student-alone"]
    assert mine.pop("teacher")["stages"] == ["teacher"]
    assert theirs.pop("teacher") is None
    assert mine.pop("task").items() >= {**theirs.pop("task"), "kind": "distillation"}.items()
    assert mine == theirs


@pytest.mark.slow
def test_every_model_is_trained_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {"name": "timm/test_efficientnet", "weights": "random", "size": 32}
    monkeypatch.setattr(clothes, "BACKBONES", dict.fromkeys(clothes.BACKBONES, tiny))
    monkeypatch.setitem(clothes.TRAINING, "epochs", 1)
    pictures = []
    for style in ("noto", "personas"):
        (tmp_path / style).mkdir()
        for number, colour in enumerate(("red", "blue", "green")):
            key = f"{style}/{number}.png"
            Image.new(
                "RGB", (48, 40 + number), colour if style == "noto" else f"dark{colour}"
            ).save(tmp_path / key)
            labels = {**LABELS, "wear": ("top", "bag", None)[number], "colour": colour}
            pictures.append(clothes_pictures.Dressed(style, key, labels))
    table = clothes_pictures.as_table(pictures, ["personas"])
    metrics = clothes.learn(table, tmp_path, seed=0)
    assert list(metrics) == list(clothes.MODELS)
    for scores in metrics.values():
        per_attribute = [scores.pop(f"top1.{name}") for name in ("wear", "colour", "eyewear")]
        assert scores["mean_top1"] == pytest.approx(sum(per_attribute) / 3)
        assert set(scores) == set(clothes.METRICS)  # no collar is labelled


def test_differences_are_seed_by_seed() -> None:
    metrics = {"mean_top1": 0.5, "mean_acsa": 0.25, "attributes": {"wear": {"top1": 0.75}}}
    first = clothes.read_scores(json.loads(json.dumps(metrics)))
    assert first == {"mean_top1": 0.5, "mean_acsa": 0.25, "top1.wear": 0.75}
    worse = dict.fromkeys(first, 0.25)
    assert clothes.differences([first, worse], [worse, worse]) == [
        {"mean_top1": 0.25, "mean_acsa": 0.0, "top1.wear": 0.5},
        dict.fromkeys(first, 0.0),
    ]
