"""Decoding ExpansionNet v2 word by word, exactly: each position is computed once.

Everything in the decoder is causal, so what earlier positions contributed never changes. Per row
and layer the cache holds, for every earlier position: condition c and key k, both values, the
scores of its key against the learned queries, and the forward weights A of its expansion vectors.
A new position t then needs

- its key against all queries (s, e), s <= t: the weights W [s, e] that collect for t;
- its queries (t, e) against all keys u <= t: the row A [t] to add to the cache;
- (W A) V, W summed over s times the learned biases, W summed over e times c,

which is O(T E T) numbers read instead of the O(T E T d) of running the prefix again. Keys and
values of the pictures are made once and shared by all rows of a picture.

Rows live in slots 0..R-1. A search that reorders its rows says which slots take over which others'
content, from which position on: positions before are the same already (`decoding.slots`).

Shapes: R rows in use, d width, h heads, E expansions, L positions so far, T positions of room,
N feature tokens, B pictures still in use; `2` is (positive, negative part), or (c, k) of `keys`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from beholder.models.expansion import EPSILON, DecoderLayer, DynamicExpansion, PictureGroups
from beholder.models.expansionnet import ExpansionNet


class ExpansionCache:
    """What the dynamic expansion of one layer keeps of earlier positions, per slot."""

    def __init__(self, block: DynamicExpansion, slots: int, room: int) -> None:
        width, expansions = block.width, block.expansions
        weight = block.query
        self.keys_S2Td = weight.new_empty(slots, 2, room, width)
        self.values_S2Td = weight.new_empty(slots, 2, room, width)
        self.learned_SET = weight.new_empty(slots, expansions, room)
        self.forward_S2TET = weight.new_empty(slots, 2, room, expansions, room)

    def copy(self, sources: Tensor, targets: Tensor, start: int, stop: int) -> None:
        """Positions `start` to `stop` of slots `targets` become those of `sources`."""
        span = slice(start, stop)
        for cache in (self.keys_S2Td, self.values_S2Td, self.forward_S2TET):
            cache[targets, :, span] = cache[sources, :, span]
        self.learned_SET[targets, :, span] = self.learned_SET[sources, :, span]


class IncrementalDecoder:
    """The decoder of one model over a batch of pictures, fed one word per row at a time.

    Args:
        model: its weights are used as they are, without dropout. No gradient is kept.
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
        self._keys_values = pictures.keys_values
        self._mask_B11N = pictures.mask_B11N
        self._caches = [
            ExpansionCache(layer.expansion, slots, room) for layer in model.decoder_layers
        ]
        self._pictures = torch.arange(len(memory), device=memory.device)
        self._groups = PictureGroups(None, len(memory))

    def move(self, sources: Tensor, targets: Tensor, start: int) -> None:
        """Slots `targets` take over the content of `sources`, equal before position `start`.

        No slot may be both source and target. int64 [M] each.
        """
        for cache in self._caches:
            cache.copy(sources, targets, start, self.length)

    def assign(self, picture_of_slot: Tensor) -> None:
        """From now on slot r < R is a row of picture `picture_of_slot[r]`; int64 [R].

        Pictures count as in `memory`. Those without a row are forgotten and can't come back.
        """
        kept, index = picture_of_slot.unique(return_inverse=True)
        if len(kept) < len(self._pictures):
            places = torch.searchsorted(self._pictures, kept)
            self._keys_values = [(key[places], value[places]) for key, value in self._keys_values]
            if self._mask_B11N is not None:
                self._mask_B11N = self._mask_B11N[places]
            self._pictures = kept
        self._groups = PictureGroups(index, len(kept))

    def advance(self, tokens_R: Tensor) -> Tensor:
        """Feed the next word of slots 0..R-1; returns their states, [R, d], for `model.output`."""
        model, position = self.model, self.length
        self.length += 1
        x_Rd = F.embedding(tokens_R, model.words.weight) * math.sqrt(model.config.d_model)
        x_Rd = x_Rd + model.positions.weight[position]
        outputs = []
        for layer, cache, keys_values in zip(
            model.decoder_layers, self._caches, self._keys_values, strict=True
        ):
            x_Rd = x_Rd + _expand(layer.expansion, cache, layer.expansion_norm(x_Rd), position)
            x_Rd = x_Rd + self._attend(layer, layer.attention_norm(x_Rd), keys_values)
            feed = layer.feed
            x_Rd = x_Rd + feed[3](feed[0](layer.feed_norm(x_Rd)).relu_())
            outputs.append(x_Rd)
        fusion = model.decoder_fusion
        return fusion.norm(x_Rd + fusion.reduce(torch.cat(outputs, dim=-1)))

    def _attend(
        self, layer: DecoderLayer, x_Rd: Tensor, keys_values: tuple[Tensor, Tensor]
    ) -> Tensor:
        return layer.attention(x_Rd.unsqueeze(1), keys_values, self._groups, self._mask_B11N)[:, 0]


