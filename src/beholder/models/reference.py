"""Import of what the published ExpansionNet v2 training writes: checkpoints and vocabularies.

A checkpoint is a dict with `model_state_dict`; an end-to-end one also holds the Swin backbone,
under `swin_transf.`. It is read with `weights_only=True`, and the vocabulary's pickle by an
unpickler that makes dicts, lists and strings and refuses everything else: nothing in either file
is ever run.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import Tensor

from beholder.data.vocabulary import Vocabulary
from beholder.errors import CheckpointError, VocabularyError
from beholder.features.backbones import Backbone, create_backbone
from beholder.features.config import BackboneConfig
from beholder.features.weights import UNREADABLE, fit_weights
from beholder.models.expansionnet_config import ExpansionNetConfig

SWIN_PREFIX = "swin_transf."
_LARGEST_VOCABULARY = 100_000_000  # bytes
_DAMAGED_PICKLE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    IndexError,
    KeyError,
    AttributeError,
    TypeError,
    OverflowError,
)
PUBLISHED_EXPANSIONS = (32, 64, 128, 256, 512)
# (width, depths, heads) of the published Swins, and what timm's names call them
PUBLISHED_SWINS: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {
    (96, (2, 2, 6, 2), (3, 6, 12, 24)): "tiny",
    (96, (2, 2, 18, 2), (3, 6, 12, 24)): "small",
    (128, (2, 2, 18, 2), (4, 8, 16, 32)): "base",
    (192, (2, 2, 18, 2), (6, 12, 24, 48)): "large",
}


@dataclass(frozen=True)
class ReferenceCheckpoint:
    """Tensors of a published checkpoint.

    Attributes:
        body: for `ExpansionNet.load_reference_state_dict`.
        swin: the backbone's, without their prefix; empty for a body trained on features.
    """

    body: dict[str, Tensor]
    swin: dict[str, Tensor]


def read_reference_checkpoint(path: str | Path) -> ReferenceCheckpoint:
    """Read a checkpoint of the published training, or a bare state dict.

    Raises:
        CheckpointError: missing, damaged, more than tensors and plain values, or not of this
            model.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError("There is no such checkpoint.", where=str(path))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise CheckpointError(
            "The checkpoint is damaged, or holds more than tensors and plain values.",
            where=str(path),
            fix="Download it again; a file that needs code to be run is never loaded.",
        ) from error
    state = content.get("model_state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or "vocab_linear.weight" not in state:
        raise CheckpointError(
            "This is not a checkpoint of the published ExpansionNet v2: it has no "
            "'vocab_linear.weight'.",
            where=str(path),
        )
    if not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in state.items()):
        raise CheckpointError(
            "The checkpoint's state holds more than tensors by name.", where=str(path)
        )
    swin = {
        name.removeprefix(SWIN_PREFIX): tensor
        for name, tensor in state.items()
        if name.startswith(SWIN_PREFIX)
    }
    body = {name: tensor for name, tensor in state.items() if not name.startswith(SWIN_PREFIX)}
    return ReferenceCheckpoint(body, swin)


def infer_config(
    body: Mapping[str, Tensor], *, heads: int = 8, enc_expansions: Sequence[int] | None = None
) -> ExpansionNetConfig:
    """The configuration of a published body, from the shapes of its tensors.

    Args:
        body: tensors by their published names.
        heads: can't be seen in the shapes; 8 as published.
        enc_expansions: only their sum can be seen; None: the published ones, if the sum fits.

    Raises:
        CheckpointError: a tensor that the shapes are read from is missing, or the expansions do
            not add up.
    """
    expansions = _shape(body, "encoders.0.stc_exp.query_exp_vectors.weight")[0]
    if enc_expansions is None:
        enc_expansions = PUBLISHED_EXPANSIONS
    if sum(enc_expansions) != expansions:
        raise CheckpointError(
            f"The encoder has {expansions} expansion vectors in all, but "
            f"{' + '.join(map(str, enc_expansions))} = {sum(enc_expansions)}.",
            where="encoders.0.stc_exp.query_exp_vectors.weight",
            fix="Give the expansion lengths that the checkpoint was trained with.",
        )
    words, width = _shape(body, "vocab_linear.weight")
    if width % heads:
        raise CheckpointError(
            f"{heads} heads can't share a width of {width}.",
            where="decoders.0.mha",
            fix="Give the number of heads that the checkpoint was trained with.",
        )
    return ExpansionNetConfig(
        vocab_size=words,
        d_model=width,
        enc_layers=_count(body, "encoders."),
        dec_layers=_count(body, "decoders."),
        ff=_shape(body, "encoders.0.ff.linear_1.weight")[0],
        heads=heads,
        enc_expansions=tuple(enc_expansions),
        dec_expansions=_shape(body, "decoders.0.dyn_exp.query_exp_vectors.weight")[0],
        max_length=_shape(body, "pos_encoder.weight")[0],
        feature_dim=_shape(body, "input_linear.weight")[1],
    )


