"""Reading recipes: overrides, and messages that name every mistake and the nearest known key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from beholder.errors import RecipeError
from beholder.pipeline.overrides import apply_overrides, read_yaml, validate
from beholder.pipeline.recipe import find_recipe, load_recipe


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Cat(Strict):
    kind: Literal["cat"]
    lives: int = Field(9, ge=1)


class Dog(Strict):
    kind: Literal["dog"]
    tricks: list[str] = []


class Zoo(Strict):
    name: str
    animals: dict[str, Annotated[Cat | Dog, Field(discriminator="kind")]] = {}
    keeper: Cat | None = None


def test_override_sets_nested_value_with_its_yaml_type() -> None:
    raw = {"animals": {"tom": {"kind": "cat"}}}
    apply_overrides(raw, ["animals.tom.lives=3", "name=null", "animals.rex={kind: dog}"])
    assert raw == {
        "animals": {"tom": {"kind": "cat", "lives": 3}, "rex": {"kind": "dog"}},
        "name": None,
    }


def test_override_keeps_equal_signs_of_the_value() -> None:
    assert apply_overrides({}, ["name=a=b"]) == {"name": "a=b"}


@pytest.mark.parametrize("bad", ["name", "=3", "a..b=1", "name=[1", "name.first=1"])
def test_bad_override_is_a_recipe_error(bad: str) -> None:
    with pytest.raises(RecipeError):
        apply_overrides({"name": "zoo"}, [bad])


def test_unknown_key_names_the_nearest_known_one_at_its_place() -> None:
    raw = {"name": "z", "animals": {"tom": {"kind": "cat", "live": 3}}, "keper": None}
    with pytest.raises(RecipeError) as caught:
        validate(Zoo, raw, "zoo.yaml")
    text = str(caught.value)
    assert "animals.tom.live: unknown key (nearest known: 'lives')" in text
    assert "keper: unknown key (nearest known: 'keeper')" in text
    assert "zoo.yaml" in text


def test_every_mistake_is_in_one_message() -> None:
    raw = {"animals": {"tom": {"kind": "cat", "lives": 0}, "rex": {"kind": "dgo"}, "x": {}}}
    with pytest.raises(RecipeError) as caught:
        validate(Zoo, raw, "zoo.yaml")
    text = str(caught.value)
    assert "name: Field required" in text
    assert "animals.tom.lives: Input should be greater than or equal to 1 (given: 0)" in text
    assert "animals.rex: kind 'dgo' is unknown; one of 'cat', 'dog'" in text
    assert "animals.x: `kind` is missing" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: [1", "not valid YAML"),
        (b"- 1\n- 2\n", "not a mapping"),
        (b"name: a\nname: b\n", "stands twice"),
        (b"\xff\xfe\x00", "can't be read"),
        (b"", "not a mapping"),
    ],
)
def test_unreadable_recipe_says_why(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        read_yaml(path)


def test_missing_recipe_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        read_yaml(tmp_path / "none.yaml")


def test_anchors_are_merged_and_then_stand_alone(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("a: &a {x: 1, y: {z: 2}}\nb: {<<: *a, x: 3}\nc: *a\n")
    raw = apply_overrides(read_yaml(path), ["c.y.z=5"])
    assert raw == {
        "a": {"x": 1, "y": {"z": 2}},
        "b": {"x": 3, "y": {"z": 2}},
        "c": {"x": 1, "y": {"z": 5}},
    }


@pytest.mark.parametrize("text", ["2024-01-05", "001", "no", "x #y", "1e5", "a: b", "[x"])
def test_text_fields_keep_text_as_it_stands(text: str) -> None:
    changes = [f"data.images={text}", f"data.annotations={text}", f"data.columns.image={text}"]
    data = load_recipe(find_recipe("demo"), changes).data
    assert (data.images, data.annotations, data.columns) == (text, text, {"image": text})


def test_other_fields_are_yaml_and_text_may_be_null() -> None:
    changes = ["data.images=null", 'data.encoding="no"', "data.scale=[1, 5]", "data.header=false"]
    changes += ["data.columns.attribute.style=1", "data.sample_photos=[001, no, 2]"]
    data = load_recipe(find_recipe("demo"), changes).data
    assert (data.images, data.encoding, data.scale, data.header) == (None, "no", (1.0, 5.0), False)
    assert data.columns == {"attribute.style": "1"}
    assert data.sample_photos == ["001", "no", "2"]
    options = load_recipe(find_recipe("demo"), [], data={"columns": {"score": "mos"}}).data
    assert options.columns == {"score": "mos"}
