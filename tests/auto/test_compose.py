"""Every mixture of opinions becomes a recipe that holds together, and is read back as it is."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
import yaml

from beholder.auto.compose import compose
from beholder.auto.search import Candidate, Standing
from beholder.auto.teachable import OPINIONS
from beholder.data.annotations import AnnotationTable
from beholder.features.config import BackboneConfig
from beholder.pipeline.origins import check_origins
from beholder.pipeline.plan import stage_order
from beholder.pipeline.recipe import load_recipe, parse_recipe

BACKBONE = BackboneConfig(name="efficientnet-lite0", resize="native", size=256)
STANDING = Standing(Candidate("lite0-details", BACKBONE), 0.5, {"score": 0.5}, 0.5, 1.0, 40)
MIXTURES = [mixture for count in (1, 2, 3) for mixture in combinations(OPINIONS, count)]


def make_table(rows: int, splits: tuple[str, ...] = ("train", "val", "test")) -> AnnotationTable:
    return AnnotationTable.from_columns(
        [f"{number}.png" for number in range(rows)],
        score=[float(number) for number in range(rows)],
        comments=[["words"]] * rows,
        split=[splits[number % len(splits)] for number in range(rows)],
        attributes={"kind": ["a", "b"] * (rows // 2)},
    )


def composed(
    mixture: tuple[str, ...], table: AnnotationTable, groups: int = 20
) -> dict[str, object]:
    return compose(
        "mine", {"annotations": "mine.csv", "images": "photos"}, table, mixture, STANDING,
        seed=1, megabytes=25.0, groups=groups, comment_epochs=7,
    )  # fmt: skip


@pytest.mark.parametrize("mixture", MIXTURES, ids="+".join)
@pytest.mark.parametrize("rows", [8, 900])
def test_a_recipe_of_every_mixture(mixture: tuple[str, ...], rows: int, tmp_path: Path) -> None:
    raw = composed(mixture, make_table(rows))
    recipe = parse_recipe(raw)
    check_origins(recipe)
    assert set(stage_order(recipe)) == set(recipe.stages)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(raw))
    assert load_recipe(path) == recipe
    heads = recipe.stages["judge"].heads
    assert {"comments" if h == "comments" else h for h in heads} == set(mixture)


def test_small_tables_have_small_batches_and_linear_heads() -> None:
    few, many = composed(("score",), make_table(24)), composed(("score",), make_table(900))
    assert few["stages"]["score"]["task"]["head"]["hidden"] == []
    assert many["stages"]["score"]["task"]["head"]["hidden"] == [128]
    assert few["stages"]["score"]["training"]["batch_size"] == 2
    assert many["stages"]["score"]["training"]["batch_size"] == 64


def test_what_a_table_has_no_pictures_for_is_absent() -> None:
    raw = composed(("score",), make_table(20, ("train",)), groups=2)
    assert "errors" not in raw["stages"] and "evaluation" not in raw["stages"]
    assert "calibrate" not in raw["stages"]["judge"]
