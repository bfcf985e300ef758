"""A judge as a folder: `judge.json`, `weights.safetensors`, `vocabulary.json`.

`judge.json` holds the hash of every other file and of itself, so that a judge that is incomplete
or changed is refused and never half loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from beholder.data.files import atomic_path, write_json
from beholder.data.sealed import read_json, why_invalid
from beholder.errors import JudgeError, shortened
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.judge.store.dtypes import NumberType, stored_as
from beholder.judge.store.manifest import (
    CARD,
    FOLDER_SEAL,
    VOCABULARY,
    WEIGHTS,
    Description,
    require_judge,
)
from beholder.version import __version__


@dataclass(frozen=True)
class Stored:
    """What a judge's folder holds beside the network."""

    model: JudgeModel
    beam_size: int
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def description(self) -> Description:
        """What the judge says of itself."""
        config = self.model.config.model_dump(mode="json")
        card = {"config": config, "beam_size": self.beam_size, "provenance": self.provenance}
        return Description.of_card(card)


def save_judge(
    model: JudgeModel,
    folder: Path,
    *,
    beam_size: int,
    provenance: dict[str, Any] | None = None,
    dtype: NumberType = "float32",
) -> None:
    """Write a judge atomically; an older judge of that name is replaced as a whole.

    Args:
        beam_size: beams when the judge writes a comment, at least 1.
        provenance: JSON-like: which recipe, seed and stages it comes from.
        dtype: of the stored weights.

    Raises:
        JudgeError: a weight is beyond what float16 can hold.
        OutputError: the place can't be written.
    """
    from safetensors.torch import save_file

    assert model.backbone is not None, "a judge is saved with its backbone"
    config = model.config.model_dump(mode="json")
    vocabulary = config.pop("vocabulary")
    weights = stored_as(model.state_dict(), dtype)
    state = {name: tensor.contiguous().cpu() for name, tensor in weights.items()}
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        save_file(state, temporary / WEIGHTS)
        if vocabulary is not None:
            write_json(temporary / VOCABULARY, vocabulary)
        card = {"config": config, "beam_size": beam_size, "provenance": provenance or {}}
        FOLDER_SEAL.write(temporary, card)


def is_judge(folder: Path) -> bool:
    """Whether a folder says that it is a judge's."""
    return (folder / CARD).is_file()


def load_judge(folder: Path) -> Stored:
    """Read a judge's folder.

    Raises:
        JudgeError: it is missing, incomplete, changed, or of a newer format.
    """
    raw = FOLDER_SEAL.read(require_judge(folder))
    try:
        description = Description.of_card(raw)
        vocabulary = None
        if VOCABULARY in raw["files"]:
            vocabulary = read_json((folder / VOCABULARY).read_bytes())
        config = JudgeConfig.model_validate({**raw["config"], "vocabulary": vocabulary})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        why = why_invalid(error) if isinstance(error, ValidationError) else shortened(error)
        raise JudgeError(
            f"The judge's configuration does not fit this version: {why}.",
            where=str(folder / CARD),
            fix=f"It was written by Beholder {shortened(raw.get('beholder'))}; this is "
            f"{__version__}.",
        ) from error
    if WEIGHTS not in raw["files"]:
        raise JudgeError(
            f"The judge lacks its {WEIGHTS}.", where=str(folder), fix=FOLDER_SEAL.again
        )
    return Stored(_load_model(config, folder), description.beam_size, description.provenance)


def _load_model(config: JudgeConfig, folder: Path) -> JudgeModel:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, torch.Tensor] = load_file(folder / WEIGHTS)
    except (SafetensorError, ValueError, KeyError) as error:
        raise JudgeError(
            f"The judge's weights can't be read: {shortened(error)}.",
            where=str(folder / WEIGHTS),
            fix=FOLDER_SEAL.again,
        ) from error
    _check_heads(config, state, folder)
    model = JudgeModel.from_config(config)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise JudgeError(
            f"The judge's weights do not fit its configuration: {shortened(error)}",
            where=str(folder / WEIGHTS),
        ) from error
    return model


def _check_heads(config: JudgeConfig, state: dict[str, torch.Tensor], folder: Path) -> None:
    """Make sure that the heads are those of the weights before any memory is taken for them: each
    number of the configuration may be within its bounds, and their product beyond the memory.

    Raises:
        JudgeError: a tensor is missing, or has another shape.
    """
    with torch.device("meta"):
        model = JudgeModel.from_config(
            config.model_copy(update={"ensemble": 1}), with_backbone=False
        )
    for name, tensor in model.state_dict().items():
        if name not in state or state[name].shape != tensor.shape:
            has = tuple(state[name].shape) if name in state else "nothing"
            raise JudgeError(
                f"The judge's weights do not fit its configuration: {name} is {has} instead of "
                f"{tuple(tensor.shape)}.",
                where=str(folder / WEIGHTS),
                fix=FOLDER_SEAL.again,
            )