def reference_backbone(tensors: Mapping[str, Tensor], source: str) -> Backbone:
    """timm's Swin with a published checkpoint's weights, seeing pictures as the published
    extraction does: squashed to its size, bilinear.

    Args:
        tensors: `ReferenceCheckpoint.swin`. Sizes are read from the shapes.
        source: where they are from, for messages.

    Raises:
        CheckpointError: a tensor that the sizes are read from is missing.
        BackboneError: names the first tensor that does not fit a Swin.
    """
    backbone = create_backbone(swin_config(tensors), load_weights=False)
    fit_weights(backbone.trunk, tensors, source)
    return backbone


def swin_config(tensors: Mapping[str, Tensor]) -> BackboneConfig:
    """The Swin of these shapes: by its timm name if it has one, else by its sizes."""
    width, _, patch, _ = _shape(tensors, "patch_embed.proj.weight")
    stages = _count(tensors, "layers.")
    tables = [
        _shape(tensors, f"layers.{stage}.blocks.0.attn.relative_position_bias_table")
        for stage in range(stages)
    ]
    window = (math.isqrt(tables[0][0]) + 1) // 2
    side = _picture_side(tensors, window, patch)
    depths = tuple(_count(tensors, f"layers.{stage}.blocks.") for stage in range(stages))
    heads = tuple(table[1] for table in tables)
    hidden = _shape(tensors, "layers.0.blocks.0.mlp.fc1.weight")[0]
    name, options = "swin_tiny_patch4_window7_224", {}
    known = PUBLISHED_SWINS.get((width, depths, heads))
    published = f"swin_{known}_patch{patch}_window{window}_{side}"
    if known and hidden == 4 * width and timm.is_model(published):
        name = published
    else:
        options = {
            "patch_size": patch, "embed_dim": width, "depths": depths, "num_heads": heads,
            "window_size": window, "mlp_ratio": hidden / width,
        }  # fmt: skip
    return BackboneConfig(
        name=f"timm/{name}",
        options=options,
        size=side,
        resize="squash",
        interpolation="bilinear",
    )


def read_reference_vocabulary(path: str | Path) -> Vocabulary:
    """Read the published vocabulary: a pickle of `word2idx_dict`, `idx2word_list` and two names.

    Raises:
        VocabularyError: missing, damaged, anything but dict, list, str and int in it, or ids that
            do not match.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            pickled = stream.read(_LARGEST_VOCABULARY + 1)
        _check_memo(pickled)
        content = _PlainUnpickler(io.BytesIO(pickled)).load()
    except OSError as error:
        raise VocabularyError("The vocabulary can't be read.", where=str(path)) from error
    except VocabularyError as error:
        raise VocabularyError(error.what, where=str(path), fix=error.fix) from error
    except _DAMAGED_PICKLE as error:
        raise VocabularyError("The vocabulary is damaged.", where=str(path)) from error
    words = content.get("idx2word_list") if isinstance(content, dict) else None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise VocabularyError(
            "This is not a published vocabulary: it has no list of words 'idx2word_list'.",
            where=str(path),
        )
    if content.get("word2idx_dict") != {word: index for index, word in enumerate(words)}:
        raise VocabularyError("The vocabulary's words and ids do not match.", where=str(path))
    return Vocabulary(words)


def _check_memo(pickled: bytes) -> None:
    """Refuse what would fill the memory: the unpickler makes room for the largest index it reads.

    Raises:
        VocabularyError: it is too large, or has an index that no vocabulary of its size has.
        ValueError: it is torn.
    """
    if len(pickled) > _LARGEST_VOCABULARY:
        raise VocabularyError(f"The vocabulary has over {_LARGEST_VOCABULARY:,} bytes.")
    for code, argument, _ in pickletools.genops(pickled):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            index = int(argument or 0)
            if not 0 <= index <= len(pickled):
                raise VocabularyError(f"The vocabulary's pickle has the memo index {index:,}.")


class _PlainUnpickler(pickle.Unpickler):
    """Makes what pickle can make without looking anything up: dict, list, str, int."""

    def find_class(self, module_name: str, global_name: str) -> object:
        raise VocabularyError(
            f"The vocabulary's pickle asks for {module_name}.{global_name}; only dicts, lists "
            "and strings are allowed.",
            fix="Do not open this file with anything else either; get it from its source.",
        )

    def persistent_load(self, pid: object) -> object:
        raise pickle.UnpicklingError(f"a reference to something outside the file: {pid!r}")


def _picture_side(tensors: Mapping[str, Tensor], window: int, patch: int) -> int:
    """From the number of shifted windows of the first stage, which its mask has one row for."""
    mask = tensors.get("layers.0.blocks.1.attn_mask")
    return (1 if mask is None else math.isqrt(mask.shape[0])) * window * patch


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in tensors:
        raise CheckpointError(f"The checkpoint lacks the tensor {name!r}.", where=name)
    return tuple(tensors[name].shape)


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered modules there are under a prefix."""
    return len({n[len(prefix) :].split(".")[0] for n in tensors if n.startswith(prefix)})
