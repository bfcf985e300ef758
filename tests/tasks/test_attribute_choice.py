from __future__ import annotations

import pytest

from beholder.data.annotations import AnnotationTable
from beholder.errors import DataError, RecipeError
from beholder.features.config import BackboneConfig
from beholder.tasks.build import judge_config
from beholder.tasks.config import AttributesTaskConfig

TABLE = AnnotationTable.from_columns(
    ["a.png", "b.png"],
    attributes={"kind": ["hat", "shoe"], "colour": ["red", "blue"], "place": ["shop", "shop"]},
)


def classes(*attributes: str) -> dict[str, tuple[str, ...]]:
    config = judge_config(
        AttributesTaskConfig(attributes=attributes),
        TABLE,
        backbone=BackboneConfig(name="efficientnet-lite0"),
        pooled_dim=8,
        token_dim=8,
    )
    return dict(config.classes)


def test_only_the_named_attributes_are_learnt() -> None:
    assert classes("colour") == {"colour": ("blue", "red")}
    # in the table's order, so that the order in the recipe changes nothing
    assert list(classes("colour", "kind")) == ["kind", "colour"]


def test_by_default_all_are() -> None:
    with pytest.raises(DataError, match="only one class: place") as raised:
        classes()
    assert "attributes" in str(raised.value.fix)


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    with pytest.raises(RecipeError, match="no attribute size") as raised:
        classes("kind", "size")
    assert raised.value.where == "task.attributes"
    assert "kind, colour, place" in str(raised.value.fix)


def test_recipes_of_before_hash_alike() -> None:
    assert "attributes" not in AttributesTaskConfig().model_dump()