def _expand(block: DynamicExpansion, cache: ExpansionCache, x_Rd: Tensor, position: int) -> Tensor:
    """The dynamic expansion of the position that is fed, [R, d]; adds it to the cache."""
    rows, length = len(x_Rd), position + 1
    parts_R5d = block.project(x_Rd).unflatten(-1, (block.PARTS, block.width))
    learned_RE = parts_R5d[:, 1] @ block.query.T
    cache.keys_S2Td[:rows, :, position] = parts_R5d[:, :2]
    cache.values_S2Td[:rows, :, position] = parts_R5d[:, 2:4]
    cache.learned_SET[:rows, :, position] = learned_RE

    # All c_s against the new key, and all k_u against the new c.
    keys_XLd = cache.keys_S2Td[:rows, :, :length].flatten(0, 1)
    new_Xd1 = parts_R5d[:, :2].flip(1).reshape(2 * rows, block.width, 1)
    products_R2L = torch.bmm(keys_XLd, new_Xd1).view(rows, 2, length)
    scale = block.width**-0.5
    collect_RLE = (products_R2L[:, 0].unsqueeze(2) + learned_RE.unsqueeze(1)) * scale
    expand_REL = products_R2L[:, 1].unsqueeze(1) + cache.learned_SET[:rows, :, :length]
    expand_REL = expand_REL * scale

    forward_R2EL = torch.stack((expand_REL, -expand_REL), dim=1).relu_()
    forward_R2EL /= forward_R2EL.sum(dim=-1, keepdim=True) + EPSILON
    cache.forward_S2TET[:rows, :, position, :, length:] = 0.0
    cache.forward_S2TET[:rows, :, position, :, :length] = forward_R2EL

    collect_R2LE = torch.stack((collect_RLE, -collect_RLE), dim=1).relu_()
    over_expansions_R2L = collect_R2LE.sum(dim=3)
    over_positions_R2E = collect_R2LE.sum(dim=2)
    forward_XYL = cache.forward_S2TET[:rows, :, :length].flatten(2, 3).flatten(0, 1)[..., :length]
    mixing_X1L = torch.bmm(collect_R2LE.view(2 * rows, 1, -1), forward_XYL)
    values_XLd = cache.values_S2Td[:rows, :, :length].flatten(0, 1)
    result_R2d = torch.baddbmm(
        torch.bmm(mixing_X1L, values_XLd).view(rows, 2, -1),
        over_expansions_R2L,
        cache.keys_S2Td[:rows, 0, :length],
    )
    result_R2d += over_positions_R2E @ block.bias
    result_R2d /= over_expansions_R2L.sum(dim=2, keepdim=True) + EPSILON
    gate_Rd = parts_R5d[:, 4].sigmoid()
    return torch.lerp(result_R2d[:, 1], result_R2d[:, 0], gate_Rd)
