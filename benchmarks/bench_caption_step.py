"""Cross-entropy step: each picture encoded once for all its comments, or once per comment.

Full configuration, 22,316 words, 5 comments of 20 tokens per picture, forward and backward in
turns in one process; medians; with the published dropout of 0.1 and without.

    python benchmarks/bench_caption_step.py [--pictures 4] [--repeats 5]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from beholder.models.expansionnet import ExpansionNet, ExpansionNetConfig
from beholder.tasks.losses import caption_loss
from measure import conditions, medians

COMMENTS = 5
LENGTH = 20
TOKENS = 144


def step(
    model: ExpansionNet, features: Tensor, tokens: Tensor, index: Tensor
) -> Callable[[], None]:
    def run() -> None:
        model.zero_grad()
        states = model.decode_states(model.encode(features), tokens[:, :-1], picture_index=index)
        logits = model.output(states.flatten(0, 1))
        caption_loss(logits, tokens[:, 1:].flatten(), 0.1).backward()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    rows = arguments.pictures * COMMENTS
    index = torch.arange(arguments.pictures).repeat_interleave(COMMENTS)
    print(f"{conditions()}; {arguments.pictures} pictures, {COMMENTS} comments of {LENGTH} tokens")
    for dropout in (0.1, 0.0):
        names = ("encoder", "decoder", "encoder_input", "decoder_input", "other")
        config = ExpansionNetConfig(
            vocab_size=22_316, **{f"dropout_{name}": dropout for name in names}
        )
        model = ExpansionNet(config).train()
        features = torch.randn(arguments.pictures, TOKENS, config.feature_dim)
        tokens = torch.randint(4, config.vocab_size, (rows, LENGTH + 1))
        taken = medians(
            {
                "once": step(model, features, tokens, index),
                "each": step(model, features[index], tokens, torch.arange(rows)),
            },
            arguments.repeats,
        )
        print(
            f"dropout {dropout}: per comment {taken['each'] / rows * 1e3:.0f} ms encoded each, "
            f"{taken['once'] / rows * 1e3:.0f} ms encoded once per picture, "
            f"ratio {taken['each'] / taken['once']:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
