"""The kinds of stages. A new one is a file here and a line in `STAGES`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Field, TypeAdapter

from beholder.pipeline.context import RunContext
from beholder.pipeline.schema import StageConfig
from beholder.pipeline.stages.assemble import Assemble
from beholder.pipeline.stages.average import Average
from beholder.pipeline.stages.base import Stage
from beholder.pipeline.stages.cross_validate import CrossValidate
from beholder.pipeline.stages.evaluate import Evaluate
from beholder.pipeline.stages.export import Export
from beholder.pipeline.stages.extract import Extract
from beholder.pipeline.stages.gate import Gate
from beholder.pipeline.stages.regress import Regress
from beholder.pipeline.stages.train import Train
from beholder.pipeline.stages.write import Write

log = logging.getLogger("beholder")

STAGES: tuple[type[Stage[Any]], ...] = (
    Extract, Train, Assemble, Evaluate, Gate, Export, Regress, Average, Write, CrossValidate,
)  # fmt: skip

if TYPE_CHECKING:
    AnyStage = StageConfig
else:
    AnyStage = Annotated[
        Union[tuple(stage.schema for stage in STAGES)],  # noqa: UP007
        Field(discriminator="kind"),
    ]


def make_stage(name: str, config: StageConfig, context: RunContext) -> Stage[Any]:
    """The stage of a name in the recipe."""
    (kind,) = (stage for stage in STAGES if stage.schema is type(config))
    return kind(name, config, context)


def parse_stage(values: Mapping[str, Any]) -> StageConfig:
    """A stage's configuration, also one under former names.

    Raises:
        ValidationError: it fits no kind.
    """
    adapter: TypeAdapter[StageConfig] = TypeAdapter(AnyStage)
    return adapter.validate_python(with_kind_of_today("", values))


def with_kind_of_today(name: str, values: Any) -> Any:
    """A stage's values as a recipe has them; a former kind is replaced, with a warning."""
    if not isinstance(values, Mapping):
        return values
    kind = values.get("kind")
    is_known = any(kind == stage.kind() for stage in STAGES)
    for stage in STAGES:
        fields = stage.schema.model_fields.items()
        required = {field for field, info in fields if info.is_required()}
        if kind == stage.schema.former_kind and (required <= values.keys() or not is_known):
            log.warning(
                "stages.%s: the kind %r is now called %r; the next version only reads that.",
                *(name, kind, stage.kind()),
            )
            return {**values, "kind": stage.kind()}
    return values
