"""Blocks of ExpansionNet v2: static and dynamic expansion, cross-attention, layers, fusion.

Hu, Cavicchioli, Capotondi, "Exploiting Multiple Sequence Lengths in Fast End to End Training for
Image Captioning", arXiv 2208.06551, section 3.

An expansion distributes a sequence over learned vectors (forward) and back (backward), once with
the positive and once with the negative part of the same scores, and a gate mixes the two. The
dynamic one has a file of its own, `models.dynamic_expansion`, which tells how products are ordered.

Shapes: B pictures, N feature tokens, R rows (comments), T positions, d width (d_model), h heads,
E expansion vectors, G comments of a picture (padded to the largest), s query positions, u key
positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beholder.features.device import send
from beholder.models.dynamic_expansion import EPSILON, DynamicExpansion, xavier_parts


class StaticExpansion(nn.Module):
    """Expansion of the picture's tokens to several fixed lengths at once (section 3.1).

    Args:
        width: d_model.
        lengths: the lengths; weights are normalised within each length on the way back.
        dropout: on scores, on expanded vectors and on both results.
    """

    def __init__(self, width: int, lengths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.width = width
        self.lengths = tuple(lengths)
        # Keys, values of the positive part, values of the negative part, gate.
        self.project = xavier_parts(nn.Linear(width, 4 * width), 4)
        self.query = nn.Parameter(nn.init.xavier_uniform_(torch.empty(sum(lengths), width)))
        self.bias = nn.Parameter(nn.init.xavier_uniform_(torch.empty(sum(lengths), width)))
        self.score_dropout = nn.Dropout(dropout)
        self.forward_dropout = nn.Dropout(dropout)
        self.backward_dropout = nn.Dropout(dropout)

    def forward(self, x_BNd: Tensor, mask_BN1: Tensor | None) -> Tensor:
        """Args: tokens; True where a token is real (None: all are). Returns [B, N, d]."""
        key_BNd, positive_BNd, negative_BNd, gate_BNd = self.project(x_BNd).chunk(4, dim=-1)
        score_BNE = self.score_dropout(key_BNd @ self.query.T * self.width**-0.5)
        a_BNd = self._expand(score_BNE.relu(), positive_BNd, mask_BN1)
        b_BNd = self._expand((-score_BNE).relu(), negative_BNd, mask_BN1)
        return torch.lerp(b_BNd, a_BNd, gate_BNd.sigmoid())

    def _expand(self, weight_BNE: Tensor, value_BNd: Tensor, mask_BN1: Tensor | None) -> Tensor:
        forward_BNE = weight_BNE if mask_BN1 is None else weight_BNE * mask_BN1
        forward_BNE = forward_BNE / (forward_BNE.sum(dim=1, keepdim=True) + EPSILON)
        backward_BNE = torch.cat(
            [
                part / (part.sum(dim=-1, keepdim=True) + EPSILON)
                for part in weight_BNE.split(self.lengths, dim=-1)
            ],
            dim=-1,
        )
        if self._reassociates(weight_BNE.shape[1]):
            mixing_BNN = backward_BNE @ forward_BNE.transpose(1, 2)
            result_BNd = mixing_BNN @ value_BNd + backward_BNE @ self.bias
        else:
            expanded_BEd = forward_BNE.transpose(1, 2) @ value_BNd + self.bias
            result_BNd = backward_BNE @ self.forward_dropout(expanded_BEd)
        return self.backward_dropout(result_BNd / len(self.lengths))

    def _reassociates(self, tokens: int) -> bool:
        if self.training and self.forward_dropout.p > 0:
            return False
        expansions = sum(self.lengths)
        return tokens * (expansions + self.width) < expansions * self.width


class PictureGroups:
    """Rows brought together by picture, so that all comments of one share its keys and values.

    Args:
        picture_index: int64 [R], the picture of each row, in any order; None: row r is of
            picture r.
        pictures: B.
        device: where the rows are. An index on the host is worked on there, so that a device is
            not waited for.
    """

    def __init__(
        self, picture_index: Tensor | None, pictures: int, device: torch.device | None = None
    ) -> None:
        self.pictures = pictures
        self.size = 1
        self.slots: Tensor | None = None
        if picture_index is None:
            return
        counts = torch.bincount(picture_index, minlength=pictures)
        assert len(counts) == pictures, "a row of a picture that is not there"
        self.size = int(counts.max())
        by_picture = picture_index.argsort(stable=True)
        in_order = torch.arange(len(picture_index), device=picture_index.device)
        within = in_order - (counts.cumsum(0) - counts)[picture_index[by_picture]]
        slots = torch.empty_like(by_picture)
        slots[by_picture] = picture_index[by_picture] * self.size + within
        even = len(picture_index) == pictures * self.size
        in_place = even and bool((slots == in_order).all())
        self.slots = None if in_place else send(slots, device or slots.device)

    def gather(self, x_RTd: Tensor) -> Tensor:
        """[R, T, d] -> [B, G * T, d], zeros where a picture has fewer rows."""
        if self.slots is not None:
            shape = (self.pictures * self.size, *x_RTd.shape[1:])
            x_RTd = x_RTd.new_zeros(shape).index_copy(0, self.slots, x_RTd)
        return x_RTd.reshape(self.pictures, self.size * x_RTd.shape[1], x_RTd.shape[2])

    def scatter(self, x_BGd: Tensor, length: int) -> Tensor:
        """The inverse of `gather` for rows of `length` positions: [B, G * T, d] -> [R, T, d]."""
        x_RTd = x_BGd.reshape(self.pictures * self.size, length, x_BGd.shape[-1])
        return x_RTd if self.slots is None else x_RTd[self.slots]


class CrossAttention(nn.Module):
    """Multi-head attention of comments over the tokens of their picture."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = xavier_parts(nn.Linear(width, width), 1)
        self.key_value = xavier_parts(nn.Linear(width, 2 * width), 2)
        self.output = xavier_parts(nn.Linear(width, width), 1)

    def keys_values(self, memory_BNd: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the pictures, each [B, h, N, d / h]."""
        key_BNd, value_BNd = self.key_value(memory_BNd).chunk(2, dim=-1)
        return self._heads(key_BNd), self._heads(value_BNd)

    def forward(
        self,
        x_RTd: Tensor,
        keys_values: tuple[Tensor, Tensor],
        groups: PictureGroups,
        mask_B11N: Tensor | None,
    ) -> Tensor:
        """[R, T, d] -> [R, T, d]; `mask_B11N` is True where a token is real (None: all are)."""
        query_BhGx = self._heads(groups.gather(self.query(x_RTd)))
        mixed_BhGx = F.scaled_dot_product_attention(query_BhGx, *keys_values, attn_mask=mask_B11N)
        mixed_BGd = mixed_BhGx.transpose(1, 2).flatten(2)
        return self.output(groups.scatter(mixed_BGd, x_RTd.shape[1]))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.inner = xavier_parts(nn.Linear(width, inner), 1)
        self.outer = xavier_parts(nn.Linear(inner, width), 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.dropout(self.inner(x).relu()))


class EncoderLayer(nn.Module):
    """Static expansion and feed-forward, each with its norm before and a residual around."""

    def __init__(self, width: int, ff: int, lengths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.expansion_norm = nn.LayerNorm(width)
        self.expansion = StaticExpansion(width, lengths, dropout)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = FeedForward(width, ff, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BNd: Tensor, mask_BN1: Tensor | None) -> Tensor:
        x_BNd = x_BNd + self.dropout(self.expansion(self.expansion_norm(x_BNd), mask_BN1))
        return x_BNd + self.dropout(self.feed(self.feed_norm(x_BNd)))


class PictureMemory(NamedTuple):
    """What decoder layers need of the pictures, made once for all their comments."""

    keys_values: list[tuple[Tensor, Tensor]]
    mask_B11N: Tensor | None


class DecoderLayer(nn.Module):
    """Dynamic expansion, cross-attention and feed-forward, pre-norm with residuals."""

    def __init__(self, width: int, heads: int, ff: int, expansions: int, dropout: float) -> None:
        super().__init__()
        self.expansion_norm = nn.LayerNorm(width)
        self.expansion = DynamicExpansion(width, expansions, dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = CrossAttention(width, heads)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = FeedForward(width, ff, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x_RTd: Tensor,
        keys_values: tuple[Tensor, Tensor],
        groups: PictureGroups,
        mask_B11N: Tensor | None,
    ) -> Tensor:
        x_RTd = x_RTd + self.dropout(self.expansion(self.expansion_norm(x_RTd)))
        attended_RTd = self.attention(self.attention_norm(x_RTd), keys_values, groups, mask_B11N)
        x_RTd = x_RTd + self.dropout(attended_RTd)
        return x_RTd + self.dropout(self.feed(self.feed_norm(x_RTd)))


class LayerFusion(nn.Module):
    """The last layer's output plus a projection of all layers' outputs, normalised."""

    def __init__(self, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.reduce = xavier_parts(nn.Linear(width * layers, width), 1)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, outputs: list[Tensor]) -> Tensor:
        reduced = self.reduce(torch.cat(outputs, dim=-1))
        return self.norm(outputs[-1] + self.dropout(reduced))
