"""Self-critical step: sample with the cache, then one pass with gradient, against gradient
through step-by-step sampling from full prefixes, which is what the published code does.

Full configuration, 22,316 words, 5 samples of 20 tokens per picture; encoding, sampling and
backward in turns in one process; medians; rewards are random numbers and dropout is 0 in both.
Peak memory is that of one step in a fresh process, above model and input.

    python benchmarks/bench_self_critical.py [--pictures 4] [--repeats 3]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from beholder.decoding import sample_memory
from beholder.models.expansionnet import ExpansionNet, ExpansionNetConfig
from measure import conditions, medians, memory_growth, memory_of_child
from plain_expansionnet import PlainNet, plain_sample

CONFIG = ExpansionNetConfig(vocab_size=22_316)
SAMPLES = 5
LENGTH = 20
TOKENS = 144


def our_step(model: ExpansionNet, features: Tensor) -> Callable[[], None]:
    index = torch.arange(len(features)).repeat_interleave(SAMPLES)

    def run() -> None:
        model.zero_grad()
        memory = model.encode(features)
        # No end token, so that every sample has all its words, as in the plain form.
        drawn = sample_memory(model, memory.detach(), SAMPLES, LENGTH, eos=-1)
        tokens = torch.tensor([h.tokens for picture in drawn for h in picture])
        states = model.decode_states(memory, tokens[:, :-1], picture_index=index)
        logits = model.output(states.flatten(0, 1))
        costs = F.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="none")
        summed = costs.view(len(tokens), LENGTH).sum(1)
        (torch.randn(len(tokens)) * summed).mean().backward()

    return run


def plain_step(model: ExpansionNet, features: Tensor) -> Callable[[], None]:
    weights = {name: t.requires_grad_() for name, t in model.reference_state_dict().items()}
    plain = PlainNet(weights, CONFIG.heads, CONFIG.enc_expansions)

    def run() -> None:
        for weight in weights.values():
            weight.grad = None
        _, log_probs = plain_sample(plain, features, SAMPLES, LENGTH)
        (torch.randn(len(log_probs)) * -log_probs.sum(1)).mean().backward()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", choices=("ours", "plain"), help="used by itself")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = ExpansionNet(CONFIG).train()
    features = torch.randn(arguments.pictures, TOKENS, CONFIG.feature_dim)
    make = {"ours": our_step, "plain": plain_step}
    if arguments.memory:
        print(memory_growth(make[arguments.memory](model, features)))
        return
    print(f"{conditions()}; {arguments.pictures} pictures, {SAMPLES} samples of {LENGTH} tokens")
    taken = medians({name: form(model, features) for name, form in make.items()}, arguments.repeats)
    print(
        f"through every prefix {taken['plain']:.2f} s, ours {taken['ours']:.2f} s, "
        f"ratio {taken['plain'] / taken['ours']:.1f}",
        flush=True,
    )
    for name in make:
        size = memory_of_child(__file__, "--memory", name, "--pictures", str(arguments.pictures))
        print(f"peak memory of a step, {name}: +{size:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
