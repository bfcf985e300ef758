"""Steps of PyTorch models for beam search and sampling; several models are an ensemble.

Logits are read in blocks of `BLOCK` words: the best k words are among the k blocks with the largest
maxima, and a word is drawn by drawing its block first. So no pass over the whole vocabulary does
more than a maximum, an exponential or a sum, and nothing is sorted.

Shapes: R rows, V words, Z blocks, d width, k words to propose or draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from beholder.decoding.slots import Slots
from beholder.features.device import has_float64, send
from beholder.models.expansionnet import ExpansionNet
from beholder.models.incremental import IncrementalDecoder

BLOCK = 128


class TorchStep:
    """One step of a model, or of several whose probabilities are averaged.

    Use it without gradient. `__call__` is for beam search, `draw` for sampling; rows and parents
    mean the same in both.

    Args:
        models: of one vocabulary.
        memories: for each model the output of its `encode`, [B, N, d].
        lengths: real tokens per picture, [B]; None: all.
        slots: the largest number of rows of a call.
        room: the largest number of calls.
    """

    def __init__(
        self,
        models: Sequence[ExpansionNet],
        memories: Sequence[Tensor],
        lengths: Tensor | Sequence[int] | None,
        *,
        slots: int,
        room: int,
    ) -> None:
        words = {model.config.vocab_size for model in models}
        if len(words) != 1:
            raise ValueError(
                f"the models have vocabularies of {sorted(words)} words, not the same one"
            )
        self.words = words.pop()
        self.device = memories[0].device
        self._precision = _finest(self.device)
        self._decoders = [
            IncrementalDecoder(model, memory, lengths, slots=slots, room=room)
            for model, memory in zip(models, memories, strict=True)
        ]
        self._slots = Slots(len(memories[0]), slots, room)
        padded = -(-self.words // BLOCK) * BLOCK
        # -inf behind the last word, which is never chosen nor drawn
        self._logits = [memory.new_full((slots, padded), -torch.inf) for memory in memories]
        self._scratch = torch.empty_like(self._logits[0])

    def __call__(
        self, tokens_R: np.ndarray, parents_R: np.ndarray, best: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `decoding.beam.Step`."""
        if best > self.words:
            raise ValueError(f"{best} words are wanted, but the vocabulary has {self.words}")
        logits = self._advance(tokens_R, parents_R)
        if len(logits) == 1:
            values_Rk, words_Rk = _largest(logits[0], best)
            return self._in_row_order(values_Rk - self._exponentials(logits[0])[1], words_Rk)
        mean_RV = torch.zeros_like(logits[0])
        for logits_RV in logits:
            exponentials_RV, log_total_R1 = self._exponentials(logits_RV)
            maximum_R1 = logits_RV.amax(dim=1, keepdim=True)
            mean_RV.addcmul_(exponentials_RV, (maximum_R1 - log_total_R1).exp() / len(logits))
        mean_RV[:, self.words :] = -torch.inf
        values_Rk, words_Rk = _largest(mean_RV, best)
        return self._in_row_order(values_Rk.log(), words_Rk)

    def draw(
        self,
        tokens_R: np.ndarray,
        parents_R: np.ndarray,
        count: int,
        generator: torch.Generator | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Like `__call__`, but words are drawn from the distribution of the (only) model."""
        (logits_RV,) = self._advance(tokens_R, parents_R)
        exponentials_RV, log_total_R1 = self._exponentials(logits_RV)
        # by default on the host, so that every device draws the same words
        source = torch.device("cpu") if generator is None else generator.device
        size, dtype = (len(tokens_R), count), _finest(source)
        drawn_Rk = torch.rand(size, generator=generator, device=source, dtype=dtype).cpu()
        # a row keeps its random numbers whatever slot it has
        chance_Rk = torch.empty_like(drawn_Rk)
        chance_Rk[torch.from_numpy(self._slots.slot_of_row)] = drawn_Rk
        words_Rk = _drawn(exponentials_RV, send(chance_Rk.to(self._precision), self.device))
        return self._in_row_order(logits_RV.gather(1, words_Rk) - log_total_R1, words_Rk)

    def _advance(self, tokens_R: np.ndarray, parents_R: np.ndarray) -> list[Tensor]:
        """Logits of every model, [R, Z * BLOCK], in the order of slots."""
        pictures = self._slots.picture_of_slot
        move = self._slots.reorder(parents_R)
        if not np.array_equal(self._slots.picture_of_slot, pictures):
            index_R = torch.from_numpy(self._slots.picture_of_slot)
            for decoder in self._decoders:
                decoder.assign(index_R)
        if move is not None:
            sources, targets, positions = (self._send(a) for a in move)
            for decoder in self._decoders:
                decoder.move(sources, targets, positions)
        self._slots.written()
        in_slots_R = np.empty_like(tokens_R)
        in_slots_R[self._slots.slot_of_row] = tokens_R
        slot_tokens_R = self._send(in_slots_R)
        rows = len(slot_tokens_R)
        for decoder, logits in zip(self._decoders, self._logits, strict=True):
            decoder.advance(slot_tokens_R, logits[:rows, : self.words])
        return [logits[:rows] for logits in self._logits]

    def _exponentials(self, logits_RV: Tensor) -> tuple[Tensor, Tensor]:
        """exp(logits - their maximum) (valid until the next call), and log-sum-exp [R, 1]."""
        maximum_R1 = logits_RV.amax(dim=1, keepdim=True)
        exponentials_RV = self._scratch[: len(logits_RV)]
        torch.sub(logits_RV, maximum_R1, out=exponentials_RV).exp_()
        return exponentials_RV, maximum_R1 + exponentials_RV.sum(dim=1, keepdim=True).log()

    def _in_row_order(self, log_probs: Tensor, words: Tensor) -> tuple[np.ndarray, np.ndarray]:
        # together, for each read waits for the device; float32 holds ids up to 2^24 exactly
        both = torch.stack([log_probs, words.to(log_probs.dtype)]).cpu().numpy()
        both = both[:, self._slots.slot_of_row]
        return both[0], both[1].astype(np.int64)

    def _send(self, array: np.ndarray) -> Tensor:
        return send(torch.from_numpy(array), self.device)


def _largest(scores_RV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest scores of each row, falling, and their words: [R, k] each."""
    blocks_RZb = scores_RV.unflatten(1, (-1, BLOCK))
    maxima_RZ = blocks_RZb.amax(dim=2)
    block_Rk = maxima_RZ.topk(min(count, maxima_RZ.shape[1])).indices
    near_Rx = _pick(blocks_RZb, block_Rk).flatten(1)
    values_Rk, index_Rk = near_Rx.topk(count)
    return values_Rk, block_Rk.gather(1, index_Rk // BLOCK) * BLOCK + index_Rk % BLOCK


def _finest(device: torch.device) -> torch.dtype:
    """The most precise dtype that a device computes in."""
    return torch.float64 if has_float64(device) else torch.float32


def _drawn(weights_RV: Tensor, chance_Rk: Tensor) -> Tensor:
    """Words drawn with probability proportional to their weights; random numbers are in [0, 1), in
    the dtype to compute in."""
    dtype = chance_Rk.dtype
    below_one = 1 - 1e-12 if dtype == torch.float64 else 1 - 2.0**-23
    blocks_RZb = weights_RV.unflatten(1, (-1, BLOCK))
    mass_RZ = blocks_RZb.sum(dim=2).to(dtype)
    upto_RZ = mass_RZ.cumsum(dim=1)
    target_Rk = chance_Rk.clamp_max(below_one) * upto_RZ[:, -1:]
    block_Rk = torch.searchsorted(upto_RZ, target_Rk, right=True)
    mass_Rk = mass_RZ.gather(1, block_Rk)
    share_Rk = (target_Rk - (upto_RZ.gather(1, block_Rk) - mass_Rk)) / mass_Rk
    inside_Rkb = _pick(blocks_RZb, block_Rk).to(dtype).cumsum(dim=2)
    inner_Rk1 = share_Rk.clamp(0.0, below_one).unsqueeze(2) * inside_Rkb[:, :, -1:]
    offset_Rk = torch.searchsorted(inside_Rkb, inner_Rk1, right=True).squeeze(2)
    return block_Rk * BLOCK + offset_Rk


def _pick(blocks_RZb: Tensor, block_Rk: Tensor) -> Tensor:
    return blocks_RZb.gather(1, block_Rk.unsqueeze(2).expand(-1, -1, BLOCK))
