"""The dynamic expansion of ExpansionNet v2 (arXiv 2208.06551, section 3.2), in its three forms.

The query of position s and expansion e is Q_e + c_s, so its score against key u is
Q_e.k_u + c_s.k_u, and scores [s, e, u] are the sum of two small products. Position s expands over
the keys u <= s (forward weights A, divided by their sum), and is collected by the positions t >= s
(backward weights W):

    result_t = (W A V + W summed over s * biases + W summed over e * c) / W summed over both,

once with the positive and once with the negative part of the scores, and a gate mixes the two.
`_collected` is this formula. Everything in it is causal, so what earlier positions contributed
never changes, and a new position t needs its key against all queries (s, e), s <= t, as W, and
its queries (t, e) against all keys u <= t, a new row of A:

- `DynamicExpansion.forward`: all positions at once, for training;
- `DynamicExpansion.step`: a new position after the conditions, keys and values of those before
  it, for exported graphs. The scores between earlier positions are made again from them: a small
  product;
- `ExpansionCache`: a new position after caches that are written in place, for many rows and long
  comments. Conditions c, keys and values V are linear in the layer's input x, so only x is kept,
  and their weights act on what is summed over positions instead: c_s . k_t = x_s . (Wc' Wk x_t)
  and so on. A would be one number per expansion and pair of positions; kept are the two parts
  that its scores are the sum of, and the sums that it is divided by, and A is made again from
  them at every step, which takes no longer than reading it. So memory grows with length, but for
  two numbers per pair of positions; the published path takes O(T E T d) products per step, this
  one O(T E T + T d).

Both weights meet only in a product, W (A V), which is computed as (W A) V where that is cheaper:
the long middle never exists at full width. Dropout on the expanded vectors A V does not commute
with this; a block that has it takes the product as written, in training only.

Shapes: R rows (comments), T positions, d width (d_model), E expansion vectors, X = s E, s query
positions, u key positions, t collecting positions, L positions so far. In the cache `2` is
(positive, negative part), `4` is (mixing, weights) of the positive part, then of the negative.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPSILON = 1e-9
"""Added to every sum that weights are divided by, as published."""

CACHED_NUMBERS = 2**18
"""How many numbers fit well into a processor core's own cache."""


def xavier_parts(linear: nn.Linear, parts: int) -> nn.Linear:
    """Initialise a linear layer that holds `parts` layers below each other, each as its own."""
    for weight in linear.weight.data.chunk(parts):
        nn.init.xavier_uniform_(weight)
    return linear


