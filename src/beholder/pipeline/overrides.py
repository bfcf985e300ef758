"""Reading a recipe's YAML, applying `key=value` overrides, and explaining what does not fit.

Knows pydantic, not the recipe: the schema is handed in.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from beholder.errors import RecipeError

Schema = TypeVar("Schema", bound=BaseModel)


_NULL = ("", "null", "~")


class _UniqueKeyLoader(yaml.SafeLoader):
    """Plain YAML would let the second of two equal keys win silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """A recipe file as a mapping.

    Raises:
        RecipeError: missing, not readable, not YAML (with line), or not a mapping.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise RecipeError(
            "There is no such recipe file.", where=str(path), fix="Check the path."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe can't be read: {error}.", where=str(path)) from error
    try:
        raw = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise RecipeError(f"The recipe is not valid YAML: {error}", where=str(path)) from error
    if not isinstance(raw, dict):
        raise RecipeError(
            "The recipe is not a mapping of keys to values.",
            where=str(path),
            fix="It starts with `name:`; see the recipes that come with Beholder.",
        )
    unshared: dict[str, Any] = _unshared(raw)
    return unshared


def _unshared(value: Any) -> Any:
    """A copy in which aliases of one anchor are values of their own, so that an override changes
    one place only."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def apply_overrides(
    raw: dict[str, Any], overrides: Sequence[str], schema: type[BaseModel] | None = None
) -> dict[str, Any]:
    """Set dotted keys, e.g. `stages.score.training.epochs=3`; values are read as YAML.

    Args:
        schema: what the values are for. Where it wants text, the value is the text as it stands,
            which YAML would take for a date, a number, a boolean or a comment (`2024-01-05`,
            `001`, `no`, `x #y`), and a key of a mapping of text to text may hold dots.

    Raises:
        RecipeError: no `=`, an empty key, or a path that goes through something that is not a
            mapping. Whether the key exists is the schema's business.
    """
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = path.split(".")
        if not equals or not all(keys):
            raise RecipeError(
                f"{override!r} is not an override.",
                fix="Write key=value, e.g. stages.score.training.epochs=3",
            )
        keys, wanted = _wanted(schema, keys, raw) if schema else (keys, Any)
        value = _value(path, text, wanted)
        target = raw
        for depth, key in enumerate(keys[:-1]):
            nested = target.setdefault(key, {})
            if not isinstance(nested, dict):
                parent = ".".join(keys[: depth + 1])
                raise RecipeError(f"{parent} is a value, it has no key {keys[depth + 1]!r}.")
            target = nested
        target[keys[-1]] = value
    return raw


def _wanted(
    schema: type[BaseModel], keys: list[str], raw: Mapping[str, Any]
) -> tuple[list[str], Any]:
    """The keys, those of a mapping of text as one, and the annotation that the schema has there."""
    annotation: Any = schema
    value: Any = raw
    for depth, key in enumerate(keys):
        if get_origin(annotation) is dict and get_args(annotation)[1] is str:
            return [*keys[:depth], ".".join(keys[depth:])], str
        models, inner = _unwrap(annotation)
        kind = value.get("kind") if isinstance(value, Mapping) else None
        models = [model for model in models if kind in _tags(model)] or models
        fields = [model.model_fields[key] for model in models if key in model.model_fields]
        annotation = fields[0].annotation if fields else inner
        value = value.get(key) if isinstance(value, Mapping) else None
    return keys, annotation


def _value(path: str, text: str, wanted: Any) -> Any:
    """A value as the schema wants it: text as it stands, all else as YAML."""
    options = get_args(wanted) if get_origin(wanted) in (Union, types.UnionType) else (wanted,)
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    if str in options and set(options) <= {str, type(None)} and not quoted:
        return None if type(None) in options and text in _NULL else text
    loader: type[yaml.SafeLoader] | type[yaml.BaseLoader] = _UniqueKeyLoader
    if {list[str], dict[str, str]} & set(options) and text not in _NULL:
        loader = yaml.BaseLoader  # everything in it is text
    try:
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        raise RecipeError(f"The value of {path} is not valid YAML: {text!r}") from error


def validate(schema: type[Schema], raw: dict[str, Any], where: str) -> Schema:
    """Validate `raw`; every mistake goes into one message, unknown keys with the nearest known.

    Raises:
        RecipeError: something does not fit the schema.
    """
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(schema, dict(entry)) for entry in error.errors()]
        raise RecipeError(
            "The recipe is not right:\n    " + "\n    ".join(lines),
            where=where,
            fix="Correct the keys named above.",
        ) from error


def _explain(schema: type[BaseModel], entry: dict[str, Any]) -> str:
    location = list(entry["loc"])
    holder, known = _walk(schema, location[:-1])
    parent = ".".join(str(part) for part in holder)
    key = str(location[-1]) if location else ""
    dotted = f"{parent}.{key}" if parent else key
    if entry["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
        hint = f" (nearest known: {nearest[0]!r})" if nearest else ""
        return f"{dotted}: unknown key{hint}"
    if entry["type"] in ("union_tag_not_found", "union_tag_invalid"):
        holder = [*holder, key] if key else holder
        expected = entry["ctx"].get("expected_tags", entry["ctx"].get("discriminator", ""))
        kind = entry["ctx"].get("tag")
        name = ".".join(str(part) for part in holder)
        trouble = f"kind {kind!r} is unknown" if kind else "`kind` is missing"
        return f"{name}: {trouble}" + (f"; one of {expected}" if kind else "")
    value = entry.get("input")
    plain = entry["type"] != "missing" and not isinstance(value, (dict, list, BaseModel))
    shown = f" (given: {value!r})" if plain else ""
    return f"{dotted}: {entry['msg']}{shown}"


def _walk(schema: type[BaseModel], location: Sequence[object]) -> tuple[list[object], list[str]]:
    """Follow an error's location; gives the location without union tags, and the known keys."""
    holder: list[object] = []
    annotation: Any = schema
    for part in location:
        models, inner = _unwrap(annotation)
        tagged = [model for model in models if part in _tags(model)]
        if tagged:
            annotation = tagged[0]
            continue
        holder.append(part)
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        annotation = fields[0].annotation if fields else inner
    models, _ = _unwrap(annotation)
    return holder, sorted({name for model in models for name in model.model_fields})


def _unwrap(annotation: Any) -> tuple[list[type[BaseModel]], Any]:
    """The models an annotation may hold, and the value type of a mapping or list."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _unwrap(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        parts = [_unwrap(argument) for argument in get_args(annotation)]
        inner = next((value for _, value in parts if value is not None), None)
        return [model for models, _ in parts for model in models], inner
    if origin in (dict, list, tuple):
        return [], get_args(annotation)[-1]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation], None
    return [], None


def _tags(model: type[BaseModel]) -> tuple[object, ...]:
    field = model.model_fields.get("kind")
    if field is None or get_origin(field.annotation) is not Literal:
        return ()
    return get_args(field.annotation)
