"""A judge's network as ONNX graphs: what `judge.graph_engine` runs.

| graph | takes | gives |
| --- | --- | --- |
| trunk | pixels [B, 3, H, W] | tokens [B, N, C], pooled [B, P]: those that something reads |
| heads | pooled | score [B], of votes distribution [B, K], |
| | | probabilities.<i> [B, K] per attribute |
| encoder | tokens or pooled | per decoder layer i keys.<i> [B, h, c, N], values.<i> [B, h, N, c] |
| step | tokens, parents [R], past.<i> [R', L, 4d], | log_probs [R, V], |
| | keys.<i>, values.<i> of every row's picture | next.<i> [R, L + 1, 4d] |

A step continues rows by one word. Of the past it keeps what each layer's dynamic expansion (see
`models.dynamic_expansion`) made of its inputs: conditions, keys and both values.

Shapes: B pictures, N tokens, C, P features, K classes, R rows, R' rows of the last step, L
positions before this one, T positions with this one, d width, h heads, c width of a head, V words.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from beholder.errors import JudgeError, MissingExtra
from beholder.export.onnx_weights import strip_origins
from beholder.features.backbones import Backbone
from beholder.judge.model import JudgeModel
from beholder.models.expansion import CrossAttention, DecoderLayer
from beholder.models.expansionnet import ExpansionNet
from beholder.models.heads import AttributeHeads, ScoreHead, Standardise


class Trunk(nn.Module):
    """Pixels to tokens, pooled features, or both."""

    def __init__(self, backbone: Backbone, reads: Sequence[str]) -> None:
        super().__init__()
        self.backbone, self.reads = backbone, tuple(reads)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        seen = self.backbone(pixels, tokens="tokens" in self.reads)
        known = {"tokens": seen.tokens_BNC, "pooled": seen.pooled_BP}
        return tuple(known[name] for name in self.reads)


class Heads(nn.Module):
    """Pooled features to the score, if there is one, with its distribution, and the probabilities
    of each attribute."""

    def __init__(self, model: JudgeModel) -> None:
        super().__init__()
        heads = {name: model.heads[name] for name in ("score", "attributes") if name in model.heads}
        self.heads = nn.ModuleDict(heads)
        count = len(model.classes) if "attributes" in heads else 0
        self.votes = bool(model.config.score_grades) and "score" in heads
        self.names = [
            *(["score"] if "score" in heads else []),
            *(["distribution"] if self.votes else []),
            *numbered("probabilities", count),
        ]

    def forward(self, pooled: Tensor) -> tuple[Tensor, ...]:
        outputs = [self.heads["score"](pooled)] if "score" in self.heads else []
        if self.votes:
            outputs.append(cast(ScoreHead, self.heads["score"]).distribution(pooled))
        if "attributes" in self.heads:
            heads = cast(AttributeHeads, self.heads["attributes"])
            outputs += heads.probabilities(pooled).values()
        return tuple(outputs)


class Encoder(nn.Module):
    """What the comment head reads to keys and values of the picture for every decoder layer."""

    def __init__(self, writer: ExpansionNet, standardise: Standardise | None) -> None:
        super().__init__()
        self.writer, self.standardise = writer, standardise

    def forward(self, seen: Tensor) -> tuple[Tensor, ...]:
        tokens_BNC = seen if self.standardise is None else self.standardise(seen)[:, None]
        memory = self.writer.picture_memory(self.writer.encode(tokens_BNC))
        keys = [key_BhNc.transpose(2, 3) for key_BhNc, _ in memory.keys_values]
        return (*keys, *(value_BhNc for _, value_BhNc in memory.keys_values))


class Step(nn.Module):
    """One word of every row to the log-probabilities of the next."""

    def __init__(self, writer: ExpansionNet) -> None:
        super().__init__()
        self.writer = writer

    def forward(
        self,
        tokens_R: Tensor,
        parents_R: Tensor,
        past: list[Tensor],
        keys: list[Tensor],
        values: list[Tensor],
    ) -> tuple[Tensor, ...]:
        writer, position = self.writer, past[0].shape[1]
        x_Rd = writer.words(tokens_R) * math.sqrt(writer.config.d_model)
        x_Rd = x_Rd + writer.positions(torch.full_like(tokens_R, 1) * position)
        outputs, grown = [], []
        for layer, past_RL4d, key_RhcN, value_RhNc in zip(
            writer.decoder_layers, past, keys, values, strict=True
        ):
            x_Rd, past_RT4d = advance(
                layer, x_Rd, past_RL4d.index_select(0, parents_R), key_RhcN, value_RhNc
            )
            outputs.append(x_Rd)
            grown.append(past_RT4d)
        logits_RV = writer.output(writer.decoder_fusion(outputs))
        return (logits_RV.log_softmax(-1), *grown)


def advance(
    layer: DecoderLayer, x_Rd: Tensor, past_RL4d: Tensor, key_RhcN: Tensor, value_RhNc: Tensor
) -> tuple[Tensor, Tensor]:
    """A decoder layer for the position that is fed: [R, d], and the past with it [R, T, 4d]."""
    expanded_Rd, past_RT4d = layer.expansion.step(layer.expansion_norm(x_Rd), past_RL4d)
    x_Rd = x_Rd + expanded_Rd
    x_Rd = x_Rd + attend(layer.attention, layer.attention_norm(x_Rd), key_RhcN, value_RhNc)
    return x_Rd + layer.feed(layer.feed_norm(x_Rd)), past_RT4d


def attend(block: CrossAttention, x_Rd: Tensor, key_RhcN: Tensor, value_RhNc: Tensor) -> Tensor:
    """Cross-attention of one position of each row [R, d]."""
    query_Rh1c = block.query(x_Rd).unflatten(1, (block.heads, 1, -1))
    weight_Rh1N = (query_Rh1c @ key_RhcN * query_Rh1c.shape[-1] ** -0.5).softmax(-1)
    return block.output((weight_Rh1N @ value_RhNc).flatten(1))


def numbered(name: str, count: int) -> list[str]:
    return [f"{name}.{index}" for index in range(count)]


def judge_graphs(model: JudgeModel) -> dict[str, Any]:
    """The graphs of a judge as `onnx.ModelProto`, by the names of `judge.packed`.

    Args:
        model: in evaluation mode, on the CPU.

    Raises:
        MissingExtra: what writes ONNX is not installed.
    """
    config, backbone = model.config, model.backbone
    assert backbone is not None, "a judge without a backbone can't see"
    heads = Heads(model)
    writes = config.comment is not None
    reads = {"pooled"} if heads.names or config.calibration.familiarity else set()
    graphs: dict[str, Any] = {}
    if heads.names:
        pooled = torch.zeros(2, config.pooled_dim)
        graphs["heads"] = to_onnx(heads, {"pooled": pooled}, ({0: "B"},), heads.names)
    if writes:
        reads.add(config.comment_reads)
        graphs |= _writer(model, model.comment, "")
    graphs["trunk"] = _trunk(backbone, sorted(reads))
    for index, other in enumerate(model.others, start=1):
        graphs |= _writer(model, other["comment"], f".{index}")  # type: ignore[index]
        if config.own_backbones:
            trunk = _trunk(other["backbone"], [config.comment_reads])  # type: ignore[index]
            graphs[f"trunk.{index}"] = trunk
    return graphs


def _trunk(backbone: Backbone, reads: Sequence[str]) -> Any:
    pixels = torch.zeros(2, 3, *backbone.transform.size)
    return to_onnx(Trunk(backbone, reads), {"pixels": pixels}, ({0: "B"},), reads)


def _writer(model: JudgeModel, writer: ExpansionNet, suffix: str) -> dict[str, Any]:
    """The graphs `encoder` and `step` of one comment head."""
    config, backbone = writer.config, model.backbone
    assert backbone is not None
    layers, rows, past = config.dec_layers, 3, 2
    reads_tokens = model.config.comment_reads == "tokens"
    tokens = backbone.grid[0] * backbone.grid[1] if reads_tokens else 1
    features = [tokens, config.feature_dim] if reads_tokens else [model.config.pooled_dim]
    state = [*numbered("keys", layers), *numbered("values", layers)]
    encoder = to_onnx(
        Encoder(writer, model.comment_input),
        {model.config.comment_reads: torch.zeros(2, *features)},
        ({0: "B"},),
        state,
    )
    inner = config.d_model // config.heads
    inputs: dict[str, Any] = {
        "tokens": torch.zeros(rows, dtype=torch.int64),
        "parents": torch.zeros(rows, dtype=torch.int64),
        # each layer its own, or the exporter takes them for one input
        "past": [torch.zeros(rows + 1, past, 4 * config.d_model) for _ in range(layers)],
        "keys": [torch.zeros(rows, config.heads, inner, tokens) for _ in range(layers)],
        "values": [torch.zeros(rows, config.heads, tokens, inner) for _ in range(layers)],
    }
    shapes = (
        {0: "R"}, {0: "R"}, [{0: "before", 1: "L"}] * layers, [{0: "R"}] * layers,
        [{0: "R"}] * layers,
    )  # fmt: skip
    names = ["tokens", "parents", *numbered("past", layers), *state]
    step = to_onnx(Step(writer), inputs, shapes, ["log_probs", *numbered("next", layers)], names)
    return {f"encoder{suffix}": encoder, f"step{suffix}": step}


def to_onnx(
    module: nn.Module,
    inputs: Mapping[str, Any],
    shapes: tuple[Any, ...],
    outputs: Sequence[str],
    names: Sequence[str] | None = None,
) -> Any:
    """A module as an `onnx.ModelProto`, without a word of where it was made.

    Args:
        inputs: examples by name, in the order of `forward`'s arguments.
        shapes: for each of them which of its axes may have any size, with a name for it.
        outputs: their names.
        names: of the graph's inputs, where an example is a list of tensors.

    Raises:
        MissingExtra: what writes ONNX is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401  # what torch's exporter is written with
    except ModuleNotFoundError as error:
        raise MissingExtra("Writing ONNX", "onnx") from error
    with warnings.catch_warnings():
        # TinyViT and LeViT remember their attention biases, of which the exporter warns
        warnings.filterwarnings("ignore", "The tensor attributes? ", UserWarning)
        # axes of one name are one
        warnings.filterwarnings("ignore", "# The axis name: ", UserWarning)
        try:
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                input_names=list(names or inputs),
                output_names=list(outputs),
                dynamic_shapes=shapes,
                dynamo=True,
                optimize=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise JudgeError(
                f"The judge's {type(module).__name__.lower()} can't be written as ONNX: "
                f"{str(error).splitlines()[0]}",
                fix="Serve the judge's folder, or choose another backbone.",
            ) from error
    assert program is not None
    fold(program.model)
    proto = program.model_proto
    strip_origins(proto)
    return proto


def fold(model: Any) -> None:
    """Compute in an `onnx_ir.Model` what depends on no input, and keep equal things once.

    The exporter's own optimisation takes x + 1e-9 for x, and 0 / 0 is then what an expansion
    divides where no score has the sign.
    """
    from onnx_ir.passes import common
    from onnxscript import optimizer

    optimizer.fold_constants(model)
    for tidy in (
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
    ):
        tidy(model)
