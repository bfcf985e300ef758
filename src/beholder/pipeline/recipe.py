"""A recipe: data, backbones, stages, and how it is read. Strict: an unknown key is an error.

Importing this loads no torch, so that an unchanged recipe is recognised at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from beholder.errors import RecipeError
from beholder.pipeline.overrides import apply_overrides, read_yaml, validate
from beholder.pipeline.schema import DataConfig, RecipeOutline
from beholder.pipeline.stages import AnyStage, with_kind_of_today

__all__ = [
    "DataConfig", "Recipe", "find_recipe", "load_recipe", "parse_recipe", "shipped_recipes",
]  # fmt: skip


class Recipe(RecipeOutline):
    """A whole recipe, see `recipes/demo.yaml`."""

    stages: dict[str, AnyStage] = Field(min_length=1)

    @field_validator("stages", mode="before")
    @classmethod
    def _read_former_kinds(cls, stages: Any) -> Any:
        if not isinstance(stages, dict):
            return stages
        return {name: with_kind_of_today(name, values) for name, values in stages.items()}

    @field_validator("stages")
    @classmethod
    def _one_judge(cls, stages: dict[str, AnyStage]) -> dict[str, AnyStage]:
        writers: dict[str, list[str]] = {}
        for name, stage in stages.items():
            if stage.writes is not None:
                writers.setdefault(stage.writes, []).append(name)
        for output, names in writers.items():
            if len(names) > 1:
                kind = stages[names[0]].kind
                raise ValueError(
                    f"stages {', '.join(names)} all write {output}: a run has one {kind} stage; "
                    "a train stage can be a teacher without one"
                )
        return stages

    @field_validator("stages")
    @classmethod
    def _names_are_folders(cls, stages: dict[str, Any]) -> dict[str, Any]:
        for name in stages:
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"stage name {name!r}: use letters, digits, - and _")
        return stages


def shipped_recipes() -> dict[str, Path]:
    """Recipes that come with Beholder, by name."""
    folder = Path(__file__).parents[1] / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """The recipe file of that path, or the shipped recipe of that name.

    Raises:
        RecipeError: neither exists; names the shipped ones.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if name not in shipped:
        raise RecipeError(
            "There is no such recipe file.",
            where=name,
            fix=f"Name a file, or one of the shipped recipes: {', '.join(shipped)}.",
        )
    return shipped[name]


def load_recipe(
    path: Path, overrides: Sequence[str] = (), *, data: Mapping[str, Any] | None = None
) -> Recipe:
    """Read a recipe file, apply `key=value` overrides, validate. A stage that an override sets to
    null is left out.

    Args:
        data: settings of `data`, which go over all others.

    Raises:
        RecipeError: with every mistake, unknown keys with the nearest known one.
    """
    raw = read_yaml(path)
    stages = raw.get("stages")
    written: Iterable[str] = ()
    if isinstance(stages, dict):
        written = {name for name, stage in stages.items() if stage}
        raw["stages"] = {name: with_kind_of_today(name, stage) for name, stage in stages.items()}
    raw = apply_overrides(raw, overrides, Recipe)
    if data and isinstance(raw.get("data"), dict):
        raw["data"] = {**raw["data"], **data}
    if isinstance(raw.get("stages"), dict):
        kept = {n: s for n, s in raw["stages"].items() if s is not None or n not in written}
        raw = {**raw, "stages": kept}
    return parse_recipe(raw, where=str(path))


def parse_recipe(raw: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Validate a recipe that is a mapping already."""
    return validate(Recipe, dict(raw), where)
