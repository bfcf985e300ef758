"""Decoding ExpansionNet v2 word by word, exactly: each position is computed once.

Everything in the decoder is causal, so what earlier positions contributed never changes. Of the
dynamic expansion (see `models.expansion`) a new position t needs

- its key against all queries (s, e), s <= t: the weights W [s, e] that collect for t;
- its queries (t, e) against all keys u <= t: a new row of the forward weights A;
- (W A) V, W summed over s times the learned biases, W summed over e times c.

Conditions c, keys and values V are linear in the layer's input x, so only x is kept, and their
weights act on what is summed over positions instead: c_s . k_t = x_s . (Wc' Wk x_t) and so on. A
would be one number per expansion and pair of positions; kept are the two parts that its scores are
the sum of, and the sums that it is divided by, and A is made again from them at every step, which
takes no longer than reading it. So memory grows with length, but for two numbers per pair of
positions; the published path takes O(T E T d) products per step, this one O(T E T + T d). Keys and
values of the pictures are made once and shared by all rows of a picture.

Rows live in slots 0..R-1. A search that reorders its rows says which positions of which slots take
over those of others: most are the same already (`decoding.slots`).

Shapes: R rows in use, d width, h heads, E expansions, L positions so far, T positions of room,
N feature tokens, B pictures in use; `2` is (positive, negative part), `4` is (mixing, weights)
of the positive part, then of the negative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beholder.features.device import send
from beholder.models.expansion import (
    EPSILON,
    CrossAttention,
    DecoderLayer,
    DynamicExpansion,
    PictureGroups,
)
from beholder.models.expansionnet import ExpansionNet

TRANSPOSING_PAYS = 600
"""Rows times steps from which a layer is worth copying for a few rows' faster products (CPU)."""

CACHED_NUMBERS = 2**18
"""How many numbers fit well into a processor core's own cache."""


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


