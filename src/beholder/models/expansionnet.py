"""ExpansionNet v2: features of pictures in, log-probabilities of comments out.

Hu, Cavicchioli, Capotondi, "Exploiting Multiple Sequence Lengths in Fast End to End Training for
Image Captioning", arXiv 2208.06551. Equal to the published implementation to rounding.

Departures, none of which changes a value: linear layers with the same input are one layer; the
pictures' keys and values are made once for all their comments; expansions are re-associated
(see `models.expansion`). Decoding word by word is in `models.incremental`.

Shapes: B pictures, N feature tokens, C their width, d width of the model, R rows (comments), T
positions, V words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from beholder.errors import CheckpointError
from beholder.features.device import send
from beholder.models.expansion import (
    DecoderLayer,
    EncoderLayer,
    LayerFusion,
    PictureGroups,
    PictureMemory,
    xavier_parts,
)
from beholder.models.expansionnet_config import ExpansionNetConfig

__all__ = ["ExpansionNet", "ExpansionNetConfig"]


class ExpansionNet(nn.Module):
    """The captioner: `encode` pictures, then `decode` comments against them."""

    def __init__(self, config: ExpansionNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.d_model
        self.input = xavier_parts(nn.Linear(config.feature_dim, width), 1)
        self.encoder = nn.ModuleList(
            EncoderLayer(width, config.ff, config.enc_expansions, config.dropout_encoder)
            for _ in range(config.enc_layers)
        )
        self.encoder_fusion = LayerFusion(width, config.enc_layers, config.dropout_other)
        self.words = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Embedding(config.max_length, width)
        self.decoder = nn.ModuleList(
            DecoderLayer(
                width, config.heads, config.ff, config.dec_expansions, config.dropout_decoder
            )
            for _ in range(config.dec_layers)
        )
        self.decoder_fusion = LayerFusion(width, config.dec_layers, config.dropout_other)
        self.output = xavier_parts(nn.Linear(width, config.vocab_size), 1)
        self.encoder_input_dropout = nn.Dropout(config.dropout_encoder_input)
        self.decoder_input_dropout = nn.Dropout(config.dropout_decoder_input)
        for embedding in (self.words, self.positions):
            nn.init.xavier_uniform_(embedding.weight)

    @property
    def decoder_layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.decoder if isinstance(layer, DecoderLayer)]

    def encode(self, features: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Pictures as the decoder attends to them.

        Args:
            features: the backbone's tokens, [B, N, C].
            lengths: [B], how many tokens of each picture are real, counted from the first (at
                least 1); None: all.

        Returns:
            [B, N, d]. Rows of tokens that are not real carry no meaning.
        """
        mask_BN = _mask(lengths, features)
        mask_BN1 = None if mask_BN is None else mask_BN.unsqueeze(-1)
        x_BNd = self.encoder_input_dropout(self.input(features.to(self.input.weight.dtype)))
        outputs = []
        for layer in self.encoder:
            x_BNd = layer(x_BNd, mask_BN1)
            outputs.append(x_BNd)
        return self.encoder_fusion(outputs)

    def decode(
        self,
        memory: Tensor,
        tokens: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        token_lengths: Tensor | Sequence[int] | None = None,
        picture_index: Tensor | None = None,
    ) -> Tensor:
        """Log-probabilities of the word after each position, given the words up to it.

        Args:
            memory: what `encode` gave, [B, N, d].
            tokens: word ids, bos first, int64 [R, T] with T at most `max_length`.
            lengths: as for `encode`, [B].
            token_lengths: how many positions of each row are real, [R]; None: all.
            picture_index: the picture of each row, int64 [R], in any order, best on the host;
                None: R = B, row by row. Each picture's keys and values are made once, however
                many rows it has.

        Returns:
            [R, T, V]; zero at positions that are not real.
        """
        states_RTd = self.decode_states(memory, tokens, lengths, picture_index)
        mask_RT = _mask(token_lengths, tokens)
        if mask_RT is None:
            return self.output(states_RTd).log_softmax(dim=-1)
        log_probs_RTV = states_RTd.new_zeros(*tokens.shape, self.config.vocab_size)
        return log_probs_RTV.index_put(
            (mask_RT,), self.output(states_RTd[mask_RT]).log_softmax(dim=-1)
        )

    def decode_states(
        self,
        memory: Tensor,
        tokens: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        picture_index: Tensor | None = None,
    ) -> Tensor:
        """`decode` before its last layer: [R, T, d].

        `output(states)` are the logits. Losses that need only the real positions pick them first:
        the last layer is most of a step's cost.
        """
        if tokens.shape[1] > self.config.max_length:
            raise ValueError(
                f"{tokens.shape[1]} positions, but the model was made for at most "
                f"{self.config.max_length}"
            )
        groups = PictureGroups(picture_index, len(memory), memory.device)
        pictures = self.picture_memory(memory, lengths)
        x_RTd = self.decoder_input_dropout(self.words(tokens)) * math.sqrt(self.config.d_model)
        x_RTd = x_RTd + self.positions.weight[: tokens.shape[1]]
        outputs = []
        for layer, keys_values in zip(self.decoder_layers, pictures.keys_values, strict=True):
            x_RTd = layer(x_RTd, keys_values, groups, pictures.mask_B11N)
            outputs.append(x_RTd)
        return self.decoder_fusion(outputs)

    def picture_memory(
        self, memory: Tensor, lengths: Tensor | Sequence[int] | None = None
    ) -> PictureMemory:
        """Keys and values of the pictures for every decoder layer."""
        mask_BN = _mask(lengths, memory)
        return PictureMemory(
            [layer.attention.keys_values(memory) for layer in self.decoder_layers],
            None if mask_BN is None else mask_BN[:, None, None, :],
        )

    def load_reference_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load tensors named as in the published implementation; all of them, and no others.

        Raises:
            CheckpointError: names the first tensor that is missing, unknown or of another shape.
        """
        state = self.state_dict()
        loaded: dict[str, Tensor] = {}
        known: set[str] = set()
        for name, references in reference_names(self.config):
            rows = state[name].shape[0] // len(references)
            for reference in references:
                _check_tensor(state_dict, reference, (rows, *state[name].shape[1:]))
            loaded[name] = torch.cat([state_dict[reference] for reference in references])
            known.update(references)
        unknown = [name for name in state_dict if name not in known]
        if unknown:
            raise CheckpointError(
                f"The checkpoint has a tensor {unknown[0]!r} {tuple(state_dict[unknown[0]].shape)} "
                "that this configuration has no place for.",
                where=unknown[0],
                fix="Use the configuration that the checkpoint was trained with.",
            )
        self.load_state_dict(loaded)

    def reference_state_dict(self) -> dict[str, Tensor]:
        """The weights, named as in the published implementation."""
        state = self.state_dict()
        return {
            reference: part.clone()
            for name, references in reference_names(self.config)
            for reference, part in zip(references, state[name].chunk(len(references)), strict=True)
        }


def reference_names(config: ExpansionNetConfig) -> Iterator[tuple[str, list[str]]]:
    """Every tensor of the model with the published tensors that it holds below each other."""
    for layer in range(config.enc_layers):
        ours, theirs = f"encoder.{layer}.", f"encoders.{layer}."
        parts = ["key_embed", "class_a_embed", "class_b_embed", "selector_embed"]
        yield from _expansion_names(f"{ours}expansion", f"{theirs}stc_exp", parts)
        yield from _linear_names(f"{ours}expansion_norm", f"{theirs}norm_1")
        yield from _linear_names(f"{ours}feed_norm", f"{theirs}norm_2")
        yield from _linear_names(f"{ours}feed.inner", f"{theirs}ff.linear_1")
        yield from _linear_names(f"{ours}feed.outer", f"{theirs}ff.linear_2")
    for layer in range(config.dec_layers):
        ours, theirs = f"decoder.{layer}.", f"decoders.{layer}."
        parts = ["cond_embed", "key_linear", "class_a_embed", "class_b_embed", "selector_embed"]
        yield from _expansion_names(f"{ours}expansion", f"{theirs}dyn_exp", parts)
        yield from _linear_names(f"{ours}expansion_norm", f"{theirs}norm_1")
        yield from _linear_names(f"{ours}attention_norm", f"{theirs}norm_2")
        yield from _linear_names(f"{ours}feed_norm", f"{theirs}norm_3")
        yield from _linear_names(f"{ours}attention.query", f"{theirs}mha.Wq")
        yield from _linear_names(f"{ours}attention.key_value", f"{theirs}mha.Wk", f"{theirs}mha.Wv")
        yield from _linear_names(f"{ours}attention.output", f"{theirs}mha.out_linear")
        yield from _linear_names(f"{ours}feed.inner", f"{theirs}ff.linear_1")
        yield from _linear_names(f"{ours}feed.outer", f"{theirs}ff.linear_2")
    yield from _linear_names("input", "input_linear")
    yield "words.weight", ["out_embedder.embed.weight"]
    yield "positions.weight", ["pos_encoder.weight"]
    yield from _linear_names("encoder_fusion.reduce", "enc_reduce_group")
    yield from _linear_names("encoder_fusion.norm", "enc_reduce_norm")
    yield from _linear_names("decoder_fusion.reduce", "dec_reduce_group")
    yield from _linear_names("decoder_fusion.norm", "dec_reduce_norm")
    yield from _linear_names("output", "vocab_linear")


def _linear_names(ours: str, *theirs: str) -> Iterator[tuple[str, list[str]]]:
    for kind in ("weight", "bias"):
        yield f"{ours}.{kind}", [f"{name}.{kind}" for name in theirs]


def _expansion_names(ours: str, theirs: str, parts: list[str]) -> Iterator[tuple[str, list[str]]]:
    yield from _linear_names(f"{ours}.project", *(f"{theirs}.{part}" for part in parts))
    yield f"{ours}.query", [f"{theirs}.query_exp_vectors.weight"]
    yield f"{ours}.bias", [f"{theirs}.bias_exp_vectors.weight"]


def _check_tensor(state_dict: Mapping[str, Tensor], name: str, expected: tuple[int, ...]) -> None:
    if name in state_dict and tuple(state_dict[name].shape) == expected:
        return
    problem = f"is {tuple(state_dict[name].shape)}" if name in state_dict else "is missing"
    raise CheckpointError(
        f"The checkpoint does not fit this configuration: {name!r} {problem}, expected {expected}.",
        where=name,
        fix="Use the configuration that the checkpoint was trained with.",
    )


def _mask(lengths: Tensor | Sequence[int] | None, of: Tensor) -> Tensor | None:
    """True where a position of `of` [B, N, ...] is real; None if all are."""
    if lengths is None:
        return None
    lengths_B = torch.as_tensor(lengths).cpu()  # read three times: not on a device
    if lengths_B.shape != of.shape[:1]:
        raise ValueError(f"{tuple(lengths_B.shape)} lengths for {of.shape[0]} rows")
    if bool((lengths_B < 1).any()) or bool((lengths_B > of.shape[1]).any()):
        raise ValueError(f"lengths must be between 1 and {of.shape[1]}: {lengths_B.tolist()}")
    if bool((lengths_B == of.shape[1]).all()):
        return None
    return send(torch.arange(of.shape[1]) < lengths_B.unsqueeze(1), of.device)
