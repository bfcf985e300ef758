"""A recipe with other values here and there."""

from __future__ import annotations

import copy
from typing import Any

from beholder.pipeline.recipe import Recipe, parse_recipe


def with_values(raw: dict[str, Any], **changes: object) -> dict[str, Any]:
    """A copy with values at places that are spelt `stages__score__training`; `_` stands for the `-`
    of a stage's name too."""
    changed = copy.deepcopy(raw)
    for path, value in changes.items():
        *parents, last = path.split("__")
        target: Any = changed
        for key in parents:
            target = target[key if key in target else key.replace("_", "-")]
        target[last] = value
    return changed


def changed_recipe(raw: dict[str, Any], **changes: object) -> Recipe:
    """The recipe that the copy is."""
    return parse_recipe(with_values(raw, **changes))