class ExpansionCache:
    """The dynamic expansion of one layer, position by position, and what it keeps of the past.

    Args:
        block: the layer's expansion; its weights are read now.
        slots: S.
        room: T.
    """

    def __init__(self, block: DynamicExpansion, slots: int, room: int) -> None:
        self.width, self.expansions = block.width, block.expansions
        self._fold(block)
        weight = block.query
        self.input_STd = weight.new_empty(slots, room, self.width)
        self.learned_STE = weight.new_empty(slots, room, self.expansions)
        self.condition_ST2T = weight.new_empty(slots, room, 2, room)
        self.total_ST2E = weight.new_empty(slots, room, 2, self.expansions)
        # The negative part keeps its sign in weights and in their sums, so in its epsilon too.
        self.epsilon_21 = _signed(weight, EPSILON)
        # What neither part sees: no position expands over later ones.
        self.hidden_21 = _signed(weight, -torch.inf)

    def _fold(self, block: DynamicExpansion) -> None:
        """Merge the layers that act on one input before the sums, and on one sum after them."""
        c_dd, k_dd, a_dd, b_dd, gate_dd = block.project.weight.chunk(block.PARTS)
        c_d, k_d, a_d, b_d, gate_d = block.project.bias.chunk(block.PARTS)
        scores = (
            # x_t as seen by all x_u, as a query and as a key, and the constants of both.
            (k_dd.T @ c_dd, k_dd.T @ c_d),
            (c_dd.T @ k_dd, c_dd.T @ k_d),
            ((c_dd.T @ k_d).unsqueeze(0), (c_d @ k_d).unsqueeze(0)),
            ((k_dd.T @ c_d).unsqueeze(0), (c_d @ k_d).unsqueeze(0)),
            (block.query @ k_dd, block.query @ k_d),
        )
        scale = self.width**-0.5
        self.before_dX = torch.cat([*(w * scale for w, _ in scores), gate_dd]).T.contiguous()
        self.before_X = torch.cat([*(bias * scale for _, bias in scores), gate_d])
        self.after_2Yd = torch.stack(
            [
                torch.cat([value_dd.T, c_dd.T, value_d.unsqueeze(0), c_d.unsqueeze(0), block.bias])
                for value_dd, value_d in ((a_dd, a_d), (b_dd, b_d))
            ]
        )

    def copy(self, sources: Tensor, targets: Tensor, positions: Tensor) -> None:
        """`positions` of slots `targets` become those of `sources`; int64 [M] each."""
        room = self.input_STd.shape[1]
        sources, targets = sources * room + positions, targets * room + positions
        for cache in (self.input_STd, self.learned_STE, self.condition_ST2T, self.total_ST2E):
            rows = cache.flatten(0, 1)
            rows.index_copy_(0, targets, rows.index_select(0, sources))

    def advance(self, x_Rd: Tensor, position: int) -> Tensor:
        """The expansion of the position that is fed, [R, d]; adds it to the cache."""
        rows, length = len(x_Rd), position + 1
        self.input_STd[:rows, position] = x_Rd
        input_RLd = self.input_STd[:rows, :length]
        sizes = [2 * self.width, 2, self.expansions, self.width]
        probe_Rx, constant_R2, learned_RE, gate_Rd = torch.addmm(
            self.before_X, x_Rd, self.before_dX
        ).split(sizes, dim=1)
        self.learned_STE[:rows, position] = learned_RE
        # The new c against all keys, and the new key against all c.
        probe_R2d = probe_Rx.unflatten(1, (2, self.width))
        product_R2L = torch.baddbmm(constant_R2.unsqueeze(2), probe_R2d, input_RLd.transpose(1, 2))

        self.condition_ST2T[:rows, position, :, :length] = product_R2L[:, :1]
        self.condition_ST2T[:rows, position, :, length:] = self.hidden_21
        expand_RLE = product_R2L[:, 0].unsqueeze(2) + self.learned_STE[:rows, :length]
        self.total_ST2E[:rows, position] = _both_parts(expand_RLE).sum(dim=2) + self.epsilon_21

        collect_R2LE = _both_parts(product_R2L[:, 1].unsqueeze(2) + learned_RE.unsqueeze(1))
        weight_R22L = x_Rd.new_empty(rows, 2, 2, length)
        self._mix(collect_R2LE, out=weight_R22L[:, :, 0])
        torch.sum(collect_R2LE, dim=3, out=weight_R22L[:, :, 1])
        summed_R4d = torch.bmm(weight_R22L.flatten(1, 2), input_RLd)
        total_R22 = weight_R22L.sum(dim=3)
        gathered_R2Y = torch.cat(
            [summed_R4d.view(rows, 2, -1), total_R22, collect_R2LE.sum(dim=2)], dim=2
        )
        gathered_R2Y /= total_R22[:, :, 1:] + self.epsilon_21
        result_2Rd = torch.bmm(gathered_R2Y.transpose(0, 1), self.after_2Yd)
        return torch.lerp(result_2Rd[1], result_2Rd[0], gate_Rd.sigmoid())

    def _mix(self, collect_R2LE: Tensor, out: Tensor) -> None:
        """W A, [R, 2, L], from what A is made of: A itself would grow with length squared.

        A few rows at a time, so that they stay in the processor's cache.
        """
        rows, _, length, expansions = collect_R2LE.shape
        weight_R2LE = collect_R2LE / self.total_ST2E[:rows, :length].transpose(1, 2)
        flat_R21X = weight_R2LE.flatten(2).unsqueeze(2)
        learned_R1EL = self.learned_STE[:rows, :length].transpose(1, 2).contiguous().unsqueeze(1)
        condition_R2L1L = self.condition_ST2T[:rows, :length, :, :length].transpose(1, 2)
        condition_R2L1L = condition_R2L1L.unsqueeze(3)
        several = max(CACHED_NUMBERS // (length * length * expansions), 1)
        for first in range(0, rows, several):
            some = slice(first, first + several)
            for part, limit in enumerate(({"min": 0.0}, {"max": 0.0})):
                score_rLEL = condition_R2L1L[some, part] + learned_R1EL[some]
                forward_rXL = score_rLEL.clamp_(**limit).flatten(1, 2)
                out[some, part] = torch.bmm(flat_R21X[some, part], forward_rXL).squeeze(1)


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

    def keep(self, places: Tensor) -> None:
        """Forget all pictures but these."""
        self.key_BhcN, self.value_BhNc = self.key_BhcN[places], self.value_BhNc[places]

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
            places = send(torch.searchsorted(self._pictures, kept), self._device)
            for layer in self._layers:
                layer.attention.keep(places)
            if self._mask_B11N is not None:
                self._mask_B11N = self._mask_B11N[places]
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


def _signed(like: Tensor, value: float) -> Tensor:
    """The value and its opposite [2, 1], made on the device: what comes from the host is waited
    for."""
    signed_21 = like.new_full((2, 1), value)
    signed_21[1].neg_()
    return signed_21


def _both_parts(score_RLE: Tensor) -> Tensor:
    """The positive and the negative part, each with its sign, [R, 2, L, E].

    The sign of the negative part cancels wherever it is used: weights are divided by their sum.
    """
    rows, length, expansions = score_RLE.shape
    parts_R2LE = score_RLE.new_empty(rows, 2, length, expansions)
    torch.clamp_min(score_RLE, 0.0, out=parts_R2LE[:, 0])
    torch.clamp_max(score_RLE, 0.0, out=parts_R2LE[:, 1])
    return parts_R2LE
