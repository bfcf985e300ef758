"""Decoding ExpansionNet v2 word by word, exactly: each position is computed once.

Everything in the decoder is causal, so what earlier positions contributed never changes. What is
kept of the dynamic expansion is in `models.dynamic_expansion`; keys and values of the pictures are
made once and shared by all rows of a picture.

Rows live in slots 0..R-1. A search that reorders its rows says which positions of which slots take
over those of others: most are the same already (`decoding.slots`).

Shapes: R rows in use, d width, h heads, N feature tokens, B pictures in use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beholder.features.device import send
from beholder.models.dynamic_expansion import ExpansionCache
from beholder.models.expansion import CrossAttention, DecoderLayer, PictureGroups
from beholder.models.expansionnet import ExpansionNet

TRANSPOSING_PAYS = 600
"""Rows times steps from which a layer is worth copying for a few rows' faster products (CPU)."""


class RowLinear:
    """A linear layer for few rows at a time.

    A product of few rows is up to half faster with the weight stored by inputs instead of outputs.

    Args:
        linear: the layer; its weights are read now, or at every call, as it pays.
        uses: rows times calls that are to come.
    """

    def __init__(self, linear: nn.Linear, uses: int) -> None:
        pays = uses >= TRANSPOSING_PAYS and linear.weight.device.type == "cpu"
        self.bias = linear.bias
        self.weight_XY = linear.weight.T.contiguous() if pays else linear.weight.T

    def __call__(self, x_RX: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.addmm(self.bias, x_RX, self.weight_XY, out=out)


class PictureCache:
    """Cross-attention of one layer over pictures whose keys and values are made already.

    Args:
        block: the layer's attention.
        keys_values: what `block.keys_values` gave.
        uses: rows times calls that are to come.
    """

    def __init__(
        self, block: CrossAttention, keys_values: tuple[Tensor, Tensor], uses: int
    ) -> None:
        self.heads = block.heads
        self.query = RowLinear(block.query, uses)
        self.output = RowLinear(block.output, uses)
        key_BhNc, value_BhNc = keys_values
        self.key_BhcN = key_BhNc.transpose(2, 3).contiguous()
        self.value_BhNc = value_BhNc.contiguous()

    def keep(self, kept: Tensor) -> None:
        """Forget all pictures but these."""
        self.key_BhcN, self.value_BhNc = self.key_BhcN[kept], self.value_BhNc[kept]

    def attend(self, x_Rd: Tensor, groups: PictureGroups, mask_B11N: Tensor | None) -> Tensor:
        """[R, d] -> [R, d], each row over its picture."""
        query_Rd = self.query(x_Rd) * self.value_BhNc.shape[-1] ** -0.5
        query_BhGc = groups.gather(query_Rd.unsqueeze(1)).unflatten(2, (self.heads, -1))
        scores_BhGN = query_BhGc.transpose(1, 2) @ self.key_BhcN
        if mask_B11N is not None:
            scores_BhGN.masked_fill_(~mask_B11N, -torch.inf)
        mixed_BhGc = scores_BhGN.softmax(dim=-1) @ self.value_BhNc
        return self.output(groups.scatter(mixed_BhGc.transpose(1, 2).flatten(2), 1)[:, 0])


class RowLayer:
    """One decoder layer over its caches.

    Args:
        layer: the layer.
        keys_values: what its attention's `keys_values` gave.
        slots: S.
        room: T.
    """

    def __init__(
        self, layer: DecoderLayer, keys_values: tuple[Tensor, Tensor], slots: int, room: int
    ) -> None:
        self.norms = (layer.expansion_norm, layer.attention_norm, layer.feed_norm)
        self.expansion = ExpansionCache(layer.expansion, slots, room)
        self.attention = PictureCache(layer.attention, keys_values, slots * room)
        self.inner = RowLinear(layer.feed.inner, slots * room)
        self.outer = RowLinear(layer.feed.outer, slots * room)

    def advance(
        self, x_Rd: Tensor, position: int, groups: PictureGroups, mask_B11N: Tensor | None
    ) -> Tensor:
        """[R, d] -> [R, d], for the position that is fed."""
        expansion_norm, attention_norm, feed_norm = self.norms
        x_Rd = x_Rd + self.expansion.advance(expansion_norm(x_Rd), position)
        x_Rd += self.attention.attend(attention_norm(x_Rd), groups, mask_B11N)
        x_Rd += self.outer(self.inner(feed_norm(x_Rd)).relu_())
        return x_Rd


class IncrementalDecoder:
    """The decoder of one model over a batch of pictures, fed one word per row at a time.

    Args:
        model: its weights as they are now, without dropout. Use it without gradient.
        memory: what `model.encode` gave, [B, N, d].
        lengths: real tokens per picture, [B]; None: all.
        slots: the largest number of rows that will be in use.
        room: the largest number of positions that will be fed, at most `max_length`.
    """

    def __init__(
        self,
        model: ExpansionNet,
        memory: Tensor,
        lengths: Tensor | Sequence[int] | None,
        *,
        slots: int,
        room: int,
    ) -> None:
        if room > model.config.max_length:
            raise ValueError(
                f"{room} positions, but the model was made for at most {model.config.max_length}"
            )
        self.model = model
        self.length = 0
        pictures = model.picture_memory(memory, lengths)
        self._mask_B11N = pictures.mask_B11N
        self._layers = [
            RowLayer(layer, keys_values, slots, room)
            for layer, keys_values in zip(model.decoder_layers, pictures.keys_values, strict=True)
        ]
        self._reduce = RowLinear(model.decoder_fusion.reduce, slots * room)
        self._output = RowLinear(model.output, slots * room)
        self._device = memory.device
        self._pictures = torch.arange(len(memory))
        self._groups = PictureGroups(None, len(memory))

    def move(self, sources: Tensor, targets: Tensor, positions: Tensor) -> None:
        """`positions` of slots `targets` take over what those of `sources` hold; int64 [M] each.

        No slot may be both source and target.
        """
        for layer in self._layers:
            layer.expansion.copy(sources, targets, positions)

    def assign(self, picture_of_slot: Tensor) -> None:
        """From now on slot r < R is a row of picture `picture_of_slot[r]`; int64 [R], on the host.

        Pictures count as in `memory`. Those without a row are forgotten and can't come back.
        """
        kept, index = picture_of_slot.unique(return_inverse=True)
        if len(kept) < len(self._pictures):
            indices = send(torch.searchsorted(self._pictures, kept), self._device)
            for layer in self._layers:
                layer.attention.keep(indices)
            if self._mask_B11N is not None:
                self._mask_B11N = self._mask_B11N[indices]
            self._pictures = kept
        self._groups = PictureGroups(index, len(kept), self._device)

    def advance(self, tokens_R: Tensor, out_RV: Tensor) -> None:
        """Feed the next word of slots 0..R-1; their logits are written to `out_RV`."""
        model, position = self.model, self.length
        self.length += 1
        x_Rd = F.embedding(tokens_R, model.words.weight) * math.sqrt(model.config.d_model)
        x_Rd += model.positions.weight[position]
        outputs = []
        for layer in self._layers:
            x_Rd = layer.advance(x_Rd, position, self._groups, self._mask_B11N)
            outputs.append(x_Rd)
        x_Rd = model.decoder_fusion.norm(x_Rd + self._reduce(torch.cat(outputs, dim=-1)))
        self._output(x_Rd, out=out_RV)