class DynamicExpansion(nn.Module):
    """Causal expansion of every position to `expansions` vectors made from it.

    Args:
        width: d_model.
        expansions: vectors per position.
        dropout: on scores, on expanded vectors and on both results.
    """

    PARTS = 5

    def __init__(self, width: int, expansions: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.expansions = expansions
        # Condition c, keys, values of the positive part, values of the negative part, gate.
        self.project = xavier_parts(nn.Linear(width, self.PARTS * width), self.PARTS)
        self.query = nn.Parameter(nn.init.xavier_uniform_(torch.empty(expansions, width)))
        self.bias = nn.Parameter(nn.init.xavier_uniform_(torch.empty(expansions, width)))
        self.score_dropout = nn.Dropout(dropout)
        self.forward_dropout = nn.Dropout(dropout)
        self.backward_dropout = nn.Dropout(dropout)

    def forward(self, x_RTd: Tensor) -> Tensor:
        """A causal map [R, T, d] -> [R, T, d]."""
        cond_RTd, key_RTd, *values, gate_RTd = self.project(x_RTd).chunk(self.PARTS, dim=-1)
        learned_REu = self.query @ key_RTd.transpose(1, 2)
        condition_Rsu = cond_RTd @ key_RTd.transpose(1, 2)
        score_RsEu = (learned_REu.unsqueeze(1) + condition_Rsu.unsqueeze(2)) * self.width**-0.5
        score_RsEu = self.score_dropout(score_RsEu)
        ones_su = score_RsEu.new_ones(x_RTd.shape[1], x_RTd.shape[1])
        earlier_s1u, later_s1u = ones_su.tril().unsqueeze(1), ones_su.triu().unsqueeze(1)
        results = []
        for weight_RsEu, value_RTd in zip(
            (score_RsEu.relu(), (-score_RsEu).relu()), values, strict=True
        ):
            forward_RsEu = weight_RsEu * earlier_s1u
            forward_RsEu = forward_RsEu / (forward_RsEu.sum(dim=-1, keepdim=True) + EPSILON)
            collect_RsEt = weight_RsEu * later_s1u
            results.append(
                self._collected(collect_RsEt, collect_RsEt, forward_RsEu, value_RTd, cond_RTd)
            )
        return torch.lerp(results[1], results[0], gate_RTd.sigmoid())

    def step(self, x_Rd: Tensor, past_RL4d: Tensor) -> tuple[Tensor, Tensor]:
        """A new position [R, d] -> [R, d], and the past with it [R, T, 4d]; without dropout."""
        made_R5d = self.project(x_Rd)
        now_R14d = made_R5d[:, : 4 * self.width].unsqueeze(1)
        gate_Rd = made_R5d[:, 4 * self.width :].sigmoid()
        past_RT4d = torch.cat([past_RL4d, now_R14d], dim=1)
        cond_RTd, key_RTd, *values = past_RT4d.split(self.width, dim=-1)
        key_RdT = key_RTd.transpose(1, 2)
        learned_REu = self.query @ key_RdT * self.width**-0.5
        condition_Rsu = cond_RTd @ key_RdT * self.width**-0.5
        position_T = torch.arange(past_RT4d.shape[1], device=x_Rd.device)
        later_su = position_T.unsqueeze(0) > position_T.unsqueeze(1)
        signed = ((learned_REu, condition_Rsu), (-learned_REu, -condition_Rsu))
        results = []
        for (learned_REu, condition_Rsu), value_RTd in zip(signed, values, strict=True):
            hidden_Rsu = condition_Rsu.masked_fill(later_su, -torch.inf)
            forward_RsEu = (learned_REu.unsqueeze(1) + hidden_Rsu.unsqueeze(2)).relu()
            last_RsE = learned_REu[:, :, -1].unsqueeze(1) + condition_Rsu[:, :, -1:]
            collect_RsE1 = last_RsE.relu().unsqueeze(3)
            # dividing the last position's weights is less work than dividing all of A
            weight_RsE1 = collect_RsE1 / (forward_RsEu.sum(dim=-1, keepdim=True) + EPSILON)
            results.append(
                self._collected(weight_RsE1, collect_RsE1, forward_RsEu, value_RTd, cond_RTd)
            )
        return torch.lerp(results[1][:, 0], results[0][:, 0], gate_Rd), past_RT4d

    def _collected(
        self,
        weight_RsEt: Tensor,
        collect_RsEt: Tensor,
        forward_RsEu: Tensor,
        value_Rud: Tensor,
        cond_Rsd: Tensor,
    ) -> Tensor:
        """What positions t collect, with one sign of the scores, [R, t, d].

        Args:
            weight_RsEt: `collect_RsEt`, divided by what `forward_RsEu` sums to over u, unless that
                is divided already.
        """
        over_expansions_Rst = collect_RsEt.sum(dim=2)
        over_positions_REt = collect_RsEt.sum(dim=1)
        weight_RtX = weight_RsEt.flatten(1, 2).transpose(1, 2)
        forward_RXu = forward_RsEu.flatten(1, 2)
        if self.training and self.forward_dropout.p > 0:
            values_Rtd = weight_RtX @ self.forward_dropout(forward_RXu @ value_Rud)
        else:
            values_Rtd = (weight_RtX @ forward_RXu) @ value_Rud
        result_Rtd = (
            values_Rtd
            + over_positions_REt.transpose(1, 2) @ self.bias
            + over_expansions_Rst.transpose(1, 2) @ cond_Rsd
        )
        total_Rt1 = over_expansions_Rst.sum(dim=1).unsqueeze(-1)
        return self.backward_dropout(result_Rtd / (total_Rt1 + EPSILON))


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
