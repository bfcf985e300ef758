"""What of a stage's configuration decides its result: the part that its hash takes in.

A field at its default is left out, so that a field which a later version adds changes no hash, and
kinds and fields that have been renamed go by their former names, so that no old run runs again.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

from beholder.pipeline.schema import StageConfig
from beholder.training.config import BOOKKEEPING, EXTENDABLE

# they tell one form of a configuration from another, and so they stay, default or not
_DISCRIMINATORS = frozenset({"kind", "name"})


def result_identity(config: StageConfig) -> dict[str, Any]:
    """The values that decide what a stage comes to."""
    return _without(config, BOOKKEEPING)


def working_identity(config: StageConfig) -> dict[str, Any]:
    """Those that a stage shares with one whose work it goes on with: a training may be given more
    epochs, for example."""
    return _without(config, BOOKKEEPING | EXTENDABLE)


def _without(config: StageConfig, training: frozenset[str]) -> dict[str, Any]:
    values: dict[str, Any] = {
        config.former_fields.get(name, name): value
        for name, value in set_values(config).items()
        if name not in config.unhashed
    }
    values["kind"] = config.former_kind or config.kind
    if isinstance(values.get("training"), dict):
        values["training"] = {n: v for n, v in values["training"].items() if n not in training}
    return values


def set_values(value: Any) -> Any:
    """A configuration as JSON-like values: of models the fields that are not at their defaults."""
    if isinstance(value, BaseModel):
        values = {
            name: set_values(getattr(value, name))
            for name, field in type(value).model_fields.items()
            if name in _DISCRIMINATORS or getattr(value, name) != field.get_default()
        }
        if values.pop("freeze_bn_stats", False):
            values["train_statistics"] = False  # its first name, by which hashes of old runs go
        return values
    if isinstance(value, dict):
        return {str(name): set_values(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [set_values(entry) for entry in value]
    if isinstance(value, PurePath):
        return value.as_posix()
    return value
