"""ExpansionNet v2 in its plain form, as published: the oracle of tests and benchmarks.

Reads tensors by their published names. Nothing is fused, re-associated, cached or shared: every
position's expansion vectors exist at full width, every row has its own copy of its picture, and
decoding runs the whole prefix again for every token. Beam search and sampling are loops over
lists, written from the description of their semantics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-9


@dataclass(frozen=True)
class PlainNet:
    """The published model as functions over its tensors.

    Args:
        weights: tensors by their published names.
        heads: of the cross-attention.
        enc_expansions: lengths of the static expansions.
    """

    weights: Mapping[str, Tensor]
    heads: int
    enc_expansions: Sequence[int]

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, name: str, x: Tensor) -> Tensor:
        scale, shift = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(x, scale.shape, scale, shift)

    def layers(self, side: str) -> int:
        return 1 + max(int(n.split(".")[1]) for n in self.weights if n.startswith(f"{side}."))

    def encode(self, features: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        count, tokens, _ = features.shape
        real = torch.ones(count, 1, tokens)
        for row, length in enumerate(lengths or []):
            real[row, :, length:] = 0
        x = self.linear("input_linear", features)
        outputs = []
        for layer in range(self.layers("encoders")):
            name = f"encoders.{layer}"
            x = x + self.static(f"{name}.stc_exp", self.norm(f"{name}.norm_1", x), real)
            x = x + self.feed_forward(f"{name}.ff", self.norm(f"{name}.norm_2", x))
            outputs.append(x)
        fused = x + self.linear("enc_reduce_group", torch.cat(outputs, -1))
        return self.norm("enc_reduce_norm", fused)

    def decode(
        self, memory: Tensor, tokens: Tensor, lengths: Sequence[int] | None = None
    ) -> Tensor:
        rows, positions = tokens.shape
        real = torch.ones(rows, 1, 1, memory.shape[1])
        for row, length in enumerate(lengths or []):
            real[row, :, :, length:] = 0
        width = memory.shape[-1]
        x = self.weights["out_embedder.embed.weight"][tokens] * math.sqrt(width)
        x = x + self.weights["pos_encoder.weight"][:positions]
        outputs = []
        for layer in range(self.layers("decoders")):
            name = f"decoders.{layer}"
            x = x + self.dynamic(f"{name}.dyn_exp", self.norm(f"{name}.norm_1", x))
            x = x + self.attention(f"{name}.mha", self.norm(f"{name}.norm_2", x), memory, real)
            x = x + self.feed_forward(f"{name}.ff", self.norm(f"{name}.norm_3", x))
            outputs.append(x)
        fused = x + self.linear("dec_reduce_group", torch.cat(outputs, -1))
        return self.linear("vocab_linear", self.norm("dec_reduce_norm", fused)).log_softmax(-1)

    def feed_forward(self, name: str, x: Tensor) -> Tensor:
        return self.linear(f"{name}.linear_2", self.linear(f"{name}.linear_1", x).relu())

    def attention(self, name: str, x: Tensor, memory: Tensor, real: Tensor) -> Tensor:
        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query = split(self.linear(f"{name}.Wq", x))
        key, value = (
            split(self.linear(f"{name}.Wk", memory)),
            split(self.linear(f"{name}.Wv", memory)),
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        weights = scores.masked_fill(real == 0, -1e4).softmax(-1)
        return self.linear(f"{name}.out_linear", (weights @ value).transpose(1, 2).flatten(2))

    def static(self, name: str, x: Tensor, real: Tensor) -> Tensor:
        query = self.weights[f"{name}.query_exp_vectors.weight"]
        bias = self.weights[f"{name}.bias_exp_vectors.weight"]
        scores = query @ self.linear(f"{name}.key_embed", x).transpose(1, 2)
        scores = scores / math.sqrt(x.shape[-1])
        results = []
        for sign, part in ((1, "class_a_embed"), (-1, "class_b_embed")):
            there = (sign * scores).relu() * real
            there = there / (there.sum(-1, keepdim=True) + EPSILON)
            expanded = there @ self.linear(f"{name}.{part}", x) + bias
            back = (sign * scores).relu().transpose(1, 2).split(list(self.enc_expansions), -1)
            back = torch.cat([b / (b.sum(-1, keepdim=True) + EPSILON) for b in back], -1)
            results.append(back @ expanded / len(self.enc_expansions))
        gate = self.linear(f"{name}.selector_embed", x).sigmoid()
        return gate * results[0] + (1 - gate) * results[1]

    def dynamic(self, name: str, x: Tensor) -> Tensor:
        _, positions, width = x.shape
        condition = self.linear(f"{name}.cond_embed", x).unsqueeze(2)
        query = (self.weights[f"{name}.query_exp_vectors.weight"] + condition).flatten(1, 2)
        bias = (self.weights[f"{name}.bias_exp_vectors.weight"] + condition).flatten(1, 2)
        expansions = query.shape[1] // positions
        scores = query @ self.linear(f"{name}.key_linear", x).transpose(1, 2) / math.sqrt(width)
        earlier = torch.ones(positions, positions).tril().repeat_interleave(expansions, 0)
        later = torch.ones(positions, positions).tril().repeat_interleave(expansions, 1)
        results = []
        for sign, part in ((1, "class_a_embed"), (-1, "class_b_embed")):
            there = (sign * scores).relu() * earlier
            there = there / (there.sum(-1, keepdim=True) + EPSILON)
            expanded = there @ self.linear(f"{name}.{part}", x)
            back = (sign * scores).relu().transpose(1, 2) * later
            back = back / (back.sum(-1, keepdim=True) + EPSILON)
            results.append(back @ (expanded + bias))
        gate = self.linear(f"{name}.selector_embed", x).sigmoid()
        return gate * results[0] + (1 - gate) * results[1]


def plain_beam_search(
    nets: Sequence[PlainNet],
    features: Tensor,
    beam_size: int,
    max_length: int,
    bos: int = 2,
    eos: int = 0,
    lengths: Sequence[int] | None = None,
) -> list[list[tuple[list[int], list[float]]]]:
    """All hypotheses of each picture, best first: (tokens, log-probability of each)."""
    lengths = lengths or [features.shape[1]] * len(features)
    memories = [net.encode(features, lengths) for net in nets]
    beams = [[([bos], [0.0])] for _ in features]
    for _ in range(max_length - 1):
        if all(tokens[-1] == eos for picture in beams for tokens, _ in picture):
            break
        index = [picture for picture, picture_beams in enumerate(beams) for _ in picture_beams]
        size = max(len(tokens) for picture in beams for tokens, _ in picture)
        # An ended sequence is fed too, as published; what it would say next is ignored.
        padded = [t + [eos] * (size - len(t)) for picture in beams for t, _ in picture]
        row_lengths = [lengths[picture] for picture in index]
        following = torch.stack(
            [
                net.decode(memory[index], torch.tensor(padded), row_lengths)[:, -1].exp()
                for net, memory in zip(nets, memories, strict=True)
            ]
        )
        best = following.mean(0).log().topk(beam_size)
        proposals = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        beams = [_extend(picture, proposals, beam_size, eos) for picture in beams]
    return [sorted(p, key=lambda b: sum(b[1]) / len(b[1]), reverse=True) for p in beams]


def _extend(picture: list, proposals: object, beam_size: int, eos: int) -> list:
    candidates = []
    for tokens, log_probs in picture:
        values, words = next(proposals)  # type: ignore[call-overload]
        if tokens[-1] == eos:
            candidates.append((tokens, log_probs))
            continue
        candidates += [
            ([*tokens, word], [*log_probs, value])
            for value, word in zip(values, words, strict=True)
        ]
    candidates.sort(key=lambda candidate: sum(candidate[1]), reverse=True)
    return candidates[:beam_size]


def plain_sample(
    net: PlainNet, features: Tensor, count: int, steps: int, bos: int = 2
) -> tuple[Tensor, Tensor]:
    """Samples of exactly `steps` words, each from the whole prefix, with their log-probabilities.

    Gradient flows through every prefix, as in the published self-critical step.
    """
    memory = net.encode(features).repeat_interleave(count, 0)
    tokens = torch.full((len(memory), 1), bos)
    chosen = []
    for _ in range(steps):
        last = net.decode(memory, tokens)[:, -1]
        drawn = torch.distributions.Categorical(logits=last.detach()).sample().unsqueeze(1)
        chosen.append(last.gather(1, drawn))
        tokens = torch.cat([tokens, drawn], 1)
    return tokens, torch.cat(chosen, 1)
