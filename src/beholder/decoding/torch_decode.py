"""Beam search and sampling of PyTorch captioners: features in, hypotheses out.

Everything runs in evaluation mode and without gradient, whatever mode the model is in. Pictures may
be encoded under autocast; words are searched in float32, for beams differ by little.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from beholder.decoding.beam import search
from beholder.decoding.hypothesis import Hypothesis
from beholder.decoding.torch_step import TorchStep
from beholder.models.expansionnet import ExpansionNet
from beholder.models.heads import full_precision


def beam_search(
    models: ExpansionNet | Sequence[ExpansionNet],
    features: Tensor | Sequence[Tensor],
    beam_size: int = 5,
    max_length: int = 74,
    bos: int = 2,
    eos: int = 0,
    n_best: int = 1,
    lengths: Tensor | Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """The best comments of each picture, by beam search with the published semantics.

    Args:
        models: one model, or an ensemble, whose probabilities are averaged at every step.
        features: the backbone's tokens, [B, N, C]; or for each model those of its own backbone.
        beam_size: beams per picture, at most the number of words.
        max_length: most tokens of a comment, bos and eos included; at least 2. A model can't go
            beyond its own `max_length`.
        bos, eos: ids of the first and the last token.
        n_best: comments per picture, at most `beam_size`.
        lengths: real tokens per picture, [B]; None: all.

    Returns:
        B lists of `n_best` hypotheses, best first.
    """
    models = [models] if isinstance(models, ExpansionNet) else list(models)
    inputs = [features] * len(models) if isinstance(features, Tensor) else list(features)
    pictures = len(inputs[0])
    with _evaluating(models):
        encoded = [model.encode(x, lengths) for model, x in zip(models, inputs, strict=True)]
    with _evaluating(models), full_precision(encoded[0]):
        step = TorchStep(
            models,
            [_as_weights(memory, model) for memory, model in zip(encoded, models, strict=True)],
            lengths,
            slots=pictures * beam_size,
            room=max(max_length - 1, 1),
        )
        return search(
            step,
            pictures,
            beam_size=beam_size,
            max_length=max_length,
            bos=bos,
            eos=eos,
            n_best=n_best,
        )


def sample(
    model: ExpansionNet,
    features: Tensor,
    n: int = 5,
    max_length: int = 20,
    bos: int = 2,
    eos: int = 0,
    generator: torch.Generator | None = None,
    lengths: Tensor | Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Comments drawn from the model's own distribution, independently.

    Args:
        model: the captioner.
        features: the backbone's tokens, [B, N, C].
        n: comments per picture.
        max_length: most words after bos, eos included, as published; at most the model's own.
        bos, eos: ids of the first and the last token.
        generator: source of randomness; None: torch's default CPU generator, so that every device
            draws the same.
        lengths: real tokens per picture, [B]; None: all.

    Returns:
        B lists of `n` hypotheses, in the order they were drawn.
    """
    with _evaluating([model]):
        memory = model.encode(features, lengths)
        return sample_memory(model, memory, n, max_length, bos, eos, generator, lengths)


@torch.no_grad()
def sample_memory(
    model: ExpansionNet,
    memory: Tensor,
    n: int = 5,
    max_length: int = 20,
    bos: int = 2,
    eos: int = 0,
    generator: torch.Generator | None = None,
    lengths: Tensor | Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """`sample` for pictures that are encoded already: `memory` is the output of `encode`."""
    pictures = len(memory)
    if n < 1 or max_length < 1:
        raise ValueError(f"n and max_length must be at least 1, not {n} and {max_length}")
    if pictures == 0:
        return []
    with full_precision(memory):
        return _sample(
            model, _as_weights(memory, model), n, max_length, bos, eos, generator, lengths
        )


def _sample(
    model: ExpansionNet,
    memory: Tensor,
    n: int,
    max_length: int,
    bos: int,
    eos: int,
    generator: torch.Generator | None,
    lengths: Tensor | Sequence[int] | None,
) -> list[list[Hypothesis]]:
    pictures = len(memory)
    step = TorchStep([model], [memory], lengths, slots=pictures * n, room=max_length)
    tokens = np.full((pictures * n, max_length + 1), eos, dtype=np.int64)
    tokens[:, 0] = bos
    log_probs = np.zeros((pictures * n, max_length + 1))
    stops = np.full(pictures * n, max_length + 1)
    rows = np.arange(pictures * n)
    last, parents, count = np.full(pictures, bos), np.arange(pictures), n
    for position in range(1, max_length + 1):
        drawn_log_probs, drawn = step.draw(last, parents, count, generator)
        tokens[rows, position] = drawn.reshape(-1)
        log_probs[rows, position] = drawn_log_probs.reshape(-1)
        ended = drawn.reshape(-1) == eos
        stops[rows[ended]] = position + 1
        # in the first step a row stands for all comments of its picture
        parents = np.flatnonzero(~ended) // count
        rows, last, count = rows[~ended], drawn.reshape(-1)[~ended], 1
        if len(rows) == 0:
            break
    hypotheses = [
        Hypothesis(ids[:stop].tolist(), probs[:stop].tolist(), float(probs[:stop].sum() / stop))
        for ids, probs, stop in zip(tokens, log_probs, stops, strict=True)
    ]
    return [hypotheses[start : start + n] for start in range(0, len(hypotheses), n)]


def _as_weights(memory: Tensor, model: ExpansionNet) -> Tensor:
    """The encoder's output, perhaps in half precision, in the dtype of the model's weights."""
    return memory.to(model.output.weight.dtype)


@contextmanager
def _evaluating(models: Sequence[ExpansionNet]) -> Iterator[None]:
    training = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for model, mode in zip(models, training, strict=True):
            model.train(mode)
